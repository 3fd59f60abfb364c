// What the cases in the guest work with: the program in this process, the real program, holders, and the state of devices.
import assert from 'node:assert/strict';
import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { run } from '../../../src/cli/runner.js';

export { assert };

export interface Outcome {
  status: number;
  stdout: string;
  stderr: string;
}

/** Runs a command line in this process: a process of its own takes seconds to start under emulation. */
export async function vio(line: string, env: Record<string, string> = {}): Promise<Outcome> {
  const out: Record<number, string> = { 1: '', 2: '' };
  const { writeSync, write } = fs;
  const patched = fs as { writeSync: unknown; write: unknown };
  const take = (fd: number, data: string | Uint8Array, at = 0, length?: number): number => {
    const bytes = Buffer.from(data as string).subarray(at, length === undefined ? undefined : at + length);
    out[fd] += bytes.toString();
    return bytes.length;
  };
  const ours = (fd: number) => fd === 1 || fd === 2;
  patched.writeSync = (fd: number, data: string | Uint8Array, ...rest: number[]) =>
    ours(fd) ? take(fd, data, rest[0]) : (writeSync as (...args: unknown[]) => number)(fd, data, ...rest);
  // A command that catches signals writes in the background.
  patched.write = (fd: number, data: Uint8Array, at: number, length: number, position: null, done: (err: null, n: number) => void) => {
    if (!ours(fd)) return (write as (...args: unknown[]) => void)(fd, data, at, length, position, done);
    const n = take(fd, data, at, length);
    setImmediate(() => done(null, n));
  };
  try {
    const status = await run(['vfio', ...line.split(' ')], { ...process.env, ...env }, process.cwd());
    return { status, stdout: out[1]!, stderr: out[2]! };
  } finally {
    Object.assign(patched, { writeSync, write });
  }
}

/** The real program, for what needs a process of its own. */
export const program = ['node', path.resolve('bin/run.js'), 'vfio'];

/** How a program of its own ended. */
export interface Ended {
  status: number | null;
  signal: NodeJS.Signals | null;
  stderr: string;
}

/** Runs a command of the real program that sends itself a signal before its n-th write of a journal (cut.c). */
export function cut(line: string, signal: 'SIGKILL' | 'SIGINT', nth: number): Promise<Ended> {
  const child = spawn(program[0]!, [...program.slice(1), ...line.split(' ')], {
    stdio: ['ignore', 'ignore', 'pipe'],
    env: { ...process.env, LD_PRELOAD: '/tmp/cut.so', CUT_AT: String(nth), CUT_SIGNAL: signal === 'SIGKILL' ? '9' : '2' },
  });
  let stderr = '';
  child.stderr.on('data', (data: Buffer) => {
    stderr += data.toString();
  });
  return new Promise((resolve) => child.once('close', (status, sig) => resolve({ status, signal: sig, stderr })));
}

/** Runs another program and waits for it. */
export function sh(script: string): Outcome {
  const { status, stdout, stderr } = spawnSync('sh', ['-c', script], { encoding: 'utf8', timeout: 60_000 });
  return { status: status ?? -1, stdout, stderr };
}

/** Runs a shell script that must succeed. */
export function must(script: string): string {
  const { status, stdout, stderr } = sh(script);
  assert.equal(status, 0, `${script}: ${stderr}`);
  return stdout;
}

export const read = (file: string): string => {
  try {
    return fs.readFileSync(file, 'utf8').trim();
  } catch {
    return '';
  }
};

const link = (file: string): string => {
  try {
    return path.basename(fs.readlinkSync(file));
  } catch {
    return '';
  }
};

export const NVME = ['0000:01:00.0', '0000:02:00.0', '0000:03:00.0'] as const;
export const NIC = '0000:05:01.0';
export const GROUP_EDU = '0000:05:02.0';
export const BRIDGE = '0000:04:00.0';
export const EDU = '0000:00:05.0';

const dir = (bdf: string) => `/sys/bus/pci/devices/${bdf}`;
export const driverOf = (bdf: string): string => link(`${dir(bdf)}/driver`);
export const groupOf = (bdf: string): string => link(`${dir(bdf)}/iommu_group`);
export const overrideOf = (bdf: string): string => read(`${dir(bdf)}/driver_override`).replace('(null)', '');

/** Driver and override of every device: what a refused or undone command must leave as it was. */
export function allState(): string {
  return fs
    .readdirSync('/sys/bus/pci/devices')
    .sort()
    .map((bdf) => `${bdf} ${driverOf(bdf) || '-'} ${overrideOf(bdf) || '-'}`)
    .join('\n');
}

/** Files that a finished command must not leave. */
export const leftovers = (): string[] =>
  ['journal', 'claims'].flatMap((name) => {
    const at = `/run/vioctl/vfio/${name}`;
    return fs.existsSync(at) ? fs.readdirSync(at).map((file) => `${name}/${file}`) : [];
  });

export async function until(what: string, check: () => boolean, seconds = 60): Promise<void> {
  for (const end = Date.now() + seconds * 1000; !check(); ) {
    assert.ok(Date.now() < end, `timed out: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/** The block device of an NVMe controller, when it has come up. */
export async function disk(bdf: string): Promise<string> {
  let found = '';
  await until(`a disk of ${bdf}`, () => {
    for (const controller of fs.existsSync(`${dir(bdf)}/nvme`) ? fs.readdirSync(`${dir(bdf)}/nvme`) : []) {
      for (const name of fs.readdirSync(`${dir(bdf)}/nvme/${controller}`)) {
        const match = /^nvme(\d+)(?:c\d+)?n(\d+)$/.exec(name);
        if (match && fs.existsSync(`/dev/nvme${match[1]}n${match[2]}`)) found = `nvme${match[1]}n${match[2]}`;
      }
    }
    return found !== '';
  });
  return found;
}

/** A device node name of an NVMe controller: nvme0. */
export const controllerOf = (bdf: string): string => fs.readdirSync(`${dir(bdf)}/nvme`)[0] ?? '';

/** A network interface of a device, when it has come up. */
export async function nicOf(bdf: string): Promise<string> {
  await until(`an interface of ${bdf}`, () => fs.existsSync(`${dir(bdf)}/net`) && fs.readdirSync(`${dir(bdf)}/net`).length > 0);
  return fs.readdirSync(`${dir(bdf)}/net`)[0]!;
}

/** Starts a process that prints "ready" and stays. */
export async function background(argv: string[], env: NodeJS.ProcessEnv = process.env): Promise<ChildProcess> {
  const child = spawn(argv[0]!, argv.slice(1), { stdio: ['pipe', 'pipe', 'inherit'], env });
  await new Promise<void>((resolve, reject) => {
    child.stdout!.on('data', (data: Buffer) => data.toString().includes('ready') && resolve());
    child.once('exit', (code) => reject(new Error(`${argv.join(' ')} ended with ${code}`)));
  });
  return child;
}

export const hold = (bdf: string, how: 'fd' | 'map' | 'req'): Promise<ChildProcess> => background(['/tmp/hold', groupOf(bdf), bdf, how]);

/** Ends a process and waits for it. */
export async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const over = new Promise((resolve) => child.once('exit', resolve));
  child.kill('SIGKILL');
  await over;
}

/** A failure that must leave everything as it was: exit status, error code, and words of its message. */
export async function refuses(
  line: string,
  expected: { exit: number; code: string; says: RegExp; hint?: RegExp },
): Promise<Record<string, unknown>> {
  const before = allState();
  const { status, stdout, stderr } = await vio(`${line} --json`);
  const error = (JSON.parse(stderr) as { error: { code: string; message: string; hint?: string; details?: Record<string, unknown> } })
    .error;
  assert.equal(error.code, expected.code, stderr);
  assert.equal(status, expected.exit, stderr);
  assert.match(error.message, expected.says);
  if (expected.hint) assert.match(error.hint ?? '', expected.hint);
  assert.equal(stdout, '');
  assert.equal(allState(), before);
  assert.deepEqual(leftovers(), []);
  return error;
}

/** A command that must succeed; its JSON. */
export async function does<T = { devices: Record<string, unknown>[] }>(line: string): Promise<T> {
  const { status, stdout, stderr } = await vio(`${line} --json`);
  assert.equal(status, 0, stderr);
  return JSON.parse(stdout) as T;
}

/** Every device on its own driver, no VFIO left: what a case finds and leaves. */
export async function home(): Promise<void> {
  for (const bdf of [...NVME, NIC, GROUP_EDU, EDU]) {
    if (driverOf(bdf) === 'vfio-pci') execFileSync('sh', ['-c', `echo ${bdf} > /sys/bus/pci/drivers/vfio-pci/unbind`]);
    if (fs.existsSync(dir(bdf)) && overrideOf(bdf) !== '') fs.writeFileSync(`${dir(bdf)}/driver_override`, '\n');
    const driver = bdf === NIC ? 'e1000' : NVME.includes(bdf as never) ? 'nvme' : '';
    if (driver !== '' && driverOf(bdf) === '') fs.writeFileSync(`/sys/bus/pci/drivers/${driver}/bind`, bdf);
  }
  fs.rmSync('/run/vioctl', { recursive: true, force: true });
}

export interface Case {
  name: string;
  /** Counts as one of the failure cases. */
  failure?: boolean;
  /** About our own journals, not about what a kernel does: shown on one kernel, as it takes many starts of the program. */
  once?: boolean;
  /** What it returns is printed with the result. */
  run: () => Promise<unknown>;
}

/** Runs cases one after another; prints one JSON line each. */
export async function runCases(cases: readonly Case[]): Promise<void> {
  process.setMaxListeners(0);
  for (const { name, run: body } of cases) {
    const begun = Date.now();
    let error: string | undefined;
    let result: unknown;
    try {
      result = await body();
    } catch (err) {
      error = err instanceof Error ? (err.stack ?? err.message) : String(err);
    }
    fs.writeSync(1, `${JSON.stringify({ name, error, result, ms: Date.now() - begun })}\n`);
    if (error !== undefined) await home().catch((err) => fs.writeSync(2, `home: ${err}\n`));
  }
}
