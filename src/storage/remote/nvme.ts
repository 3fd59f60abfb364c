/** A namespace of another NVMe/TCP target as a source: `nvme+tcp://HOST[:PORT]/NQN/NSID`. */
import { native } from '../../native/index.js';
import type { Store } from '../../native/storage.js';
import { readChapKey } from '../../nvme/auth/read.js';
import { nativeOptions } from '../../nvme/host/copy.js';
import { hostIdentity } from '../../nvme/host/identity.js';
import type { SourceOptions } from '../source.js';
import { parseNvme } from '../uri.js';

/** Longest time for connecting, and for one command, in milliseconds: as the Linux host's. */
const commandTimeout = 30_000;
/** How long requests wait for a target that is away, in milliseconds: as the Linux host's ctrl_loss_tmo. */
const lossTimeout = 600_000;
/** As the Linux host's, in milliseconds. */
const keepAlive = 5000;

/** Connects to the namespace. @throws VioError, in the words of the host commands */
export async function openNvme({ source, readonly = false, shared = false, zero, remote = {} }: SourceOptions): Promise<Store> {
  const { host: address, port, nqn: subnqn, nsid } = parseNvme(source);
  const timeout = Math.min(commandTimeout, remote.timeout ?? commandTimeout);
  const { hdgst: headerDigest = false, ddgst: dataDigest = false, queues: ioQueues = 1 } = remote;
  const chap = remote.dhchapFile === undefined ? undefined : { key: readChapKey(remote.dhchapFile, 'the key of this host') };
  const identity = hostIdentity({ hostnqn: remote.hostnqn });
  const options = { address, port, subnqn, ...identity, chap, headerDigest, dataDigest, ioQueues, timeout, keepAlive };
  const { options: host, failed } = nativeOptions(options, nsid);
  try {
    return await native().nvmeHost.hostSource({
      ...host,
      addresses: [...host.addresses, ...(remote.paths ?? [])],
      lossMs: remote.timeout ?? lossTimeout,
      // Writes of another client that shares it must not be overwritten by older ones of ours.
      replay: !shared,
      readonly,
      unmap: zero === 'unmap',
    });
  } catch (err) {
    throw failed(err);
  }
}
