import fs from 'node:fs';
import { Exit, type ExitStatus, VioError, wrap } from '../common/errors.js';
import { native } from '../native/index.js';
import { acceptAll, listenAt } from '../native/listen.js';

/**
 * The control socket of a holder of mappings: one JSON line asks, one answers. Descriptors come with the answer
 * (SCM_RIGHTS), in the order of its `fds`.
 */
export interface Request {
  op: 'list' | 'attach' | 'unmap';
  name?: string;
  /** unmap: only tell what would change */
  dryRun?: boolean;
}
export type Answer =
  | ({ ok: true; fds?: string[] } & Record<string, unknown>)
  | { ok: false; error: { code: string; message: string; exit: number; hint?: string | undefined } };

const MOST_REQUEST = 64 * 1024;
const MOST_ANSWER = 64 * 1024 * 1024;
/** Descriptors that one message can carry (SCM_MAX_FD is 253). */
const FDS_AT_ONCE = 250;

const pause = (milliseconds: number) => new Promise<void>((resolve) => setTimeout(resolve, milliseconds));

/** Sends all bytes; descriptors ride on the first ones. @throws the system's error, ETIMEDOUT for a peer that reads nothing */
async function sendAll(fd: number, text: string, fds: readonly number[]): Promise<void> {
  const bytes = Buffer.from(text);
  let rest = fds;
  for (let at = 0, waits = 0; at < bytes.length; ) {
    const some = rest.slice(0, FDS_AT_ONCE);
    // A byte for each load of descriptors but the last: they arrive before what follows.
    const end = rest.length > FDS_AT_ONCE ? at + 1 : bytes.length;
    const sent = native().vhostUser.send(fd, bytes.subarray(at, end), some);
    if (sent < 0) {
      if (++waits > 1000) throw new VioError('the other end reads nothing', { code: 'ETIMEDOUT', exit: Exit.timeout });
      await pause(5);
      continue;
    }
    at += sent;
    rest = rest.slice(some.length);
  }
}

/** Serves a control socket. Descriptors in answers stay the handler's. */
export class ControlServer {
  readonly path: string;
  readonly #fd: number;
  readonly #watch: { close(): void };
  readonly #connections = new Set<() => void>();

  /** @throws VioError where the path cannot be listened at; a socket that nobody serves is replaced */
  constructor(path: string, handle: (request: Request) => { answer: Answer; fds?: readonly number[] }) {
    this.path = path;
    this.#fd = listenAt(path);
    this.#watch = native().vhostUser.watchReadable(this.#fd, () => {
      acceptAll(this.#fd, (fd) => this.#serve(fd, handle));
    });
  }

  #serve(fd: number, handle: (request: Request) => { answer: Answer; fds?: readonly number[] }): void {
    let text = '';
    let busy = false;
    const chunk = Buffer.alloc(4096);
    const close = () => {
      if (!this.#connections.delete(close)) return;
      watch.close();
      fs.closeSync(fd);
    };
    const answer = async (line: string) => {
      const { answer, fds } = reply(line, handle);
      await sendAll(fd, `${JSON.stringify(answer)}\n`, fds ?? []);
    };
    const watch = native().vhostUser.watchReadable(fd, () => {
      if (busy) return;
      try {
        const stray: number[] = [];
        const size = native().vhostUser.receive(fd, chunk, stray);
        for (const uninvited of stray) fs.closeSync(uninvited);
        if (size === 0) return close();
        if (size > 0) text += chunk.toString('utf8', 0, size);
      } catch {
        return close(); // the client is gone, in whatever way
      }
      const end = text.indexOf('\n');
      if (end < 0) {
        if (text.length > MOST_REQUEST) close();
        return;
      }
      busy = true;
      answer(text.slice(0, end)).then(close, close); // one request per connection
    });
    this.#connections.add(close);
  }

  /** Stops serving and removes the socket. */
  close(): void {
    this.#watch.close();
    for (const end of [...this.#connections]) end();
    fs.closeSync(this.#fd);
    fs.rmSync(this.path, { force: true });
  }
}

function reply(
  line: string,
  handle: (request: Request) => { answer: Answer; fds?: readonly number[] },
): { answer: Answer; fds?: readonly number[] } {
  try {
    const request = JSON.parse(line) as Request | null;
    if (request === null || typeof request !== 'object' || !['list', 'attach', 'unmap'].includes(request.op))
      throw new VioError('not a request', { code: 'EPROTO', exit: Exit.damaged });
    return handle(request);
  } catch (err) {
    const known =
      err instanceof VioError
        ? err
        : new VioError(err instanceof Error ? err.message : String(err), { code: 'EPROTO', exit: Exit.damaged });
    return { answer: { ok: false, error: { code: known.code, message: known.message, exit: known.exit, hint: known.hint } } };
  }
}

/**
 * Asks a holder. The caller owns the descriptors.
 * @throws VioError: the holder's own error, or that nobody answers
 */
export async function ask(
  path: string,
  request: Request,
  timeout = 10_000,
): Promise<{ answer: Record<string, unknown>; fds: Map<string, number> }> {
  let fd: number;
  try {
    fd = native().vhostUser.connect(path);
  } catch (err) {
    throw wrap(`connect ${path}`, err, { hint: 'vioctl dma map --listen SOCK serves this socket' });
  }
  const fds: number[] = [];
  try {
    await sendAll(fd, `${JSON.stringify(request)}\n`, []);
    const text = await receiveLine(fd, fds, performance.now() + timeout, path);
    const answer = JSON.parse(text) as Answer;
    if (!answer.ok) {
      const { code, message, exit, hint } = answer.error;
      throw new VioError(message, { code, exit: exit as ExitStatus, hint });
    }
    const names = answer.fds ?? [];
    if (names.length !== fds.length)
      throw new VioError(`${path}: ${fds.length} descriptors came for ${names.length} names`, {
        code: 'EPROTO',
        exit: Exit.damaged,
        hint: 'ulimit -n may be too low',
      });
    return { answer, fds: new Map(names.map((name, i) => [name, fds[i]!])) };
  } catch (err) {
    for (const each of fds) fs.closeSync(each);
    if (err instanceof SyntaxError)
      throw new VioError(`${path}: the answer is no JSON`, { code: 'EPROTO', exit: Exit.damaged, cause: err });
    throw err;
  } finally {
    fs.closeSync(fd);
  }
}

async function receiveLine(fd: number, fds: number[], deadline: number, path: string): Promise<string> {
  const chunk = Buffer.alloc(64 * 1024);
  const parts: Buffer[] = [];
  for (let total = 0; ; ) {
    const size = native().vhostUser.receive(fd, chunk, fds);
    if (size < 0) {
      if (performance.now() > deadline) throw new VioError(`${path}: no answer`, { code: 'ETIMEDOUT', exit: Exit.timeout });
      await pause(2);
      continue;
    }
    total += size;
    if (size === 0 || total > MOST_ANSWER)
      throw new VioError(`${path}: the holder ended the connection`, { code: 'EPROTO', exit: Exit.damaged });
    parts.push(Buffer.from(chunk.subarray(0, size)));
    if (chunk[size - 1] === 10) return Buffer.concat(parts).toString('utf8', 0, total - 1);
  }
}
