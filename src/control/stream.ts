import { now } from '../common/clock.js';
import { codeOf, Exit, VioError } from '../common/errors.js';
import { native } from '../native/index.js';
import { closeAll, OwnedFd } from '../native/owned-fd.js';
import type { ReadWatch } from '../native/vhost-user.js';
import { fdsPerMessage, protocolError, stallTime } from './protocol.js';

/** What a peer may send. */
export interface StreamLimits {
  /** Bytes of a line, with its newline. */
  line: number;
  /** Descriptors with a line. */
  fds: number;
}

export interface StreamEvents {
  /** A whole line came; the callee owns its descriptors. Until `expect()`, more bytes are an error. */
  line(text: string, fds: OwnedFd[]): void;
  /** Nothing more comes: the peer has hung up (undefined), or it broke a rule. Called once, never after close(). */
  end(error: VioError | undefined): void;
}

/** Milliseconds until a full socket is tried again. */
const retryTime = 2;
/** Reads in a row, so that one peer does not keep the loop for itself. */
const readsPerTurn = 16;
const firstSize = 4096;

/** Scratch of all streams: a read and the copy of what came happen in one step. */
let scratch: Buffer | undefined;

export const pause = (milliseconds: number) => new Promise<void>((resolve) => setTimeout(resolve, milliseconds));

/** One end of a control connection: whole lines with their descriptors, within bounds. Never blocks. */
export class Stream {
  readonly #fd: OwnedFd;
  readonly #limits: StreamLimits;
  readonly #events: StreamEvents;
  #watch: ReadWatch | undefined;
  #expecting = true;
  #sending = false;
  #line = Buffer.alloc(0);
  #size = 0;
  #fds: OwnedFd[] = [];

  /** Takes the socket and begins to read. */
  constructor(fd: OwnedFd, limits: StreamLimits, events: StreamEvents) {
    this.#fd = fd;
    this.#limits = limits;
    this.#events = events;
    this.#watch = native().vhostUser.watchReadable(fd.fd, () => this.#readable());
  }

  get closed(): boolean {
    return !this.#fd.open;
  }

  /** Whether the peer sends no more. */
  get ended(): boolean {
    return this.#watch === undefined;
  }

  /** Lets the peer send its next line. */
  expect(): void {
    this.#expecting = true;
  }

  /**
   * Sends a line. The descriptors stay the caller's, who may close them while the line still waits for a slow peer.
   * @throws the system's error; ETIMEDOUT for a peer that takes nothing
   */
  async send(text: string, fds: readonly number[] = []): Promise<void> {
    // A byte for each load of descriptors but the last: a line that is too short gets blanks.
    const bytes = Buffer.from(`${text.padEnd(Math.ceil(fds.length / fdsPerMessage))}\n`);
    const copies: OwnedFd[] = [];
    let rest = fds;
    this.#sending = true;
    try {
      for (let at = 0, since = now(); at < bytes.length && !this.closed; ) {
        const some = rest.slice(0, fdsPerMessage);
        const sent = this.#try(bytes.subarray(at, rest.length > fdsPerMessage ? at + 1 : bytes.length), some);
        if (sent >= 0) {
          at += sent;
          rest = rest.slice(some.length);
          since = now();
          continue;
        }
        if (now() - since > stallTime) throw new VioError('the peer reads nothing', { code: 'ETIMEDOUT', exit: Exit.timeout });
        if (copies.length === 0 && rest.length > 0) {
          for (const fd of rest) copies.push(new OwnedFd(native().vhostUser.dup(fd)));
          rest = copies.map(({ fd }) => fd);
        }
        await pause(retryTime);
      }
    } finally {
      this.#sending = false;
      closeAll(copies);
    }
  }

  /** Sends a line if the socket takes it at once and is not in the middle of another one, and closes. */
  last(text: string): void {
    if (this.closed) return;
    try {
      if (!this.#sending) this.#try(Buffer.from(`${text}\n`), []);
    } catch {
      // The peer has hung up: there is nobody to tell.
    }
    this.close();
  }

  close(): void {
    this.#stop();
    this.#fd.close();
  }

  /** @returns -1 when the peer has to read first */
  #try(bytes: Buffer, fds: readonly number[]): number {
    try {
      return native().vhostUser.send(this.#fd.fd, bytes, fds);
    } catch (err) {
      // unix(7): too many descriptors are on their way already
      if (codeOf(err) === 'ETOOMANYREFS') return -1;
      throw err;
    }
  }

  #stop(): void {
    this.#watch?.close();
    this.#watch = undefined;
    closeAll(this.#fds);
    this.#fds = [];
    this.#line = Buffer.alloc(0);
    this.#size = 0;
  }

  #end(error?: VioError): void {
    this.#stop();
    this.#events.end(error);
  }

  #readable(): void {
    scratch ??= Buffer.alloc(64 * 1024);
    for (let reads = 0; reads < readsPerTurn && this.#watch; reads++) {
      const came: number[] = [];
      let size: number;
      try {
        size = native().vhostUser.receive(this.#fd.fd, scratch, came);
      } catch {
        this.#end(); // reset: a peer that is gone, in whatever way
        return;
      }
      for (const fd of came) this.#fds.push(new OwnedFd(fd));
      if (size < 0) return;
      if (size === 0) this.#end(this.#size > 0 ? protocolError('the peer hung up in the middle of a message') : undefined);
      else if (this.#take(scratch.subarray(0, size))) return; // a quick peer's next message is read when the answer has been sent
    }
  }

  /** @returns whether a line is whole */
  #take(bytes: Buffer): boolean {
    const end = bytes.indexOf(10);
    const size = this.#size + bytes.length;
    const wrong = this.#wrong(end >= 0 && end < bytes.length - 1, size);
    if (wrong !== undefined) {
      this.#end(protocolError(wrong));
      return false;
    }
    if (size > this.#line.length) {
      const larger = Buffer.alloc(Math.min(this.#limits.line, Math.max(2 * this.#line.length, size, firstSize)));
      this.#line.copy(larger, 0, 0, this.#size);
      this.#line = larger;
    }
    bytes.copy(this.#line, this.#size);
    this.#size = size;
    if (end < 0) return false;
    const text = this.#line.toString('utf8', 0, size - 1);
    const fds = this.#fds;
    this.#fds = [];
    this.#line = Buffer.alloc(0);
    this.#size = 0;
    this.#expecting = false;
    this.#events.line(text, fds);
    return true;
  }

  /** The rule that a line of now `size` bytes breaks. */
  #wrong(more: boolean, size: number): string | undefined {
    const { line, fds } = this.#limits;
    if (!this.#expecting || more) return 'a message before the answer to the last one';
    if (this.#fds.length > fds) return `${this.#fds.length} descriptors with a message that may bring ${fds}`;
    return size > line ? `a message of more than ${line} bytes` : undefined;
  }
}
