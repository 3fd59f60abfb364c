import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { Controller, type ControllerOptions } from '../../src/nvme/host/controller.js';
import { endsWithTests } from './children.js';
import { plainEnv, program } from './cli.js';
import { hostid, hostnqn } from './nvme-raw.js';

/** A target that was started by `nvmf serve`, as users start it. */
export interface ServedTarget {
  child: ChildProcess;
  port: number;
  nqn: string;
  /** All of the ready document. */
  document: object;
  namespaces: { nsid: number; source: string; size: number; blockSize: number; nguid: string }[];
  /** Its messages so far. */
  messages(): string;
  /** Ends it with a signal and gives its exit status, or the signal's name. */
  stop(signal?: NodeJS.Signals): Promise<number | NodeJS.Signals | null>;
}

/** Starts `vioctl nvmf serve` on a free port of loopback and waits for its ready document. */
export async function serveTarget(args: string[], env: Record<string, string> = {}): Promise<ServedTarget> {
  const listen = args.includes('--listen') || args.includes('--config') ? [] : ['--listen', '127.0.0.1:0'];
  const child = endsWithTests(
    spawn(process.execPath, [program, 'nvmf', 'serve', ...args, ...listen, '--ndjson'], {
      env: plainEnv(env),
      stdio: ['ignore', 'pipe', 'pipe'],
    }),
  );
  let out = '';
  let messages = '';
  child.stdout!.setEncoding('utf8').on('data', (text: string) => {
    out += text;
  });
  child.stderr!.setEncoding('utf8').on('data', (text: string) => {
    messages += text;
  });
  const ended = once(child, 'exit') as Promise<[number | null, NodeJS.Signals | null]>;
  while (!out.includes('\n')) {
    const gone = await Promise.race([ended, once(child.stdout!, 'data').then(() => undefined)]);
    if (gone) throw new Error(`nvmf serve ended with ${gone[0] ?? gone[1]}: ${messages}`);
  }
  const ready = JSON.parse(out) as {
    listen: { port: number }[];
    subsystems: { nqn: string; namespaces: ServedTarget['namespaces'] }[];
  };
  return {
    child,
    port: ready.listen[0]!.port,
    nqn: ready.subsystems[0]!.nqn,
    document: ready,
    namespaces: ready.subsystems[0]!.namespaces,
    messages: () => messages,
    stop: async (signal = 'SIGTERM') => {
      if (child.exitCode === null && child.signalCode === null) child.kill(signal);
      const [status, by] = await ended;
      return status ?? by;
    },
  };
}

/** A folder that is gone after `use`. */
export async function withFolder<T>(use: (dir: string) => Promise<T>): Promise<T> {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-nvmf-'));
  try {
    return await use(dir);
  } finally {
    fs.rmSync(dir, { recursive: true, force: true });
  }
}

/** Runs `vioctl nvmf …` without blocking the event loop. */
export function nvmf(
  args: string[],
  options: { input?: Buffer | string; env?: Record<string, string> } = {},
): Promise<{ status: number | null; stdout: Buffer; stderr: string }> {
  const child = spawn(process.execPath, [program, 'nvmf', ...args], { env: plainEnv(options.env) });
  const out: Buffer[] = [];
  let stderr = '';
  child.stdout.on('data', (data: Buffer) => out.push(data));
  child.stderr.on('data', (data: Buffer) => {
    stderr += data;
  });
  child.stdin.on('error', () => {}); // the program may end before it has read all: its status tells
  child.stdin.end(options.input);
  return new Promise((resolve) => child.on('close', (status) => resolve({ status, stdout: Buffer.concat(out), stderr })));
}

/** The tests' host, connected to the first subsystem of a target. */
export const connectHost = (target: Pick<ServedTarget, 'port' | 'nqn'>, options: Partial<ControllerOptions> = {}): Promise<Controller> =>
  Controller.connect({ address: '127.0.0.1', port: target.port, timeout: 60_000, subnqn: target.nqn, hostnqn, hostid, ...options });
