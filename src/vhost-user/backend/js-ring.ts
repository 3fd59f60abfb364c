import type { EventWatch } from '../../native/common.js';
import { native } from '../../native/index.js';
import type { NativeMemory, NativeQueue, RingLayout } from '../../native/vhost-user.js';
import type { RingStart, RunningRing } from './model.js';

/** Answers one request of the driver: bytes for the writable part of its chain. */
export type Serve = (request: { out: Buffer; inSize: number }) => Promise<Uint8Array> | Uint8Array;

/** A ring served in JavaScript: for queues with few requests, such as pmem's flushes. */
export class JsRing implements RunningRing {
  readonly #start: RingStart;
  readonly #serve: Serve;
  readonly #queue: NativeQueue;
  readonly #watch: EventWatch;
  #inFlight = 0;
  #broken = false;
  #stopped = false;
  #drained: (() => void) | undefined;

  constructor(start: RingStart, serve: Serve) {
    this.#start = start;
    this.#serve = serve;
    this.#queue = native().vhostUser.virtqueue(start.memory, start.layout);
    this.#watch = native().common.watchEventfd(start.kick.fd, () => this.#kicked());
    setImmediate(() => this.#kicked()); // requests that were there before the ring was ours
  }

  remap(memory: NativeMemory, layout: RingLayout): void {
    this.#queue.setMemory(memory, layout);
  }

  async stop(): Promise<number> {
    this.#watch.close();
    this.#stopped = true;
    if (this.#inFlight > 0)
      await new Promise<void>((resolve) => {
        this.#drained = resolve;
      });
    const base = this.#queue.base();
    this.#queue.close();
    return base;
  }

  #kicked(): void {
    if (this.#stopped || this.#broken) return;
    let requests: ReturnType<NativeQueue['take']>;
    try {
      requests = this.#queue.take();
    } catch (err) {
      this.#broken = true;
      this.#start.onBroken(err as Error);
      return;
    }
    for (const request of requests) void this.#answer(request);
  }

  async #answer(request: { head: number; out: Buffer; inSize: number }): Promise<void> {
    this.#inFlight++;
    let data: Uint8Array;
    try {
      data = await this.#serve(request);
    } catch (err) {
      this.#broken = true;
      this.#start.onBroken(err as Error);
      data = new Uint8Array(0);
    }
    const wanted = this.#queue.answer(request.head, data);
    const call = this.#start.call();
    if (wanted && call) native().vhostUser.signal(call.fd);
    if (--this.#inFlight > 0) return;
    this.#drained?.();
    setImmediate(() => this.#kicked()); // the queue hands out a few at a time
  }
}
