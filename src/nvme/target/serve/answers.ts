/** What requests of `nvmf ctl` are answered with. schemas/nvmf-ctl.json is made from these types. */
import type { LoadReport } from '../../../control/load-report.js';
import type { QueueCounters } from '../../../native/nvme.js';
import type { HostLimits, TargetLimits } from '../admission/limits.js';
import type { ConfigFile } from '../config/description.js';
import type { SubsystemReport } from './report.js';

/** Address and port. */
interface PlaceReport {
  address: string;
  port: number;
}

/** State of an ANA group by its name. */
export interface GroupState {
  group: number;
  state: string;
}

export interface ControllerReport {
  /** NQN of the subsystem */
  nqn: string;
  /** identifier of the controller */
  cntlid: number;
  /** NQN of the host; empty if it has none */
  hostnqn: string;
  /** address and port of the host */
  peer: string;
  /** where it has connected to; absent once that listener is gone */
  listener?: PlaceReport;
  /** keep-alive time-out in milliseconds; 0: none */
  keepAlive: number;
  /** CSTS.RDY */
  ready: boolean;
  /** I/O queues */
  queues: number;
}

/** Counters of one controller, as `nvmf ctl SOCK stats` shows them. */
export type ControllerStats = ControllerReport & QueueCounters;

export interface ListenerReport {
  address: string;
  port: number;
  /** PORTID of the discovery log. */
  portid: number;
  discoveryOnly: boolean;
  advertise?: PlaceReport;
  /** whether connections use TLS; left out: they do not */
  tls?: 'allow' | 'require';
  /** ANA states of each subsystem as hosts of this listener meet them. */
  ana: { nqn: string; groups: GroupState[] }[];
}

/** Another discovery service that hosts are told about. */
interface ReferralReport extends PlaceReport {
  /** NQN of the service, if it is not the well-known one */
  nqn?: string;
}

/** Answer to list. */
export interface ControlList {
  /** addresses where hosts connect */
  listen: PlaceReport[];
  /** addresses where only discovery is answered */
  discovery?: PlaceReport[];
  /** listeners with their TLS policy and their own ANA states */
  listeners: ListenerReport[];
  /** other discovery services in the discovery log */
  referrals: ReferralReport[];
  /** limits of the server */
  limits: TargetLimits;
  /** limits of single hosts */
  hostLimits: ({ host: string } & HostLimits)[];
  /** subsystems with their hosts, ANA states and namespaces */
  subsystems: (SubsystemReport & {
    anyHost: boolean;
    /** Left out where every host may use it and none is named. */
    allowHosts?: string[];
    draining: boolean;
    /** On all ports that have no state of their own. */
    ana: GroupState[];
  })[];
  /** controllers: each is the connection of one host through one listener */
  controllers: (ControllerReport & { ana: GroupState[] })[];
}

/** Answer to stats. */
export interface StatsAnswer {
  /** open connections */
  connections: number;
  /** counters of each controller */
  controllers: ControllerStats[];
}

/** What every answer to a change says. */
interface Changed {
  /** false: already done, or with --dry-run */
  changed: boolean;
  /** true with --dry-run */
  dryRun?: true;
  /** with --dry-run: what would be done */
  would?: string[];
}

/** Answer to add, remove, resize, reopen, mask and limits NSID: the subsystem as it is now. */
export interface SubsystemAnswer extends Changed, SubsystemReport {}

/** Answer to host. */
export interface HostAnswer extends Changed {
  /** NQN of the subsystem */
  nqn: string;
  /** every host may connect, whatever the list says */
  anyHost: boolean;
  /** NQNs of the hosts that may connect */
  allowHosts: string[];
}

/** Answer to listener. */
export interface ListenerAnswer extends Changed {
  /** listeners that the server has now */
  listeners: ListenerReport[];
}

/** Answer to referral. */
export interface ReferralAnswer extends Changed {
  /** referrals that the server has now */
  referrals: ReferralReport[];
}

/** Answer to limits of the target. */
export interface LimitsAnswer extends Changed {
  /** limits that the server has now */
  limits: TargetLimits;
}

/** Answer to limits --host. */
export interface HostLimitsAnswer extends Changed {
  /** NQN, or any */
  host: string;
  /** limits that the host has now */
  hostLimits: HostLimits;
}

/** Answer to ana. */
export interface AnaAnswer extends Changed {
  /** NQN of the subsystem */
  nqn: string;
  /** number of the ANA group */
  group: number;
  /** access state that the group has now */
  state: string;
}

/** Answer to keys rotate. */
export interface KeysAnswer extends Changed {
  /** NQNs of hosts with new keys; * is every host */
  hosts: string[];
}

/** Answer to kick. */
export interface KickAnswer extends Changed {
  /** associations that were ended */
  ended: number;
}

/** Answer to drain. */
export interface DrainAnswer extends Changed {
  /** subsystems that are drained, and their requests under way */
  subsystems: DrainReport[];
}
interface DrainReport {
  nqn: string;
  /** no host and no command is admitted */
  draining: boolean;
  /** commands under way */
  outstanding: number;
}

/** What there is after a change, without what every answer to one says. */
export type Report<A extends Changed = ChangeAnswer> = A extends Changed ? Omit<A, keyof Changed> : never;
export type ChangeAnswer =
  | SubsystemAnswer
  | HostAnswer
  | ListenerAnswer
  | ReferralAnswer
  | LimitsAnswer
  | HostLimitsAnswer
  | AnaAnswer
  | KeysAnswer
  | KickAnswer
  | DrainAnswer;
export type ControlAnswer = ControlList | StatsAnswer | ConfigFile | LoadReport | ChangeAnswer;
