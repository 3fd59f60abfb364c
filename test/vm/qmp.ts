// A small QMP client: one command at a time over QEMU's UNIX socket, events kept aside.
import { connect, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';

/** Connects to a UNIX socket that its server may still be about to make, while it is `alive`. */
export async function connectUnix(file: string, seconds: number, alive = () => true): Promise<Socket> {
  const end = Date.now() + seconds * 1000;
  for (;;) {
    const socket = connect(file);
    const error = await new Promise<NodeJS.ErrnoException | undefined>((done) => {
      socket.once('connect', () => done(undefined));
      socket.once('error', done);
    });
    if (!error) return socket;
    if ((error.code !== 'ENOENT' && error.code !== 'ECONNREFUSED') || Date.now() > end || !alive()) throw error;
    await sleep(50);
  }
}

interface Reply {
  return?: unknown;
  error?: { class: string; desc: string };
  event?: string;
}

/** A QMP session, capabilities negotiated. */
export class Qmp {
  /** Events seen so far, oldest first. */
  readonly events: Record<string, unknown>[] = [];
  private readonly socket: Socket;
  private readonly waiting: { resolve: (v: unknown) => void; reject: (e: Error) => void }[] = [];
  private buffer = '';

  private constructor(socket: Socket) {
    this.socket = socket;
    socket.setEncoding('utf8');
    socket.on('data', (text: string) => this.take(text));
    socket.on('error', () => this.fail(new Error('QMP connection broke')));
    socket.on('close', () => this.fail(new Error('QMP connection closed')));
  }

  /** Opens the monitor at `file`. */
  static async open(file: string, seconds = 60): Promise<Qmp> {
    const qmp = new Qmp(await connectUnix(file, seconds));
    await qmp.run('qmp_capabilities');
    return qmp;
  }

  /** Runs a command; resolves with its `return` value, rejects with QEMU's description. */
  run(command: string, args?: Record<string, unknown>): Promise<unknown> {
    return new Promise((resolve, reject) => {
      if (this.socket.destroyed) {
        reject(new Error('QMP connection closed'));
        return;
      }
      this.waiting.push({ resolve, reject });
      this.socket.write(`${JSON.stringify({ execute: command, arguments: args })}\n`);
    });
  }

  close(): void {
    this.socket.destroy();
  }

  private take(text: string): void {
    this.buffer += text;
    const lines = this.buffer.split('\n');
    this.buffer = lines.pop() ?? '';
    for (const line of lines) {
      const reply = JSON.parse(line) as Reply;
      if (reply.event) this.events.push(reply as Record<string, unknown>);
      else if (reply.error) this.waiting.shift()?.reject(new Error(`QMP: ${reply.error.desc}`));
      else if ('return' in reply) this.waiting.shift()?.resolve(reply.return);
    }
  }

  private fail(error: Error): void {
    for (const w of this.waiting.splice(0)) w.reject(error);
  }
}
