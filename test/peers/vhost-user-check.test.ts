import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { program, vioctl } from '../support/cli.js';
import { type QemuBuild, qemuForTest } from '../vm/qemu.js';
import { vhostDeviceForTest } from './vhost-device.js';

/** check over our own back-ends, and over those of QEMU and rust-vmm. */
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
  const { status, stdout, stderr } = vioctl(['vhost-user', 'check', socket(), '--json', '--timeout', '8', '--respawn', respawn], {
    timeout: 120000,
  });
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

/** What front-ends of the wild send by mistake at most, and no honest one at all: a back-end that takes it says 0, success. */
const framing = [
  ...['version 0', 'version 2', 'a request with the reply bit', 'a reserved flag bit', 'a payload where none belongs'],
  ...['a payload that is too short', 'a payload that is too long', 'a descriptor where none belongs'],
];
/** Success is told of a feature that the back-end has not offered. */
const unoffered = ['SET_FEATURES with a bit that was not offered', 'SET_PROTOCOL_FEATURES with a bit that was not offered'];
/** The first access to the memory behind the end of the file is a SIGBUS. */
const beyondFile = ['SET_MEM_TABLE beyond the end of its file', 'ADD_MEM_REG beyond the end of its file'];
/** Indexes of a split ring are taken modulo its size (virtio 1.3, 2.7): with 3 they jump when they wrap. */
const oddSize = ['SET_VRING_NUM that is no power of two'];
/** libvhost-user logs these as errors, does nothing, and says success all the same. */
const ignored = [
  ...['an unknown request', 'SET_MEM_TABLE without its descriptor', 'SET_MEM_TABLE with a descriptor too many'],
  ...['SET_MEM_TABLE with a region of no size', 'SET_MEM_TABLE with regions that overlap', 'ADD_MEM_REG with two descriptors'],
  ...['ADD_MEM_REG without a descriptor', 'REM_MEM_REG of a region that is not there', 'SET_VRING_NUM for ring 200'],
  ...['SET_VRING_NUM of 65536', 'SET_VRING_BASE for ring 200', 'SET_VRING_ENABLE for ring 200', 'SET_VRING_ENABLE with 2'],
  ...['SET_VRING_ADDR outside memory', 'SET_VRING_KICK without its descriptor', 'SET_VRING_CALL with two descriptors'],
  ...['SET_VRING_CALL for ring 200', 'SET_BACKEND_REQ_FD without its descriptor'],
];
/** An answer to GET_VRING_BASE makes a front-end believe in the ring; that of QEMU 10 ends by an assertion. */
const noRing = ['GET_VRING_BASE of ring 200'];
/** Bytes from 0 on come, whatever the offset. */
const offset = ['GET_CONFIG honours its offset'];
/** It may answer while requests are under way, and then the used index lies behind the base: seen on most runs. */
const sometimes = ['requests in the ring at GET_VRING_BASE are answered or left'];

/** Every finding over another back-end has its reason above; nothing else is found. */
function findings(cases: Case[]): string[] {
  return names(cases, 'not ok')
    .filter((name) => !sometimes.includes(name))
    .sort();
}

test.each(['10', '11'] as const)(
  'qemu-storage-daemon of QEMU %s: every finding has its reason',
  async (version) => {
    const daemon = await qemuForTest(version, `check over qemu-storage-daemon ${version}`);
    if (!daemon) return;
    fs.writeFileSync(path.join(dir, 'img'), Buffer.alloc(1 << 20));
    const exported = `type=vhost-user-blk,id=e,node-name=f,addr.type=unix,addr.path=${socket()},num-queues=2,writable=on`;
    const args = ['--blockdev', `driver=file,node-name=f,filename=${dir}/img`, '--export', exported];
    const { status, cases } = check(line(daemon.argv('qemu-storage-daemon', args)));
    expect(status).toBe(4);
    expect(findings(cases)).toEqual([...framing, ...unoffered, ...beyondFile, ...oddSize, ...ignored, ...noRing, ...offset].sort());
    expect(cases.find((c) => c.name === 'version 0')).toMatchObject({
      got: 'accepted (reply 0)',
      expected: expect.stringContaining('refused'),
    });
  },
  120000,
);

test('virtiofsd, which ends with every connection: every finding has its reason', () => {
  if (!build) return;
  fs.mkdirSync(path.join(dir, 'share'));
  const args = [`--socket-path=${socket()}`, '--shared-dir', path.join(dir, 'share'), '--sandbox=none'];
  const { status, cases } = check(line(build.argv('virtiofsd', args)));
  expect(status).toBe(4);
  expect(findings(cases)).toEqual([unoffered[1]!, ...beyondFile, ...oddSize].sort());
  // It refuses by an error, then closes.
  expect(cases.find((c) => c.name === 'SET_VRING_NUM for ring 200')).toMatchObject({
    result: 'ok',
    got: expect.stringMatching(/^refused \(error 1\), then the connection closed$/),
  });
});

test('vhost-device-vsock: every finding has its reason', async () => {
  const daemon = await vhostDeviceForTest('check over vhost-device-vsock');
  if (!daemon) return;
  const argv = [daemon, '--guest-cid', '3', '--socket', socket(), '--uds-path', path.join(dir, 'uds')];
  const { status, cases } = check(line(argv));
  expect(status).toBe(4);
  expect(findings(cases)).toEqual([unoffered[1]!, beyondFile[0]!, ...oddSize].sort());
  // its error is a configuration without bytes
  expect(cases.find((c) => c.name === 'GET_CONFIG beyond the end')).toMatchObject({ result: 'ok', got: 'reply of 12 bytes' });
});
