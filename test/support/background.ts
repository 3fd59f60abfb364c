import { type ChildProcess, spawn } from 'node:child_process';
import { endsWithTests } from './children.js';
import { plainEnv, program } from './cli.js';

/** A program in the background whose output lines can be waited for. */
export class Background {
  readonly child: ChildProcess;
  stdout = '';
  stderr = '';
  readonly exited: Promise<number>;
  #waiting: (() => void)[] = [];
  #closed = false;

  constructor(argv: readonly string[], env: NodeJS.ProcessEnv = plainEnv(), stdin: 'ignore' | 'pipe' = 'ignore') {
    this.child = endsWithTests(spawn(argv[0]!, argv.slice(1), { stdio: [stdin, 'pipe', 'pipe'], env }));
    this.child.stdout!.setEncoding('utf8').on('data', (text: string) => {
      this.stdout += text;
      this.#wake();
    });
    this.child.stderr!.setEncoding('utf8').on('data', (text: string) => {
      this.stderr += text;
      this.#wake();
    });
    this.exited = new Promise((resolve) =>
      this.child.on('close', (code, signal) => {
        this.#closed = true;
        this.#wake();
        resolve(code ?? (signal ? 128 : 255));
      }),
    );
  }

  #wake(): void {
    for (const wake of this.#waiting.splice(0)) wake();
  }

  /** The real program, in the background. */
  static vioctl(args: readonly string[]): Background {
    return new Background([process.execPath, program, ...args]);
  }

  /** Resolves with the match as soon as stdout and stderr together hold it. */
  async sees(pattern: RegExp, timeout = 60_000): Promise<RegExpExecArray> {
    for (const end = Date.now() + timeout; ; ) {
      const match = pattern.exec(`${this.stdout}\n${this.stderr}`);
      if (match) return match;
      if (this.#closed || Date.now() > end)
        throw new Error(`${pattern} was not seen${this.#closed ? ' before the end' : ''}:\n${this.stdout}\n${this.stderr}`);
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, 250);
        this.#waiting.push(() => {
          clearTimeout(timer);
          resolve();
        });
      });
    }
  }

  /** Ends it and waits. */
  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<number> {
    if (!this.#closed) this.child.kill(signal);
    return this.exited;
  }
}
