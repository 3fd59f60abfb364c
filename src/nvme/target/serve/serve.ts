import { VioError } from '../../../common/errors.js';
import { type MetricsServer, serveMetrics } from '../../../control/metrics-server.js';
import type { ControlServer } from '../../../control/server.js';
import type { NvmeNative } from '../../../native/nvme.js';
import { openSourceLater } from '../../../storage/open.js';
import { IdentityState } from '../../../storage/state.js';
import { discoveryPort } from '../../wire/index.js';
import { metricsOf } from '../metrics.js';
import { KeyRing } from '../security/keyring.js';
import { Subsystem } from '../subsystem.js';
import { Target, type TargetLog } from '../target.js';
import type { TargetConfig } from './config.js';
import { serveControl } from './control.js';
import { addressesOf, type ListenPlace, notHere, type Place, parseListen, parseMetricsPlace } from './listen.js';

/** A running target and its control socket. */
export interface Running {
  target: Target;
  metrics?: MetricsServer | undefined;
  stop(): Promise<void>;
}

/**
 * Starts a target: namespaces first, then listeners, so that the first host finds everything.
 * Whatever fails, nothing is left behind. @throws VioError
 */
export async function serve(native: NvmeNative, config: TargetConfig, log: TargetLog): Promise<Running> {
  const { threads, spinMicroseconds, maxControllers, maxConnections, maxQueues, discoveryNqn, engine, headerDigest, dataDigest } = config;
  const metricsPlace = config.metrics === undefined ? undefined : parseMetricsPlace(config.metrics);
  const state = config.stateDir === undefined ? undefined : new IdentityState(config.stateDir);
  const keys = new KeyRing(config.keys ?? []);
  const target = new Target(native, {
    log,
    state,
    keys,
    ...(config.chapPolicy && { chapPolicy: config.chapPolicy }),
    ...(threads !== undefined && { threads }),
    ...(spinMicroseconds !== undefined && { spinMicroseconds }),
    limits: {
      ...(maxControllers !== undefined && { controllers: maxControllers }),
      ...(maxConnections !== undefined && { connections: maxConnections }),
      ...(maxQueues !== undefined && { queues: maxQueues }),
    },
    discoveryNqn,
    engine: engine === 'sync' ? 'sync' : 'uring', // which falls back to threads
    ...(headerDigest !== undefined && { headerDigest }),
    ...(dataDigest !== undefined && { dataDigest }),
  });
  let control: ControlServer | undefined;
  let metrics: MetricsServer | undefined;
  const stop = async () => {
    control?.close();
    await metrics?.close();
    await target.stop();
  };
  for (const note of config.notes ?? []) log(note);
  try {
    for (const { nqn, serial, model, cntlids, allowHosts, ana, namespaces } of config.subsystems) {
      const subsystem = new Subsystem(native, {
        nqn,
        state,
        ...(serial !== undefined && { serial }),
        ...(model !== undefined && { model }),
        ...(cntlids !== undefined && { cntlids }),
        ...(allowHosts !== undefined && { allowed: allowHosts }),
      });
      for (const namespace of namespaces) subsystem.adopt(subsystem.prepare(namespace, await openSourceLater(namespace, undefined, state)));
      for (const { group, state: anaState } of ana ?? []) subsystem.ana.set(group, anaState);
      target.addSubsystem(subsystem);
    }
    target.referrals.push(...config.referrals);
    const places = (config.listen.length > 0 ? config.listen : ['127.0.0.1:4420']).map((text) => parseListen(text));
    const at: Place[] = [];
    for (const place of places) at.push(...(await listenAt(target, place)));
    listenForDiscovery(target, at, config.discoveryPort, log);
    if (config.control !== undefined) control = serveControl(config.control, native, target);
    if (metricsPlace) metrics = await serveMetrics(metricsPlace, (format) => metricsOf(native, target, format));
    return { target, metrics, stop };
  } catch (err) {
    await stop();
    throw err;
  }
}

/** Listens at all addresses of a place, with one port. @returns where, with the port that was asked for @throws VioError */
async function listenAt(target: Target, place: ListenPlace): Promise<Place[]> {
  const addresses = await addressesOf(place);
  const at: Place[] = [];
  let { port } = place;
  let missing: unknown;
  for (const address of addresses) {
    try {
      ({ port } = target.listen(address, port, false, place.advertise));
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
