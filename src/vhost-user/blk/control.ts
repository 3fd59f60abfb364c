import path from 'node:path';
import { Exit, usage, VioError, wrap } from '../../common/errors.js';
import { printable } from '../../common/escape.js';
import { toJson } from '../../common/json.js';
import { type ConfigText, maxConfigBytes, readConfigText } from '../../common/text/document.js';
import { formatSize } from '../../common/units.js';
import { ask } from '../../control/client.js';
import { type LoadReport, loadLines } from '../../control/load-report.js';
import { ControlServer } from '../../control/server.js';
import { unchangedLines } from '../../control/view.js';
import { native } from '../../native/index.js';
import type { BlkStats } from '../../native/vhost-user.js';
import { changedLimits, type LimitsReport, type LimitTexts, limitsReport, limitsText, limitWords } from '../../storage/limits.js';
import { parseBlkConfig } from './config/read.js';
import type { ControlledDisk, DiskOptions, DiskSet } from './model.js';
import { sameDisk, sameLimits } from './reload.js';
import { parseDisk } from './words.js';

/** Actions of `vhost-user ctl`. */
export const blkActions = ['list', 'stats', 'add', 'remove', 'throttle', 'resize', 'reopen', 'save', 'load'] as const;
export type BlkAction = (typeof blkActions)[number];

/** A request of `vhost-user ctl`. */
export interface BlkRequest {
  op: BlkAction;
  /** Socket or source of a disk, as it was written; the only one when left out. */
  disk?: string;
  /** Full path of it. */
  path?: string;
  limits?: LimitTexts;
  /** The disk to add; its paths are full. */
  add?: DiskOptions;
  /** The configuration to load. */
  file?: ConfigText;
  /** All checks, and nothing done. */
  dryRun?: boolean;
}

export interface DiskReport {
  /** path of its socket; absent for an inherited connection */
  socket?: string;
  /** source of the disk */
  source: string;
  /** bytes of the disk */
  size: number;
  /** bytes of a logical block */
  blockSize: number;
  /** writes are rejected */
  readOnly: boolean;
  /** virtqueues at most */
  queues: number;
  /** a front-end is connected */
  connected: boolean;
  /** its rings run */
  running: boolean;
  /** limits of the source, and the numbers of requests delayed now and so far */
  limits?: LimitsReport;
  /** errno name of a failed sync: flushes fail until the source is opened again */
  syncError?: string;
}

/** What a disk has done. */
export interface DiskStats extends BlkStats {
  socket?: string;
  source: string;
}

interface Change {
  /** false: the state was already as requested */
  changed: boolean;
  /** true with --dry-run: nothing was changed */
  dryRun?: boolean;
  /** With --dry-run: what would be done. */
  would?: string[];
}

/** The answer to a change. */
export type DiskChange = DiskReport & Change;

/** The answer to add with --dry-run, and to remove: a disk that is not served. */
export interface DiskGone extends Change {
  /** path of its socket */
  socket?: string;
  /** source of the disk */
  source?: string;
}

const service = 'vhost-user serve blk';
/** Longest request, in bytes: a configuration as a JSON text. */
const maxRequest = 2 * maxConfigBytes;

/** Answers requests at `path` until it is closed. @throws VioError */
export const serveBlkControl = (path: string, disks: DiskSet): ControlServer =>
  new ControlServer(path, {
    name: service,
    request: maxRequest,
    handle: async ({ op, args }) => ({ result: await perform({ ...args, op } as BlkRequest, disks) }),
  });

function report(disk: ControlledDisk): DiskReport {
  const { source, socket, queues } = disk;
  const { store, name, blockSize, readonly } = source;
  const limits = limitsReport(store);
  const syncError = native().storage.syncError(store);
  return {
    ...(socket !== undefined && { socket }),
    source: name,
    size: native().storage.size(store),
    blockSize,
    readOnly: readonly,
    queues,
    ...disk.state(),
    ...(limits && { limits }),
    ...(syncError !== undefined && { syncError }),
  };
}

/** The disks that have a name as it was written, or else as a full path. */
function called(disks: readonly ControlledDisk[], name: string, full: string | undefined): readonly ControlledDisk[] {
  const found = disks.filter(({ socket, source }) => socket === name || source.name === name);
  if (found.length > 0) return found;
  return disks.filter(({ socket, source }) => (socket !== undefined && path.resolve(socket) === full) || source.name === full);
}

/** The disk that a request names. @throws VioError */
function diskOf(disks: readonly ControlledDisk[], name: string | undefined, full: string | undefined): ControlledDisk {
  const found = name === undefined ? disks : called(disks, name, full);
  if (found.length === 1) return found[0]!;
  const message =
    name === undefined ? 'there are several disks' : `${found.length > 0 ? 'several disks are called' : 'no disk'} ${printable(name)}`;
  const sockets = (found.length > 0 ? found : disks).map(({ socket, source }) => printable(socket ?? source.name));
  throw new VioError(message, { code: 'NO_DISK', hint: `name one by its socket: ${sockets.join(', ')}` });
}

/** Answers one request. @throws VioError */
export async function perform(request: BlkRequest, set: DiskSet): Promise<unknown> {
  const { op, dryRun } = request;
  const { disks } = set;
  if (op === 'list') return { disks: disks.map((disk) => report(disk)) };
  if (op === 'stats')
    return {
      disks: disks.map((disk) => ({
        ...(disk.socket !== undefined && { socket: disk.socket }),
        source: disk.source.name,
        ...disk.stats(),
      })),
    };
  if (op === 'save') return set.save();
  if (op === 'load') return load(request, set);
  if (op === 'add' || op === 'remove') await set.idle();
  const { todo, apply, told } =
    op === 'add'
      ? await planAdd(request, set)
      : op === 'remove'
        ? planRemove(request, set)
        : await planChange(request, diskOf(disks, request.disk, request.path));
  if (dryRun) return { changed: false, dryRun: true, would: todo, ...told() };
  if (todo.length > 0) await apply();
  return { changed: todo.length > 0, ...told() };
}

async function load({ file, dryRun = false }: BlkRequest, set: DiskSet): Promise<LoadReport> {
  if (file === undefined) throw usage('load: which file?');
  const changes = await set.load(await parseBlkConfig(file), dryRun);
  return { changed: !dryRun && changes.length > 0, ...(dryRun && { dryRun }), changes };
}

/** What a request would change: found out first, so that it can be told without doing it. */
interface Plan {
  /** What is to be done, for people; empty if it is done. */
  todo: string[];
  apply: () => unknown;
  /** The disk, before or afterwards. */
  told: () => object;
}

async function planAdd({ add: wanted, dryRun }: BlkRequest, set: DiskSet): Promise<Plan> {
  const socket = wanted?.socket;
  if (wanted === undefined || socket === undefined) throw usage('add: which disk?', 'write it as SOCKET=SOURCE');
  const there = set.find(socket);
  if (there && sameDisk(there.options, set.complete(wanted)) && sameLimits(there.options.source, wanted.source))
    return { todo: [], apply: () => {}, told: () => report(there) };
  if (there)
    throw new VioError(`${printable(socket)}: ${printable(there.source.name)} is served there already, or with other options`, {
      code: 'EEXIST',
      exit: Exit.refused,
      hint: 'remove it first, or choose another socket',
    });
  const options = { ...wanted, socket, source: set.allow(wanted.source) };
  if (dryRun) await set.try(options);
  let disk: ControlledDisk | undefined;
  return {
    todo: [`serve ${options.source.source} at ${socket}`],
    apply: async () => {
      disk = await set.add(options);
    },
    told: () => (disk ? report(disk) : { socket, source: options.source.source }),
  };
}

function planRemove({ disk: name, path: full }: BlkRequest, set: DiskSet): Plan {
  if (name === undefined) throw usage('remove: which disk?', 'name it by its socket');
  const found = called(set.disks, name, full);
  if (found.length === 0) return { todo: [], apply: () => {}, told: () => ({ socket: full }) };
  const disk = diskOf(set.disks, name, full);
  const { socket, source } = disk;
  return {
    todo: [`end ${source.name}${socket === undefined ? '' : ` at ${socket}`}`],
    apply: () => set.remove(disk),
    told: () => ({ ...(socket !== undefined && { socket }), source: source.name }),
  };
}

async function planChange({ op, limits }: BlkRequest, disk: ControlledDisk): Promise<Plan> {
  const { source, watch } = disk;
  const told = () => report(disk);
  switch (op) {
    case 'throttle': {
      const changed = changedLimits(source.store, limits ?? {});
      return {
        todo: changed.todo.map((text) => `limit ${source.name} to ${text}`),
        apply: () => native().storage.setLimits(source.store, changed.limits),
        told,
      };
    }
    case 'resize': {
      const size = await watch.ask();
      return {
        todo: size === watch.size ? [] : [`resize ${source.name} from ${watch.size} to ${size} bytes`],
        apply: () => watch.take(size),
        told,
      };
    }
    case 'reopen':
      return { todo: [`open ${source.name} anew`], apply: () => watch.reopen(), told };
    default:
      throw usage(`unknown request "${op}"`);
  }
}

/** Operands that an action takes, besides limits. */
const operandsOf: Record<BlkAction, readonly [least: number, most: number]> = {
  list: [0, 0],
  stats: [0, 0],
  add: [1, 1],
  remove: [1, 1],
  throttle: [0, 1],
  resize: [0, 1],
  reopen: [0, 1],
  save: [0, 0],
  load: [1, 1],
};

const missing: ReadonlyMap<BlkAction, string> = new Map([
  ['add', 'SOCKET=SOURCE'],
  ['load', 'the file'],
]);
/** Actions that change nothing anyway. */
const readOnly: ReadonlySet<BlkAction> = new Set(['list', 'stats', 'save']);

/** The request of a command line. @throws usage error */
export function blkRequest(op: BlkAction, operands: readonly string[], dryRun: boolean): BlkRequest {
  const isLimit = (word: string): boolean => /^(iops|bps)=/.test(word);
  const words = op === 'throttle' ? operands.filter(isLimit) : [];
  const names = operands.filter((word) => !words.includes(word));
  const [least, most] = operandsOf[op];
  if (names.length > most) throw usage(`${op}: too many operands: "${names[most]}"`);
  if (names.length < least) throw usage(`${op}: ${missing.get(op) ?? 'the disk'} is missing`);
  const dry = dryRun && !readOnly.has(op) ? { dryRun: true } : {};
  if (op === 'load') return { op, file: readConfigText(names[0]!), ...dry };
  if (op === 'add') {
    const disk = parseDisk(names[0]!, {});
    return { op, add: { ...disk, socket: path.resolve(disk.socket) }, ...dry };
  }
  return {
    op,
    ...(names[0] !== undefined && { disk: names[0], path: path.resolve(names[0]) }),
    ...(op === 'throttle' && { limits: limitWords(words) }),
    ...dry,
  };
}

const diskLine = (disk: DiskReport): string =>
  [
    printable(disk.socket ?? '(inherited)'),
    `  ${formatSize(disk.size)}  ${disk.blockSize}${disk.readOnly ? ' ro' : ''}  `,
    disk.running ? 'running' : disk.connected ? 'connected' : 'idle',
    `  ${printable(disk.source)}`,
    limitsText(disk.limits ?? {}),
    disk.syncError === undefined ? '' : `  data may be lost (${disk.syncError})`,
  ].join('');

const removedLine = ({ socket, source }: DiskReport): string => `${printable(socket ?? source)} is not served any more`;

const statsLine = (disk: DiskStats): string =>
  `${printable(disk.socket ?? disk.source)}: ${disk.reads} reads (${formatSize(disk.bytesRead)}), ${disk.writes} writes ` +
  `(${formatSize(disk.bytesWritten)}), ${disk.flushes} flushes, ${disk.others} other, ${disk.errors} errors`;

/** Sends the request of a command line; gives the answer and how people see it. @param timeout milliseconds @throws VioError */
export async function runBlkControl(
  socket: string,
  request: BlkRequest,
  timeout: number,
): Promise<{ document: object; view: () => string[] }> {
  const unreachable = (err: unknown) => wrap(`connect to ${socket}`, err, { hint: 'vhost-user serve blk --control SOCK opens it' });
  const { op, ...args } = request;
  const document = (await ask<object>(socket, { service, unreachable, timeout }, op, args)).result;
  const view = (): string[] => {
    const { disks } = document as { disks?: never[] };
    if (op === 'list') return disks!.map(diskLine);
    if (op === 'stats') return disks!.map(statsLine);
    if (op === 'save') return toJson(document, 2, true).split('\n');
    if (op === 'load') return loadLines(document as LoadReport);
    if (op === 'remove') return unchangedLines(document) ?? [removedLine(document as DiskReport)];
    return unchangedLines(document) ?? [diskLine(document as DiskReport)];
  };
  return { document, view };
}
