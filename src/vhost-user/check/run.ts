import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import { codeOf, Exit, VioError } from '../../common/errors.js';
import { tapPoint } from '../../common/tap.js';
import type { OwnedFd } from '../../native/owned-fd.js';
import { type Meeting, receive, visit } from '../wire/meeting.js';
import { checkCases } from './cases.js';
import type { CheckCase } from './model.js';
import { CheckSession } from './session.js';

export interface CheckOptions {
  socket: string;
  /** The back-end connects to the socket, again for every case. */
  listen?: boolean;
  /** Command line (sh) that starts the back-end; used at first, and whenever it has ended. */
  respawn?: string | undefined;
  /** How long an answer may take (ms). */
  timeout: number;
  /** Only cases whose name holds this. */
  only?: string | undefined;
  signal?: AbortSignal;
}

/** One case and what came of it. */
export interface CheckResult {
  /** number of the case */
  id: number;
  /** name of the case, for --only */
  name: string;
  /** section of the vhost-user specification */
  section: string;
  result: 'ok' | 'not ok' | 'skipped';
  /** behaviour that the specification requires */
  expected: string;
  /** behaviour of the back-end */
  got: string;
}

/** ms in which a back-end must be there for the next case. */
const meetingTimeout = 5000;

/** The back-end under test: running, or started again. */
class Subject {
  readonly #options: CheckOptions;
  readonly #meeting: Meeting;
  #child: ChildProcess | undefined;
  constructor(options: CheckOptions) {
    this.#options = options;
    this.#meeting = options.listen ? receive(options.socket) : visit(options.socket);
  }

  /** A connection; the back-end is started for it where it does not run. @throws VioError */
  async connect(): Promise<OwnedFd> {
    const { respawn, signal } = this.#options;
    for (const end = performance.now() + 10_000; ; ) {
      signal?.throwIfAborted();
      if (respawn !== undefined && !this.#running) this.#spawn(respawn);
      try {
        return await this.#meeting.next(meetingTimeout, signal);
      } catch (err) {
        const again = respawn !== undefined && ['ENOENT', 'ECONNREFUSED'].includes(codeOf(err) ?? '') && performance.now() < end;
        if (!again) throw err;
      }
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }

  /** How the back-end ended since it was last asked, if it was killed by a signal. */
  async crash(): Promise<string | undefined> {
    for (let i = 0; i < 6 && this.#running; i++) await new Promise((resolve) => setTimeout(resolve, 5));
    return this.#child?.signalCode ?? undefined;
  }

  async stop(): Promise<void> {
    this.#meeting.close();
    if (!this.#child || !this.#running) return;
    const gone = once(this.#child, 'exit');
    this.#child.kill('SIGTERM');
    const hard = setTimeout(() => this.#child?.kill('SIGKILL'), 2000);
    await gone;
    clearTimeout(hard);
  }

  get #running(): boolean {
    return this.#child !== undefined && this.#child.exitCode === null && this.#child.signalCode === null;
  }

  #spawn(command: string): void {
    const { socket, listen } = this.#options;
    if (!listen && fs.statSync(socket, { throwIfNoEntry: false })?.isSocket()) fs.rmSync(socket); // left over: nobody answered there
    this.#child = spawn('/bin/sh', ['-c', `exec ${command}`], { stdio: 'ignore' });
  }
}

async function runCase(subject: Subject, entry: CheckCase, options: CheckOptions): Promise<Omit<CheckResult, 'id'>> {
  const { name, section, expected } = entry;
  const { signal } = options;
  const session = new CheckSession(await subject.connect(), options.timeout, () => subject.connect());
  const stop = (): void => session.close();
  signal?.addEventListener('abort', stop, { once: true });
  try {
    await session.negotiate();
    const outcome = await entry.run(session);
    session.close();
    const crash = options.respawn === undefined ? undefined : await subject.crash();
    if (crash !== undefined) return { name, section, expected, result: 'not ok', got: `the back-end ended by ${crash}` };
    if ('skipped' in outcome) return { name, section, expected, result: 'skipped', got: outcome.skipped };
    return { name, section, expected, result: outcome.ok ? 'ok' : 'not ok', got: outcome.got };
  } catch (err) {
    if (err instanceof VioError && err.exit === Exit.usage) throw err;
    return { name, section, expected, result: 'not ok', got: (err as Error).message };
  } finally {
    signal?.removeEventListener('abort', stop);
    session.close();
  }
}

/**
 * Runs the conformance cases over a back-end, each on a connection of its own.
 * @throws VioError where the back-end cannot be reached at all; the signal's reason
 */
export async function* runChecks(options: CheckOptions): AsyncGenerator<CheckResult> {
  const subject = new Subject(options);
  try {
    for (const [index, entry] of checkCases.entries()) {
      if (options.only !== undefined && !entry.name.includes(options.only)) continue;
      const result = await runCase(subject, entry, options);
      options.signal?.throwIfAborted();
      yield { id: index + 1, ...result };
    }
  } finally {
    await subject.stop();
  }
}

/** One result in the Test Anything Protocol. */
export const tapLines = ({ id, name, result, expected, got, section }: CheckResult): string =>
  tapPoint({ ok: result !== 'not ok', name, skip: result === 'skipped' ? got : undefined, details: { expected, got, section } }, id);
