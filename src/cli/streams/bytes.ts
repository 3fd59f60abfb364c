/** Bulk bytes of commands that are part of a pipeline: a source and a sink over stdin, stdout or a file. */
import fs from 'node:fs';
import { wrap } from '../../common/errors.js';
import { printable } from '../../common/escape.js';
import { FdWriter } from '../output/stdio.js';
import type { Lifetime } from '../signals.js';
import { readSome } from './input.js';
import { partFile } from './part-file.js';

/** Where bytes go. */
export interface ByteSink {
  /** Resolves when the bytes have left: their memory may be used again. @throws ClosedPipe, WriteError */
  write(data: Uint8Array): Promise<void>;
  /** Everything has left, and the file has its name. */
  end(): Promise<void>;
}

/** @param file a path, which has its earlier content until the end, or `-` for stdout. @throws VioError when it cannot be opened */
export async function byteSink(file: string, life: Lifetime): Promise<ByteSink> {
  let fd = 1;
  const output = partFile(file, life);
  if (file !== '-') {
    try {
      fd = fs.openSync(output?.part ?? file, 'w');
    } catch (err) {
      throw wrap(printable(file), err);
    }
    life.release(() => {
      if (fd > 1) fs.closeSync(fd);
    });
  }
  const writer = new FdWriter(fd, { bulk: true });
  return {
    async write(data) {
      writer.write(data);
      await writer.flush();
    },
    async end() {
      await writer.flush();
      if (fd > 1) fs.closeSync(fd);
      fd = -1;
      output?.finish();
    },
  };
}

/** Where bytes come from. */
export interface ByteSource {
  /** Size of a regular file from its current position on; undefined for pipes. */
  size: number | undefined;
  /** The bytes, each buffer in fresh memory. */
  bytes: AsyncIterable<Buffer>;
}

/** Where a descriptor stands in its file: proc_pid_fdinfo(5). */
const position = (fd: number): number => Number(/^pos:\s*(\d+)/m.exec(fs.readFileSync(`/proc/self/fdinfo/${fd}`, 'latin1'))?.[1] ?? 0);

const readSize = 256 * 1024;

/** @param file a path, or `-` for stdin. @throws VioError when it cannot be opened */
export function byteSource(file: string, life: Lifetime): ByteSource {
  let fd = 0;
  if (file !== '-') {
    try {
      fd = fs.openSync(file, 'r');
    } catch (err) {
      throw wrap(printable(file), err);
    }
    life.release(() => fs.closeSync(fd));
  }
  let size: number | undefined;
  try {
    const stat = fs.fstatSync(fd);
    if (stat.isFile()) size = Math.max(0, stat.size - position(fd)); // stdin may have been read from already
  } catch (err) {
    throw wrap(file === '-' ? 'stdin' : printable(file), err);
  }
  return { size, bytes: readAll(fd, file, life.signal) };
}

async function* readAll(fd: number, file: string, signal: AbortSignal): AsyncGenerator<Buffer, void> {
  for (;;) {
    const buffer = Buffer.allocUnsafeSlow(readSize);
    let n: number;
    try {
      n = await readSome(fd, buffer, signal);
    } catch (err) {
      throw signal.aborted ? err : wrap(file === '-' ? 'stdin' : printable(file), err);
    }
    if (n === 0) return;
    yield buffer.subarray(0, n);
  }
}
