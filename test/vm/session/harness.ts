// What the cases of VFIO sessions in a guest work with: the devices, opening them, faults, results.
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import fs from 'node:fs';
import { Sysroot } from '../../../src/common/sysroot.js';
import { type Fault, watchFaults } from '../../../src/dma/faults.js';
import { Mapper } from '../../../src/dma/mapper.js';
import { native } from '../../../src/native/index.js';
import { Census } from '../../../src/vfio/census/census.js';
import { type Api, openSession } from '../../../src/vfio/session/open.js';
import type { Session } from '../../../src/vfio/session/session.js';

export const root = new Sysroot('/');
/** Alone in its group, with INTx and MSI, without any reset. */
export const EDU = '0000:00:01.0';
export const NVME = '0000:01:00.0';
/** On one conventional bus and in one group. */
export const NIC = '0000:03:01.0';
export const GROUP_EDU = '0000:03:02.0';
/** An NVMe controller that can have two virtual functions (guests of vfio-failures.test.ts). */
export const PF = '0000:04:00.0';
export const VF = '0000:04:00.1';
/** A device that takes injected PCIe errors (guests of vfio-failures.test.ts). */
export const AER = '0000:05:00.0';
export const vioctl = ['node', 'bin/run.js'] as const;
export const { vfio } = native();

export type Result = Record<string, unknown>;

/** Code, exit status and text of what the work throws. */
export function failure(work: () => unknown): { code: string; exit?: number; message: string; hint: string; details?: Result } {
  try {
    work();
  } catch (err) {
    const { code = '', exit, message, hint = '', details } = err as ReturnType<typeof failure>;
    return { code, exit, message, hint, details } as ReturnType<typeof failure>;
  }
  return { code: 'none', message: '', hint: '' };
}

export const open = (bdf: string, api: Api, ...shared: Session[]): Session => openSession(new Census(root), bdf, api, shared);

/** Opens, lets the work use it, closes. */
export async function withSession<T>(bdf: string, api: Api, work: (session: Session, mapper: Mapper) => T | Promise<T>): Promise<T> {
  const session = open(bdf, api);
  try {
    return await work(session, new Mapper(session.handle, session.aperture()));
  } finally {
    session.close();
  }
}

export const pattern = (size: number, seed: number): Buffer =>
  Buffer.from(Uint8Array.from({ length: size }, (_, i) => (i * seed + (i >> 8)) & 0xff));

/** Prepares an open edu for DMA. */
export function ready(session: Session): void {
  session.mapBar(0);
  session.busMaster(true);
}

/** The faults that the kernel logs meanwhile. It may leave some out (ten in five seconds is its limit): tried again then. */
export async function faultsDuring(work: () => Promise<void>): Promise<Fault[]> {
  const faults: Fault[] = [];
  const watch = watchFaults(root, new Set([EDU]), (fault) => faults.push(fault));
  for (let round = 0; round < 3 && faults.length === 0; round++) {
    await work();
    for (let i = 0; i < 150 && faults.length === 0; i++) await new Promise((resolve) => setTimeout(resolve, 20));
  }
  watch?.close();
  return faults;
}

/** Runs a shell script that must succeed. */
export function must(script: string): string {
  const { status, stdout, stderr } = spawnSync('sh', ['-c', script], { encoding: 'utf8', timeout: 120_000 });
  if (status !== 0) throw new Error(`${script}: status ${status}: ${stderr}`);
  return stdout;
}

/** Runs vioctl in a process of its own. */
export function cli(args: string[], env: NodeJS.ProcessEnv = {}): { status: number | null; stdout: string; stderr: string } {
  const [node, ...rest] = vioctl;
  const { status, stdout, stderr } = spawnSync(node, [...rest, ...args], { encoding: 'utf8', env: { ...process.env, ...env } });
  return { status, stdout, stderr };
}

/** A program that runs meanwhile; its output so far. */
export interface Background {
  child: ChildProcess;
  out: () => string;
  err: () => string;
  ended: Promise<number | null>;
  /** Waits until the output matches; throws when the program ends before. */
  says(pattern: RegExp, seconds?: number): Promise<void>;
}

export function background(argv: readonly string[], env: NodeJS.ProcessEnv = {}): Background {
  const child = spawn(argv[0]!, argv.slice(1), { stdio: ['pipe', 'pipe', 'pipe'], env: { ...process.env, ...env } });
  let [out, err] = ['', ''];
  child.stdout.on('data', (data: Buffer) => {
    out += data.toString();
  });
  child.stderr.on('data', (data: Buffer) => {
    err += data.toString();
  });
  const ended = new Promise<number | null>((resolve) => child.once('close', (code) => resolve(code)));
  const says = async (pattern: RegExp, seconds = 90): Promise<void> => {
    for (const end = Date.now() + seconds * 1000; !pattern.test(out); ) {
      if (child.exitCode !== null || Date.now() > end) throw new Error(`${argv.join(' ')} did not say ${pattern}: ${out}${err}`);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  };
  return { child, out: () => out, err: () => err, ended, says };
}

/** Runs work as user nobody, without capabilities. */
export function asNobody<T>(work: () => T): T {
  process.setegid!(65534);
  process.seteuid!(65534);
  try {
    return work();
  } finally {
    process.seteuid!(0);
    process.setegid!(0);
  }
}

export const driverOf = (bdf: string): string => {
  try {
    return fs.readlinkSync(`/sys/bus/pci/devices/${bdf}/driver`).split('/').at(-1)!;
  } catch {
    return '';
  }
};

export const groupOf = (bdf: string): string => fs.readlinkSync(`/sys/bus/pci/devices/${bdf}/iommu_group`).split('/').at(-1)!;

/** What this process has of VFIO: descriptors and mappings. */
export function leftOpen(): string[] {
  const links = fs.readdirSync('/proc/self/fd').flatMap((fd) => {
    try {
      return [fs.readlinkSync(`/proc/self/fd/${fd}`)];
    } catch {
      return []; // the folder's own descriptor
    }
  });
  const maps = fs.readFileSync('/proc/self/maps', 'utf8').split('\n');
  return [...links, ...maps].filter((text) => /vfio|\/dev\/iommu|memfd:vioctl/.test(text));
}

/** One thing to show on a device. What it returns is printed with the result. */
export interface SessionCase {
  /** About our own program, not about what a kernel does: shown on one kernel, as it takes many starts of the program. */
  once?: boolean;
  name: string;
  /** The APIs through which it is shown. */
  apis: readonly ('group' | 'cdev')[];
  run: (api: 'group' | 'cdev') => Promise<unknown>;
}

export const BOTH = ['group', 'cdev'] as const;
export const GROUP = ['group'] as const;
export const CDEV = ['cdev'] as const;

/** Name of a case through an API, as reports and tests have it. */
export const caseName = (one: SessionCase, api: string): string => `${one.name} (${api})`;

/** Runs cases one after another and prints one JSON line each. */
export async function runCases(cases: readonly SessionCase[], apis: readonly string[]): Promise<void> {
  for (const one of cases) {
    for (const api of one.apis.filter((name) => apis.includes(name))) {
      const begun = Date.now();
      let error: string | undefined;
      let result: unknown;
      try {
        result = await one.run(api);
        const left = leftOpen();
        if (left.length > 0) throw new Error(`left open: ${left.join('; ')}`);
      } catch (err) {
        error = err instanceof Error ? (err.stack ?? err.message) : String(err);
      }
      const report = { name: caseName(one, api), error, result, ms: Date.now() - begun };
      fs.writeSync(1, `${JSON.stringify(report, (_k, v: unknown) => (typeof v === 'bigint' ? `0x${v.toString(16)}` : v))}\n`);
    }
  }
}
