/** zstd in this process, where Node has it (22.15 and 24 on): a thread decompresses between two descriptors. */
import path from 'node:path';
import type { Transform } from 'node:stream';
import { packageRoot } from '../../native/index.js';

/** A running decompressor. The caller owns `fd`, its output. */
export interface Decompressor {
  fd: number;
  /** Resolves when the tool has ended: undefined if it was content, else what it said. Close `fd` before. */
  ended: Promise<string | undefined>;
}

type Builtin = (name: string) => unknown;
/** A module as the running Node has it: the types know only what the oldest has. */
const builtin = (name: string): unknown => (process as { getBuiltinModule?: Builtin }).getBuiltinModule?.(name);

/** Node's own constructor of a decompressing stream; undefined where it has none. */
export const nodeZstd = (): (() => Transform & { bytesWritten: number }) | undefined =>
  (builtin('node:zlib') as { createZstdDecompress?: () => Transform & { bytesWritten: number } } | undefined)?.createZstdDecompress;

/** Whether this Node decompresses zstd. */
export const hasZstd = (): boolean => nodeZstd() !== undefined;

/** Starts the thread on a descriptor at its present position. @param ends of a pipe: the caller owns the first, the thread closes the second */
export function zstd(input: number, [fd, output]: readonly [number, number]): Decompressor {
  const { Worker } = builtin('node:worker_threads') as typeof import('node:worker_threads');
  const file = path.join(packageRoot(), 'dist', 'vioctl-zstd-worker.cjs');
  const worker = new Worker(file, { workerData: { input, output }, trackUnmanagedFds: false });
  const ended = new Promise<string | undefined>((resolve) => {
    worker.on('message', (said: string) => resolve(said === '' ? undefined : `zstd: ${said}`));
    worker.on('error', (err) => resolve(`zstd: ${err.message}`));
  });
  return { fd, ended };
}
