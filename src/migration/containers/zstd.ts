/** zstd in this process, where Node has it (22.15 and 24 on): a thread decompresses between two descriptors. */
import type { Decompressor } from './decompress.js';

/** node:zlib as newer Nodes have it, asked of the running one: the bundle knows only what the oldest has. */
const zlib = (): { createZstdDecompress?: unknown } | undefined =>
  (process as { getBuiltinModule?: (name: string) => object }).getBuiltinModule?.('node:zlib');

/** Whether this Node decompresses zstd. */
export const hasZstd = (): boolean => typeof zlib()?.createZstdDecompress === 'function';

/**
 * The thread: reads `input` to its end, frame after frame (RFC 8878; Node's stream ends with the first), writes to
 * `output` and closes it, then posts what was wrong, or nothing. Reads and writes block, so that memory stays bounded.
 */
const thread = `
const { workerData: { input, output }, parentPort } = require('node:worker_threads');
const fs = require('node:fs');
const zlib = require('node:zlib');
const wait = new Int32Array(new SharedArrayBuffer(4));
function retried(call) {
  for (;;) {
    try {
      return call();
    } catch (err) {
      if (err.code !== 'EAGAIN') throw err;
      Atomics.wait(wait, 0, 0, 5);
    }
  }
}
function read() {
  const bytes = Buffer.allocUnsafe(1 << 18);
  return bytes.subarray(0, retried(() => fs.readSync(input, bytes, 0, bytes.length, null)));
}
function put(bytes) {
  for (let at = 0; at < bytes.length; ) at += retried(() => fs.writeSync(output, bytes, at, bytes.length - at));
}
async function frames() {
  for (let rest = read(); rest.length > 0; ) {
    const stream = zlib.createZstdDecompress();
    let given = 0;
    let over = false;
    const ended = new Promise((resolve, reject) => {
      stream.on('end', () => resolve((over = true)));
      stream.on('error', reject);
      stream.on('data', (bytes) => {
        try {
          put(bytes);
        } catch (err) {
          reject(err);
        }
      });
    });
    for (;;) {
      given += rest.length;
      await Promise.race([ended, new Promise((resolve) => stream.write(rest, resolve))]);
      if (over) break;
      const more = read();
      if (more.length === 0) {
        stream.end();
        return ended;
      }
      rest = more;
    }
    rest = rest.subarray(rest.length - (given - stream.bytesWritten));
    if (rest.length === 0) rest = read();
  }
}
frames().then(
  () => '',
  (err) => (err.code === 'EPIPE' ? '' : err.message), // EPIPE: the reader has seen enough
).then((said) => {
  fs.closeSync(output);
  parentPort.postMessage(said);
});
`;

/** Starts the thread on a descriptor at its present position. @param ends of a pipe: the caller owns the first, the thread closes the second */
export function zstd(input: number, [fd, output]: readonly [number, number]): Decompressor {
  const { Worker } = (process as unknown as { getBuiltinModule: (name: string) => typeof import('node:worker_threads') }).getBuiltinModule(
    'node:worker_threads',
  );
  const worker = new Worker(thread, { eval: true, workerData: { input, output }, trackUnmanagedFds: false });
  const ended = new Promise<string | undefined>((resolve) => {
    worker.on('message', (said: string) => resolve(said === '' ? undefined : `zstd: ${said}`));
    worker.on('error', (err) => resolve(`zstd: ${err.message}`));
  });
  return { fd, ended };
}
