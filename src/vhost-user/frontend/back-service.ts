import { WireError } from '../../common/struct.js';
import { closeAll, type OwnedFd } from '../../native/owned-fd.js';
import { type MapRequest, type ShmemMapping, ShmemRegions } from '../shmem/regions.js';
import { Channel, type Message, protocolError } from '../wire/channel.js';
import { protocolMask } from '../wire/features.js';
import { encodeMessage, Flag, fsMap, type MessageDef, messageById, number } from '../wire/messages.js';
import { type Errno, statusOf } from '../wire/status.js';

/** What happened on the back-end's channel. */
export interface BackEvent {
  op: string;
  request: Record<string, unknown>;
  /** undefined: done. */
  errno: Errno | undefined;
  mapping: ShmemMapping | undefined;
}

export interface BackServiceOptions {
  regions: ShmemRegions;
  /** Acknowledged protocol features. */
  protocol: bigint;
  /** Whether the device is started: nothing may be mapped before. */
  started: () => boolean;
  onEvent?: (event: BackEvent) => void;
  onLog?: (text: string) => void;
  onClose?: (error: Error | undefined) => void;
}

/**
 * The front-end's end of the back-end channel: takes the back-end's requests. As in BackEndSession, one dispatcher checks
 * and replies, at most once for each request, from zeroed memory; a handler has an effect as a whole or none.
 */
export class BackService {
  readonly #options: BackServiceOptions;
  readonly #channel: Channel;

  /** Takes the socket. */
  constructor(fd: OwnedFd, options: BackServiceOptions) {
    this.#options = options;
    this.#channel = new Channel(fd, { peer: 'back-end' });
    this.#channel.start(
      (message) => {
        try {
          this.#dispatch(message);
        } catch (err) {
          this.#channel.close(err as Error);
        } finally {
          closeAll(message.fds);
        }
      },
      (error) => {
        options.regions.clear();
        if (error) options.onLog?.(error.message);
        options.onClose?.(error);
      },
    );
  }

  get closed(): boolean {
    return this.#channel.closed;
  }

  close(): void {
    this.#channel.close();
  }

  #dispatch(message: Message): void {
    const { id, flags, payload } = message;
    const def = messageById('back', id);
    const name = def?.name ?? `back-end request ${id}`;
    if ((flags & Flag.versionMask) !== Flag.version) throw protocolError(`${name}: version ${flags & Flag.versionMask}`);
    if ((flags & Flag.reply) !== 0) throw protocolError(`${name}: a request with the reply bit`);
    if ((flags & Flag.reserved) !== 0) throw protocolError(`${name}: reserved flag bits`);
    if (def && payload.length === fsMap.size && id >= 6 && id <= 9) throw protocolError(`${name}: 256 bytes are the virtio-fs draft's`);
    const errno = def ? this.#run(def, message) : 'ENOTSUP';
    if (errno) this.#options.onLog?.(`${name}: refused: ${errno}`);
    const ack = (flags & Flag.needReply) !== 0 && (this.#options.protocol & protocolMask('REPLY_ACK')) !== 0n;
    if (ack || def?.reply) this.#channel.send(encodeMessage(id, Flag.version | Flag.reply, number.encode({ value: statusOf(errno) })));
  }

  #run(def: MessageDef, { payload, fds }: Message): Errno | undefined {
    let request: Record<string, unknown>;
    try {
      request = def.request!.decode(payload) as Record<string, unknown>;
    } catch (err) {
      if (err instanceof WireError) throw protocolError(`${def.name}: ${err.message}`);
      throw err;
    }
    const known = fds[0];
    const errno = this.#effect(def, request, fds);
    const mapping = errno || def.name !== 'BACKEND_SHMEM_MAP' ? undefined : this.#options.regions.list().find((m) => m.fd === known);
    this.#options.onEvent?.({ op: def.name, request, errno, mapping });
    return errno;
  }

  /** Takes the descriptor out of `fds` where the effect keeps it. */
  #effect(def: MessageDef, request: Record<string, unknown>, fds: OwnedFd[]): Errno | undefined {
    const { protocol, started, regions } = this.#options;
    if (fds.length < def.fds[0]) return 'EBADF';
    if (fds.length > def.fds[1]) return 'EINVAL';
    if (def.needs !== undefined && (protocol & protocolMask(def.needs)) === 0n) return 'EPERM';
    switch (def.name) {
      case 'BACKEND_SHMEM_MAP': {
        if (!started()) return 'EPERM';
        const errno = regions.map(request as unknown as MapRequest, fds[0]!);
        if (errno === undefined) fds.shift();
        return errno;
      }
      case 'BACKEND_SHMEM_UNMAP':
        return started() ? regions.unmap(request as unknown as MapRequest) : 'EPERM';
      case 'BACKEND_CONFIG_CHANGE_MSG':
        return undefined;
      default:
        return 'ENOTSUP';
    }
  }
}
