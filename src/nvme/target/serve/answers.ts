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
  listen: PlaceReport[];
  discovery?: PlaceReport[];
  listeners: ListenerReport[];
  referrals: ReferralReport[];
  limits: TargetLimits;
  hostLimits: ({ host: string } & HostLimits)[];
  subsystems: (SubsystemReport & {
    anyHost: boolean;
    /** Left out where every host may use it and none is named. */
    allowHosts?: string[];
    draining: boolean;
    /** On all ports that have no state of their own. */
    ana: GroupState[];
  })[];
  /** Paths: one is a host's association through a listener. */
  controllers: (ControllerReport & { ana: GroupState[] })[];
}

/** Answer to stats. */
export interface StatsAnswer {
  /** open connections */
  connections: number;
  controllers: ControllerStats[];
}

/** What every answer to a change says. */
interface Changed {
  /** false: already done, or with --dry-run */
  changed: boolean;
  /** with --dry-run */
  dryRun?: true;
  /** with --dry-run: what would be done */
  would?: string[];
}

/** Answer to add, remove, resize, reopen, mask and limits NSID: the subsystem as it is now. */
export interface SubsystemAnswer extends Changed, SubsystemReport {}

/** Answer to host. */
export interface HostAnswer extends Changed {
  nqn: string;
  /** every host may use it, whatever the list says */
  anyHost: boolean;
  /** NQNs of the list */
  allowHosts: string[];
}

/** Answer to listener. */
export interface ListenerAnswer extends Changed {
  listeners: ListenerReport[];
}

/** Answer to referral. */
export interface ReferralAnswer extends Changed {
  referrals: ReferralReport[];
}

/** Answer to limits of the target. */
export interface LimitsAnswer extends Changed {
  limits: TargetLimits;
}

/** Answer to limits --host. */
export interface HostLimitsAnswer extends Changed {
  /** NQN, or any */
  host: string;
  hostLimits: HostLimits;
}

/** Answer to ana. */
export interface AnaAnswer extends Changed {
  nqn: string;
  group: number;
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
