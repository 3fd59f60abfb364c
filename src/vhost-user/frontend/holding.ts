import { Exit, VioError } from '../../common/errors.js';
import { firstFd, listenEnvironment } from '../../launch/handover.js';
import type { MapRequest } from '../shmem/regions.js';
import { connect } from '../wire/channel.js';
import { describeFd, type FdInfo } from '../wire/fds.js';
import type { BackEvent } from './back-service.js';
import { Window } from './window.js';

/** What `shmem window` tells, in order. */
export type WindowRecord =
  | {
      event: 'started';
      /** regions with their sizes */
      regions: { id: number; size: bigint }[];
      /** virtqueues that were started */
      queues: number;
    }
  | {
      event: 'map' | 'unmap';
      /** region */
      shmid: number;
      /** offset in the region */
      offset: bigint;
      /** bytes */
      len: bigint;
      /** offset in the file */
      fdOffset: bigint;
      /** the back-end asked for a writable mapping */
      writable: boolean;
      /** error with which the request was answered */
      errno?: string;
      /** the file that came with the request */
      fd?: FdInfo;
    }
  | {
      event: 'ended';
      /** exit status of the command */
      status?: number;
    };

export interface WindowHolding {
  socket: string;
  queues: number;
  /** Milliseconds; none: until the signal or the back-end ends. */
  timeout: number | undefined;
  command: string[] | undefined;
  env: NodeJS.ProcessEnv;
  /** Runs the command with descriptors from 3 on and gives its exit status; signals reach it. */
  run: (program: { argv: string[]; fds: number[]; env: NodeJS.ProcessEnv }) => Promise<number>;
  toJson: (value: unknown) => string;
  signal: AbortSignal;
  onRecord: (record: WindowRecord) => Promise<void>;
  onLog: (text: string) => void;
}

/** Holds a back-end's regions. @returns exit status: the command's, or 0 @throws VioError */
export async function holdWindow(options: WindowHolding): Promise<number> {
  const { signal, timeout } = options;
  let mapped: () => void = () => {};
  const firstMapping = new Promise<void>((resolve) => {
    mapped = resolve;
  });
  let failed: (err: unknown) => void = () => {};
  const failure = new Promise<never>((_resolve, reject) => {
    failed = reject;
  });
  failure.catch(() => {}); // thrown by the races below
  let told: Promise<void> = Promise.resolve();
  const record = (r: WindowRecord): void => {
    told = told.then(() => options.onRecord(r));
    told.catch(failed);
  };
  const onEvent = (event: BackEvent): void => {
    const kind = event.op === 'BACKEND_SHMEM_MAP' ? 'map' : event.op === 'BACKEND_SHMEM_UNMAP' ? 'unmap' : undefined;
    if (!kind) return;
    const { shmid, shmOffset, len, fdOffset, flags } = event.request as unknown as MapRequest;
    record({
      event: kind,
      shmid,
      offset: shmOffset,
      len,
      fdOffset,
      writable: flags === 1n,
      ...(event.errno && { errno: event.errno }),
      ...(event.mapping && { fd: describeFd(event.mapping.fd.fd) }),
    });
    if (event.mapping) mapped();
  };
  const window = await Window.open(await connect(options.socket, Math.min(5000, timeout ?? 5000), signal), {
    queues: options.queues,
    signal,
    onEvent,
    onLog: options.onLog,
  });
  let timer: NodeJS.Timeout | undefined;
  try {
    await window.start();
    record({ event: 'started', regions: [...window.regions.sizes].map(([id, size]) => ({ id, size })), queues: window.queues });
    const over = new Promise<'over'>((resolve) => {
      signal.addEventListener('abort', () => resolve('over'), { once: true });
    });
    const late = new Promise<'late'>((resolve) => {
      if (timeout !== undefined) timer = setTimeout(() => resolve('late'), timeout);
    });
    const gone = window.front.exchange.ended.then(() => 'gone' as const);
    let status: number | undefined;
    if (options.command && options.command.length > 0) {
      const first = await Promise.race([firstMapping.then(() => 'mapped' as const), over, late, gone, failure]);
      if (first === 'late') throw new VioError('no mapping has come', { code: 'ETIMEDOUT', exit: Exit.timeout });
      await told; // the command writes to the same stdout
      if (first === 'mapped') status = await runCommand(options.command, window, options);
    } else await Promise.race([over, late, gone, failure]);
    record({ event: 'ended', ...(status !== undefined && { status }) });
    await told;
    if (!window.front.exchange.channel.closed)
      await window.stop(true).catch((err: Error) => {
        if (!signal.aborted) throw err;
        options.onLog(`the back-end was left running: ${err.message}`);
      });
    return status ?? Exit.ok;
  } finally {
    clearTimeout(timer);
    window.close();
  }
}

function runCommand(command: string[], window: Window, options: WindowHolding): Promise<number> {
  const mappings = window.regions.list();
  const fds = mappings.map((m) => m.fd.fd);
  const told = mappings.map(({ shmid, shmOffset, fdOffset, len, writable }, i) => ({
    fd: firstFd + i,
    shmid,
    offset: shmOffset,
    fdOffset,
    len,
    writable,
  }));
  const names = told.map(({ shmid }) => `shmem-${shmid}`);
  const env = { ...options.env, VIOCTL_SHMEM: options.toJson(told), ...listenEnvironment(names) };
  return options.run({ argv: command, fds, env });
}
