/**
 * A live migration between two back-ends of one image, by QEMU's own front-end. No guest runs: a driver of the test keeps the
 * ring in guest memory, which moves with the machine.
 */
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Background } from '../support/background.js';
import { vioctl } from '../support/cli.js';
import { Qtest, VirtioPci } from '../support/qtest.js';
import { which } from '../support/skip.js';
import { eventually } from '../support/wait.js';
import { type QemuBuild, qemuForTest } from '../vm/qemu.js';
import { Qmp } from '../vm/qmp.js';

let dir: string;
let build: QemuBuild | undefined;
const running: Background[] = [];
beforeAll(async () => {
  build = await qemuForTest('11', 'a live migration between two back-ends');
});
beforeEach(() => {
  dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-handover-'));
});
afterEach(async () => {
  for (const program of running.splice(0).reverse()) await program.stop('SIGKILL');
  fs.rmSync(dir, { recursive: true });
});
const at = (name: string): string => path.join(dir, name);

async function serve(name: string, ...args: string[]): Promise<Background> {
  const words = ['serve', 'blk', at(`${name}.sock`), '--file', at('disk'), '--control', at(`${name}.ctl`), ...args];
  const server = Background.vioctl(['vhost-user', ...words]);
  running.push(server);
  await server.sees(/^serving /m);
  return server;
}
async function machine(name: string, ...more: string[]) {
  const [q, m] = [at(`${name}.qtest`), at(`${name}.qmp`)];
  const argv = build!.argv('qemu-system-x86_64', [
    ...['-accel', 'qtest', '-machine', 'q35,memory-backend=m', '-m', '64M', '-nodefaults', '-display', 'none'],
    ...['-object', 'memory-backend-memfd,id=m,size=64M,share=on'],
    ...['-qtest', `unix:${q},server=on,wait=off`, '-qmp', `unix:${m},server=on,wait=off`],
    ...['-chardev', `socket,id=c,path=${at(`${name}.sock`)}`, '-device', 'vhost-user-blk-pci,chardev=c,num-queues=1,addr=5', ...more],
  ]);
  const qemu = new Background(argv, { ...process.env, ...build!.env });
  running.push(qemu);
  const qtest = await Qtest.open(q, () => qemu.child.exitCode === null);
  return { qemu, qtest, qmp: await Qmp.open(m) };
}
const state = (name: string) => {
  const { stdout, stderr } = vioctl(['vhost-user', 'ctl', at(`${name}.ctl`), 'list', '--json']);
  expect(stderr).toBe('');
  return JSON.parse(stdout).disks[0] as { connected: boolean; running: boolean };
};
/** Whether QEMU could write to the image now. */
const free = (): boolean => spawnSync('qemu-io', ['-f', 'raw', '-c', 'read 0 512', at('disk')]).status === 0;
const header = (type: number, sector: number): Buffer => {
  const bytes = Buffer.alloc(16);
  bytes.writeUInt32LE(type);
  bytes.writeBigUInt64LE(BigInt(sector), 8);
  return bytes;
};

test('the destination has the disk when the source has let go, and nothing is lost', async () => {
  if (!build) return;
  fs.writeFileSync(at('disk'), Buffer.alloc(1 << 20));
  const source = await serve('source');
  const before = await machine('source');
  const device = new VirtioPci(before.qtest);
  await device.place(5);
  await device.start();
  const write = (to: VirtioPci, sector: number, fill: string) =>
    to.request(0, Buffer.concat([header(1, sector), Buffer.alloc(512, fill)]), 1);
  expect([...(await write(device, 1, 'source'))]).toEqual([0]);
  expect(state('source')).toEqual(expect.objectContaining({ connected: true, running: true }));

  // another server is refused, the destination of a migration is not
  expect(vioctl(['vhost-user', 'serve', 'blk', at('other'), '--file', at('disk')]).status).toBe(3);
  const destination = await serve('destination', '--incoming');
  const after = await machine('destination', '-incoming', 'defer');
  expect(state('destination')).toMatchObject({ connected: true, running: false });
  expect([...(await write(device, 2, 'meanwhile'))]).toEqual([0]);

  await after.qmp.run('migrate-incoming', { uri: `unix:${at('stream')}` });
  await before.qmp.run('migrate', { uri: `unix:${at('stream')}` });
  for (let i = 0; ; i++) {
    const { status, 'error-desc': why } = (await before.qmp.run('query-migrate')) as { status?: string; 'error-desc'?: string };
    if (status === 'completed') break;
    if (status === 'failed' || i > 1000) throw new Error(`migration ${status}: ${why}: ${after.qemu.stderr}`);
    await sleep(20);
  }
  await eventually(async () => ((await after.qmp.run('query-status')) as { status: string }).status === 'running');
  await eventually(() => state('destination').running);
  expect([state('source').running, state('destination').running]).toEqual([false, true]);

  const moved = device.movedTo(after.qtest);
  const answer = await moved.request(0, header(0, 1), 1025);
  expect(answer.subarray(0, 512).equals(Buffer.alloc(512, 'source'))).toBe(true);
  expect(answer.subarray(512, 1024).equals(Buffer.alloc(512, 'meanwhile'))).toBe(true);
  expect([...(await write(moved, 3, 'destination'))]).toEqual([0]);
  if (which('qemu-io')) expect(free()).toBe(false);
  // the destination holds the lock, and the source has nothing any more
  await source.stop();
  if (which('qemu-io')) expect(free()).toBe(false);
  await after.qemu.stop();
  await eventually(() => !state('destination').connected);
  if (which('qemu-io')) expect(free()).toBe(true);
  expect(
    fs
      .readFileSync(at('disk'))
      .subarray(3 * 512, 3 * 512 + 11)
      .toString(),
  ).toBe('destination');
  expect(await destination.stop()).toBe(0);
  for (const server of [source, destination]) expect(server.stderr).not.toMatch(/refused|in use/);
});
