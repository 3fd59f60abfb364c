import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { FrontEnd } from '../../src/vhost-user/frontend/frontend.js';
import { Window } from '../../src/vhost-user/frontend/window.js';
import { connect } from '../../src/vhost-user/wire/channel.js';
import { protocolMask } from '../../src/vhost-user/wire/features.js';
import { Background } from '../support/background.js';
import { vioctl } from '../support/cli.js';
import { Driver } from '../support/vhost-user.js';

/** Several disks in one process. */
let dir: string;
beforeEach(() => {
  dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-disks-'));
  fs.writeFileSync(at('a'), Buffer.alloc(1 << 20));
  fs.writeFileSync(at('b=c'), Buffer.alloc(2 << 20));
});
afterEach(() => fs.rmSync(dir, { recursive: true }));
const at = (name: string): string => path.join(dir, name);

async function capacity(socket: string): Promise<{ sectors: bigint; features: bigint; queues: bigint }> {
  const front = await FrontEnd.connect(socket);
  await front.negotiate(protocolMask('MQ', 'CONFIG'));
  const config = Buffer.from((await front.config(0, 8))!);
  const queues = await front.number('GET_QUEUE_NUM');
  front.close();
  return { sectors: config.readBigUInt64LE(), features: front.features, queues };
}

test('each socket serves its own source, with its own options; all go together', async () => {
  const server = Background.vioctl(['vhost-user', 'serve', 'blk', `${at('s1')}=${at('a')}`, `${at('s2')}=${at('b=c')},ro`, '--json']);
  try {
    await server.sees(/\n}\n/);
    const { disks } = JSON.parse(server.stdout);
    expect(disks).toMatchObject([
      { socket: at('s1'), size: 1 << 20, readonly: false },
      { socket: at('s2'), size: 2 << 20, readonly: true },
    ]);
    const [first, second] = [await capacity(at('s1')), await capacity(at('s2'))];
    expect([first.sectors, second.sectors]).toEqual([2048n, 4096n]);
    expect([(first.features >> 5n) & 1n, (second.features >> 5n) & 1n]).toEqual([0n, 1n]); // RO
    expect(first.queues).toBe(64n); // as many as a VMM may want
    expect(vioctl(['vhost-user', 'list', '--json']).stdout).toContain(at('s2'));
  } finally {
    expect(await server.stop()).toBe(0);
  }
  expect(server.stderr).toContain(`${at('s1')}: connection ended`);
  expect([fs.existsSync(at('s1')), fs.existsSync(at('s2'))]).toEqual([false, false]);
});

test('each has its own serial number, memory too, and the same one after a restart', async () => {
  const disks = [`${at('s1')}=ram:1M`, `${at('s2')}=ram:1M`, `${at('s3')}=${at('a')}`];
  const serials = async (): Promise<string[]> => {
    const server = Background.vioctl(['vhost-user', 'serve', 'blk', ...disks]);
    await server.sees(/^serving /m);
    const found: string[] = [];
    for (const socket of ['s1', 's2', 's3']) {
      const window = await Window.open(await connect(at(socket)));
      await window.start();
      const header = Buffer.alloc(16);
      header.writeUInt32LE(8); // VIRTIO_BLK_T_GET_ID
      const answer = await new Driver(window).request([header], 21, 60_000);
      expect(answer[20]).toBe(0);
      found.push(answer.toString('latin1', 0, 20));
      window.close();
    }
    expect(await server.stop()).toBe(0);
    return found;
  };
  const first = await serials();
  for (const serial of first) expect(serial).toMatch(/^[0-9a-f]{20}$/);
  expect(new Set(first).size).toBe(3);
  disks[0] = `./${path.relative('.', at('s1'))}=ram:1M`; // another spelling of the same path
  expect(await serials()).toEqual(first);
});

test.each([
  [[`s1=a`, `s1=a`], 2, /given twice/],
  [[`s1=a`, 's2'], 2, /SOCKET=SOURCE/],
  [['s1', 's2', '--file', 'a'], 2, /SOCKET=SOURCE/],
  [[`s1=a`, `s2=b`, '--serial', 'x'], 2, /several disks/],
  [[`s1=a`, `s2=missing`], 1, /ENOENT/],
  [[`s1=a`, `s2=a`], 3, /in use/],
] as const)('%j ends with status %d and serves nothing', (words, status, text) => {
  const argv = words.map((word) => word.replace(/^(s\d)(=?)(.*)$/, (_, s, eq, f) => `${at(s)}${eq}${f && at(f === 'b' ? 'b=c' : f)}`));
  const result = vioctl(['vhost-user', 'serve', 'blk', ...argv.map((word) => (word === 'a' ? at('a') : word))]);
  expect({ status: result.status, stdout: result.stdout }).toEqual({ status, stdout: '' });
  expect(result.stderr).toMatch(text);
  expect(fs.existsSync(at('s1'))).toBe(false);
});
