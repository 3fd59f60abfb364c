import fs from 'node:fs';

/** One owner for a descriptor: closes it once, or hands it on. */
export class OwnedFd {
  #fd: number;

  constructor(fd: number) {
    this.#fd = fd;
  }

  /** The number. @throws RangeError once closed or handed on */
  get fd(): number {
    if (this.#fd < 0) throw new RangeError('descriptor is closed');
    return this.#fd;
  }

  get open(): boolean {
    return this.#fd >= 0;
  }

  /** Hands the descriptor to the caller. */
  take(): number {
    const fd = this.fd;
    this.#fd = -1;
    return fd;
  }

  close(): void {
    if (this.#fd < 0) return;
    fs.closeSync(this.take());
  }
}

/** Closes all of them; those that were handed on stay open. */
export const closeAll = (fds: Iterable<OwnedFd>): void => {
  for (const fd of fds) fd.close();
};
