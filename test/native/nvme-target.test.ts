import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { native } from '../../src/native/index.js';
import { Controller } from '../../src/nvme/host/controller.js';
import { Subsystem } from '../../src/nvme/target/subsystem.js';
import { Target } from '../../src/nvme/target/target.js';
import { NvmOpcode, rwCmd, sqe } from '../../src/nvme/wire/index.js';
import { capsule, connectCapsule, enableCapsule, hostid, hostnqn, icRequest, Peer } from '../support/nvme-raw.js';
import { eventually } from '../support/wait.js';

const nqn = 'nqn.2014-08.org.nvmexpress:unit';
const openFds = () => fs.readdirSync('/proc/self/fd').length;
const rss = () => process.memoryUsage().rss;
const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

/** A block command of namespace 1. */
const block = (opcode: number, slba: bigint, blocks: number, extra: Parameters<typeof rwCmd.encode>[0] = {}): Buffer => {
  const command = sqe.encode({ opcode, nsid: 1 });
  return rwCmd.encode({ slba, nlb: blocks - 1, ...extra }, command);
};

describe.each(['sync', 'uring'] as const)('the NVMe/TCP target, engine %s', (engine) => {
  let dir: string;
  let target: Target;
  let port: number;
  const file = () => path.join(dir, 'disk.img');
  const connect = (options: { ioQueues?: number; headerDigest?: boolean; dataDigest?: boolean; sqFlowControlOff?: boolean } = {}) =>
    Controller.connect({ address: '127.0.0.1', port, timeout: 90_000, subnqn: nqn, hostnqn, hostid, ioQueues: 1, ...options });

  beforeEach(() => {
    dir = fs.mkdtempSync(path.join(os.tmpdir(), 'nvmt-'));
    fs.writeFileSync(file(), '');
    fs.truncateSync(file(), 16 << 20);
    target = new Target(native().nvme, { engine, handshakeMs: 700, threads: 2, maxConnections: 900 });
    const subsystem = new Subsystem(native().nvme, { nqn });
    subsystem.add({ source: file() });
    subsystem.add({ source: `ram:${16 << 20}`, blockSize: 4096 });
    target.addSubsystem(subsystem);
    port = target.listen('127.0.0.1', 0).port;
  });
  afterEach(async () => {
    await target.stop();
    fs.rmSync(dir, { recursive: true, force: true });
  });
  /** All connections are gone, on both sides. */
  const drained = async () => {
    await eventually(() => target.connections === 0 && target.controllers().length === 0);
    expect([target.connections, target.controllers().length]).toEqual([0, 0]);
  };

  test('500 connections at once, silent, half-open and garbage ones: hosts are served, nothing is left', async () => {
    await (await connect()).disconnect(); // what is opened once is open now
    await drained();
    const fds = openFds();
    const peers: Peer[] = [];
    for (let i = 0; i < 500; i++) {
      const peer = await Peer.open(port);
      peers.push(peer);
      if (i % 5 === 1) peer.socket.write('GET / HTTP/1.1\r\nHost: localhost\r\n\r\n');
      if (i % 5 === 2) peer.socket.write(icRequest().subarray(0, i % 128));
      if (i % 5 === 3) peer.socket.write(icRequest());
      if (i % 5 === 4) peer.socket.write(Buffer.concat([icRequest(), connectCapsule(nqn).subarray(0, 500 + i)]));
    }
    const host = await connect({ dataDigest: true });
    const data = Buffer.alloc(65536, 'served');
    await host.queues[0]!.run(block(NvmOpcode.write, 0n, 128), { out: data });
    const back = Buffer.alloc(65536);
    await host.queues[0]!.run(block(NvmOpcode.read, 0n, 128), { into: back });
    expect(back.equals(data)).toBe(true);
    await host.disconnect();
    // nobody has completed a Connect: the deadline ends them all, garbage at once
    for (const peer of peers) expect(await peer.until(() => peer.ended)).toBe(true);
    for (const peer of peers) peer.close();
    await drained();
    await sleep(100);
    expect(openFds()).toBeLessThanOrEqual(fds);
  });

  test('connections above the limit: the oldest that say nothing make room, hosts at work do not', async () => {
    const before = await connect();
    const peers: Peer[] = [];
    const limit = 900;
    for (let i = 0; i < limit + 50; i++) peers.push(await Peer.open(port));
    const ended = () => peers.filter((peer) => peer.ended).length;
    expect(await peers[0]!.until(() => peers[0]!.ended)).toBe(true);
    // a host comes in although all places are taken, and the one that was there works on
    const host = await connect();
    for (const { queues } of [before, host]) await queues[0]!.run(block(NvmOpcode.read, 0n, 8), { into: Buffer.alloc(4096) });
    expect(target.connections).toBeLessThanOrEqual(limit + 4);
    expect(ended()).toBeGreaterThan(40);
    for (const peer of peers) peer.close();
    await host.disconnect();
    await before.disconnect();
    await drained();
  });

  test('when all places are taken by hosts at work, one more is closed at once', async () => {
    const small = new Target(native().nvme, { engine, maxConnections: 4 });
    small.addSubsystem(new Subsystem(native().nvme, { nqn }));
    const at = small.listen('127.0.0.1', 0).port;
    const open = () => Controller.connect({ address: '127.0.0.1', port: at, timeout: 5000, subnqn: nqn, hostnqn, hostid, ioQueues: 1 });
    const hosts = [await open(), await open()];
    const peer = await Peer.open(at);
    expect(await peer.until(() => peer.ended)).toBe(true);
    for (const host of hosts) await host.disconnect();
    await small.stop();
  });

  test('a host that never reads is not read from any more, and others go on', async () => {
    const peer = await Peer.open(port);
    peer.socket.write(icRequest());
    expect((await peer.pdu())![0]).toBe(1);
    peer.socket.write(connectCapsule(nqn));
    const cntlid = (await peer.pdu())!.readUInt16LE(8);
    peer.socket.write(enableCapsule());
    await peer.pdu();
    const queue = await Peer.open(port);
    queue.socket.write(Buffer.concat([icRequest(), connectCapsule(nqn, { qid: 1, cntlid, size: 1024 })]));
    await queue.pdu();
    expect((await queue.pdu())!.readUInt16LE(22)).toBe(0);
    queue.socket.pause();
    const before = rss();
    // 1 GiB of reads, 128 KiB each, none of which is taken
    const reads: Buffer[] = [];
    for (let i = 0; i < 8192; i++) {
      const command = block(NvmOpcode.read, 0n, 256);
      sqe.encode({ psdt: 1, cid: i, sglId: 0x5a, sglLength: 131072 }, command);
      reads.push(capsule(command));
    }
    queue.socket.write(Buffer.concat(reads));
    await sleep(500);
    const host = await connect();
    await host.queues[0]!.run(block(NvmOpcode.read, 0n, 8), { into: Buffer.alloc(4096) });
    await host.disconnect();
    expect(rss() - before).toBeLessThan(128 << 20);
    queue.close();
    peer.close();
    await drained();
  });

  test('a truncated file gives a media error, not old memory and not a crash', async () => {
    const host = await connect();
    const [queue] = host.queues;
    fs.truncateSync(file(), 4096);
    const into = Buffer.alloc(4096, 0x55);
    const { status } = await queue!.send(block(NvmOpcode.read, 8n, 8), { into });
    expect([status.sct, status.sc]).toEqual([2, 0x81]);
    expect(into.equals(Buffer.alloc(4096, 0x55))).toBe(true);
    expect((await queue!.send(block(NvmOpcode.read, 0n, 8), { into })).status.sc).toBe(0);
    await host.disconnect();
  });

  test.each([
    ['plain', {}],
    ['digests', { headerDigest: true, dataDigest: true }],
    ['flow control off', { sqFlowControlOff: true }],
    ['both', { headerDigest: true, dataDigest: true, sqFlowControlOff: true }],
  ])('every size and opcode moves the right bytes (%s)', async (_name, options) => {
    const host = await connect({ ...options, ioQueues: 2 });
    const [a, b] = host.queues;
    for (const blocks of [1, 8, 31, 32, 33, 256, 2048]) {
      const data = Buffer.from(Array.from({ length: 512 }, (_, i) => (i * blocks) & 0xff));
      const all = Buffer.alloc(blocks * 512, data);
      await a!.run(block(NvmOpcode.write, 3n, blocks, { fua: blocks & 1 }), { out: all });
      const back = Buffer.alloc(all.length);
      await b!.run(block(NvmOpcode.read, 3n, blocks), { into: back });
      expect(back.equals(all)).toBe(true);
      await b!.run(block(NvmOpcode.compare, 3n, blocks), { out: all });
      all[all.length - 1]! ^= 1;
      expect((await b!.send(block(NvmOpcode.compare, 3n, blocks), { out: all })).status).toMatchObject({ sct: 2, sc: 0x85, dnr: true });
    }
    await a!.run(block(NvmOpcode.writeZeroes, 4n, 100, { deac: 1 }));
    await a!.run(block(NvmOpcode.verify, 0n, 2048));
    const zeroes = Buffer.alloc(102 * 512, 1);
    await a!.run(block(NvmOpcode.read, 3n, 102), { into: zeroes });
    expect(zeroes.subarray(512, 101 * 512).equals(Buffer.alloc(100 * 512))).toBe(true);
    expect(zeroes[0]).toBe(0);
    expect(zeroes[101 * 512 + 1]).toBe(2048 & 0xff);
    // source ranges that overlap their destination: all is read before anything is written
    await a!.run(block(NvmOpcode.write, 0n, 4), { out: Buffer.from([1, 2, 3, 4].flatMap((n) => new Array<number>(512).fill(n))) });
    const copy = sqe.encode({ opcode: NvmOpcode.copy, nsid: 1, cdw10: 1, cdw12: 1 });
    const ranges = Buffer.alloc(64);
    ranges.writeUInt16LE(1, 16); // blocks 0 and 1
    ranges.writeBigUInt64LE(1n, 40); // block 1
    await a!.run(copy, { out: ranges });
    const copied = Buffer.alloc(4 * 512);
    await a!.run(block(NvmOpcode.read, 0n, 4), { into: copied });
    expect([0, 512, 1024, 1536].map((at) => copied[at])).toEqual([1, 1, 2, 2]);
    await host.disconnect();
    await drained();
  });

  test('fused compare-and-write: done together, or neither', async () => {
    const host = await connect();
    const [queue] = host.queues;
    const old = Buffer.alloc(512, 'old');
    const fresh = Buffer.alloc(512, 'new');
    await queue!.run(block(NvmOpcode.write, 7n, 1), { out: old });
    const pair = (expected: Buffer, data: Buffer) =>
      Promise.all([
        queue!.send(sqe.encode({ fuse: 1 }, block(NvmOpcode.compare, 7n, 1)), { out: expected }),
        queue!.send(sqe.encode({ fuse: 2 }, block(NvmOpcode.write, 7n, 1)), { out: data }),
      ]);
    const codes = (list: { status: { sct: number; sc: number } }[]) => list.map(({ status }) => [status.sct, status.sc]);
    expect(codes(await pair(fresh, fresh))).toEqual([
      [2, 0x85],
      [0, 0x09],
    ]);
    expect(codes(await pair(old, fresh))).toEqual([
      [0, 0],
      [0, 0],
    ]);
    const back = Buffer.alloc(512);
    await queue!.run(block(NvmOpcode.read, 7n, 1), { into: back });
    expect(back.equals(fresh)).toBe(true);
    // a second half without a first
    expect(codes([await queue!.send(sqe.encode({ fuse: 2 }, block(NvmOpcode.write, 7n, 1)), { out: old })])).toEqual([[0, 0x0a]]);
    await host.disconnect();
  });

  test('counters count what was moved, and the error log what failed', async () => {
    const host = await connect();
    const [queue] = host.queues;
    await queue!.run(block(NvmOpcode.write, 0n, 2000), { out: Buffer.alloc(2000 * 512) });
    await queue!.run(block(NvmOpcode.read, 0n, 8), { into: Buffer.alloc(4096) });
    expect((await queue!.send(block(NvmOpcode.read, 1n << 40n, 8), { into: Buffer.alloc(4096) })).status).toMatchObject({
      sc: 0x80,
      dnr: true,
    });
    const smart = await host.getLog(2, 512);
    expect([32, 48, 64, 80].map((at) => Number(smart.readBigUInt64LE(at)))).toEqual([1, 2, 1, 1]);
    const errors = await host.getLog(1, 64);
    expect(errors.readBigUInt64LE(0)).toBe(1n);
    expect(errors.readUInt16LE(8)).toBe(1);
    expect(errors.readUInt16LE(12) >> 1).toBe(0x4080);
    expect(errors.readBigUInt64LE(16)).toBe(1n << 40n);
    await host.disconnect();
  });
});
