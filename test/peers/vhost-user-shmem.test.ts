import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { Background } from '../support/background.js';
import { vioctl } from '../support/cli.js';
import { Qtest, VirtioPci } from '../support/qtest.js';
import { eventually } from '../support/wait.js';
import { type QemuBuild, qemuForTest } from '../vm/qemu.js';
import { Qmp } from '../vm/qmp.js';

/** shmem serve against the front-end of QEMU 11: no guest runs; memory is read and written at guest-physical addresses. */
let dir: string;
let build: QemuBuild | undefined;
const running: Background[] = [];

beforeAll(async () => {
  build = await qemuForTest('11', 'shared memory regions with QEMU 11');
});
beforeEach(() => {
  dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-shmem-'));
});
afterEach(async () => {
  for (const program of running.splice(0).reverse()) await program.stop();
  fs.rmSync(dir, { recursive: true });
});

const sock = (): string => path.join(dir, 'w.sock');
const ctl = (): string => `${sock()}.ctl`;

async function serve(...args: string[]): Promise<Background> {
  const server = Background.vioctl(['vhost-user', 'shmem', 'serve', sock(), '--json', ...args]);
  running.push(server);
  await server.sees(/"mappings"/);
  return server;
}

async function machine(extra = 'virtio-id=27'): Promise<{ qemu: Background; qtest: Qtest; device: VirtioPci; qmp: Qmp }> {
  const [q, m] = [path.join(dir, 'qtest'), path.join(dir, 'qmp')];
  const argv = build!.argv('qemu-system-x86_64', [
    ...['-accel', 'qtest', '-machine', 'q35,memory-backend=m', '-m', '256M', '-nodefaults', '-display', 'none'],
    ...['-object', 'memory-backend-memfd,id=m,size=256M,share=on'],
    ...['-qtest', `unix:${q},server=on,wait=off`, '-qmp', `unix:${m},server=on,wait=off`],
    ...['-chardev', `socket,id=c,path=${sock()}`],
    ...['-device', `vhost-user-test-device-pci,chardev=c,${extra},num_vqs=1,config_size=16,addr=5`],
  ]);
  const qemu = new Background(argv, { ...process.env, ...build!.env });
  running.push(qemu);
  const qtest = await Qtest.open(q, () => qemu.child.exitCode === null);
  const device = new VirtioPci(qtest);
  await device.place(5);
  return { qemu, qtest, device, qmp: await Qmp.open(m) };
}

type Listed = { connected: boolean; running: boolean; mappings: { state: string; offset: string; how: string }[] };
const listed = (): Listed => JSON.parse(vioctl(['vhost-user', 'shmem', 'list', ctl(), '--json']).stdout) as Listed;
const until = (what: string, check: () => boolean) => eventually(check, () => `${what}: ${JSON.stringify(listed())}`);
const mapped = (count: number) => (): boolean => listed().mappings.filter((m) => m.state === 'mapped').length === count;

test('map, guest-physical reads and writes, unmap, reset, start again', async () => {
  if (!build) return;
  const file = path.join(dir, 'data');
  fs.writeFileSync(file, Buffer.alloc(1 << 20, 'host '));
  await serve('--region', '0=16M', '--map', `0:0=${file}:rw`);
  const { device, qtest } = await machine();
  const window = device.shmem.get(0)!;
  expect(window.size).toBe(16n << 20n);
  expect(listed().mappings[0]!.state).toBe('queued'); // the device has not been started
  await device.start();
  await until('mapped at start', mapped(1));
  expect((await qtest.read(window.address, 10)).toString()).toBe('host host ');
  await qtest.write(window.address + 0x1000n, Buffer.from('guest was here'));
  expect(fs.readFileSync(file).toString('utf8', 0x1000, 0x100e)).toBe('guest was here');

  const copy = path.join(dir, 'copy');
  fs.writeFileSync(copy, 'read-only text');
  const result = vioctl(['vhost-user', 'shmem', 'map', ctl(), `0:2M=${copy}:ro`, '--json']);
  expect(JSON.parse(result.stdout)).toMatchObject({ state: 'mapped', how: 'sealed-copy', offset: '0x200000', len: 0x1000 });
  expect((await qtest.read(window.address + 0x200000n, 14)).toString()).toBe('read-only text');
  await qtest.write(window.address + 0x200000n, Buffer.from('XXXX'));
  expect(fs.readFileSync(copy, 'utf8')).toBe('read-only text'); // the guest has a copy of its own

  expect(vioctl(['vhost-user', 'shmem', 'unmap', ctl(), '0:2M'])).toMatchObject({ status: 0 });
  expect((await qtest.read(window.address + 0x200000n, 4)).toString()).not.toBe('XXXX');
  expect(vioctl(['vhost-user', 'shmem', 'unmap', ctl(), '0:2M'])).toMatchObject({ status: 0 }); // already so

  await device.reset();
  await until('queued after the reset', () => listed().mappings[0]!.state === 'queued');
  expect((await qtest.read(window.address, 4)).toString()).not.toBe('host');
  await device.start();
  await until('mapped again', mapped(1));
  expect((await qtest.read(window.address + 0x1000n, 14)).toString()).toBe('guest was here');
});

test('a stop and a continue of the machine leave the mapping where it is', async () => {
  if (!build) return;
  const file = path.join(dir, 'data');
  fs.writeFileSync(file, Buffer.alloc(1 << 20, 'host '));
  await serve('--region', '0=16M', '--map', `0:0=${file}:rw`);
  const { device, qtest, qmp } = await machine();
  await device.start();
  await until('mapped', mapped(1));
  await qmp.run('stop');
  await until('stopped', () => !listed().running);
  await qmp.run('cont');
  await until('runs again', () => listed().running && listed().mappings[0]!.state !== 'queued');
  expect((await qtest.read(device.shmem.get(0)!.address, 4)).toString()).toBe('host');
});

test('three regions, many mappings with slots', async () => {
  if (!build) return;
  const file = path.join(dir, 'data');
  fs.writeFileSync(file, Buffer.alloc(0x10000, 'abcd'));
  const maps = Array.from({ length: 20 }, (_, i) => ['--map', `${[0, 3, 7][i % 3]}:${i * 64}K=${file}:ro`]).flat();
  await serve('--region', '0=2M', '--region', '3=2M', '--region', '7=4M', ...maps);
  const { device, qtest } = await machine();
  expect([...device.shmem].map(([id, r]) => [id, r.size]).sort()).toEqual([
    [0, 2n << 20n],
    [3, 2n << 20n],
    [7, 4n << 20n],
  ]);
  await device.start();
  await until('all mapped', mapped(20));
  for (let i = 0; i < 20; i++) {
    const at = device.shmem.get([0, 3, 7][i % 3]!)!.address + BigInt(i * 0x10000);
    expect((await qtest.read(at + 0xfffcn, 4)).toString()).toBe('abcd');
  }
});

test('pmem: a flush request on the ring is answered', async () => {
  if (!build) return;
  const file = path.join(dir, 'data');
  fs.writeFileSync(file, Buffer.alloc(2 << 20));
  await serve('--region', '0=16M', '--map', `0:0=${file}:rw`, '--pmem');
  const { device } = await machine();
  await device.start(1n);
  await until('mapped', mapped(1));
  const answer = await device.request(0, Buffer.alloc(4), 4); // request type 0: flush
  expect(answer).toEqual(Buffer.alloc(4));
});
