import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { Background } from '../support/background.js';
import { vioctl } from '../support/cli.js';
import { Qtest, VirtioPci } from '../support/qtest.js';
import { eventually } from '../support/wait.js';
import { type QemuBuild, qemuForTest } from '../vm/qemu.js';

/** list, probe, trace and hand-over with qemu-storage-daemon's and virtiofsd's back-ends and QEMU's front-end. */
let dir: string;
let build: QemuBuild | undefined;
const running: Background[] = [];

beforeAll(async () => {
  build = await qemuForTest('11', 'vhost-user with qemu-storage-daemon, virtiofsd and QEMU 11');
});
beforeEach(() => {
  dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-vhu-'));
});
afterEach(async () => {
  for (const program of running.splice(0).reverse()) await program.stop();
  fs.rmSync(dir, { recursive: true });
});

const at = (name: string): string => path.join(dir, name);
async function exists(file: string): Promise<void> {
  await eventually(() => fs.existsSync(file));
  if (!fs.existsSync(file)) throw new Error(`${file} does not appear: ${running.map((p) => p.stderr).join('\n')}`);
}
async function start(argv: readonly string[], socket?: string): Promise<Background> {
  const program = new Background(argv, { ...process.env, ...build!.env });
  running.push(program);
  if (socket !== undefined) await exists(socket);
  return program;
}
async function storageDaemon(socket: string): Promise<Background> {
  fs.writeFileSync(at('img'), Buffer.alloc(64 << 20));
  const blockdev = `driver=file,node-name=f,filename=${at('img')}`;
  const exported = `type=vhost-user-blk,id=e,node-name=f,addr.type=unix,addr.path=${socket},num-queues=4,writable=on`;
  return start(build!.argv('qemu-storage-daemon', ['--blockdev', blockdev, '--export', exported]), socket);
}
async function virtiofsd(socket: string): Promise<Background> {
  fs.mkdirSync(at('share'));
  return start(build!.argv('virtiofsd', [`--socket-path=${socket}`, '--shared-dir', at('share'), '--sandbox=none']), socket);
}
async function machine(socket: string, device: string): Promise<VirtioPci> {
  const q = at('qtest');
  const argv = build!.argv('qemu-system-x86_64', [
    ...['-accel', 'qtest', '-machine', 'q35,memory-backend=m', '-m', '256M', '-nodefaults', '-display', 'none'],
    ...['-object', 'memory-backend-memfd,id=m,size=256M,share=on', '-qtest', `unix:${q},server=on,wait=off`],
    ...['-chardev', `socket,id=c,path=${socket}`, '-device', `${device},chardev=c,addr=5`],
  ]);
  const qemu = await start(argv);
  const pci = new VirtioPci(await Qtest.open(q, () => qemu.child.exitCode === null));
  await pci.place(5);
  return pci;
}
const blkRead = (): Buffer => Buffer.alloc(16); // type 0 (read), sector 0

/** FUSE_INIT, protocol 7.31 (linux/fuse.h). */
function fuseInit(): Buffer {
  const out = Buffer.alloc(40 + 64);
  out.writeUInt32LE(out.length, 0);
  out.writeUInt32LE(26, 4);
  out.writeBigUInt64LE(1n, 8);
  out.writeUInt32LE(7, 40);
  out.writeUInt32LE(31, 44);
  return out;
}

test('a block back-end: list and probe', async () => {
  if (!build) return;
  await storageDaemon(at('s'));
  const { sockets } = JSON.parse(vioctl(['vhost-user', 'list', '--json']).stdout);
  expect(sockets.find((s: { socket: string }) => s.socket === at('s'))).toMatchObject({ device: 'blk', connections: 0 });
  for (let i = 0; i < 2; i++) {
    const result = vioctl(['vhost-user', 'probe', '--json', at('s')]);
    expect(result).toMatchObject({ status: 0, stderr: '' });
    expect(JSON.parse(result.stdout)).toMatchObject({
      device: { name: 'blk', guess: true },
      queues: 4,
      maxMemSlots: expect.any(Number),
      config: { size: expect.any(Number), fields: { capacity: 131072, blk_size: 512, num_queues: 4 } },
      protocol: { raw: '0x8f2b', names: expect.arrayContaining(['MQ', 'REPLY_ACK', 'CONFIG', 'CONFIGURE_MEM_SLOTS']), unknown: [] },
      shmem: null,
    });
  }
});

test('a block back-end: trace of a whole life, and its capture read again', async () => {
  if (!build) return;
  await storageDaemon(at('s'));
  fs.writeFileSync(at('img'), 'sector zero', { flag: 'r+' });
  const trace = Background.vioctl(['vhost-user', 'trace', '--listen', at('t'), at('s'), '--once', '--ndjson']);
  running.push(trace);
  await exists(at('t'));
  const device = await machine(at('t'), 'vhost-user-blk-pci,num-queues=1');
  await device.start();
  expect((await device.request(0, blkRead(), 513)).toString('utf8', 0, 11)).toBe('sector zero');
  await device.reset();
  await running.pop()!.stop(); // the machine
  expect(await trace.exited).toBe(0);

  type Line = {
    op: string;
    kind: string;
    channel: string;
    fds?: { kind: string; size?: string; seals?: string[] }[];
    latencyUs?: number;
    warnings?: string[];
    fields: never;
  };
  const lines = trace.stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as Line);
  const ops = lines.filter((l) => l.kind === 'request').map((l) => l.op);
  expect(ops.slice(0, 3)).toEqual(['GET_FEATURES', 'GET_PROTOCOL_FEATURES', 'SET_PROTOCOL_FEATURES']);
  for (const op of ['SET_BACKEND_REQ_FD', 'SET_OWNER', 'GET_CONFIG', 'ADD_MEM_REG', 'SET_VRING_KICK', 'SET_VRING_ENABLE', 'GET_VRING_BASE'])
    expect(ops).toContain(op);
  const memory = lines.find((l) => l.op === 'ADD_MEM_REG' && l.kind === 'request')!;
  expect(memory.fds).toEqual([expect.objectContaining({ kind: 'memfd', size: 0x10000000, seals: expect.arrayContaining(['shrink']) })]);
  expect(lines.find((l) => l.op === 'SET_VRING_KICK')!.fds).toEqual([expect.objectContaining({ kind: 'eventfd' })]);
  expect(lines.find((l) => l.op === 'SET_BACKEND_REQ_FD')!.fds).toEqual([expect.objectContaining({ kind: 'socket' })]);
  expect(lines.find((l) => l.op === 'GET_FEATURES' && l.kind === 'reply')!.latencyUs).toBeGreaterThan(0);
  expect(lines.flatMap((l) => l.warnings ?? [])).toEqual([]);
  expect(lines.at(-1)).toMatchObject({ op: 'disconnect' });

  fs.writeFileSync(at('capture'), trace.stdout);
  const again = vioctl(['vhost-user', 'trace', '--read', at('capture'), '--ndjson']);
  expect(again.status).toBe(0);
  expect(
    again.stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line)),
  ).toEqual(lines);
  const text = vioctl(['vhost-user', 'trace', '--read', at('capture')]).stdout;
  expect(text).toMatch(/main > ADD_MEM_REG region=\{gpa=0x0 .*fds=\[memfd:\S+ 256M .*shrink.*\] need_reply/);
});

test('virtiofsd: probe, hand over to QEMU, and a request of the file system on the same connection', async () => {
  if (!build) return;
  const daemon = await virtiofsd(at('fs'));
  const probe = Background.vioctl(['vhost-user', 'probe', '--json', '--hand-over', at('h'), at('fs')]);
  running.push(probe);
  await probe.sees(/\n}\n/);
  expect(JSON.parse(probe.stdout)).toMatchObject({
    device: { name: 'fs', guess: true },
    protocol: { names: expect.arrayContaining(['REPLY_ACK', 'DEVICE_STATE', 'CONFIGURE_MEM_SLOTS']) },
    queues: 2,
    config: null,
    shmem: null,
    warnings: [expect.stringContaining('--hand-over')],
  });
  await exists(at('h'));
  expect(daemon.child.exitCode).toBeNull();
  const device = await machine(at('h'), 'vhost-user-fs-pci,tag=shared');
  await device.start(0n, 2);
  const answer = await device.request(1, fuseInit(), 80);
  expect(answer.readInt32LE(4)).toBe(0); // error of fuse_out_header
  expect(answer.readUInt32LE(16)).toBe(7); // major of fuse_init_out
  expect(daemon.child.exitCode).toBeNull();
  await running.pop()!.stop(); // the machine
  expect(await probe.exited).toBe(0);
  expect(await daemon.exited).toBe(0);
});

test('virtiofsd: trace', async () => {
  if (!build) return;
  await virtiofsd(at('fs'));
  const trace = Background.vioctl(['vhost-user', 'trace', '--listen', at('t'), at('fs'), '--once', '--device', 'fs']);
  running.push(trace);
  await exists(at('t'));
  const device = await machine(at('t'), 'vhost-user-fs-pci,tag=shared');
  await device.start(0n, 2);
  expect((await device.request(1, fuseInit(), 80)).readInt32LE(4)).toBe(0);
  await running.pop()!.stop();
  expect(await trace.exited).toBe(0);
  expect(trace.stdout).toMatch(/ main < GET_PROTOCOL_FEATURES\.reply value=0x[0-9a-f]+ names=\[MQ .*DEVICE_STATE\] \(\d+ us\)/);
  expect(trace.stdout).toMatch(/ main < SET_VRING_ENABLE\.reply value=0x0 status=ok \(\d+ us\)/);
  expect(trace.stdout).not.toContain(' ! ');
});

test('serve blk under the front-end of QEMU', async () => {
  if (!build) return;
  fs.writeFileSync(at('img'), Buffer.alloc(1 << 20, 'our own '));
  const server = Background.vioctl(['vhost-user', 'serve', 'blk', at('b'), '--file', at('img')]);
  running.push(server);
  await server.sees(/serving/);
  const device = await machine(at('b'), 'vhost-user-blk-pci,num-queues=1');
  await device.start();
  const answer = await device.request(0, blkRead(), 513);
  expect(answer.toString('utf8', 0, 8)).toBe('our own ');
  expect(answer[512]).toBe(0);
  await device.reset();
  await device.start();
  const write = Buffer.concat([Buffer.alloc(16), Buffer.alloc(512, 'by QEMU ')]);
  write.writeUInt32LE(1, 0);
  expect(await device.request(0, write, 1)).toEqual(Buffer.from([0]));
  expect(fs.readFileSync(at('img')).toString('utf8', 0, 520)).toBe(`${'by QEMU '.repeat(64)}our own `);
});
