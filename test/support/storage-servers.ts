import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { Background } from './background.js';
import { vioctl } from './cli.js';

// What tests of the storage of both servers share: a folder for each test, and servers that end with it.
let dir: string;
/** Servers of this test: those that still run are killed at its end. */
export const running: Background[] = [];
beforeEach(() => {
  dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-storage-'));
});
afterEach(async () => {
  for (const server of running.splice(0)) await server.stop('SIGKILL');
  fs.rmSync(dir, { recursive: true });
});

/** A path in the folder of this test. */
export const at = (name: string): string => path.join(dir, name);

/** A file of zeroes that begins with `head`. */
export const image = (name: string, size = 1 << 20, head = ''): string => {
  const file = at(name);
  fs.writeFileSync(file, Buffer.from(head, 'latin1'));
  fs.truncateSync(file, size);
  return file;
};

let sockets = 0;
/** The socket of the vhost-user server that was started last. */
export const lastSocket = (): string => at(`s${sockets - 1}`);

/** Each server as a command line over a source. */
export const servers = {
  nvmf: (source: string, ...more: string[]) => ['nvmf', 'serve', source, '--listen', '127.0.0.1:0', ...more],
  'vhost-user': (source: string, ...more: string[]) => ['vhost-user', 'serve', 'blk', at(`s${sockets++}`), '--file', source, ...more],
} as const;
export type Server = keyof typeof servers;
export const both: Server[] = ['nvmf', 'vhost-user'];

/** A server that is ready. */
export async function serve(server: Server, source: string, ...more: string[]): Promise<Background> {
  const started = Background.vioctl(servers[server](source, ...more));
  running.push(started);
  await started.sees(/^serving /m);
  return started;
}

/** How a server ends that must not start. */
export const refused = (server: Server, source: string, ...more: string[]): { status: number | null; stderr: string } => {
  const { status, stderr, stdout } = vioctl(servers[server](source, ...more));
  expect(stdout).toBe('');
  return { status, stderr };
};
