import type { AsyncResource } from 'node:async_hooks';
import { CqeFlag } from '../abi.js';
import { bytesOf, type Done } from '../request/request.js';

/** A request that was queued and has not ended. */
interface Held {
  readonly done: Done;
  /** The context that `done` runs in. */
  readonly scope: AsyncResource | undefined;
  /** Memory that the kernel may use, and how many bytes of it. */
  readonly buffer: NodeJS.ArrayBufferView | undefined;
  readonly size: number;
  readonly keep: unknown;
}

/** Requests that were queued and have not ended, by slot: their callbacks, and the memory that the kernel may use. */
export class Pending {
  /** One object for each: a store into an old array is dearer than a new object. */
  readonly #held: (Held | undefined)[] = [];
  readonly #free: number[] = [];

  /** @param scope the context that `done` runs in @returns its slot */
  add(done: Done, scope: AsyncResource | undefined, buffer: NodeJS.ArrayBufferView | undefined, keep: unknown): number {
    const slot = this.#free.pop() ?? this.#held.length;
    this.#held[slot] = { done, scope, buffer, size: buffer === undefined ? 0 : bytesOf(buffer), keep };
    return slot;
  }

  /** The callback of a request; undefined once it has ended. */
  of(slot: number): Done | undefined {
    return this.#held[slot]?.done;
  }

  /** Whether its memory was transferred away or shrank since it was queued. */
  moved(slot: number): boolean {
    const held = this.#held[slot];
    return held?.buffer !== undefined && bytesOf(held.buffer) < held.size;
  }

  /** Calls back one completion; the last of a request lets its memory go. */
  call(slot: number, result: number, flags: number): void {
    const held = this.#held[slot];
    if (held === undefined) return;
    if (!(flags & CqeFlag.more)) {
      this.#held[slot] = undefined;
      this.#free.push(slot);
    }
    const { done, scope } = held;
    if (scope === undefined) done(result, flags);
    else scope.runInAsyncScope(done, undefined, result, flags);
  }
}
