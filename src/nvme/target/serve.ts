import type { NvmeNative } from '../../native/nvme.js';
import { parseAddress, type TargetConfig } from './config.js';
import { ControlServer } from './control.js';
import { Subsystem } from './subsystem.js';
import { Target, type TargetLog } from './target.js';

/** What is served, as `nvmf serve --json` prints it. */
export interface ServeReport {
  listen: { address: string; port: number }[];
  subsystems: SubsystemReport[];
}
export interface SubsystemReport {
  nqn: string;
  namespaces: NamespaceReport[];
}
export interface NamespaceReport {
  nsid: number;
  source: string;
  size: number;
  blockSize: number;
  nguid: string;
  readOnly: boolean;
}

/** One subsystem with its namespaces. */
export const reportSubsystem = (subsystem: Subsystem): SubsystemReport => ({
  nqn: subsystem.nqn,
  namespaces: subsystem.nsids().map((nsid) => {
    const { source, size, blockSize, ids, readonly } = subsystem.namespaces.get(nsid)!;
    return { nsid, source, size, blockSize, nguid: ids.nguid.toString('hex'), readOnly: readonly };
  }),
});

export const report = (target: Target): ServeReport => ({
  listen: target.listeners.map(({ address, port }) => ({ address, port })),
  subsystems: [...target.subsystems.values()].map(reportSubsystem),
});

/** A running target and its control socket. */
export interface Running {
  target: Target;
  stop(): Promise<void>;
}

/**
 * Starts a target: namespaces first, then listeners, so that the first host finds everything.
 * Whatever fails, nothing is left behind. @throws VioError
 */
export async function serve(native: NvmeNative, config: TargetConfig, log: TargetLog): Promise<Running> {
  const { threads, spinMicroseconds, maxConnections, engine, headerDigest, dataDigest } = config;
  const target = new Target(native, {
    log,
    ...(threads !== undefined && { threads }),
    ...(spinMicroseconds !== undefined && { spinMicroseconds }),
    ...(maxConnections !== undefined && { maxConnections }),
    ...(engine !== undefined && { engine }),
    ...(headerDigest !== undefined && { headerDigest }),
    ...(dataDigest !== undefined && { dataDigest }),
  });
  let control: ControlServer | undefined;
  const stop = async () => {
    await control?.close();
    await target.stop();
  };
  try {
    for (const { nqn, serial, model, allowHosts, namespaces } of config.subsystems) {
      const subsystem = new Subsystem(native, {
        nqn,
        ...(serial !== undefined && { serial }),
        ...(model !== undefined && { model }),
        ...(allowHosts !== undefined && { allowed: allowHosts }),
      });
      for (const namespace of namespaces) subsystem.add(namespace);
      target.addSubsystem(subsystem);
    }
    target.referrals.push(...config.referrals);
    for (const text of config.listen.length > 0 ? config.listen : ['127.0.0.1:4420']) {
      const { address, port } = parseAddress(text);
      target.listen(address, port);
    }
    if (config.control !== undefined) control = await ControlServer.listen(config.control, native, target);
    return { target, stop };
  } catch (err) {
    await stop();
    throw err;
  }
}
