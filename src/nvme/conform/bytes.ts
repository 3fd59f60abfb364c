/** A TCP connection that sends and hears bytes, whatever they mean: for what is no PDU, as the records of TLS. */
import type net from 'node:net';
import { Bell, connectTo, type Liveness, patience } from './raw.js';

/** Bytes that are kept; what comes behind them is not looked at. */
const mostHeard = 64 << 10;
/** How long connecting may take, in milliseconds. */
const connectTime = 10_000;

export class Bytes {
  /** When something came last, by performance.now(). */
  heardAt = performance.now();
  ended = false;
  readonly #socket: net.Socket;
  readonly #alive: Liveness;
  #heard: Buffer[] = [];
  #size = 0;
  readonly #bell = new Bell();

  private constructor(socket: net.Socket, alive: Liveness) {
    this.#socket = socket;
    this.#alive = alive;
    socket.on('data', (chunk: Buffer) => {
      this.heardAt = performance.now();
      if (this.#size < mostHeard) this.#heard.push(chunk);
      this.#size += chunk.length;
      this.#bell.ring();
    });
    socket.on('error', () => {}); // a reset is a way of closing
    socket.on('close', () => {
      this.ended = true;
      this.#bell.ring();
    });
  }

  /** Connects. @param alive asked before silence is believed @throws VioError */
  static open(to: { address: string; port: number }, alive: Liveness): Promise<Bytes> {
    return connectTo(to, connectTime, (socket) => new Bytes(socket, alive));
  }

  send(bytes: Uint8Array): void {
    if (!this.#socket.destroyed) this.#socket.write(bytes);
  }

  close(): void {
    this.#socket.destroy();
  }

  /**
   * Waits until `enough` says so of all that came since the last call, or the end, or silence: for `wait` ms, and until the
   * target has answered another host.
   */
  async heard(enough: (bytes: Buffer) => boolean = (bytes) => bytes.length > 0, wait = patience): Promise<Buffer> {
    const deadline = performance.now() + wait;
    for (let asked = false; ; ) {
      const all = Buffer.concat(this.#heard);
      const left = deadline - performance.now();
      if (enough(all) || this.ended || (left <= 0 && asked)) {
        this.#heard = [];
        return all;
      }
      if (left <= 0) {
        asked = true;
        await this.#alive();
        continue;
      }
      await this.#bell.wait(left);
    }
  }
}
