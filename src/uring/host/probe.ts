import fs from 'node:fs';
import os from 'node:os';
import { codeOf, Exit, VioError } from '../../common/errors.js';
import type { Sysroot } from '../../common/sysroot.js';
import { native } from '../../native/index.js';
import { features, type Named, Op, Reg, registerOps, requestOps, Setup, setupFlags } from '../abi.js';
import { Ring, type RingOptions } from '../ring/ring.js';
import { FileTable } from '../ring/table.js';
import { type Cause, explain, limitOf } from './unavailable.js';

/** One thing that io_uring can or cannot do here. */
export interface Ability {
  name: string;
  /** Kernel version that brought it. */
  since: string;
  supported: boolean;
}

/** Everything that `uring probe` reports. */
export interface ProbeReport {
  /** a ring can be created */
  available: boolean;
  /** Why it is not available. */
  cause: Cause | undefined;
  /** release of the kernel */
  kernel: string;
  /** sysctls kernel.io_uring_disabled and kernel.io_uring_group, if the kernel has them (6.6) */
  sysctl: { disabled: string | undefined; group: string | undefined };
  /** this process has a seccomp filter */
  seccomp: boolean;
  /** query: the kernel listed its register opcodes (REGISTER_QUERY); concluded: derived from other features */
  registerOpsFrom: 'query' | 'concluded';
  /** uses of io_uring that were tried, and whether each works */
  abilities: Ability[];
  /** request opcodes, and whether each works */
  requestOps: Ability[];
  /** opcodes of io_uring_register(2), and whether each works */
  registerOps: Ability[];
  /** flags of io_uring_setup(2), and whether each works */
  setupFlags: Ability[];
  /** features that the kernel reports */
  features: Ability[];
  /** entries of a ring, slots of a file table, open files and locked memory */
  limits: { entries: number; files: number; openFiles: number | undefined; lockedMemory: number | undefined };
}

const { singleIssuer, coopTaskrun, sqpoll, noMmap, iopoll } = Setup;
/** Flags that are refused alone, and what they need beside them. */
const companions: Record<string, number> = {
  sq_aff: sqpoll,
  taskrun_flag: coopTaskrun,
  defer_taskrun: singleIssuer,
  registered_fd_only: noMmap,
  hybrid_iopoll: iopoll,
  sq_rewind: 2 ** 16, // NO_SQARRAY
};
const EFAULT = -14;

/** Versions as numbers that compare: 6.12 above 6.9. */
const order = (version: string): number => {
  const [major, minor] = version.split('.').map(Number);
  return major! * 1000 + minor!;
};

const ability = ({ name, since }: Named, supported: boolean): Ability => ({ name, since, supported });

/** Set-up flags of REGISTER_QUERY, or each tried on a small ring. */
function probeSetupFlags(asked: number | undefined): Ability[] {
  const { setup } = native().uring;
  const attach = setupFlags.findIndex(({ name }) => name === 'attach_wq');
  return setupFlags.map((flag, bit) => {
    if (asked !== undefined) return ability(flag, Math.floor(asked / flag.value) % 2 === 1);
    // ATTACH_WQ needs another ring; the flags behind it came later, so one of them proves it.
    if (bit === attach) return ability(flag, setup(4, 0, Setup.rDisabled) >= 0);
    const result = setup(4, flag.name === 'cqsize' ? 16 : 0, flag.value + (companions[flag.name] ?? 0));
    return ability(flag, result >= 0 || (result === EFAULT && flag.value >= noMmap)); // NO_MMAP without memory: EFAULT
  });
}

/** REGISTER_QUERY (6.18): counts of opcodes and flag words; undefined on older kernels. */
function query(): { requestOps: number; registerOps: number; setup: number } | undefined {
  const answer = new DataView(new ArrayBuffer(48)); // struct io_uring_query_opcode
  const header = new DataView(new ArrayBuffer(40)); // struct io_uring_query_hdr
  const { addressOf, registerRaw } = native().uring;
  header.setBigUint64(8, BigInt(addressOf(new Uint8Array(answer.buffer))), true);
  header.setUint32(20, 48, true);
  const result = registerRaw(-1, Reg.registerQuery, new Uint8Array(header.buffer), 0);
  if (result < 0 || header.getInt32(24, true) < 0) return undefined;
  const setup = Number(answer.getBigUint64(16, true));
  return { requestOps: answer.getUint32(0, true), registerOps: answer.getUint32(4, true), setup };
}

/** Request opcodes of REGISTER_PROBE. */
function probeRequestOps(ring: Ring): Ability[] {
  const probe = new DataView(new ArrayBuffer(16 + 256 * 8)); // struct io_uring_probe, 256 io_uring_probe_op
  const result = ring.register(Reg.registerProbe, new Uint8Array(probe.buffer), 256);
  return requestOps.map((op) => ability(op, result >= 0 && (probe.getUint16(16 + op.value * 8 + 2, true) & 1) === 1));
}

type Trial = (table: FileTable, ring: Ring) => Promise<unknown> | unknown;
/** What users do with registered files; each begins with an empty table. */
const trials: [name: string, since: string, trial: Trial][] = [
  ['registered_files', '5.1', (table) => table.register([-1])],
  ['sparse_table', '5.19', (table) => table.registerSparse(2)],
  ['update_files', '5.5', (table) => sparse(table).update(0, [-1])],
  ['openat_direct', '5.15', (table) => sparse(table).open('/dev/null', 0, 1)],
  ['openat_direct_alloc', '5.19', (table) => sparse(table).open('/dev/null', 0)],
  ['file_alloc_range', '6.0', (table) => sparse(table).allocRange(1, 1)],
  ['msg_ring_fd', '6.0', sendToSelf],
  ['fd_install', '6.8', installNull],
  ['fixed_buffers', '5.1', (_, ring) => ring.registerBuffers([Buffer.alloc(4096)])],
  ['registered_ring_fd', '5.18', (_, ring) => assert(ring.info.registered)],
  ['one_thread_ring', '6.1', (_, ring) => assert((ring.info.flags & Setup.deferTaskrun) !== 0)],
];

function sparse(table: FileTable): FileTable {
  table.registerSparse(2);
  return table;
}

function assert(holds: boolean): void {
  if (!holds) throw new VioError('not offered', { code: 'EINVAL' });
}

async function sendToSelf(table: FileTable): Promise<void> {
  const other = await smallRing({ prefer: 0 });
  try {
    new FileTable(other).registerSparse(1);
    table.registerSparse(1);
    await table.send(await table.open('/dev/null', 0, 0), other.fd, 0);
  } finally {
    other.close();
  }
}

async function installNull(table: FileTable): Promise<void> {
  table.registerSparse(1);
  const fd = await table.install(await table.open('/dev/null', 0, 0));
  fs.closeSync(fd);
}

/**
 * A small ring, also where locked memory is scarce: the kernel gives back the memory of the rings before it only some
 * milliseconds after they were closed.
 */
async function smallRing(options: RingOptions = {}): Promise<Ring> {
  for (let tries = 0; ; tries++) {
    try {
      return new Ring({ entries: 4, ...options });
    } catch (err) {
      if (codeOf(err) !== 'ENOMEM' || tries === 50) throw err;
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }
}

/** Each trial on the same ring: to close one and open the next takes longer than most trials. */
async function tryAll(ring: Ring): Promise<Ability[]> {
  const abilities: Ability[] = [];
  for (const [name, since, trial] of trials) {
    const table = new FileTable(ring);
    try {
      await trial(table, ring);
      abilities.push({ name, since, supported: true });
    } catch (err) {
      if (codeOf(err) === undefined) throw err;
      abilities.push({ name, since, supported: false });
    } finally {
      table[Symbol.dispose]();
    }
  }
  return abilities;
}

/** Asks the kernel what its io_uring can do; where it has none, says why. Opens small rings and closes them. */
export async function probe(sysroot: Sysroot, release = os.release()): Promise<ProbeReport> {
  const sysctl = { disabled: sysroot.attr('/proc/sys/kernel/io_uring_disabled'), group: sysroot.attr('/proc/sys/kernel/io_uring_group') };
  const openFiles = limitOf(sysroot, 'Max open files')?.soft;
  const lockedMemory = limitOf(sysroot, 'Max locked memory')?.soft;
  const none = (table: readonly Named[]) => table.map((entry) => ability(entry, false));
  const report: ProbeReport = {
    available: false,
    cause: undefined,
    kernel: release,
    sysctl,
    seccomp: /^Seccomp:\s*2/m.test(sysroot.attr('/proc/self/status') ?? ''),
    registerOpsFrom: 'concluded',
    abilities: trials.map(([name, since]) => ({ name, since, supported: false })),
    requestOps: none(requestOps),
    registerOps: none(registerOps),
    setupFlags: none(setupFlags),
    features: none(features),
    limits: { entries: 0, files: 0, openFiles, lockedMemory },
  };
  let ring: Ring | undefined;
  try {
    ring = new Ring({ entries: 4 });
    await ring.request({ opcode: Op.nop }); // a seccomp filter may allow to open rings and forbid to enter them
  } catch (err) {
    ring?.close();
    return { ...report, cause: explain(codeOf(err), sysroot, release) };
  }
  const asked = query();
  const { features: bits } = ring.info;
  const ops = probeRequestOps(ring);
  const abilities = await tryAll(ring).finally(() => ring.close());
  const flags = probeSetupFlags(asked?.setup);
  const found = features.map((feature) => ability(feature, (bits & feature.value) !== 0));
  const newest = Math.max(0, ...[...ops, ...flags, ...found].filter((a) => a.supported).map((a) => order(a.since)));
  return {
    ...report,
    available: true,
    registerOpsFrom: asked ? 'query' : 'concluded',
    abilities,
    requestOps: ops,
    registerOps: registerOps.map((op) => ability(op, asked ? op.value < asked.registerOps : order(op.since) <= newest)),
    setupFlags: flags,
    features: found,
    limits: { entries: largestRing(), files: Math.min(1 << 20, openFiles ?? 1 << 20), openFiles, lockedMemory },
  };
}

/** The largest submission queue that set-up accepts: a power of two up to 32768. */
function largestRing(): number {
  for (let entries = 32768; entries > 0; entries /= 2) if (native().uring.setup(entries, 0, 0) >= 0) return entries;
  return 0;
}

/** The error (7) of a report that says no. */
export function notAvailable({ cause }: ProbeReport): VioError {
  const { kind, why, hint } = cause!;
  return new VioError(`io_uring is not available: ${why}`, { code: 'UNAVAILABLE', exit: Exit.unsupported, hint, details: { kind } });
}

/**
 * Checks that everything named is there. Names are those of the report's lists.
 * @throws usage for a name that is in no list; UNAVAILABLE or UNSUPPORTED (7) naming what is missing and since when it exists
 */
export function requireAll(report: ProbeReport, names: readonly string[]): void {
  const all = [...report.abilities, ...report.requestOps, ...report.registerOps, ...report.setupFlags, ...report.features];
  const unknown = names.filter((name) => !all.some((a) => a.name === name));
  if (unknown.length > 0)
    throw new VioError(`no such feature: ${unknown.join(', ')}`, {
      code: 'USAGE',
      exit: Exit.usage,
      hint: 'vioctl uring probe names them all',
    });
  if (!report.available) throw notAvailable(report);
  const missing = names.flatMap((name) =>
    all.some((a) => a.name === name && a.supported) ? [] : all.filter((a) => a.name === name).slice(0, 1),
  );
  if (missing.length === 0) return;
  throw new VioError(`missing: ${missing.map((a) => `${a.name} (kernel ${a.since})`).join(', ')}; this is kernel ${report.kernel}`, {
    code: 'UNSUPPORTED',
    exit: Exit.unsupported,
    details: { missing },
    hint: 'a newer kernel',
  });
}
