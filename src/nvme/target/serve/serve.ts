import { type MetricsServer, serveMetrics } from '../../../control/metrics-server.js';
import type { ControlServer } from '../../../control/server.js';
import { native as addon } from '../../../native/index.js';
import type { NvmeNative } from '../../../native/nvme.js';
import { checkEngine } from '../../../storage/engine.js';
import { openSources, type Source } from '../../../storage/open.js';
import { IdentityState } from '../../../storage/state.js';
import { setAnaStates } from '../config/ana.js';
import { Configuration } from '../config/configuration.js';
import { type GivenSocket, listenAll, takeRest } from '../config/listeners.js';
import { metricsOf } from '../metrics.js';
import { KeyRing } from '../security/keyring.js';
import { defaultMode } from '../security/tls.js';
import { Subsystem } from '../subsystem.js';
import { Target, type TargetLog } from '../target.js';
import type { NumberedNamespace, TargetConfig } from './config.js';
import { serveControl } from './control.js';
import { refuseItself } from './itself.js';
import { parseMetricsPlace } from './listen.js';

/** A running target and its control socket. */
export interface Running {
  target: Target;
  metrics?: MetricsServer | undefined;
  configuration: Configuration;
  stop(): Promise<void>;
}

/**
 * Starts a target: namespaces first, then listeners, so that the first host finds everything.
 * Whatever fails, nothing is left behind.
 * @param given sockets that came with the start: the rest of those that a service manager kept is closed, its others are listened on too
 * @param options of the command line, for reloads
 * @throws VioError
 */
export async function serve(
  native: NvmeNative,
  config: TargetConfig,
  log: TargetLog,
  { given = [], options = {} }: { given?: GivenSocket[]; options?: Partial<TargetConfig> } = {},
): Promise<Running> {
  for (const namespace of config.subsystems.flatMap(({ namespaces }) => namespaces)) checkEngine(namespace, config.engine);
  refuseItself(config);
  const { threads, spinMicroseconds, maxControllers, maxConnections, maxQueues, discoveryNqn, engine, headerDigest, dataDigest } = config;
  const metricsPlace = config.metrics === undefined ? undefined : parseMetricsPlace(config.metrics);
  const state = config.stateDir === undefined ? undefined : new IdentityState(config.stateDir);
  const keys = new KeyRing(config.keys ?? []);
  const target = new Target(native, {
    log,
    state,
    keys,
    ...(config.chapPolicy && { chapPolicy: config.chapPolicy }),
    tlsMode: defaultMode(config.tls, keys),
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
  let configuration: Configuration | undefined;
  const stop = async () => {
    control?.close();
    await metrics?.close();
    await configuration?.end();
    await target.stop();
  };
  for (const note of config.notes ?? []) log(note);
  try {
    for (const { nqn, serial, model, cntlids, allowHosts, anyHost, namespaces } of config.subsystems) {
      const subsystem = new Subsystem(native, {
        nqn,
        state,
        ...(serial !== undefined && { serial }),
        ...(model !== undefined && { model }),
        ...(cntlids !== undefined && { cntlids }),
        allowed: allowHosts,
        anyHost,
      });
      adoptAll(subsystem, namespaces, await openSources(namespaces, undefined, state));
      target.addSubsystem(subsystem);
    }
    target.referrals.push(...config.referrals);
    for (const { host, ...limits } of config.hostLimits ?? []) target.setHostLimits(host, limits);
    await listenAll(target, config, given, log);
    takeRest(target, given);
    setAnaStates(target, config);
    configuration = new Configuration(native, target, config, log, options);
    if (config.control !== undefined) control = serveControl(config.control, native, target, configuration);
    if (metricsPlace) metrics = await serveMetrics(metricsPlace, (format) => metricsOf(native, target, format));
    return { target, metrics, configuration, stop };
  } catch (err) {
    await stop();
    throw err;
  }
}

/** Makes namespaces of sources that are open. If one cannot become one, nothing stays open. @throws VioError */
function adoptAll(subsystem: Subsystem, namespaces: readonly NumberedNamespace[], sources: Source[]): void {
  try {
    for (const namespace of namespaces) subsystem.adopt(subsystem.prepare(namespace, sources.shift()));
  } catch (err) {
    for (const { store } of sources) addon().storage.close(store);
    subsystem.close();
    throw err;
  }
}
