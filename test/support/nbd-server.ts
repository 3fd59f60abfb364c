import { type ChildProcess, spawn } from 'node:child_process';
import fs from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

/** A server of NBD at a Unix socket, that can be killed and started again. */
export class NbdServer {
  readonly #socket: string;
  readonly #argv: readonly string[];
  #child: ChildProcess | undefined;
  readonly uri: string;

  private constructor(socket: string, argv: readonly string[]) {
    this.#socket = socket;
    this.#argv = argv;
    this.uri = `nbd+unix:///?socket=${socket}`;
  }

  static async start(socket: string, argv: (socket: string) => string[]): Promise<NbdServer> {
    const server = new NbdServer(socket, argv(socket));
    await server.start();
    return server;
  }

  async start(): Promise<void> {
    const child = spawn(this.#argv[0]!, this.#argv.slice(1), { stdio: ['ignore', 'ignore', 'pipe'] });
    this.#child = child;
    let said = '';
    child.stderr?.setEncoding('utf8').on('data', (text: string) => (said += text));
    child.on('error', (err) => (said += err.message));
    for (let tries = 0; !fs.existsSync(this.#socket); tries++) {
      if (tries === 1000 || child.exitCode !== null) throw new Error(`${this.#argv[0]} does not listen: ${said}`);
      await sleep(20);
    }
  }

  /** Ends it without warning; its socket is gone. */
  async stop(): Promise<void> {
    const child = this.#child;
    if (child && child.exitCode === null && child.signalCode === null) {
      const exited = new Promise((resolve) => child.once('exit', resolve));
      child.kill('SIGKILL');
      await exited;
    }
    fs.rmSync(this.#socket, { force: true });
  }

  /** Ends it without warning and starts another one after a moment. */
  async restart(): Promise<void> {
    await this.stop();
    await sleep(100);
    await this.start();
  }
}
