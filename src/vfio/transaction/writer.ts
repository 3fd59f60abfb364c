import fs from 'node:fs';
import net from 'node:net';
import { errnoName, errnoText } from '../../common/errno.js';
import type { Sysroot } from '../../common/sysroot.js';
import { native } from '../../native/index.js';

export interface WriteOptions {
  /** Milliseconds after which the write is given up; the kernel may go on with it. */
  timeout: number;
  /** When aborted, the write gets no more than ten seconds. */
  signal?: AbortSignal | undefined;
}

/** Writes attributes of sysfs. Tests give a double for errors that no kernel produces on demand. */
export interface Writer {
  /** @throws an error with `code` of the errno; StuckWrite when the time ran out */
  write(path: string, value: string, options: WriteOptions): Promise<void>;
}

/** A write that did not come back in time: the process that makes it still waits in the kernel. */
export class StuckWrite extends Error {
  readonly code = 'ETIMEDOUT';
  readonly pid: number;
  readonly path: string;

  constructor(path: string, pid: number) {
    super(`writing ${path} did not come back`);
    this.path = path;
    this.pid = pid;
  }
}

/** An errno as Node's own errors carry it. */
export function errnoError(errno: number, path: string): NodeJS.ErrnoException {
  const code = errnoName(errno);
  return Object.assign(new Error(`${code}: ${errnoText(code) ?? `error ${errno}`}, write '${path}'`), {
    code,
    errno: -errno,
    syscall: 'write',
    path,
  });
}

/** Time that a write gets after its command was told to end: a driver that flushes a disk is not stuck. A second signal ends us at once. */
const grace = 10_000;

/** The real thing: each write in a process of its own (native/sysfs). */
export class ChildWriter implements Writer {
  readonly #root: Sysroot;

  constructor(root: Sysroot) {
    this.#root = root;
  }

  async write(path: string, value: string, { timeout, signal }: WriteOptions): Promise<void> {
    const fd = native().sysfs.startWrite(this.#root.path(path), value);
    const pipe = new net.Socket({ fd, readable: true, writable: false });
    let got = Buffer.alloc(0);
    const pid = () => (got.length >= 4 ? got.readInt32LE(0) : 0);
    try {
      const errno = await new Promise<number>((resolve, reject) => {
        const stuck = () => reject(new StuckWrite(path, pid()));
        const timer = setTimeout(stuck, timeout);
        const hurry = () => setTimeout(stuck, Math.min(grace, timeout)).unref();
        if (signal?.aborted) hurry();
        signal?.addEventListener('abort', hurry, { once: true });
        const settle = (act: () => void) => {
          clearTimeout(timer);
          signal?.removeEventListener('abort', hurry);
          act();
        };
        pipe.on('data', (data) => {
          got = Buffer.concat([got, data]);
          if (got.length >= 8) settle(() => resolve(got.readInt32LE(4)));
        });
        pipe.on('error', (err) => settle(() => reject(err)));
        pipe.on('close', () => settle(() => reject(new Error(`the process that wrote ${path} was killed`))));
      });
      if (errno !== 0) throw errnoError(errno, path);
    } finally {
      pipe.destroy();
    }
  }
}

/** Plain writes, for trees of files that stand for sysfs (VIOCTL_SYSROOT). */
export class FileWriter implements Writer {
  readonly #root: Sysroot;

  constructor(root: Sysroot) {
    this.#root = root;
  }

  async write(path: string, value: string): Promise<void> {
    this.#root.write(path, value);
  }
}

/** What a stuck process waits for, as /proc tells: state letter and kernel function. */
export function waitingIn(root: Sysroot, pid: number): string {
  const stat = root.attr(`/proc/${pid}/stat`) ?? '';
  const state = stat.slice(stat.lastIndexOf(')') + 2, stat.lastIndexOf(')') + 3);
  const wchan = root.attr(`/proc/${pid}/wchan`);
  return `process ${pid}${state === '' ? '' : `, state ${state}`}${wchan && wchan !== '0' ? `, in ${wchan}` : ''}`;
}

/** True where a path may be written, as access(2) tells; the error's code otherwise. */
export function writable(root: Sysroot, path: string): true | string {
  try {
    fs.accessSync(root.path(path), fs.constants.W_OK);
    return true;
  } catch (err) {
    return (err as NodeJS.ErrnoException).code ?? 'EACCES';
  }
}
