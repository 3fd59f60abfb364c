/** Files in memory (tmpfs) are read as their pages: what that must not do to holes, and to files that change their size. */
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { native } from '../../src/native/index.js';
import { Controller } from '../../src/nvme/host/controller.js';
import { Subsystem } from '../../src/nvme/target/subsystem.js';
import { Target } from '../../src/nvme/target/target.js';
import { NvmOpcode, rwCmd, sqe } from '../../src/nvme/wire/index.js';
import { capsule, connectCapsule, enableCapsule, hostid, hostnqn, icRequest, Peer } from '../support/nvme-raw.js';
import { skip } from '../support/skip.js';

const nqn = 'nqn.2014-08.org.nvmexpress:unit';
const SIZE = 4 << 20;
const BLOCK = 512;
const TIB = 2 ** 40;

/** File systems whose page cache is mapped as it is: ext4, XFS, Btrfs. */
const mapped = [0xef53, 0x58465342, 0x9123683e].includes(fs.statfsSync(os.tmpdir()).type);
const places = [
  { place: 'memory', folder: '/dev/shm', looked: true },
  { place: 'the page cache', folder: os.tmpdir(), looked: mapped },
];
const ways = places.flatMap((place) => [false, true].map((dataDigest) => ({ ...place, dataDigest })));

describe.each(ways)('in $place, data digest $dataDigest', ({ place, folder, looked, dataDigest }) => {
  let dir: string | undefined;
  let file: string;
  let target: Target;
  let subsystem: Subsystem;
  let host: Controller;
  let port: number;

  beforeEach(async () => {
    if (!fs.existsSync(folder)) return skip(`files in ${place}`, `needs ${folder}`);
    dir = fs.mkdtempSync(path.join(folder, 'vioctl-view-'));
    file = path.join(dir, 'disk');
    fs.writeFileSync(file, '');
    fs.truncateSync(file, SIZE);
    target = new Target(native().nvme, {});
    subsystem = new Subsystem(native().nvme, { nqn });
    subsystem.add({ source: file, blockSize: BLOCK });
    target.addSubsystem(subsystem);
    ({ port } = target.listen('127.0.0.1', 0));
    host = await Controller.connect({ address: '127.0.0.1', port, timeout: 60_000, subnqn: nqn, hostnqn, hostid, ioQueues: 1, dataDigest });
  });
  afterEach(async () => {
    if (dir === undefined) return;
    host.close();
    await target.stop();
    fs.rmSync(dir, { recursive: true });
    dir = undefined;
  });

  const run = async (opcode: number, at: number, fields: object, way?: { into: Buffer } | { out: Buffer }): Promise<number> => {
    const command = rwCmd.encode({ slba: BigInt(at / BLOCK), ...fields }, sqe.encode({ opcode, nsid: 1 }));
    const { status } = await host.queues[0]!.send(command, way);
    return (status.sct << 8) | status.sc;
  };
  const read = async (at: number, size: number): Promise<Buffer> => {
    const into = Buffer.alloc(size, 'old');
    expect([at, size, await run(NvmOpcode.read, at, { nlb: size / BLOCK - 1 }, { into })]).toEqual([at, size, 0]);
    return into;
  };
  const write = async (at: number, out: Buffer): Promise<void> =>
    expect([at, await run(NvmOpcode.write, at, { nlb: out.length / BLOCK - 1 }, { out })]).toEqual([at, 0]);
  const allocated = (): number => fs.statSync(file).blocks * 512;
  const readAll = async (size: number): Promise<void> => {
    for (let at = 0; at < size; at += 65536) await read(at, 65536);
  };
  const grown = async (size: number): Promise<void> => {
    while (subsystem.namespaces.get(1)!.size !== size) await sleep(50);
  };

  test('reads fill no hole: of a new file, of zeroed and deallocated blocks, of a file that grows', async () => {
    if (dir === undefined) return;
    for (let i = 0; i < 3; i++) await readAll(SIZE);
    expect(allocated()).toBe(0);
    const data = Buffer.alloc(65536, 'data');
    for (let at = 0; at < SIZE; at += 65536) await write(at, data);
    for (let i = 0; i < 3; i++) expect((await read(131072, 65536)).equals(data)).toBe(true);
    expect(fs.readFileSync('/proc/self/maps', 'utf8')).toMatch(new RegExp(` r--s .* ${file}$`, 'm'));
    const full = allocated();
    expect(await run(NvmOpcode.writeZeroes, 131072, { nlb: 127, deac: 1 })).toBe(0);
    for (let i = 0; i < 20; i++) expect((await read(131072, 65536)).equals(Buffer.alloc(65536))).toBe(true);
    expect(allocated()).toBe(full - 65536);
    // a part of what is looked at at once
    await write(131072 + 4096, data.subarray(0, 4096));
    for (let i = 0; i < 20; i++) {
      const found = await read(131072, 65536);
      expect(found.subarray(4096, 8192).equals(data.subarray(0, 4096))).toBe(true);
      expect(found.subarray(8192).equals(Buffer.alloc(65536 - 8192))).toBe(true);
    }
    fs.truncateSync(file, 2 * SIZE);
    await grown(2 * SIZE);
    await readAll(2 * SIZE);
    await readAll(2 * SIZE);
    expect(allocated()).toBe(full - 65536 + 4096);
  });

  test.each([
    [SIZE - 65536, 1],
    [0, SIZE / 65536],
  ])('what was the last there becomes a hole, of bytes from %d on: nothing fills it', async (from, chunks) => {
    if (dir === undefined) return;
    for (let at = 0; at < SIZE; at += 65536) await write(at, Buffer.alloc(65536, 'data'));
    await readAll(SIZE);
    await readAll(SIZE);
    expect(await run(NvmOpcode.writeZeroes, from, { nlb: (chunks * 65536) / BLOCK - 1, deac: 1 })).toBe(0);
    const left = allocated();
    expect(left).toBe(SIZE - chunks * 65536);
    for (let i = 0; i < 20; i++) await read(0, 65536);
    expect(allocated()).toBe(left);
    await readAll(SIZE);
    expect(allocated()).toBe(left);
  });

  test('a file that is cut under reads: an error, and the same host goes on; it is read as it is when it has grown again', async () => {
    if (dir === undefined) return;
    const data = Buffer.alloc(65536, 'data');
    for (let round = 0; round < 3; round++) {
      for (let at = 0; at < SIZE; at += 65536) await write(at, data);
      await readAll(SIZE);
      fs.truncateSync(file, SIZE / 2);
      expect(await run(NvmOpcode.read, SIZE - 65536, { nlb: 127 }, { into: Buffer.alloc(65536) })).not.toBe(0);
      expect((await read(0, 65536)).equals(data)).toBe(true);
      await grown(SIZE / 2);
      fs.truncateSync(file, SIZE);
      await grown(SIZE);
      expect((await read(SIZE - 65536, 65536)).equals(Buffer.alloc(65536))).toBe(true);
      await write(SIZE - 65536, data);
      for (let i = 0; i < 20; i++) expect((await read(SIZE - 65536, 65536)).equals(data)).toBe(true);
    }
  });

  /** A host that has asked for the whole file, in commands of 128 KiB, and has read nothing of it. */
  const slowHost = async (): Promise<{ admin: Peer; queue: Peer }> => {
    const admin = await Peer.open(port);
    admin.socket.write(icRequest());
    await admin.pdu();
    admin.socket.write(connectCapsule(nqn));
    const cntlid = (await admin.pdu())!.readUInt16LE(8);
    admin.socket.write(enableCapsule());
    await admin.pdu();
    const queue = await Peer.open(port);
    queue.socket.write(Buffer.concat([icRequest(), connectCapsule(nqn, { qid: 1, cntlid, size: 64 })]));
    await queue.pdu();
    expect((await queue.pdu())!.readUInt16LE(22)).toBe(0);
    queue.socket.pause();
    const reads = Array.from({ length: SLOW / LARGE }, (_, i) => {
      const command = rwCmd.encode(
        { slba: BigInt((i * LARGE) / BLOCK), nlb: LARGE / BLOCK - 1 },
        sqe.encode({ opcode: NvmOpcode.read, nsid: 1, psdt: 1, cid: i, sglId: 0x5a, sglLength: LARGE }),
      );
      return capsule(command);
    });
    queue.socket.write(Buffer.concat(reads));
    await sleep(300); // what fits into the sockets has left, the rest waits
    return { admin, queue };
  };
  /** Takes the answers to its reads: all bytes must be those of the file. @returns how many have come with data */
  const takeAll = async (queue: Peer): Promise<number> => {
    let withData = 0;
    queue.socket.resume();
    for (let answers = 0; answers < SLOW / LARGE; ) {
      const pdu = await queue.pdu(10_000);
      if (!pdu) break;
      if (pdu[0] === 5) answers++;
      if (pdu[0] !== 7) continue;
      const [hlen, cid] = [pdu[3]!, pdu.readUInt16LE(8)];
      expect([cid, pdu.subarray(hlen, hlen + LARGE).equals(Buffer.alloc(LARGE, cid + 1))]).toEqual([cid, true]);
      withData++;
    }
    return withData;
  };
  const SLOW = 16 << 20;
  const LARGE = 131072;
  const fill = async (): Promise<void> => {
    fs.writeFileSync(file, Buffer.concat(Array.from({ length: SLOW / LARGE }, (_, i) => Buffer.alloc(LARGE, i + 1))));
    await grown(SLOW);
    for (let i = 0; i < 16; i++) await readAll(SLOW); // what is read once is not looked at in the page cache
    const maps = fs.readFileSync('/proc/self/smaps', 'utf8').split(/^(?=[0-9a-f]+-)/m);
    const bytes = maps.filter((map) => map.includes(file)).map((map) => Number(/^Rss: +(\d+)/m.exec(map)![1]) * 1024);
    if (looked) expect(Math.max(...bytes)).toBeGreaterThan(SLOW / 2);
  };

  test('a host that does not fetch what it has read keeps no file that is gone, and gets its data all the same', async () => {
    if (dir === undefined) return;
    await fill();
    const { admin, queue } = await slowHost();
    await target.remove(subsystem, 1);
    native().storage.close(native().storage.open(file, {})); // anybody may lock it
    fs.writeFileSync(file, Buffer.alloc(SLOW)); // what was read before stays what it was
    expect(await takeAll(queue)).toBeGreaterThan(0);
    queue.close();
    admin.close();
  });

  test('a file that is cut while its data waits to be sent: no zeroes take its place', async () => {
    if (dir === undefined) return;
    await fill();
    const { admin, queue } = await slowHost();
    fs.truncateSync(file, 4096);
    // another host finds out first
    expect(await run(NvmOpcode.read, 65536, { nlb: 127 }, { into: Buffer.alloc(65536) })).not.toBe(0);
    await takeAll(queue);
    queue.close();
    admin.close();
    expect((await read(0, 4096)).equals(Buffer.alloc(4096, 1))).toBe(true);
  });
});

test('a sparse file of many terabytes takes no memory to look at, nor time to forget', () => {
  if (!fs.existsSync('/dev/shm')) return skip('files in memory', 'needs /dev/shm');
  const large = fs.mkdtempSync('/dev/shm/vioctl-view-');
  const name = path.join(large, 'disk');
  const { storage } = native();
  try {
    fs.writeFileSync(name, Buffer.alloc(1 << 20, 'data'));
    fs.truncateSync(name, 8 * TIB);
    const before = process.memoryUsage().rss;
    const store = storage.open(name, {});
    for (let i = 0; i < 100; i++) {
      fs.truncateSync(name, i % 2 === 0 ? TIB : 8 * TIB);
      storage.refresh(store);
      expect(String(storage.peek(store, [[1 << 16, 4]]))).toBe('data');
      expect(storage.peek(store, [[TIB - 4, 4]])).toEqual([undefined]);
    }
    expect(process.memoryUsage().rss - before).toBeLessThan(64 << 20);
    storage.close(store);
    expect(fs.statSync(name).blocks * 512).toBe(1 << 20);
  } finally {
    fs.rmSync(large, { recursive: true });
  }
});

test('files on a disk are mapped up to the size of the memory; what is not is read', () => {
  if (!mapped) return;
  const large = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-view-'));
  const { storage } = native();
  const size = Math.min(os.totalmem(), 64 * 2 ** 30) / 2;
  const isMapped = (name: string) => fs.readFileSync('/proc/self/maps', 'utf8').includes(path.join(large, name));
  const open = (name: string) => {
    fs.writeFileSync(path.join(large, name), 'data');
    fs.truncateSync(path.join(large, name), size);
    return storage.open(path.join(large, name), {});
  };
  try {
    for (let round = 0; round < 3; round++) {
      const [first, second] = [open('first'), open('second')];
      expect([isMapped('first'), isMapped('second')]).toEqual([true, false]);
      for (const store of [first, second]) expect(String(storage.peek(store, [[0, 4]]))).toBe('data');
      storage.close(first);
      storage.close(second);
      expect(isMapped('first')).toBe(false);
    }
  } finally {
    fs.rmSync(large, { recursive: true });
  }
});
