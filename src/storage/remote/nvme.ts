/** A namespace of another NVMe/TCP target as a source: `nvme+tcp://HOST[:PORT]/NQN/NSID`. */
import { native } from '../../native/index.js';
import type { Store } from '../../native/storage.js';
import { type ControllerOptions, chapOptions, hostIdentity, nativeOptions, tlsOptionsFor } from '../../nvme/host/index.js';
import { discoveryNqn } from '../../nvme/wire/index.js';
import type { SourceOptions } from '../source.js';
import { parseNvme } from '../uri.js';
import { note } from './news.js';
import { followPaths, type Named, namedPaths, type PathAddress } from './paths.js';

/** Longest time for connecting, and for one command, in milliseconds: as the Linux host's. */
const commandTimeout = 30_000;
/** How long requests wait for a target that is away, in milliseconds: as the Linux host's ctrl_loss_tmo. */
const lossTimeout = 600_000;
/** As the Linux host's, in milliseconds. */
const keepAlive = 5000;
/** For an answer of a discovery service, in milliseconds: a path that it does not name in time is found later. */
const discoveryTimeout = 5000;

/** Connects to the namespace. @throws VioError, in the words of the host commands */
export async function openNvme({ source, readonly = false, shared = false, zero, remote = {} }: SourceOptions): Promise<Store> {
  const { host: address, port, nqn: subnqn, nsid } = parseNvme(source);
  const timeout = Math.min(commandTimeout, remote.timeout ?? commandTimeout);
  const { hdgst: headerDigest = false, ddgst: dataDigest = false, queues: ioQueues = 1, discovery = [] } = remote;
  const identity = hostIdentity({ hostnqn: remote.hostnqn });
  const chap = chapOptions(remote.dhchapSecretFile, remote.dhchapCtrlSecretFile);
  const [tls, discoveryTls] = tlsOptionsFor(remote.tlsKeyFile, identity.hostnqn, discovery.length > 0 ? [subnqn, discoveryNqn] : [subnqn]);
  const common = { ...identity, chap, headerDigest, dataDigest };
  const { ask, named } = await found(discovery, subnqn, {
    ...common,
    tls: discoveryTls,
    subnqn: discoveryNqn,
    timeout: Math.min(timeout, discoveryTimeout),
  });
  const { options: host, failed } = nativeOptions({ ...common, tls, address, port, subnqn, ioQueues, timeout, keepAlive }, nsid);
  try {
    const store = await native().nvmeHost.hostSource({
      ...host,
      addresses: [...host.addresses, ...(remote.paths ?? [])],
      found: named.paths,
      lossMs: remote.timeout ?? lossTimeout,
      // Writes of another client that shares it must not be overwritten by older ones of ours.
      replay: !shared,
      readonly,
      unmap: zero === 'unmap',
    });
    for (const line of named.errors) note(store, line);
    if (discovery.length > 0) followPaths(store, ask, named);
    return store;
  } catch (err) {
    throw failed(err);
  }
}

/** What the discovery services name now, and how to ask them again. */
async function found(services: readonly PathAddress[], subnqn: string, options: Omit<ControllerOptions, 'address' | 'port'>) {
  const ask = (): Promise<Named> => namedPaths(services, subnqn, ({ host, port }) => ({ ...options, address: host, port }));
  return { ask, named: await ask() };
}
