/**
 * Sources that hang: hosts do not wait for each other's devices, nor for more requests of one source than there are
 * threads.
 */
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { native } from '../../src/native/index.js';
import { Controller, type ControllerOptions } from '../../src/nvme/host/controller.js';
import { Subsystem } from '../../src/nvme/target/subsystem.js';
import { Target } from '../../src/nvme/target/target.js';
import { NvmOpcode, rwCmd, sqe } from '../../src/nvme/wire/index.js';
import { FaultDisk, noFaultDisk } from '../support/fault-disk.js';
import { hostid, hostnqn } from '../support/nvme-raw.js';
import { skip } from '../support/skip.js';

const nqn = 'nqn.2014-08.org.nvmexpress:unit';
/** Milliseconds that a slow request takes. */
const delay = 3000;

const block = (opcode: number, nsid: number, slba: number, fields: Parameters<typeof rwCmd.encode>[0] = {}) =>
  rwCmd.encode({ slba: BigInt(slba), nlb: 7, ...fields }, sqe.encode({ opcode, nsid }));

describe.each(['sync', 'uring'] as const)('a source that hangs, engine %s', (engine) => {
  let dir: string;
  let disks: FaultDisk[];
  let target: Target;
  let options: ControllerOptions;

  const setUp = async (slow: number): Promise<boolean> => {
    const missing = noFaultDisk();
    if (missing) {
      skip('sources that hang', missing);
      return false;
    }
    dir = fs.mkdtempSync(path.join(os.tmpdir(), 'nvmt-'));
    const fast = path.join(dir, 'fast.img');
    fs.writeFileSync(fast, Buffer.alloc(1 << 20, 'fast'));
    disks = [];
    target = new Target(native().nvme, { engine });
    const subsystem = new Subsystem(native().nvme, { nqn });
    subsystem.add({ source: fast });
    for (let i = 0; i < slow; i++) {
      disks.push(await FaultDisk.open(16 << 20));
      subsystem.add({ source: disks[i]!.file });
    }
    target.addSubsystem(subsystem);
    const { port } = target.listen('127.0.0.1', 0);
    options = { address: '127.0.0.1', port, timeout: 60_000, subnqn: nqn, hostnqn, hostid, ioQueues: 1, queueSize: 128 };
    return true;
  };
  const tearDown = async () => {
    for (const disk of disks) await disk.set({ write_delay: 0, read_delay: 0, sync_delay: 0 });
    await target.stop();
    for (const disk of disks) await disk.close();
    fs.rmSync(dir, { recursive: true, force: true });
  };
  /** Operations of a neighbour, of every kind that its own source could delay. */
  const neighbour = async (host: Controller): Promise<void> => {
    const [queue] = host.queues;
    for (let round = 0; round < 4; round++) {
      await host.keepAlive();
      await queue!.run(block(NvmOpcode.read, 1, 8 * round), { into: Buffer.alloc(4096) });
      await queue!.run(block(NvmOpcode.write, 1, 8 * round), { out: Buffer.alloc(4096, round) });
      await queue!.run(block(NvmOpcode.verify, 1, 8 * round));
    }
  };

  test('100 requests of all kinds of one host: nobody else waits, nor the same host on another namespace', async () => {
    if (!(await setUp(1))) return;
    try {
      const [a, b] = [await Controller.connect(options), await Controller.connect(options)];
      const seconds = delay / 1000;
      await disks[0]!.set({ write_delay: seconds, read_delay: seconds, sync_delay: seconds });
      let left = 100;
      const kinds = [NvmOpcode.write, NvmOpcode.read, NvmOpcode.compare, NvmOpcode.verify, NvmOpcode.flush, NvmOpcode.writeZeroes];
      // away from the start of the file, which was read when it was opened
      const work = Array.from({ length: left }, (_, i) => {
        const opcode = kinds[i % kinds.length]!;
        const command = opcode === NvmOpcode.flush ? sqe.encode({ opcode, nsid: 2 }) : block(opcode, 2, 8192 + i * 64, { fua: i & 1 });
        const data = Buffer.alloc(4096);
        const way =
          opcode === NvmOpcode.read
            ? { into: data }
            : opcode === NvmOpcode.write || opcode === NvmOpcode.compare
              ? { out: data }
              : undefined;
        return b.queues[0]!.send(command, way).finally(() => left--);
      });
      for (const host of [a, b]) await neighbour(host);
      expect(left).toBe(100); // and none of the slow ones is done
      await disks[0]!.set({ write_delay: 0, read_delay: 0, sync_delay: 0 });
      for (const { status } of await Promise.all(work)) expect(status).toMatchObject({ sct: 0, sc: 0 });
      await a.disconnect();
      await b.disconnect();
    } finally {
      await tearDown();
    }
  });

  test('a reset of a controller is done once the commands of its queues have ended, and nobody waits for that', async () => {
    if (!(await setUp(1))) return;
    try {
      const [a, b] = [await Controller.connect(options), await Controller.connect(options)];
      await disks[0]!.set({ write_delay: delay / 1000 });
      const began = (await disks[0]!.ops()).filter((op) => op === 'write').length;
      b.queues[0]!.send(block(NvmOpcode.write, 2, 64), { out: Buffer.alloc(4096, 1) }).catch(() => {});
      while ((await disks[0]!.ops()).filter((op) => op === 'write').length === began) await new Promise((r) => setTimeout(r, 10));
      await b.setProperty('CC', 0n);
      await neighbour(a);
      const written = async (): Promise<boolean> => (await disks[0]!.read(64 * 512, 1))[0] === 1;
      const ready = async (): Promise<boolean> => ((await b.getProperty('CSTS')) & 1n) === 1n;
      expect([await ready(), await written()]).toEqual([true, false]);
      while (await ready()) {
        await b.keepAlive().catch(() => {}); // refused, and answered
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
      expect(await written()).toBe(true);
      await a.disconnect();
      b.close();
    } finally {
      await tearDown();
    }
  });

  test('more slow sources than a source may have threads, with many requests each', async () => {
    if (!(await setUp(12))) return;
    try {
      const [a, b] = [await Controller.connect(options), await Controller.connect(options)];
      for (const disk of disks) await disk.set({ write_delay: delay / 1000 });
      let left = 96;
      const work = Array.from({ length: left }, (_, i) =>
        b.queues[0]!.send(block(NvmOpcode.write, 2 + (i % 12), i * 8), { out: Buffer.alloc(4096, i) }).finally(() => left--),
      );
      await neighbour(a);
      expect(left).toBe(96);
      for (const disk of disks) await disk.set({ write_delay: 0 });
      for (const { status } of await Promise.all(work)) expect(status).toMatchObject({ sct: 0, sc: 0 });
      await a.disconnect();
      await b.disconnect();
    } finally {
      await tearDown();
    }
  });

  test('a source that hangs now and then, for some milliseconds each time: every write is done once, and is read back', async () => {
    if (!(await setUp(1))) return;
    try {
      const host = await Controller.connect(options);
      const [queue] = host.queues;
      const last = new Map<number, number>(); // what each block of eight was last given
      const write = async (nsid: number, place: number, round: number): Promise<void> => {
        const value = (round * 7 + place) & 0xff;
        const { status } = await queue!.run(block(NvmOpcode.write, nsid, place * 8), { out: Buffer.alloc(4096, value) });
        expect(status).toMatchObject({ sct: 0, sc: 0 });
        last.set(nsid * 1000 + place, value);
      };
      // 24 writers of the source that hangs and 8 of the other, each one after the other, through 20 hangs.
      let over = false;
      const writers = Array.from({ length: 32 }, async (_, i) => {
        for (let round = 0; !over; round++) await write(i < 24 ? 2 : 1, i, round);
      });
      for (let hang = 0; hang < 20; hang++) {
        await disks[0]!.set({ write_delay: 0.001 * (1 + (hang % 5) * 6) });
        await new Promise((resolve) => setTimeout(resolve, 20));
        await disks[0]!.set({ write_delay: 0 });
        await new Promise((resolve) => setTimeout(resolve, 40));
      }
      over = true;
      await Promise.all(writers);
      expect(last.size).toBe(32);
      for (const [key, value] of last) {
        const data = Buffer.alloc(4096);
        await queue!.run(block(NvmOpcode.read, Math.floor(key / 1000), (key % 1000) * 8), { into: data });
        expect(data.equals(Buffer.alloc(4096, value))).toBe(true);
      }
      await host.disconnect();
    } finally {
      await tearDown();
    }
  });
});
