/** Completions copied out of the array shared with the addon, which the next crossing overwrites, and not called back yet. */
export class Completions {
  #words = new Int32Array(4096); // three of each: slot, result, flags
  #count = 0;
  #next = 0;
  /** Of the completion that next() came to. A tag (top bit of user_data set) is a negative slot: -1 - tag. */
  slot = 0;
  result = 0;
  flags = 0;

  get left(): number {
    return this.#count - this.#next;
  }

  /** Copies the first `count` entries of 16 bytes. */
  take(cqe: Int32Array, count: number): void {
    const end = (this.#count + count) * 3;
    if (end > this.#words.length) {
      const wider = new Int32Array(Math.max(this.#words.length * 2, end));
      wider.set(this.#words);
      this.#words = wider;
    }
    const words = this.#words;
    for (let from = 0, to = this.#count * 3; to < end; from += 4, to += 3) {
      words[to] = cqe[from + 1]! < 0 ? -1 - (cqe[from]! & 0x7fff_ffff) : cqe[from]!;
      words[to + 1] = cqe[from + 2]!;
      words[to + 2] = cqe[from + 3]!;
    }
    this.#count += count;
  }

  /** Goes to the next one. @returns false where there is none */
  next(): boolean {
    if (this.#next === this.#count) {
      this.#next = this.#count = 0;
      return false;
    }
    const at = this.#next++ * 3;
    this.slot = this.#words[at]!;
    this.result = this.#words[at + 1]!;
    this.flags = this.#words[at + 2]!;
    return true;
  }
}
