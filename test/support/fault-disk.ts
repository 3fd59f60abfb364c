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
  open_delay?: number;
  close_delay?: number;
  fail_syncs?: number;
  fail_writes?: number;
  /** Bytes of writes, after which they answer ENOSPC. */
  full_after?: number;
  /** Probabilities of faults by operation. */
  random?: Partial<Record<RandomFault, number>>;
  /** Longest time of a random delay, in seconds. */
  slow?: number;
  /** A short transfer is a multiple of this size; 512 unless told. */
  unit?: number;
  seed?: number;
}

/** Faults that can happen at random. A short transfer moves a part only. */
export type RandomFault =
  | `${'read' | 'write' | 'sync' | 'punch'}_eio`
  | `${'read' | 'write' | 'sync'}_${'estale' | 'enxio'}`
  | `${'write' | 'sync'}_${'enospc' | 'edquot'}`
  | `${'read' | 'write'}_short`
  | `${'read' | 'write' | 'sync'}_slow`;

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
  #closed = false;

  private constructor(dir: string, child: ChildProcess) {
    this.#dir = dir;
    this.file = path.join(dir, 'disk');
    this.#child = child;
    this.#reader = createInterface({ input: child.stdout! });
    this.#lines = this.#reader[Symbol.asyncIterator]();
  }

  /** @param volatile_ with a write cache that a failed sync or a power cut loses in part, and no page cache above it */
  static async open(size: number, volatile_ = false): Promise<FaultDisk> {
    const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-fault-'));
    const child = spawn('python3', [program, dir, `${size}`, 'disk', ...(volatile_ ? ['volatile'] : [])], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
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

  /** What is on the disk. */
  async read(offset: number, length: number): Promise<Buffer> {
    return Buffer.from((await this.#ask({ data: [offset, length] })) as string, 'base64');
  }

  /** How often each random fault has happened. */
  async injected(): Promise<Partial<Record<RandomFault, number>>> {
    return (await this.#ask({ stats: 1 })) as Partial<Record<RandomFault, number>>;
  }

  /** Loses, sector by sector or not, what no sync has made durable. Nobody may have requests under way. */
  async powerCut(): Promise<void> {
    await this.#ask({ cut: 1 });
  }

  /** Ends the file system, and every request that waits for it. Also twice. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
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
