import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { createInterface, type Interface } from 'node:readline';
import { which } from './skip.js';

const program = path.resolve(__dirname, 'programs', 'fault-disk.py');

/** Delays in seconds, and how many of the next requests fail with EIO. */
export interface Faults {
  write_delay?: number;
  read_delay?: number;
  sync_delay?: number;
  fail_syncs?: number;
  fail_writes?: number;
  /** Bytes of writes, after which they answer ENOSPC. */
  full_after?: number;
}

/** Why there can be no fault disk here; undefined where there can. */
export function noFaultDisk(): string | undefined {
  if (process.getuid?.() !== 0) return 'needs root';
  if (!fs.existsSync('/dev/fuse')) return 'needs /dev/fuse';
  return which('python3') ? undefined : 'needs python3';
}

/** One file in a FUSE file system that is slow, or fails, as it is told (programs/fault-disk.py). */
export class FaultDisk {
  readonly file: string;
  readonly #dir: string;
  readonly #child: ChildProcess;
  readonly #lines: AsyncIterator<string>;
  readonly #reader: Interface;

  private constructor(dir: string, child: ChildProcess) {
    this.#dir = dir;
    this.file = path.join(dir, 'disk');
    this.#child = child;
    this.#reader = createInterface({ input: child.stdout! });
    this.#lines = this.#reader[Symbol.asyncIterator]();
  }

  static async open(size: number): Promise<FaultDisk> {
    const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-fault-'));
    const child = spawn('python3', [program, dir, `${size}`, 'disk'], { stdio: ['pipe', 'pipe', 'inherit'] });
    const disk = new FaultDisk(dir, child);
    const first = (await disk.#lines.next()).value;
    if (first === 'ready') return disk;
    await disk.close();
    throw new Error(first ?? 'the FUSE file system did not start');
  }

  async #ask(request: object): Promise<unknown> {
    this.#child.stdin!.write(`${JSON.stringify(request)}\n`);
    return JSON.parse((await this.#lines.next()).value as string);
  }

  async set(faults: Faults): Promise<void> {
    await this.#ask({ set: faults });
  }

  /** Requests that came, in order. */
  async ops(): Promise<string[]> {
    return ((await this.#ask({ log: 1 })) as [string][]).map(([op]) => op);
  }

  async close(): Promise<void> {
    const ended = new Promise((resolve) => this.#child.once('exit', resolve));
    if (this.#child.exitCode === null) {
      this.#child.stdin!.end();
      await ended;
    }
    this.#reader.close();
    spawnSync('umount', ['-l', this.#dir]);
    fs.rmdirSync(this.#dir);
  }
}
