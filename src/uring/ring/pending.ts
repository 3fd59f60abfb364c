import type { AsyncResource } from 'node:async_hooks';
import { CqeFlag } from '../abi.js';
import type { Done } from '../request/request.js';

/** Requests that were queued and have not ended, by slot: their callbacks, and the memory that the kernel may use. */
export class Pending {
  readonly #done: (Done | undefined)[] = [];
  readonly #buffers: (NodeJS.ArrayBufferView | undefined)[] = [];
  /** Bytes of each buffer that the kernel may use. */
  readonly #sizes: number[] = [];
  readonly #kept: unknown[] = [];
  readonly #scopes: (AsyncResource | undefined)[] = [];
  readonly #free: number[] = [];

  /** @param scope the context that `done` runs in @returns its slot */
  add(done: Done, scope: AsyncResource | undefined, buffer: NodeJS.ArrayBufferView | undefined, keep: unknown): number {
    const slot = this.#free.pop() ?? this.#done.length;
    this.#done[slot] = done;
    this.#scopes[slot] = scope;
    this.#buffers[slot] = buffer;
    this.#sizes[slot] = buffer === undefined ? 0 : buffer.byteLength;
    this.#kept[slot] = keep;
    return slot;
  }

  /** The callback of a request; undefined once it has ended. */
  of(slot: number): Done | undefined {
    return this.#done[slot];
  }

  /** Whether its memory was transferred away or shrank since it was queued. */
  moved(slot: number): boolean {
    const buffer = this.#buffers[slot];
    return buffer !== undefined && buffer.byteLength < this.#sizes[slot]!;
  }

  /** Calls back one completion; the last of a request lets its memory go. */
  call(slot: number, result: number, flags: number): void {
    const done = this.#done[slot];
    const scope = this.#scopes[slot];
    if (!(flags & CqeFlag.more)) {
      this.#done[slot] = this.#scopes[slot] = this.#buffers[slot] = this.#kept[slot] = undefined;
      this.#free.push(slot);
    }
    if (scope === undefined) done?.(result, flags);
    else if (done !== undefined) scope.runInAsyncScope(done, undefined, result, flags);
  }
}
