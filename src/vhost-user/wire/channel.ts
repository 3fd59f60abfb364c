import { codeOf, Exit, VioError, wrap } from '../../common/errors.js';
import { native } from '../../native/index.js';
import { closeAll, OwnedFd } from '../../native/owned-fd.js';
import type { ReadWatch } from '../../native/vhost-user.js';
import { headerSize, maxFds } from './messages.js';

/** A message as it came: the receiver owns its descriptors. */
export interface Message {
  id: number;
  flags: number;
  payload: Buffer;
  fds: OwnedFd[];
  /** performance.now() when its last byte was there. */
  at: number;
}

export interface ChannelOptions {
  /** For error texts: `back-end`, `front-end`. */
  peer: string;
  /** Larger payloads end the channel unread. */
  maxPayload?: number;
  /** A message that stands incomplete for so long ends the channel (ms). */
  stall?: number;
  /** A peer that takes nothing for so long ends the channel (ms). */
  sendTimeout?: number;
  /** Bytes that may wait for a slow peer. */
  maxQueued?: number;
}

/** The peer broke the protocol: exit 5. */
export const protocolError = (message: string, details?: Record<string, unknown>): VioError =>
  new VioError(message, { code: 'EPROTO', exit: Exit.damaged, details });

interface Outgoing {
  data: Buffer;
  fds: OwnedFd[];
}

/** How long until a full socket is tried again (ms). Messages are small and rare, so this is hardly ever reached. */
const retry = 2;

/**
 * One end of a vhost-user connection: whole messages in, whole messages out. Frames, bounds and descriptor ownership are
 * settled here; what a message means is the business of its users. Never blocks: a peer that does not read is timed out.
 */
export class Channel {
  readonly peer: string;
  /** Set once: why the channel ended; undefined where the peer just hung up. */
  error: Error | undefined;
  #fd: OwnedFd;
  #watch: ReadWatch | undefined;
  readonly #options: Required<ChannelOptions>;
  readonly #head = Buffer.alloc(headerSize);
  #payload: Buffer | undefined;
  #got = 0;
  #fds: OwnedFd[] = [];
  #stalled: NodeJS.Timeout | undefined;
  #queue: Outgoing[] = [];
  #queued = 0;
  #full: NodeJS.Timeout | undefined;
  #fullSince = 0;
  #closed = false;
  #onMessage: (message: Message) => void = (message) => closeAll(message.fds);
  #onClose: (error: Error | undefined) => void = () => {};

  /** Takes the socket. */
  constructor(fd: OwnedFd, options: ChannelOptions) {
    this.#fd = fd;
    this.peer = options.peer;
    this.#options = { maxPayload: 4096, stall: 1000, sendTimeout: 5000, maxQueued: 1 << 20, ...options };
  }

  /** Starts to receive, or hands a started channel to another receiver. `onClose` is called once, after the last message. */
  start(onMessage: (message: Message) => void, onClose: (error: Error | undefined) => void): void {
    this.#onMessage = onMessage;
    this.#onClose = onClose;
    if (this.#closed) {
      onClose(this.error);
      return;
    }
    this.#watch ??= native().vhostUser.watchReadable(this.#fd.fd, () => this.#readable());
  }

  get closed(): boolean {
    return this.#closed;
  }

  /** The socket's number, for SO_PEERCRED. */
  get fd(): number {
    return this.#fd.fd;
  }

  /** Whether the channel keeps the process alive. */
  ref(keep: boolean): void {
    this.#watch?.ref(keep);
  }

  /** Sends a whole message. The descriptors are the channel's from now on; they are closed when they have left. */
  send(data: Buffer, fds: OwnedFd[] = []): void {
    if (this.#closed) {
      closeAll(fds);
      return;
    }
    this.#queue.push({ data, fds });
    this.#queued += data.length;
    if (this.#queued > this.#options.maxQueued) {
      this.close(protocolError(`the ${this.peer} does not read: ${this.#queued} bytes wait for it`));
      return;
    }
    if (!this.#full) this.#flush();
  }

  /** Ends the channel. Safe to call twice; the first reason stays. */
  close(error?: Error): void {
    if (this.#closed) return;
    this.#closed = true;
    this.error = error;
    clearTimeout(this.#stalled);
    clearTimeout(this.#full);
    this.#watch?.close();
    closeAll(this.#fds);
    this.#drop();
    this.#fds = [];
    this.#fd.close();
    this.#onClose(error);
  }

  #flush(): void {
    const { vhostUser } = native();
    this.#full = undefined;
    try {
      for (let next = this.#queue[0]; next; next = this.#queue[0]) {
        const sent = vhostUser.send(
          this.#fd.fd,
          next.data,
          next.fds.map((f) => f.fd),
        );
        if (sent < 0) {
          this.#fullSince ||= performance.now();
          if (performance.now() - this.#fullSince > this.#options.sendTimeout)
            throw protocolError(`the ${this.peer} has not read for ${this.#options.sendTimeout} ms`);
          this.#full = setTimeout(() => this.#flush(), retry);
          return;
        }
        this.#fullSince = 0;
        this.#queued -= sent;
        closeAll(next.fds);
        next.fds = [];
        next.data = next.data.subarray(sent);
        if (next.data.length === 0) this.#queue.shift();
      }
    } catch (err) {
      // A peer that hung up may have left answers: the watch delivers them, then the end of the stream.
      this.#drop();
      if (codeOf(err) !== 'EPIPE' && codeOf(err) !== 'ECONNRESET') this.close(err as Error);
    }
  }

  #drop(): void {
    for (const { fds } of this.#queue) closeAll(fds);
    this.#queue = [];
    this.#queued = 0;
  }

  #readable(): void {
    // As many messages as a fair share of the loop allows; the watch is level-triggered.
    for (let turn = 0; turn < 64 && !this.#closed; turn++) {
      const target = this.#payload ?? this.#head;
      const fds: number[] = [];
      let got: number;
      try {
        got = native().vhostUser.receive(this.#fd.fd, target.subarray(this.#got), fds);
      } catch (err) {
        this.close(codeOf(err) === 'ECONNRESET' ? undefined : (err as Error));
        return;
      }
      const owned = fds.map((fd) => new OwnedFd(fd));
      if (got < 0) return;
      if (owned.length > 0 && (this.#payload || this.#got > 0)) {
        closeAll(owned);
        this.close(protocolError(`the ${this.peer} sent descriptors in the middle of a message`));
        return;
      }
      this.#fds.push(...owned);
      if (got === 0) {
        const partial = this.#got > 0 || this.#payload !== undefined;
        this.close(partial ? protocolError(`the ${this.peer} hung up in the middle of a message`) : undefined);
        return;
      }
      this.#got += got;
      if (this.#got < target.length) this.#waitForRest();
      else if (!this.#payload) this.#header();
      else this.#complete(this.#payload);
    }
  }

  #header(): void {
    const size = this.#head.readUInt32LE(8);
    if (size > this.#options.maxPayload) {
      const text = `the ${this.peer} announces ${size} bytes of payload, more than ${this.#options.maxPayload}`;
      this.close(protocolError(text, { head: Buffer.from(this.#head) }));
      return;
    }
    if (this.#fds.length > maxFds) {
      this.close(protocolError(`the ${this.peer} sent ${this.#fds.length} descriptors with one message, more than ${maxFds}`));
      return;
    }
    this.#payload = Buffer.alloc(size);
    this.#got = 0;
    if (size === 0) this.#complete(this.#payload);
    else this.#waitForRest();
  }

  #waitForRest(): void {
    this.#stalled ??= setTimeout(
      () => this.close(protocolError(`the ${this.peer} stopped in the middle of a message for ${this.#options.stall} ms`)),
      this.#options.stall,
    );
  }

  #complete(payload: Buffer): void {
    clearTimeout(this.#stalled);
    this.#stalled = undefined;
    const message = {
      id: this.#head.readUInt32LE(0),
      flags: this.#head.readUInt32LE(4),
      payload,
      fds: this.#fds,
      at: performance.now(),
    };
    this.#payload = undefined;
    this.#got = 0;
    this.#fds = [];
    this.#onMessage(message);
  }
}

const connectHints: Readonly<Record<string, string>> = {
  ECONNREFUSED: 'nobody listens there: is the back-end running?',
  ENOENT: '"vioctl vhost-user list" shows the sockets that are served here',
};

/** Why a socket cannot be connected to. */
export const connectError = (path: string, err: unknown): VioError =>
  wrap(`connect ${path}`, err, { hint: connectHints[codeOf(err) ?? ''] });

/** Connects to a socket, with retries while the server's queue of callers is full. @throws VioError */
export async function connect(path: string, timeout = 5000, signal?: AbortSignal): Promise<OwnedFd> {
  const end = performance.now() + timeout;
  for (;;) {
    try {
      return new OwnedFd(native().vhostUser.connect(path));
    } catch (err) {
      if (codeOf(err) !== 'EAGAIN') throw connectError(path, err);
      if (performance.now() > end || signal?.aborted)
        throw new VioError(`connect ${path}: its queue of callers stays full`, { code: 'EBUSY', exit: Exit.timeout });
    }
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
