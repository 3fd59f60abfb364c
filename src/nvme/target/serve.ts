import { VioError } from '../../common/errors.js';
import { printable } from '../../common/escape.js';
import { formatSize } from '../../common/units.js';
import type { NvmeNative } from '../../native/nvme.js';
import { discoveryPort } from '../wire/index.js';
import type { TargetConfig } from './config.js';
import { ControlServer } from './control.js';
import { addressesOf, notHere, type Place, parseAddress } from './listen.js';
import { Subsystem } from './subsystem.js';
import { Target, type TargetLog } from './target.js';

/** What is served, as `nvmf serve --json` prints it. */
export interface ServeReport {
  listen: { address: string; port: number }[];
  /** Where only discovery is answered; left out where there is no such listener. */
  discovery?: { address: string; port: number }[];
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
  /** Errno name of the sync that has failed: flushes fail until the source is opened anew. */
  syncError?: string;
}

/** One subsystem with its namespaces. */
export const reportSubsystem = (subsystem: Subsystem): SubsystemReport => ({
  nqn: subsystem.nqn,
  namespaces: subsystem.nsids().map((nsid) => {
    const namespace = subsystem.namespaces.get(nsid)!;
    const { source, size, blockSize, ids, readonly } = namespace;
    const syncError = subsystem.syncError(namespace);
    const report = { nsid, source, size, blockSize, nguid: ids.nguid.toString('hex'), readOnly: readonly };
    return syncError === undefined ? report : { ...report, syncError };
  }),
});

/** Addresses of the listeners of both kinds. */
export function reportListeners({ listeners }: Target): Pick<ServeReport, 'listen' | 'discovery'> {
  const of = (only: boolean) =>
    listeners.filter((l) => (l.discoveryOnly ?? false) === only).map(({ address, port }) => ({ address, port }));
  const discovery = of(true);
  return { listen: of(false), ...(discovery.length > 0 && { discovery }) };
}

export const report = (target: Target): ServeReport => ({
  ...reportListeners(target),
  subsystems: [...target.subsystems.values()].map(reportSubsystem),
});

/** The ready line: where, what. */
export const readyLine = ({ listen, discovery, subsystems }: ServeReport): string => {
  const places = (list: ServeReport['listen']) =>
    list.map(({ address, port }) => (address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`)).join(', ');
  const what = subsystems.map(({ nqn, namespaces }) => {
    const list = namespaces.map((ns) => `${ns.nsid}: ${printable(ns.source)} ${formatSize(ns.size)}${ns.readOnly ? ' read-only' : ''}`);
    return `${printable(nqn)} (${list.join(', ') || 'no namespaces'})`;
  });
  return `serving ${what.join('; ')} on ${places(listen)}${discovery ? `, discovery on ${places(discovery)}` : ''}`;
};

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
    for (const { nqn, serial, model, cntlids, allowHosts, namespaces } of config.subsystems) {
      const subsystem = new Subsystem(native, {
        nqn,
        ...(serial !== undefined && { serial }),
        ...(model !== undefined && { model }),
        ...(cntlids !== undefined && { cntlids }),
        ...(allowHosts !== undefined && { allowed: allowHosts }),
      });
      for (const namespace of namespaces) subsystem.add(namespace);
      target.addSubsystem(subsystem);
    }
    target.referrals.push(...config.referrals);
    const places = (config.listen.length > 0 ? config.listen : ['127.0.0.1:4420']).map((text) => parseAddress(text));
    const at: Place[] = [];
    for (const place of places) at.push(...(await listenAt(target, place)));
    listenForDiscovery(target, at, config.discoveryPort, log);
    if (config.control !== undefined) control = await ControlServer.listen(config.control, native, target);
    return { target, stop };
  } catch (err) {
    await stop();
    throw err;
  }
}

/** Listens at all addresses of a place, with one port. @returns where, with the port that was asked for @throws VioError */
async function listenAt(target: Target, place: Place): Promise<Place[]> {
  const addresses = await addressesOf(place);
  const at: Place[] = [];
  let { port } = place;
  let missing: unknown;
  for (const address of addresses) {
    try {
      ({ port } = target.listen(address, port));
      at.push({ address, port: place.port });
    } catch (err) {
      if (addresses.length === 1 || !notHere(err)) throw err;
      missing = err;
    }
  }
  if (at.length === 0) throw missing;
  return at;
}

/**
 * Answers discovery on a port of its own too, on every address. Port 8009, which nobody asked for, is done without where
 * it is taken or not permitted, and left alone where the ports are free ones: then the target is one of several, or a test.
 * @throws VioError for a port that was asked for
 */
function listenForDiscovery(
  target: Target,
  at: readonly { address: string; port: number }[],
  wanted: TargetConfig['discoveryPort'],
  log: TargetLog,
): void {
  if (wanted === 'none' || (wanted === undefined && at.some(({ port }) => port === 0))) return;
  const port = wanted ?? discoveryPort;
  for (const address of new Set(at.map((one) => one.address))) {
    if (port !== 0 && at.some((one) => one.address === address && one.port === port)) continue;
    try {
      target.listen(address, port, true);
    } catch (err) {
      if (wanted !== undefined || !(err instanceof VioError)) throw err;
      log(`no discovery on its own port: ${err.message}`);
    }
  }
}
