import path from 'node:path';
import { usage, VioError, wrap } from '../../common/errors.js';
import { printable } from '../../common/escape.js';
import { formatSize } from '../../common/units.js';
import { ask } from '../../control/client.js';
import { ControlServer } from '../../control/server.js';
import { unchangedLines } from '../../control/view.js';
import { native } from '../../native/index.js';
import type { BlkStats } from '../../native/vhost-user.js';
import { changedLimits, type LimitsReport, type LimitTexts, limitsReport, limitsText, limitWords } from '../../storage/limits.js';
import type { Source } from '../../storage/open.js';
import type { SourceWatch } from '../../storage/watch.js';

/** Actions of `vhost-user ctl`. */
export const blkActions = ['list', 'stats', 'throttle', 'resize', 'reopen'] as const;
export type BlkAction = (typeof blkActions)[number];

/** A request of `vhost-user ctl`. */
export interface BlkRequest {
  op: BlkAction;
  /** Socket or source of a disk, as it was written; the only one when left out. */
  disk?: string;
  /** Full path of it. */
  path?: string;
  limits?: LimitTexts;
  /** All checks, and nothing done. */
  dryRun?: boolean;
}

/** A served disk, as the control socket needs it. */
export interface ControlledDisk {
  readonly source: Source;
  /** Undefined for an inherited connection. */
  readonly socket: string | undefined;
  readonly queues: number;
  /** Whether a front-end is connected, and whether its rings run. */
  state(): { connected: boolean; running: boolean };
  /** Of its whole life. */
  stats(): BlkStats;
  /** Tells the front-end of a new size. */
  readonly watch: SourceWatch;
}

export interface DiskReport {
  socket?: string;
  source: string;
  size: number;
  blockSize: number;
  readOnly: boolean;
  queues: number;
  connected: boolean;
  running: boolean;
  /** Limits of the source, and the requests that they delay and have delayed. */
  limits?: LimitsReport;
  /** Errno name of the sync that has failed: flushes fail until the source is opened anew. */
  syncError?: string;
}

/** What a disk has done. */
export interface DiskStats extends BlkStats {
  socket?: string;
  source: string;
}

/** The answer to a change. */
export interface DiskChange extends DiskReport {
  changed: boolean;
  dryRun?: boolean;
  /** With --dry-run: what would be done. */
  would?: string[];
}

const service = 'vhost-user serve blk';

/** Answers requests at `path` until it is closed. @throws VioError */
export const serveBlkControl = (path: string, disks: readonly ControlledDisk[]): ControlServer =>
  new ControlServer(path, {
    name: service,
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

/** The disk that a request names. @throws VioError */
function diskOf(disks: readonly ControlledDisk[], name: string | undefined, full: string | undefined): ControlledDisk {
  const called = disks.filter(({ socket, source }) => socket === name || source.name === name);
  const at = disks.filter(({ socket, source }) => (socket !== undefined && path.resolve(socket) === full) || source.name === full);
  const found = name === undefined ? disks : called.length > 0 ? called : at;
  if (found.length === 1) return found[0]!;
  const message =
    name === undefined ? 'there are several disks' : `${found.length > 0 ? 'several disks are called' : 'no disk'} ${printable(name)}`;
  const sockets = (found.length > 0 ? found : disks).map(({ socket, source }) => printable(socket ?? source.name));
  throw new VioError(message, { code: 'NO_DISK', hint: `name one by its socket: ${sockets.join(', ')}` });
}

/** Answers one request. @throws VioError */
export async function perform(request: BlkRequest, disks: readonly ControlledDisk[]): Promise<unknown> {
  const { op, dryRun } = request;
  if (op === 'list') return { disks: disks.map((disk) => report(disk)) };
  if (op === 'stats')
    return {
      disks: disks.map((disk) => ({
        ...(disk.socket !== undefined && { socket: disk.socket }),
        source: disk.source.name,
        ...disk.stats(),
      })),
    };
  const disk = diskOf(disks, request.disk, request.path);
  const { todo, apply } = await plan(request, disk);
  if (dryRun) return { changed: false, dryRun: true, would: todo, ...report(disk) };
  if (todo.length > 0) await apply();
  return { changed: todo.length > 0, ...report(disk) };
}

async function plan({ op, limits }: BlkRequest, disk: ControlledDisk): Promise<{ todo: string[]; apply: () => unknown }> {
  const { source, watch } = disk;
  switch (op) {
    case 'throttle': {
      const changed = changedLimits(source.store, limits ?? {});
      return {
        todo: changed.todo.map((text) => `limit ${source.name} to ${text}`),
        apply: () => native().storage.setLimits(source.store, changed.limits),
      };
    }
    case 'resize': {
      const size = await watch.ask();
      return {
        todo: size === watch.size ? [] : [`resize ${source.name} from ${watch.size} to ${size} bytes`],
        apply: () => watch.take(size),
      };
    }
    case 'reopen':
      return {
        todo: [`open ${source.name} anew`],
        apply: () => watch.reopen(),
      };
    default:
      throw usage(`unknown request "${op}"`);
  }
}

/** The request of a command line. @throws usage error */
export function blkRequest(op: BlkAction, operands: readonly string[], dryRun: boolean): BlkRequest {
  const isLimit = (word: string): boolean => /^(iops|bps)=/.test(word);
  const words = op === 'throttle' ? operands.filter(isLimit) : [];
  const names = operands.filter((word) => !words.includes(word));
  const most = op === 'list' || op === 'stats' ? 0 : 1;
  if (names.length > most) throw usage(`${op}: too many operands: "${names[most]}"`);
  return {
    op,
    ...(names[0] !== undefined && { disk: names[0], path: path.resolve(names[0]) }),
    ...(op === 'throttle' && { limits: limitWords(words) }),
    ...(dryRun && most > 0 && { dryRun: true }),
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
    return unchangedLines(document) ?? [diskLine(document as DiskReport)];
  };
  return { document, view };
}
