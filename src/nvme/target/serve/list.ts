/** What a running target is like: listeners, subsystems, limits, and the paths of hosts. */
import { anaOf } from '../operations/index.js';
import type { Target } from '../target.js';
import type { ControlList, ControllerReport } from './answers.js';
import { reportListeners, reportSubsystem } from './report.js';

export const describe = (target: Target, c: ReturnType<Target['controllers']>[number]): ControllerReport => {
  const listener = target.listeners.find(({ id }) => id === c.port);
  return {
    nqn: c.subnqn,
    cntlid: c.cntlid,
    hostnqn: c.hostnqn,
    peer: target.peerOf(c.admin) ?? '',
    ...(listener && { listener: { address: listener.address, port: listener.port } }),
    keepAlive: c.keepAlive,
    ready: c.ready,
    queues: c.queues.size,
  };
};

/** A port that no listener has: what is set for all. */
const anyPort = -1;

export function list(target: Target): ControlList {
  const subsystems = [...target.subsystems.values()];
  return {
    ...reportListeners(target),
    listeners: target.listeners.map(({ id, address, port, discoveryOnly = false, advertise, tls }) => ({
      address,
      port,
      portid: id + 1,
      discoveryOnly,
      ...(advertise && { advertise }),
      ...(tls && { tls }),
      ana: discoveryOnly ? [] : subsystems.map((one) => ({ nqn: one.nqn, groups: anaOf(one, id) })),
    })),
    referrals: [...target.referrals],
    limits: { ...target.limits },
    hostLimits: [...target.hostLimits].map(([host, limits]) => ({ host, ...limits })),
    subsystems: subsystems.map((subsystem) => ({
      ...reportSubsystem(subsystem),
      anyHost: subsystem.access.any,
      ...((!subsystem.access.any || subsystem.access.hosts.size > 0) && { allowHosts: [...subsystem.access.hosts] }),
      draining: subsystem.ana.draining,
      ana: anaOf(subsystem, anyPort),
    })),
    controllers: target.controllers().map((c) => {
      const subsystem = target.subsystems.get(c.subnqn);
      return { ...describe(target, c), ana: subsystem ? anaOf(subsystem, c.port) : [] };
    }),
  };
}
