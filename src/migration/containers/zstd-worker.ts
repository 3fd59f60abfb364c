/**
 * The thread that decompresses zstd: reads `input` to its end, frame after frame (RFC 8878; Node's stream ends with the
 * first), writes to `output` and closes it, then posts what was wrong, or nothing. Reads and writes block, so that memory
 * stays bounded. A bundle of its own: dist/vioctl-zstd-worker.cjs.
 */
import fs from 'node:fs';
import type { Transform } from 'node:stream';
import { parentPort, workerData } from 'node:worker_threads';
import { nodeZstd } from './zstd.js';

const { input, output } = workerData as { input: number; output: number };
/** Bytes of one read, and the pause after a descriptor that someone made non-blocking had none. */
const readCalls = 1 << 18;
const pauseMs = 5;

/** The result of a call on a descriptor that may be non-blocking. */
function retried(call: () => number): number {
  const wait = new Int32Array(new SharedArrayBuffer(4));
  for (;;) {
    try {
      return call();
    } catch (err) {
      if ((err as NodeJS.ErrnoException).code !== 'EAGAIN') throw err;
      Atomics.wait(wait, 0, 0, pauseMs);
    }
  }
}

function read(): Buffer {
  const bytes = Buffer.allocUnsafe(readCalls);
  return bytes.subarray(
    0,
    retried(() => fs.readSync(input, bytes, 0, bytes.length, null)),
  );
}

function put(bytes: Buffer): void {
  for (let at = 0; at < bytes.length; ) at += retried(() => fs.writeSync(output, bytes, at, bytes.length - at));
}

/** One frame that begins with `rest`. @returns bytes that were read behind it; undefined at the end of the input */
async function frame(stream: Transform & { bytesWritten: number }, rest: Buffer): Promise<Buffer | undefined> {
  let given = 0;
  let over = false;
  const ended = new Promise<void>((resolve, reject) => {
    stream.on('end', () => {
      over = true;
      resolve();
    });
    stream.on('error', reject);
    stream.on('data', (bytes: Buffer) => {
      try {
        put(bytes);
      } catch (err) {
        reject(err);
      }
    });
  });
  for (let bytes = rest; ; ) {
    given += bytes.length;
    await Promise.race([ended, new Promise<void>((resolve) => stream.write(bytes, () => resolve()))]);
    if (over) return bytes.subarray(bytes.length - (given - stream.bytesWritten));
    const more = read();
    if (more.length === 0) {
      stream.end();
      await ended;
      return undefined;
    }
    bytes = more;
  }
}

async function frames(): Promise<void> {
  for (let rest: Buffer | undefined = read(); rest !== undefined && rest.length > 0; ) {
    rest = await frame(nodeZstd()!(), rest);
    if (rest?.length === 0) rest = read();
  }
}

frames()
  .then(
    () => '',
    (err: NodeJS.ErrnoException) => (err.code === 'EPIPE' ? '' : err.message), // EPIPE: the reader has seen enough
  )
  .then((said) => {
    fs.closeSync(output);
    parentPort!.postMessage(said);
  });
