import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { Window } from '../../src/vhost-user/frontend/window.js';
import { connect } from '../../src/vhost-user/wire/channel.js';
import { Background } from '../support/background.js';
import { vioctl } from '../support/cli.js';
import { eventually } from '../support/wait.js';

/** Who may share a file, and for how long. */
let dir: string;
const running: Background[] = [];
beforeEach(() => {
  dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-restart-'));
  fs.writeFileSync(at('file'), Buffer.alloc(8192, 'x'));
});
afterEach(async () => {
  for (const program of running.splice(0)) await program.stop('SIGKILL');
  fs.rmSync(dir, { recursive: true });
});
const at = (name: string): string => path.join(dir, name);
const argv = (socket: string, ...maps: string[]) => {
  return ['vhost-user', 'shmem', 'serve', at(socket), '--region', '0=1M', ...maps.flatMap((map) => ['--map', map])];
};
const shared = (): string => `0:0=${at('file')}:rw`;
async function serve(socket: string, ...maps: string[]): Promise<Background> {
  const server = Background.vioctl(argv(socket, ...maps));
  running.push(server);
  await server.sees(/serving/);
  return server;
}
/** A VMM that has mapped the file, and keeps it. */
async function vmm(socket: string): Promise<Window> {
  const window = await Window.open(await connect(at(socket)));
  await window.start();
  await eventually(() => window.regions.list().length > 0);
  expect(window.regions.list()).toHaveLength(1);
  return window;
}

test('after kill -9 the server starts again while a VMM holds its file, and maps it anew', async () => {
  const first = await serve('s', shared());
  const window = await vmm('s');
  expect(vioctl(argv('other', shared()))).toMatchObject({ status: 3, stderr: expect.stringContaining('lock') });
  await first.stop('SIGKILL');
  const second = await serve('s', shared());
  const next = await vmm('s');
  expect(next.regions.list()[0]).toMatchObject({ shmid: 0, shmOffset: 0n });
  expect(vioctl(argv('other', shared()))).toMatchObject({ status: 3 });
  window.close();
  next.close();
  expect(await second.stop()).toBe(0);
  await (await serve('other', shared())).stop();
});

test('a file is shared once; copies of it are as many as there are places', async () => {
  const twice = vioctl(argv('s', shared(), `0:64K=${at('file')}:rw`));
  expect(twice).toMatchObject({ status: 3, stderr: expect.stringContaining(':ro maps a copy') });
  await serve('s', shared(), `0:64K=${at('file')}:ro`, `0:128K=${at('file')}:ro`);
  expect(vioctl(['vhost-user', 'shmem', 'map', at('s.ctl'), `0:256K=${at('file')}:rw`])).toMatchObject({ status: 3 });
  expect(vioctl(['vhost-user', 'shmem', 'map', at('s.ctl'), `0:256K=${at('file')}:ro`, '--wait', '10ms'])).toMatchObject({ status: 0 });
  expect(vioctl(['vhost-user', 'shmem', 'unmap', at('s.ctl'), '0:0'])).toMatchObject({ status: 0 });
  expect(vioctl(['vhost-user', 'shmem', 'map', at('s.ctl'), `0:512K=${at('file')}:rw`, '--wait', '10ms'])).toMatchObject({ status: 0 });
});
