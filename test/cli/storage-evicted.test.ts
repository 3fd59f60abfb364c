/** Pages of a file that the kernel has taken back, on a disk that hangs: whoever uses another source does not wait. */
import { spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Controller } from '../../src/nvme/host/controller.js';
import { NvmOpcode, rwCmd, sqe } from '../../src/nvme/wire/index.js';
import { FaultDisk, noFaultDisk } from '../support/fault-disk.js';
import { capsule, connectCapsule, enableCapsule, icRequest, Peer } from '../support/nvme-raw.js';
import { connectHost, type ServedTarget, serveTarget } from '../support/nvme-target.js';
import { skip, which } from '../support/skip.js';

const missing = noFaultDisk() ?? (which('losetup') && which('mkfs.ext4') ? undefined : 'needs losetup and mkfs.ext4');
const [SIZE, LARGE, BLOCK] = [16 << 20, 131072, 512];
/** Longer than an answer of the other source may take, on a slow machine too. */
const hang = 10;
/** Longer than pages are believed to stay, and than a slow host may keep them. */
const late = 1200;

let dir: string;
let disk: FaultDisk | undefined;
let target: ServedTarget;
let host: Controller;
let file: string;
const data = randomBytes(SIZE);

const program = (name: string, ...args: string[]): string => {
  const { status, stdout, stderr } = spawnSync(name, args, { encoding: 'utf8' });
  if (status !== 0) throw new Error(`${name} ${args.join(' ')}: ${stderr}`);
  return stdout;
};
const read = async (nsid: number, offset: number, size: number): Promise<Buffer> => {
  const into = Buffer.alloc(size);
  const command = rwCmd.encode({ slba: BigInt(offset / BLOCK), nlb: size / BLOCK - 1 }, sqe.encode({ opcode: NvmOpcode.read, nsid }));
  const { status } = await host.queues[0]!.send(command, { into });
  expect([nsid, offset, status.sct, status.sc]).toEqual([nsid, offset, 0, 0]);
  return into;
};
/** Bytes of the file that the target has mapped. */
const mapped = (): number => {
  const maps = fs.readFileSync(`/proc/${target.child.pid}/smaps`, 'utf8').split(/^(?=[0-9a-f]+-)/m);
  return maps.filter((map) => map.includes(file)).reduce((sum, map) => sum + Number(/^Rss: +(\d+)/m.exec(map)![1]) * 1024, 0);
};
const evict = (): void => {
  const left = program('python3', path.resolve(__dirname, '../support/programs/pageout.py'), `${target.child.pid}`, file);
  expect(Number(left)).toBeLessThan(SIZE / 4);
};
/** Reads of the other source while the disk hangs. */
const others = async (): Promise<void> => {
  for (let i = 0; i < 20; i++) {
    const began = performance.now();
    expect((await read(2, i * 4096, 4096)).equals(Buffer.alloc(4096))).toBe(true);
    expect(performance.now() - began).toBeLessThan((hang * 1000) / 2);
    await sleep(50);
  }
};

beforeEach(async () => {
  if (missing !== undefined) return;
  disk = await FaultDisk.open(64 << 20, true);
  program('mkfs.ext4', '-q', '-F', disk.file);
  dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-evicted-'));
  program('mount', '-o', 'loop,noatime', disk.file, dir);
  file = path.join(dir, 'disk');
  fs.writeFileSync(file, data);
  program('sync', '-f', file);
  target = await serveTarget([`${file},ro`, 'ram:1M', '--threads', '1']);
  host = await connectHost(target, { ioQueues: 1 });
  for (let round = 0; round < 16; round++)
    for (let offset = 0; offset < SIZE; offset += LARGE)
      expect((await read(1, offset, LARGE)).equals(data.subarray(offset, offset + LARGE))).toBe(true);
  expect(mapped()).toBeGreaterThan(SIZE / 2); // it is sent from there
});
afterEach(async () => {
  if (disk === undefined) return;
  host.close();
  target.child.kill('SIGKILL');
  program('umount', '-l', dir); // it may still be read
  fs.rmdirSync(dir);
  await disk.close(); // ends what waits for it
  disk = undefined;
  await target.stop('SIGKILL');
});

test('that are read after a while', async () => {
  if (disk === undefined) return skip('pages that were evicted', missing!);
  evict();
  await disk.set({ read_delay: hang });
  await sleep(late);
  const reads = Array.from({ length: 8 }, (_, i) => read(1, i * (SIZE / 8), LARGE));
  await others();
  await disk.set({ read_delay: 0 });
  for (const [i, got] of (await Promise.all(reads)).entries())
    expect(got.equals(data.subarray(i * (SIZE / 8), i * (SIZE / 8) + LARGE))).toBe(true);
});

test('that a slow host has asked for and not fetched', async () => {
  if (disk === undefined) return skip('pages that a slow host has asked for', missing!);
  const admin = await Peer.open(target.port);
  admin.socket.write(icRequest());
  await admin.pdu();
  admin.socket.write(connectCapsule(target.nqn));
  const cntlid = (await admin.pdu())!.readUInt16LE(8);
  admin.socket.write(enableCapsule());
  await admin.pdu();
  const queue = await Peer.open(target.port);
  queue.socket.write(Buffer.concat([icRequest(), connectCapsule(target.nqn, { qid: 1, cntlid, size: 128 })]));
  await queue.pdu();
  expect((await queue.pdu())!.readUInt16LE(22)).toBe(0);
  queue.socket.pause();
  const reads = Array.from({ length: SIZE / LARGE - 1 }, (_, cid) => {
    const fields = { opcode: NvmOpcode.read, nsid: 1, psdt: 1, cid, sglId: 0x5a, sglLength: LARGE };
    return capsule(rwCmd.encode({ slba: BigInt((cid * LARGE) / BLOCK), nlb: LARGE / BLOCK - 1 }, sqe.encode(fields)));
  });
  queue.socket.write(Buffer.concat(reads));
  await sleep(late);
  evict();
  await disk.set({ read_delay: hang });
  queue.socket.resume();
  const fetched = (async () => {
    for (let answers = 0; answers < reads.length; ) {
      const pdu = (await queue.pdu(60_000))!;
      if (pdu[0] === 5) answers++;
      if (pdu[0] !== 7) continue;
      const [begin, cid] = [pdu[3]!, pdu.readUInt16LE(8)];
      expect([cid, pdu.subarray(begin, begin + LARGE).equals(data.subarray(cid * LARGE, (cid + 1) * LARGE))]).toEqual([cid, true]);
    }
  })();
  await others();
  await disk.set({ read_delay: 0 }); // what was not taken before is read now
  await fetched;
  queue.close();
  admin.close();
});
