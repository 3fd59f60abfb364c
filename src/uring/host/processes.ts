import fs from 'node:fs';
import { codeOf, VioError, wrap } from '../../common/errors.js';
import type { Sysroot } from '../../common/sysroot.js';

/** A registered file of a ring, as fdinfo shows it: a path, or the bare name before kernel 6.4. */
export interface RegisteredFile {
  index: number;
  path: string;
}
export interface RegisteredBuffer {
  index: number;
  address: bigint;
  size: number;
}

/** What /proc/PID/fdinfo/FD says of a ring. */
export interface RingState {
  /** slots of the submission queue */
  sqEntries: number;
  /** slots of the completion queue */
  cqEntries: number;
  /** submissions that the kernel has not taken yet */
  sqPending: number;
  /** completions posted and not yet taken */
  cqPending: number;
  /** thread ID of the SQPOLL thread */
  sqThread: number | undefined;
  /** CPU that the SQPOLL thread runs on */
  sqThreadCpu: number | undefined;
  /** microseconds that the SQPOLL thread was awake (Linux 6.9) */
  sqTotalTime: number | undefined;
  /** microseconds that the SQPOLL thread worked (Linux 6.9) */
  sqWorkTime: number | undefined;
  /** Slots of the file table, holes included. */
  tableSize: number;
  /** registered files */
  files: RegisteredFile[];
  /** registered buffers */
  buffers: RegisteredBuffer[];
  /** Requests that wait in poll, by opcode. */
  polled: { opcode: number; taskWorks: number }[];
  /** Completions that did not fit into the queue. */
  overflow: { userData: bigint; result: number; flags: number }[];
  /** settings for busy polling of network queues */
  napi: string | undefined;
}

/** A ring of a process. */
export interface ProcessRing extends RingState {
  /** process ID */
  pid: number;
  /** name of the process */
  command: string;
  /** descriptor of the ring */
  fd: number;
}

/** A path as seq_file prints it: blank, tab, newline and backslash in octal. */
const pathOf = (text: string): string =>
  text.replace(/\\([0-7]{3})/g, (_, digits: string) => String.fromCharCode(Number.parseInt(digits, 8)));

/**
 * Parses the fdinfo of a ring (io_uring/fdinfo.c). Lines that are not known are left out: kernels add some.
 * @returns undefined where the text is not of a ring
 */
export function parseRing(text: string): RingState | undefined {
  const field = (name: string): number | undefined => {
    const match = new RegExp(`^${name}:\\s*(0x[0-9a-f]+|-?\\d+)`, 'm').exec(text);
    return match ? Number(match[1]) : undefined;
  };
  const sqMask = field('SqMask');
  const cqMask = field('CqMask');
  if (sqMask === undefined || cqMask === undefined) return undefined;
  const state: RingState = {
    sqEntries: sqMask + 1,
    cqEntries: cqMask + 1,
    sqPending: ((field('SqTail') ?? 0) - (field('SqHead') ?? 0)) >>> 0,
    cqPending: ((field('CqTail') ?? 0) - (field('CqHead') ?? 0)) >>> 0,
    sqThread: positive(field('SqThread')),
    sqThreadCpu: positive(field('SqThreadCpu')),
    sqTotalTime: field('SqTotalTime'),
    sqWorkTime: field('SqWorkTime'),
    tableSize: field('UserFiles') ?? 0,
    files: [],
    buffers: [],
    polled: [],
    overflow: [],
    napi: /^NAPI:\s*(\S+)/m.exec(text)?.[1],
  };
  let section = '';
  for (const line of text.split('\n')) {
    const heading = /^([A-Za-z]+):/.exec(line);
    if (heading) section = heading[1]!;
    else parseLine(section, line, state);
  }
  return state;
}

const positive = (value: number | undefined): number | undefined => (value === undefined || value < 0 ? undefined : value);

function parseLine(section: string, line: string, state: RingState): void {
  const indexed = /^\s*(\d+): (.*)$/.exec(line);
  if (section === 'UserFiles' && indexed && indexed[2] !== '<none>') {
    state.files.push({ index: Number(indexed[1]), path: pathOf(indexed[2]!) });
  } else if (section === 'UserBufs' && indexed) {
    const buffer = /^(0x[0-9a-f]+)\/(\d+)/.exec(indexed[2]!);
    if (buffer) state.buffers.push({ index: Number(indexed[1]), address: BigInt(buffer[1]!), size: Number(buffer[2]) });
  } else if (section === 'PollList') {
    const poll = /^\s*op=(\d+), task_works=(\d+)/.exec(line);
    if (poll) state.polled.push({ opcode: Number(poll[1]), taskWorks: Number(poll[2]) });
  } else if (section === 'CqOverflowList') {
    const entry = /^\s*user_data=(\d+), res=(-?\d+), flags=([0-9a-fx]+)/.exec(line);
    if (entry) state.overflow.push({ userData: BigInt(entry[1]!), result: Number(entry[2]), flags: Number.parseInt(entry[3]!, 16) });
  }
}

/**
 * Rings of one process.
 * @throws ENOENT (no such process), EACCES (6: its descriptors may not be looked at)
 */
export function ringsOf(sysroot: Sysroot, pid: number): ProcessRing[] {
  let fds: number[];
  try {
    fds = fs.readdirSync(sysroot.path(`/proc/${pid}/fd`)).map(Number);
  } catch (err) {
    if (codeOf(err) === 'ENOENT') throw new VioError(`no process ${pid}`, { code: 'ESRCH', hint: 'vioctl uring list' });
    const hint = codeOf(err) === 'EACCES' ? 'run as its user or as root' : undefined;
    throw wrap(`process ${pid}`, err, { hint });
  }
  const command = sysroot.attr(`/proc/${pid}/comm`) ?? '?';
  const rings: ProcessRing[] = [];
  for (const fd of fds.sort((a, b) => a - b)) {
    if (sysroot.readlink(`/proc/${pid}/fd/${fd}`) !== 'anon_inode:[io_uring]') continue;
    const state = parseRing(sysroot.attr(`/proc/${pid}/fdinfo/${fd}`) ?? '');
    if (state) rings.push({ pid, command, fd, ...state });
  }
  return rings;
}

/** Rings of all processes, and how many processes may not be looked at. */
export function allRings(sysroot: Sysroot): { rings: ProcessRing[]; hidden: number } {
  const rings: ProcessRing[] = [];
  let hidden = 0;
  const pids = sysroot.list('/proc').filter((name) => /^\d+$/.test(name));
  for (const pid of pids.map(Number).sort((a, b) => a - b)) {
    try {
      rings.push(...ringsOf(sysroot, pid));
    } catch (err) {
      const code = codeOf(err);
      if (code === 'EACCES') hidden++;
      else if (code !== 'ENOENT' && code !== 'ESRCH') throw err; // these: it has ended meanwhile
    }
  }
  return { rings, hidden };
}
