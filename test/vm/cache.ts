// The download cache of the VM lab and of the peer programs: folders that are made once per machine and shared
// by all test processes. A folder is either absent or complete, because it is filled under another name and renamed.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, readFileSync, rmSync } from 'node:fs';
import { mkdtemp, rename } from 'node:fs/promises';
import { homedir } from 'node:os';
import path from 'node:path';

/** The cache folder: `VIOCTL_CACHE`, or `~/.cache/vioctl`. Made when missing. */
export function cacheRoot(): string {
  const dir = path.resolve(process.env.VIOCTL_CACHE || path.join(process.env.HOME || homedir(), '.cache', 'vioctl'));
  mkdirSync(dir, { recursive: true });
  return dir;
}

/** The checkout: the folder at or above the working directory that holds test/vm. */
export function checkoutRoot(): string {
  for (let dir = process.cwd(); ; dir = path.dirname(dir)) {
    if (existsSync(path.join(dir, 'test', 'vm', 'cache.ts'))) return dir;
    if (dir === path.dirname(dir)) throw new Error(`${process.cwd()} is not inside a vioctl checkout`);
  }
}

/**
 * Runs `work` while holding the machine-wide lock `name`. flock(1) holds it, and lets go when this process ends in
 * whatever way, because its standard input is a pipe from here.
 */
export async function withLock<T>(name: string, work: () => Promise<T>): Promise<T> {
  const file = path.join(cacheRoot(), `${name}.lock`);
  const holder = spawn('flock', ['-x', file, 'sh', '-c', 'echo; exec cat >/dev/null'], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const ended = once(holder, 'exit');
  try {
    const first = await Promise.race([once(holder.stdout, 'data'), ended]);
    if (!Buffer.isBuffer(first[0])) throw new Error(`flock ${file} failed with status ${String(first[0])}`);
    return await work();
  } finally {
    holder.stdin.end();
    await ended;
  }
}

/**
 * The folder `name` of the cache; `fill` makes its contents in the folder it is given, once per machine: other
 * processes wait for the first one. What a failed `fill` left is removed.
 */
export async function cached(name: string, fill: (dir: string) => Promise<void>): Promise<string> {
  const dir = path.join(cacheRoot(), name);
  if (existsSync(dir)) return dir;
  return withLock(name, async () => {
    if (existsSync(dir)) return dir;
    const part = await mkdtemp(`${dir}.part-`);
    try {
      await fill(part);
      await rename(part, dir);
    } finally {
      rmSync(part, { recursive: true, force: true });
    }
    return dir;
  });
}

/** How a program ended: `status` is null when a signal ended it. */
export interface Ran {
  status: number | null;
  stdout: string;
  stderr: string;
}

/** Runs a program to its end, collecting its output. Rejects only when it cannot be started. */
export async function run(argv: readonly string[], options: { cwd?: string; input?: string } = {}): Promise<Ran> {
  const [program, ...rest] = argv;
  if (program === undefined) throw new Error('run: empty command');
  const child = spawn(program, rest, { cwd: options.cwd, stdio: ['pipe', 'pipe', 'pipe'] });
  const out: Buffer[] = [];
  const err: Buffer[] = [];
  child.stdout.on('data', (b: Buffer) => out.push(b));
  child.stderr.on('data', (b: Buffer) => err.push(b));
  child.stdin.on('error', (e: NodeJS.ErrnoException) => {
    if (e.code !== 'EPIPE') err.push(Buffer.from(`${e.message}\n`));
  });
  child.stdin.end(options.input ?? '');
  const [status] = (await once(child, 'close')) as [number | null];
  return { status, stdout: Buffer.concat(out).toString(), stderr: Buffer.concat(err).toString() };
}

/** Runs a program that must succeed; returns its standard output. The error carries the command and its stderr. */
export async function must(argv: readonly string[], options: { cwd?: string; input?: string } = {}): Promise<string> {
  const r = await run(argv, options);
  if (r.status !== 0) {
    throw new Error(`${argv.join(' ')}: status ${r.status}\n${`${r.stdout}${r.stderr}`.slice(-4000)}`);
  }
  return r.stdout;
}

/** One field of /etc/os-release, without quotes; empty when absent. */
export function osRelease(key: string): string {
  const line = readFileSync('/etc/os-release', 'utf8')
    .split('\n')
    .find((l) => l.startsWith(`${key}=`));
  return line ? line.slice(key.length + 1).replace(/^"|"$/g, '') : '';
}
