import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { Reg } from '../../src/uring/abi.js';
import { Operations, Ring } from '../../src/uring/index.js';
import type { Request } from '../../src/uring/request/request.js';
import { LIMIT } from './wait.js';

/** Waits (blocking) for completions until `ready`; throws when nothing makes it so. */
export function until(ring: Ring, ready: () => boolean): void {
  const end = Date.now() + LIMIT;
  while (!ready()) {
    if (Date.now() > end) throw new Error(`what was waited for did not come within ${LIMIT} ms`);
    ring.submit(1, 200);
  }
}

/** Requests in one batch; waits (blocking) until each has completed once. Results in their order. */
export function go(ring: Ring, ...requests: Request[]): number[] {
  const results: (number | undefined)[] = requests.map(() => undefined);
  requests.forEach((request, i) => {
    ring.push(request, (result) => {
      results[i] ??= result;
    });
  });
  until(ring, () => !results.includes(undefined));
  return results as number[];
}

/** Gives each test a ring of its own, with its operations. Nothing may be under way when the test ends. */
export function ringForEach(entries: number, give: (ring: Ring, io: Operations) => void): void {
  let ring: Ring;
  beforeEach(() => {
    ring = new Ring({ entries });
    give(ring, new Operations(ring));
  });
  afterEach(() => {
    expect([ring.inFlight, ring.queued]).toEqual([0, 0]);
    ring.close();
  });
}

/** A folder for one test file, and descriptors that are closed with it. */
export class Workspace {
  readonly dir = fs.mkdtempSync(path.join(fs.existsSync('/var/tmp') ? '/var/tmp' : os.tmpdir(), 'vioctl-uring-'));
  readonly #fds: number[] = [];
  #count = 0;

  path(name: string): string {
    return path.join(this.dir, name);
  }

  /** A file with this content, open for reading and writing. */
  file(content: string | Uint8Array = `file ${this.#count}`): number {
    const name = this.path(`f${this.#count++}`);
    fs.writeFileSync(name, content);
    return this.open(name, fs.constants.O_RDWR);
  }

  open(name: string, flags: number): number {
    const fd = fs.openSync(name, flags);
    this.#fds.push(fd);
    return fd;
  }

  /** A pipe: read end, write end. @param flags of the read end (O_NONBLOCK) */
  pipe(flags = 0): [number, number] {
    const name = this.path(`p${this.#count++}`);
    const { status } = spawnSync('mkfifo', [name]);
    if (status !== 0) throw new Error('mkfifo failed');
    const reader = this.open(name, fs.constants.O_RDONLY | fs.constants.O_NONBLOCK);
    const writer = this.open(name, fs.constants.O_WRONLY);
    if (flags & fs.constants.O_NONBLOCK) return [reader, writer];
    const blocking = this.open(name, fs.constants.O_RDONLY);
    this.close(reader);
    return [blocking, writer];
  }

  close(fd: number): void {
    fs.closeSync(fd);
    this.#fds.splice(this.#fds.indexOf(fd), 1);
  }

  end(): void {
    for (const fd of this.#fds.splice(0)) fs.closeSync(fd);
    fs.rmSync(this.dir, { recursive: true });
  }
}

/** Whether this kernel has a request opcode (REGISTER_PROBE). */
export function offers(ring: Ring, opcode: number): boolean {
  const probe = new Uint8Array(16 + 256 * 8);
  if (ring.register(Reg.registerProbe, probe, 256) < 0) return false;
  return (new DataView(probe.buffer).getUint16(16 + opcode * 8 + 2, true) & 1) === 1;
}

/** io_uring descriptors of this process. */
export function ringCount(): number {
  const link = (fd: string): string => {
    try {
      return fs.readlinkSync(`/proc/self/fd/${fd}`);
    } catch {
      return ''; // readdir's own, closed again
    }
  };
  return fs.readdirSync('/proc/self/fd').filter((fd) => link(fd) === 'anon_inode:[io_uring]').length;
}
