import { type ChildProcess, spawn } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { plainEnv, program } from './cli.js';

/** A running `vioctl nvmf serve` on a free port of 127.0.0.1. */
export interface Serve {
  child: ChildProcess;
  port: number;
  nqn: string;
  /** Ends it as a user would. @returns its exit status */
  stop: () => Promise<number | null>;
}

/** Starts the real program and waits until it is ready. */
export async function serve(sources: string[], args: string[] = []): Promise<Serve> {
  const child = spawn(process.execPath, [program, 'nvmf', 'serve', ...sources, '--listen', '127.0.0.1:0', '--json', '--quiet', ...args], {
    env: plainEnv(),
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const ended = new Promise<number | null>((resolve) => child.on('close', resolve));
  const ready = await new Promise<{ listen: { port: number }[]; subsystems: { nqn: string }[] }>((resolve, reject) => {
    let text = '';
    child.stdout.on('data', (chunk: Buffer) => {
      text += chunk;
      if (text.endsWith('}\n')) resolve(JSON.parse(text));
    });
    void ended.then((status) => reject(new Error(`serve ended with ${status} before it was ready`)));
  });
  return {
    child,
    port: ready.listen[0]!.port,
    nqn: ready.subsystems[0]!.nqn,
    stop: () => {
      if (child.exitCode === null && child.signalCode === null) child.kill('SIGTERM');
      return ended;
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
