import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { program, vioctl } from '../support/cli.js';
import { type QemuBuild, qemuForTest } from '../vm/qemu.js';

/** check over our own back-ends, qemu-storage-daemon's and virtiofsd's. */
let dir: string;
let build: QemuBuild | undefined;
beforeAll(async () => {
  build = await qemuForTest('11', 'check over qemu-storage-daemon and virtiofsd');
});
beforeEach(() => {
  dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-check-'));
});
afterEach(() => fs.rmSync(dir, { recursive: true }));

type Case = { id: number; name: string; result: string; expected: string; got: string };
const socket = (): string => path.join(dir, 's');
/** A command line for sh. */
const line = (argv: readonly string[]): string => argv.map((word) => `'${word}'`).join(' ');
function check(respawn: string): { status: number | null; cases: Case[]; stderr: string } {
  const { status, stdout, stderr } = vioctl(['vhost-user', 'check', socket(), '--json', '--respawn', respawn], { timeout: 120000 });
  return { status, cases: (JSON.parse(stdout) as { cases: Case[] }).cases, stderr };
}
const names = (cases: Case[], result: string): string[] => cases.filter((c) => c.result === result).map((c) => c.name);

test.each([
  ['a window', []],
  ['a window with slots', ['--slots']],
  ['pmem', ['--pmem']],
])(
  '%s of ours: every case is ok',
  (_name, flags) => {
    const { status, cases } = check(
      line([process.execPath, program, 'vhost-user', 'shmem', 'serve', socket(), '--region', '0=16M', ...flags]),
    );
    expect(names(cases, 'not ok')).toEqual([]);
    expect(cases).toHaveLength(56);
    // rings of block devices, and messages about slots
    expect(names(cases, 'skipped')).toHaveLength(12 + (flags.includes('--slots') ? 0 : 4));
    expect(status).toBe(0);
  },
  120000,
);

test('TAP', () => {
  const serve = line([process.execPath, program, 'vhost-user', 'shmem', 'serve', socket(), '--region', '0=16M']);
  const { stdout, status } = vioctl(['vhost-user', 'check', socket(), '--tap', '--only', 'MEM_REG', '--respawn', serve]);
  expect(status).toBe(0);
  expect(stdout.split('\n').slice(0, 3)).toEqual([
    'TAP version 14',
    '1..4',
    'ok 1 - ADD_MEM_REG with two descriptors # SKIP CONFIGURE_MEM_SLOTS is not offered',
  ]);
});

test('qemu-storage-daemon: what it answers to each case is told', () => {
  if (!build) return;
  fs.writeFileSync(path.join(dir, 'img'), Buffer.alloc(1 << 20));
  const exported = `type=vhost-user-blk,id=e,node-name=f,addr.type=unix,addr.path=${socket()},num-queues=2,writable=on`;
  const args = ['--blockdev', `driver=file,node-name=f,filename=${dir}/img`, '--export', exported];
  const { status, cases } = check(line(build.argv('qemu-storage-daemon', args)));
  expect(status).toBe(4);
  expect(names(cases, 'ok')).toEqual(expect.arrayContaining(['a ring is set up, started and stopped', 'SET_MEM_TABLE with one region']));
  expect(names(cases, 'not ok')).toEqual(expect.arrayContaining(['GET_CONFIG honours its offset', 'version 0', 'an unknown request']));
  // Its rings are right, as far as it offers what is asked. It may answer GET_VRING_BASE while requests are still under way: the used
  // index then lies behind the base.
  const stopped = 'requests in the ring at GET_VRING_BASE are answered or left';
  expect(names(cases.slice(44), 'not ok').filter((name) => name !== stopped)).toEqual([]);
  expect(names(cases.slice(44), 'ok').length).toBeGreaterThanOrEqual(8);
  expect(cases.find((c) => c.name === 'version 0')).toMatchObject({
    got: 'accepted (reply 0)',
    expected: expect.stringContaining('refused'),
  });
}, 120000);

test('virtiofsd: what it answers to each case is told, though it ends with every connection', () => {
  if (!build) return;
  fs.mkdirSync(path.join(dir, 'share'));
  const args = [`--socket-path=${socket()}`, '--shared-dir', path.join(dir, 'share'), '--sandbox=none'];
  const { status, cases } = check(line(build.argv('virtiofsd', args)));
  expect(status).toBe(4);
  expect(names(cases, 'ok')).toEqual(expect.arrayContaining(['version 0', 'a reserved flag bit', 'a ring is set up, started and stopped']));
  expect(names(cases, 'not ok')).toEqual(expect.arrayContaining(['SET_MEM_TABLE beyond the end of its file']));
}, 120000);
