/** What the log of `vhost-user serve blk` says about front-ends: why one was refused, why one waits, and why a guest hangs. */
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { FrontEnd } from '../../src/vhost-user/frontend/frontend.js';
import { connect } from '../../src/vhost-user/wire/channel.js';
import { protocolMask, VirtioF } from '../../src/vhost-user/wire/features.js';
import { Background } from '../support/background.js';
import { plainEnv } from '../support/cli.js';
import { duplicate } from '../support/vhost-user.js';
import { Guest } from '../support/vhost-user-guest.js';

let dir: string;
let server: Background;
beforeEach(async () => {
  dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-log-'));
  fs.writeFileSync(path.join(dir, 'img'), Buffer.alloc(1 << 20));
  server = Background.vioctl(['vhost-user', 'serve', 'blk', `${socket()}=${path.join(dir, 'img')}`]);
  await server.sees(/^serving /m);
});
afterEach(async () => {
  await server.stop('SIGKILL');
  fs.rmSync(dir, { recursive: true });
});
const socket = (): string => path.join(dir, 's');
const logged = () => server.stderr;

test('an address of a ring that is refused is named, with its part and the regions', async () => {
  const guest = new Guest({});
  await guest.start(await connect(socket()));
  const uva = 0x7f0000000000n;
  const good = { index: 0, flags: 0, desc: uva, avail: uva + 0x1000n, used: uva + 0x2000n, log: 0n };
  const refused = (values: object) =>
    expect(guest.front.request('SET_VRING_ADDR', { ...good, ...values })).rejects.toThrow(/EFAULT|EINVAL/);
  await refused({ avail: 0x1234000n });
  await refused({ desc: uva + 8n });
  await refused({ used: uva + (4n << 20n) - 4n });
  await server.sees(/used ring/);
  const end = (uva + (4n << 20n) - 1n).toString(16);
  expect(logged()).toContain(
    `SET_VRING_ADDR: refused: EFAULT: ring 0: available ring at 0x1234000 (134 bytes) lies in no region; regions: 0x${uva.toString(16)}-0x${end}`,
  );
  expect(logged()).toContain(`EINVAL: ring 0: descriptor table at 0x${(uva + 8n).toString(16)} is not aligned to 16 bytes`);
  expect(logged()).toMatch(/EFAULT: ring 0: used ring at 0x7f00003ffffc \(518 bytes\) lies in no region/);
  guest.front.close();
});

test('no memory, memory without a descriptor, and a descriptor that is no memory: is it shared?', async () => {
  const front = await FrontEnd.connect(socket());
  await front.negotiate(protocolMask('MQ', 'REPLY_ACK'));
  await front.request('SET_FEATURES', { value: VirtioF.version1 | VirtioF.protocolFeatures });
  await front.request('SET_VRING_NUM', { index: 0, num: 64 });
  const at = { index: 0, flags: 0, desc: 0n, avail: 0x1000n, used: 0x2000n, log: 0n };
  await expect(front.request('SET_VRING_ADDR', at)).rejects.toThrow(/EFAULT/);
  await server.sees(/lies in no region; there are none: is the memory of the VM shared \(share=on/);
  const region = { gpa: 0n, size: 1n << 20n, uva: 0n, offset: 0n };
  await expect(front.request('SET_MEM_TABLE', { count: 1, regions: [region] }, [])).rejects.toThrow(/EINVAL/);
  await server.sees(/1 regions came with 0 descriptors: is the memory/);
  const null_ = fs.openSync('/dev/null', 'r+');
  await expect(front.request('SET_MEM_TABLE', { count: 1, regions: [region] }, [duplicate({ fd: null_ } as never)])).rejects.toThrow(
    /ENODEV/,
  );
  fs.closeSync(null_);
  await server.sees(/region 0 at 0x0, 1048576 bytes: its descriptor is no file: is the memory/);
  front.close();
});

test.each([
  ['MAP_PRIVATE', true],
  ['MAP_SHARED', false],
])('a front-end whose memory is mapped %s', async (flag, warned) => {
  // The VMM of the fault: memory-backend-memfd,share=off. Its guest writes to copies.
  const code = `import ctypes, mmap, os, socket, struct, sys
fd = os.memfd_create('guest'); os.ftruncate(fd, 1 << 20)
m = mmap.mmap(fd, 1 << 20, flags=mmap.${flag}, prot=mmap.PROT_READ | mmap.PROT_WRITE)
at = ctypes.addressof(ctypes.c_char.from_buffer(m))
s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])
def ask(id, payload, fds=(), size=0):
    socket.send_fds(s, [struct.pack('III', id, 1, len(payload)) + payload], list(fds))
    return s.recv(12 + size) if size else None
ask(1, b'', size=8)
ask(5, struct.pack('IIQQQQ', 1, 0, 0, 1 << 20, at, 0), [fd])
ask(5, struct.pack('IIQQQQ', 1, 0, 0, 1 << 20, at, 0), [fd])
ask(1, b'', size=8)`;
  expect(spawnSync('python3', ['-c', code, socket()], { encoding: 'utf8', env: plainEnv(), timeout: 90_000 })).toMatchObject({
    status: 0,
    stderr: '',
  });
  await server.sees(/connection ended/);
  expect(logged().match(/mapped its memory at 0x0 privately.*share=on/g) ?? []).toHaveLength(warned ? 1 : 0);
});

test('a front-end that waits is told once, and served when the other one has gone', async () => {
  const first = await FrontEnd.connect(socket());
  await first.negotiate(0n);
  expect(logged()).not.toContain('waits');
  const second = await FrontEnd.connect(socket());
  await server.sees(/another front-end waits until the one that is connected has gone/);
  const third = await FrontEnd.connect(socket());
  first.close();
  await second.negotiate(0n);
  second.close();
  await third.negotiate(0n);
  third.close();
  expect(await server.stop()).toBe(0);
  expect(logged().match(/another front-end waits/g)).toHaveLength(2); // once for each connection that was waited for
});

test('--log-format json: one object a line, with the socket of the disk', async () => {
  const at = path.join(dir, 'json');
  const other = Background.vioctl(['vhost-user', 'serve', 'blk', `${at}=ram:1M`, `${at}2=ram:1M`, '--log-format', 'json']);
  await other.sees(/^serving /m);
  const front = await FrontEnd.connect(at);
  await front.negotiate(protocolMask('MQ', 'REPLY_ACK'));
  await front.request('SET_FEATURES', { value: VirtioF.version1 | VirtioF.protocolFeatures });
  await front.request('SET_VRING_NUM', { index: 0, num: 64 });
  await expect(front.request('SET_VRING_ADDR', { index: 0, flags: 0, desc: 0n, avail: 0x1000n, used: 0x2000n, log: 0n })).rejects.toThrow(
    /EFAULT/,
  );
  await other.sees(/lies in no region/);
  front.close();
  expect(await other.stop()).toBe(0);
  const objects = other.stderr
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as Record<string, unknown>);
  for (const one of objects)
    expect(one).toMatchObject({ time: expect.stringMatching(/^\d{4}-.*Z$/), event: expect.any(String), message: expect.any(String) });
  expect(objects).toContainEqual(
    expect.objectContaining({ event: 'disk', socket: at, message: expect.stringContaining('lies in no region') }),
  );
  expect(objects.at(-1)).toMatchObject({ event: 'totals' });
});
