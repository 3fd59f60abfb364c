import { isUtf8 } from 'node:buffer';
import fs from 'node:fs';
import { codeOf } from '../../common/errors.js';
import { native } from '../../native/index.js';
import { argumentBytes } from '../arguments/argv.js';
import { mayBlock } from '../exit.js';

/**
 * The next bytes of a descriptor; 0 at its end. The read goes on in libuv's pool when `signal` aborts: nothing else can
 * be done to it, and end() knows.
 * @throws the system's error; the signal's reason
 */
export async function readSome(fd: number, into: Buffer, signal?: AbortSignal): Promise<number> {
  for (;;) {
    signal?.throwIfAborted();
    const reading = mayBlock(
      new Promise<number>((resolve, reject) =>
        fs.read(fd, into, 0, into.length, null, (err, n) => (err ? (err.code === 'EOF' ? resolve(0) : reject(err)) : resolve(n))),
      ),
    );
    try {
      return await (signal ? unlessAborted(reading, signal) : reading);
    } catch (err) {
      if ((err as NodeJS.ErrnoException).code !== 'EAGAIN') throw err;
      await new Promise((resolve) => setTimeout(resolve, 2)); // somebody made our stdin non-blocking
    }
  }
}

function unlessAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const abort = (): void => reject(signal.reason);
    signal.addEventListener('abort', abort, { once: true });
    work.then(resolve, reject).finally(() => signal.removeEventListener('abort', abort));
  });
}

/**
 * Watches for the end of a descriptor's input and throws away what comes before. Nothing stays behind in a read(2), which
 * would keep the process from ending. Never ends where it is /dev/null, as under systemd.
 * @param ended called once
 */
export function watchEnd(fd: number, ended: () => void): { close(): void } {
  const stat = fs.fstatSync(fd);
  if (stat.isFile()) {
    const now = setImmediate(ended); // a file can always be read to its end
    return { close: () => clearImmediate(now) };
  }
  if (stat.isCharacterDevice() && stat.rdev === fs.statSync('/dev/null').rdev) return { close: () => {} };
  // A description of our own, so that a terminal that we share with others stays blocking; a socket has only the one.
  const own = stat.isSocket() ? fd : fs.openSync(`/proc/self/fd/${fd}`, fs.constants.O_RDONLY | fs.constants.O_NONBLOCK);
  const chunk = Buffer.alloc(4096);
  const atEnd = (): boolean => {
    try {
      return fs.readSync(own, chunk) === 0;
    } catch (err) {
      if (codeOf(err) === 'EAGAIN') return false;
      return true; // a terminal that is gone (EIO), a connection that was reset
    }
  };
  let watch: { close(): void } | undefined;
  let pause: NodeJS.Timeout | undefined;
  const close = (): void => {
    if (!watch && !pause) return;
    watch?.close();
    clearTimeout(pause);
    watch = pause = undefined;
    if (own !== fd) fs.closeSync(own);
  };
  const start = (): void => {
    pause = undefined;
    watch = native().vhostUser.watchReadable(own, () => {
      if (!watch) return;
      if (stat.isCharacterDevice() && inBackground()) {
        // what is typed is for somebody else: reading would stop us (SIGTTIN)
        watch.close();
        watch = undefined;
        pause = setTimeout(start, 200);
      } else if (atEnd()) {
        close();
        ended();
      }
    });
  };
  start();
  return { close };
}

/** Whether a job of another process group has our terminal (proc_pid_stat(5): pgrp and tpgid). */
function inBackground(): boolean {
  const text = fs.readFileSync('/proc/self/stat', 'latin1');
  const [, , group, , , foreground] = text.slice(text.lastIndexOf(')') + 2).split(' ');
  return foreground !== '-1' && foreground !== group;
}

/**
 * Items of a list on a descriptor (stdin), separated by newline or NUL, in constant memory. Empty items are left out;
 * a last item without separator counts. Names stay bytes-faithful as long as they are UTF-8.
 * @param separator 10 (newline) or 0 (`-0`)
 */
export async function* readList(fd: number, separator: 0 | 10): AsyncGenerator<string> {
  let rest: Buffer = Buffer.alloc(0);
  const chunk = Buffer.allocUnsafe(64 * 1024);
  for (;;) {
    const size = await readSome(fd, chunk);
    if (size === 0) break;
    const data = rest.length ? Buffer.concat([rest, chunk.subarray(0, size)]) : chunk.subarray(0, size);
    let at = 0;
    for (let end = data.indexOf(separator, at); end >= 0; end = data.indexOf(separator, at)) {
      if (end > at) yield data.toString('utf8', at, end);
      at = end + 1;
    }
    rest = Buffer.from(data.subarray(at));
  }
  if (rest.length > 0) yield rest.toString('utf8');
}

/** All items of a short list: the arguments, with `-` (or no argument at all, when `orStdin`) read from stdin. */
export async function collectList(args: string[], options: { null: boolean; orStdin: boolean }): Promise<string[]> {
  const items: string[] = [];
  for (const arg of args.length === 0 && options.orStdin ? ['-'] : args) {
    if (arg === '-') for await (const item of readList(0, options.null ? 0 : 10)) items.push(item);
    else items.push(arg);
  }
  return items;
}

/**
 * File names in batches, for bulk work in constant memory: the arguments, or the list on stdin where there are none (`-`
 * among them stands for it). Names that are not UTF-8 stay bytes.
 * @param signal for commands that catch signals: ends the wait for input
 */
export function nameBatches(args: string[], nul: boolean, signal?: AbortSignal): AsyncGenerator<(string | Buffer)[]> {
  const sources = args.length === 0 ? ['-'] : args;
  // libuv ends the process if its threads are refused when stdin is read first: it has them before others take what a
  // limit (ulimit -u) leaves.
  if (sources.includes('-')) fs.fstat(0, () => {});
  return batchesOf(sources, nul, signal);
}

/**
 * Work on files among whose names `-` is the data of standard input, as in coreutils: names in runs, each `-` by itself, in their order. With
 * `nul`, or without arguments, names come from a list on stdin: nameBatches().
 * @param files works on names
 * @param stdin works on the data of descriptor 0
 */
export async function* filesAndStdin<T>(
  args: string[],
  nul: boolean,
  files: (names: AsyncGenerator<(string | Buffer)[]>) => AsyncGenerator<T>,
  stdin: () => Promise<T>,
  signal?: AbortSignal,
): AsyncGenerator<T> {
  if (nul || !args.includes('-')) {
    yield* files(nameBatches(args, nul, signal));
    return;
  }
  const names: (string | Buffer)[] = argumentBytes(args);
  for (let at = 0; at < names.length; at++) {
    const dash = names.indexOf('-', at);
    const end = dash < 0 ? names.length : dash;
    const run = names.slice(at, end);
    if (run.length > 0) yield* files(oneBatch(run));
    if (end < names.length) yield await stdin();
    at = end;
  }
}

async function* oneBatch<T>(batch: T): AsyncGenerator<T> {
  yield batch;
}

async function* batchesOf(sources: string[], nul: boolean, signal: AbortSignal | undefined): AsyncGenerator<(string | Buffer)[]> {
  let names: (string | Buffer)[] = [];
  for (const arg of argumentBytes(sources)) {
    if (arg !== '-') names.push(arg);
    else {
      if (names.length > 0) yield names;
      names = [];
      yield* namesOf(0, nul ? 0 : 10, signal);
    }
  }
  if (names.length > 0) yield names;
}

async function* namesOf(fd: number, separator: 0 | 10, signal?: AbortSignal): AsyncGenerator<(string | Buffer)[]> {
  const chunk = Buffer.allocUnsafe(64 * 1024);
  let rest: Buffer[] = [];
  for (;;) {
    const size = await readSome(fd, chunk, signal);
    const data = chunk.subarray(0, size);
    const last = data.lastIndexOf(separator);
    if (size > 0 && last < 0) {
      rest.push(Buffer.from(data));
      continue;
    }
    const whole = Buffer.concat([...rest, size === 0 ? data : data.subarray(0, last)]);
    rest = size === 0 ? [] : [Buffer.from(data.subarray(last + 1))];
    const names = splitNames(whole, separator);
    if (names.length > 0) yield names;
    if (size === 0) return;
  }
}

/** A block of names; decoded and split as a whole where it is all text, which costs a tenth of name by name. */
function splitNames(block: Buffer, separator: 0 | 10): (string | Buffer)[] {
  if (isUtf8(block)) {
    const names = block.toString('utf8').split(separator === 0 ? '\0' : '\n');
    return names.includes('') ? names.filter((name) => name !== '') : names;
  }
  const names: (string | Buffer)[] = [];
  for (let at = 0; at < block.length; ) {
    const end = block.indexOf(separator, at);
    const stop = end < 0 ? block.length : end;
    const name = block.subarray(at, stop);
    if (stop > at) names.push(isUtf8(name) ? name.toString('utf8') : Buffer.from(name));
    at = stop + 1;
  }
  return names;
}
