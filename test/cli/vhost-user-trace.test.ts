import { spawn } from 'node:child_process';
import fs from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { FrontEnd } from '../../src/vhost-user/frontend/frontend.js';
import { Background } from '../support/background.js';
import { plainEnv, program } from '../support/cli.js';

/** `trace` stands between a VM and its disk: whatever happens to its output, messages pass. */
let dir: string;
let server: Background;
beforeAll(async () => {
  dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-trace-'));
  fs.writeFileSync(path.join(dir, 'img'), Buffer.alloc(1 << 20));
  server = Background.vioctl(['vhost-user', 'serve', 'blk', path.join(dir, 'b'), '--file', path.join(dir, 'img')]);
  await server.sees(/serving/);
});
afterAll(async () => {
  await server.stop();
  fs.rmSync(dir, { recursive: true });
});

test.each([
  ['stdout is full', ['--ndjson'], 'full', 1, 1],
  ['the capture file is full', ['-o', '/dev/full'], 'null', 1, 1],
  ['both are full', ['-o', '/dev/full', '--ndjson'], 'full', 1, 2],
  ['the reader of stdout goes away', ['--ndjson'], 'pipe', 0, 1],
  ['the reader of stdout never reads', ['--ndjson'], 'unread', 0, 0],
] as const)('%s', async (name, args, stdout, status, lines) => {
  const socket = path.join(dir, name.replaceAll(' ', '-'));
  const out = stdout === 'full' ? fs.openSync('/dev/full', 'w') : stdout === 'null' ? 'ignore' : 'pipe';
  const child = spawn(process.execPath, [program, 'vhost-user', 'trace', '--listen', socket, path.join(dir, 'b'), ...args], {
    stdio: ['ignore', out, 'pipe'],
    env: plainEnv(),
  });
  if (typeof out === 'number') fs.closeSync(out);
  let stderr = '';
  child.stderr!.on('data', (data) => {
    stderr += String(data);
  });
  const exited = new Promise<number | null>((resolve) => child.on('close', resolve));
  while (!stderr.includes('listening')) await new Promise((resolve) => setTimeout(resolve, 20));
  if (stdout === 'pipe') child.stdout!.destroy();
  const front = await FrontEnd.connect(socket);
  for (let i = 0; i < 100; i++) await front.number('GET_FEATURES');
  front.close();
  const again = await FrontEnd.connect(socket);
  expect(await again.number('GET_FEATURES')).toBeGreaterThan(0n);
  again.close();
  if (stdout === 'unread') setTimeout(() => child.stdout!.resume(), 500);
  child.kill('SIGTERM');
  expect(await exited).toBe(status);
  expect(stderr.split('\n').filter((line) => /the record ends here/.test(line))).toHaveLength(lines);
  expect(stderr).not.toMatch(/^\s+at /m);
});

test('probe of something else says what it seems to be', async () => {
  const socket = path.join(dir, 'nbd');
  const other = net.createServer((client) => client.on('error', () => {}).end('NBDMAGICIHAVEOPT\0\u0003'));
  await new Promise<void>((resolve) => other.listen(socket, resolve));
  const probe = new Background([process.execPath, program, 'vhost-user', 'probe', socket, '--json']);
  expect(await probe.exited).toBe(5);
  const { error } = JSON.parse(probe.stderr);
  expect(error.message).toMatch(/this is an NBD server/);
  expect(error.hint).toMatch(new RegExp(`pid ${process.pid}`));
  other.close();
});
