import { assert } from '../../common/errors.js';
import { WireError } from '../../common/struct.js';
import { native } from '../../native/index.js';
import { closeAll, OwnedFd } from '../../native/owned-fd.js';
import { Seal } from '../../native/vhost-user.js';
import { Channel, type Message, protocolError } from '../wire/channel.js';
import { describeFd } from '../wire/fds.js';
import { maxRingSize, protocolMask, VirtioF } from '../wire/features.js';
import { encodeMessage, Flag, type MessageDef, maxConfig, messageById, messageByName, number, shmemRegions } from '../wire/messages.js';
import { type Errno, statusOf } from '../wire/status.js';
import { BackRequests } from './back-requests.js';
import { MemoryTable, memSlots, type Region } from './memory-table.js';
import type { DeviceModel } from './model.js';
import { Rings } from './rings.js';

/** What a handler says: nothing is success, an errno is told where an acknowledgement was asked for, or a reply of its own. */
type Outcome = Errno | undefined | { reply: Uint8Array; fds?: OwnedFd[] };
type Request = Record<string, unknown>;
/** Handlers take descriptors out of `fds`; what they leave is closed after them. */
type Handler = (values: Request, fds: OwnedFd[]) => Outcome | Promise<Outcome>;

/** Messages, and descriptors that came with them, that may wait for a request under way: the front-end sends ahead without end. */
const maxWaiting = 1024;

/** Changes of the memory after which the mappings of the front-end are looked at. */
const maxLooks = 16;

export interface SessionHooks {
  /** Rings have started to run, or stopped. Called after the reply to the message that did it has been sent. */
  onRunning?(running: boolean): void;
  onClose?(error: Error | undefined): void;
  /** One line for the log: a request that was refused, a ring that broke. */
  onLog?(text: string): void;
}

/**
 * The back-end's end of one connection. Every request runs through one dispatcher: header, size and descriptors are checked
 * against the table, one handler changes state completely or not at all, and at most one reply leaves, built from zeroed
 * memory. Handlers never wait for the front-end; what comes meanwhile is served in order.
 */
export class BackEndSession {
  readonly device: DeviceModel;
  readonly rings: Rings;
  readonly memory = new MemoryTable();
  /** The channel for requests of ours, once the front-end has given it. */
  back: BackRequests | undefined;
  /** Protocol features that the front-end has acknowledged. */
  protocol = 0n;
  /** Resolves when everything of the session is closed. */
  readonly done: Promise<void>;
  readonly #channel: Channel;
  readonly #hooks: SessionHooks;
  readonly #handlers: Map<string, Handler>;
  #inbox: Message[] = [];
  #inboxFds = 0;
  #busy = false;
  /** The request under way. */
  #current: Promise<void> = Promise.resolve();
  #running = false;
  /** The front-end, as far as the kernel tells it. */
  readonly #pid: number;
  #looks = 0;
  /** The last one that was told. */
  #refusal: string | undefined;
  #done: () => void = () => {};

  /** Takes the socket. */
  constructor(fd: OwnedFd, device: DeviceModel, hooks: SessionHooks = {}) {
    this.device = device;
    this.#hooks = hooks;
    this.done = new Promise((resolve) => {
      this.#done = resolve;
    });
    const onBroken = (index: number, error: Error): void => this.#log(`ring ${index} stopped: ${error.message}`);
    this.rings = new Rings({ device, memory: this.memory, onBroken });
    this.#handlers = handlersOf(this);
    this.#pid = native().vhostUser.peer(fd.fd).pid;
    this.#channel = new Channel(fd, { peer: 'front-end' });
    this.#channel.start(
      (message) => {
        this.#inbox.push(message);
        this.#inboxFds += message.fds.length;
        if (this.#inbox.length >= maxWaiting || this.#inboxFds >= maxWaiting)
          this.close(protocolError(`${this.#inbox.length} messages with ${this.#inboxFds} descriptors wait for the request under way`));
        else void this.#serve();
      },
      (error) => void this.#end(error),
    );
  }

  get running(): boolean {
    return this.#running;
  }

  has(feature: string): boolean {
    return (this.protocol & protocolMask(feature)) !== 0n;
  }

  close(error?: Error): void {
    this.#channel.close(error);
  }

  /**
   * Ends the session in order: rings finish what they have taken and publish it, the device makes it durable, the request under way is
   * answered, then the connection ends: a front-end takes the used index that it finds at the hang-up as the place to go on from.
   * Safe at any time, also twice. Resolves after `done`. @throws what kept the device from making it durable
   */
  async drain(): Promise<void> {
    let failure: Error | undefined;
    if (!this.#channel.closed) {
      const drained = this.rings.drain();
      this.#tellRunning();
      await drained;
      try {
        await this.device.settle?.();
      } catch (err) {
        failure = err as Error;
      }
      await this.#current.catch(() => {}); // its own failure has closed the channel
      this.close(failure);
    }
    await this.done;
    if (failure) throw failure;
  }

  /** What a request must not do without closing the connection. */
  violation(text: string): never {
    throw protocolError(text);
  }

  /** Warns once of memory that the front-end does not share: its guest would wait for ever, and nobody would say why. */
  lookAtMemory(): void {
    if (this.#looks >= maxLooks) return;
    this.#looks++;
    const [first] = this.memory.private(this.#pid);
    if (!first) return;
    this.#looks = maxLooks;
    const at = `0x${first.gpa.toString(16)}`;
    this.#log(`the front-end has mapped its memory at ${at} privately: requests of its guest cannot be seen; share it with share=on`);
  }

  #log(text: string): void {
    this.#hooks.onLog?.(text);
  }

  async #serve(): Promise<void> {
    if (this.#busy) return;
    this.#busy = true;
    for (let message = this.#inbox.shift(); message; message = this.#inbox.shift()) {
      this.#inboxFds -= message.fds.length;
      assert(this.#inboxFds >= 0, 'descriptors of the inbox are counted once');
      try {
        if (!this.#channel.closed) {
          this.#current = this.#dispatch(message);
          await this.#current;
        }
      } catch (err) {
        this.close(err as Error);
      } finally {
        closeAll(message.fds);
      }
      this.#tellRunning();
    }
    this.#busy = false;
  }

  #tellRunning(): void {
    const running = this.rings.running && !this.#channel.closed;
    if (running === this.#running) return;
    this.#running = running;
    this.#hooks.onRunning?.(running);
  }

  async #dispatch(message: Message): Promise<void> {
    const { id, flags } = message;
    const def = messageById('main', id);
    const name = def?.name ?? `request ${id}`;
    if ((flags & Flag.versionMask) !== Flag.version) this.violation(`${name}: version ${flags & Flag.versionMask}`);
    if ((flags & Flag.reply) !== 0) this.violation(`${name}: a request with the reply bit`);
    if ((flags & Flag.reserved) !== 0) this.violation(`${name}: reserved flag bits`);
    const outcome = def ? await this.#run(def, message) : 'ENOTSUP';
    let own = typeof outcome === 'object' ? outcome.reply : undefined;
    const replyFds = typeof outcome === 'object' ? (outcome.fds ?? []) : [];
    const missing = (def?.request?.size ?? 0) - message.payload.length;
    if (own && def?.request === def?.reply && missing === def?.request?.optional) own = own.subarray(0, own.length - missing);
    if (own === undefined && def?.reply !== undefined && def.replyIf === undefined) this.violation(`${name}: ${String(outcome)}`);
    const errno = typeof outcome === 'string' ? outcome : undefined;
    if (errno) this.#logRefusal(name, errno);
    const ack = (flags & Flag.needReply) !== 0 && this.has('REPLY_ACK');
    if (own !== undefined || ack)
      this.#channel.send(encodeMessage(id, Flag.version | Flag.reply, own ?? number.encode({ value: statusOf(errno) })), replyFds);
  }

  /** A device that somebody else uses is told once, not for each of its rings. */
  #logRefusal(name: string, errno: Errno): void {
    const why = errno === 'EBUSY' ? this.rings.refusal?.message : undefined;
    const detail = this.rings.detail ?? this.memory.detail;
    this.rings.detail = this.memory.detail = undefined;
    if (why === undefined || why !== this.#refusal) this.#log(`${name}: refused: ${why ?? (detail ? `${errno}: ${detail}` : errno)}`);
    this.#refusal = why;
  }

  async #run(def: MessageDef, { payload, fds }: Message): Promise<Outcome> {
    let values: Request;
    try {
      values = def.request ? (def.request.decode(payload) as Request) : {};
    } catch (err) {
      if (err instanceof WireError) this.violation(`${def.name}: ${err.message}`);
      throw err;
    }
    const handler = this.#handlers.get(def.name);
    if (!handler || (def.needs !== undefined && (this.device.protocol & protocolMask(def.needs)) === 0n)) return 'ENOTSUP';
    if (fds.length < def.fds[0]) return 'EBADF';
    if (fds.length > def.fds[1]) return 'EINVAL';
    const taken = [...fds];
    const outcome = await handler(values, taken);
    assert(taken.length <= fds.length, 'a handler only takes descriptors');
    fds.splice(0, fds.length, ...taken); // the caller closes what is left
    return outcome;
  }

  async #end(error: Error | undefined): Promise<void> {
    for (const message of this.#inbox) closeAll(message.fds);
    this.#inbox = [];
    this.#inboxFds = 0;
    this.back?.close();
    this.#tellRunning();
    await this.rings.close();
    this.memory.close();
    this.#hooks.onClose?.(error);
    this.#done();
  }
}

/** Memory for the in-flight regions of so many queues, all zero. @returns undefined for what the device cannot have */
function makeInflight(queues: number, queueSize: number, most: number): { fd: OwnedFd; size: bigint } | undefined {
  if (queues < 1 || queues > most || queueSize < 1 || queueSize > maxRingSize) return undefined;
  const { vhostUser } = native();
  const bytes = vhostUser.inflightBytes(queueSize) * queues;
  const { shrink, grow, seal } = Seal;
  return { fd: new OwnedFd(vhostUser.memfd('vioctl-inflight', bytes, shrink | grow | seal)), size: BigInt(bytes) };
}

const word = (value: bigint): Outcome => ({ reply: number.encode({ value }) });

/** The handlers of a session, by message name. A message of the table without one is answered ENOTSUP. */
function handlersOf(session: BackEndSession): Map<string, Handler> {
  const { device, rings, memory } = session;
  const offered = device.features | VirtioF.protocolFeatures;
  const remapped = (errno: Errno | undefined): Outcome => {
    if (errno) return errno;
    session.lookAtMemory();
    return rings.remap();
  };
  const indexOf = (values: Request): number => values.index as number;
  const vringFd =
    (kind: 'kick' | 'call' | 'err'): Handler =>
    (values, fds) =>
      rings.fd(kind, values.value as bigint, fds.shift());
  const replyOf = (name: string, values: Request): { reply: Uint8Array } => {
    return { reply: messageByName('main', name).reply!.encode(values as never) };
  };
  return new Map<string, Handler>(
    Object.entries<Handler>({
      GET_FEATURES: () => word(offered),
      SET_FEATURES: ({ value }) => {
        if (((value as bigint) & ~offered) !== 0n) return 'EINVAL';
        rings.alwaysEnabled = ((value as bigint) & VirtioF.protocolFeatures) === 0n;
        return rings.setFeatures(value as bigint);
      },
      SET_OWNER: () => undefined,
      RESET_OWNER: () => undefined, // deprecated: "should be ignored"
      GET_PROTOCOL_FEATURES: () => word(device.protocol),
      SET_PROTOCOL_FEATURES: ({ value }) => {
        const bits = value as bigint;
        if ((bits & ~device.protocol) !== 0n) return 'EINVAL';
        session.protocol = bits;
        rings.physical = session.has('GPA_ADDRESSES');
        return undefined;
      },
      GET_QUEUE_NUM: () => word(BigInt(device.queues)),
      GET_MAX_MEM_SLOTS: () => word(BigInt(memSlots)),
      SET_MEM_TABLE: ({ regions }, fds) => remapped(memory.set(regions as Region[], fds.splice(0))),
      ADD_MEM_REG: ({ region }, fds) => remapped(memory.add(region as Region, fds.shift()!)),
      REM_MEM_REG: ({ region }) => remapped(memory.remove(region as Region)),
      SET_VRING_NUM: (v) => rings.num(indexOf(v), v.num as number),
      SET_VRING_BASE: (v) => rings.base(indexOf(v), v.num as number),
      SET_VRING_ADDR: (v) => rings.addresses(v as never),
      GET_VRING_BASE: async (v) => {
        if (!rings.has(indexOf(v))) session.violation(`GET_VRING_BASE: ring ${indexOf(v)} of ${device.queues}`);
        return replyOf('GET_VRING_BASE', { index: indexOf(v), num: await rings.stop(indexOf(v)) });
      },
      SET_VRING_KICK: vringFd('kick'),
      SET_VRING_CALL: vringFd('call'),
      SET_VRING_ERR: vringFd('err'),
      SET_VRING_ENABLE: (v) => rings.enable(indexOf(v), v.num as number),
      GET_CONFIG: ({ offset, size, flags }) => {
        const [from, length] = [offset as number, size as number];
        const all = device.config();
        // A reply without payload is the protocol's "error".
        if (length === 0 || all.length === 0 || from + length > maxConfig) return { reply: new Uint8Array(0) };
        const data = new Uint8Array(length); // zeroes behind the end: a front-end that does not know the device asks for all
        data.set(all.subarray(from, from + length));
        return replyOf('GET_CONFIG', { offset, size, flags, data });
      },
      SET_CONFIG: ({ offset, data }) => (device.setConfig ? device.setConfig(offset as number, data as Uint8Array) : 'EPERM'),
      SET_BACKEND_REQ_FD: (_values, fds) => {
        if (describeFd(fds[0]!.fd).kind !== 'socket') return 'EINVAL';
        session.back?.close();
        session.back = new BackRequests(fds.shift()!, () => session.has('REPLY_ACK'));
        return undefined;
      },
      RESET_DEVICE: async () => {
        await rings.reset();
        return undefined;
      },
      GET_INFLIGHT_FD: ({ queues, queueSize }) => {
        const made = makeInflight(queues as number, queueSize as number, device.queues);
        if (!made) session.violation(`GET_INFLIGHT_FD: ${queues} queues of ${queueSize} entries`);
        return { reply: replyOf('GET_INFLIGHT_FD', { size: made.size, offset: 0n, queues, queueSize }).reply, fds: [made.fd] };
      },
      SET_INFLIGHT_FD: ({ size, offset, queues, queueSize }, fds) =>
        rings.setInflight(fds[0]!, {
          size: size as bigint,
          offset: offset as bigint,
          queues: queues as number,
          queueSize: queueSize as number,
        }),
      SET_LOG_BASE: ({ size, offset }, fds) => {
        const errno = rings.setLog(fds[0]!, size as bigint, offset as bigint);
        if (errno) session.violation(`SET_LOG_BASE: ${errno}`); // its reply has no place for an error
        return session.has('LOG_SHMFD') ? word(0n) : undefined;
      },
      GET_SHMEM_CONFIG: () => {
        const sizes = Array.from({ length: shmemRegions }, (_, id) => device.regions.get(id) ?? 0n);
        return replyOf('GET_SHMEM_CONFIG', { count: device.regions.size, sizes });
      },
    }),
  );
}
