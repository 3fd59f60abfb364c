/**
 * Data of large writes that is received straight into the memory of a source: in any pieces, beside other commands, and cut off. Whole
 * blocks are written, or none of a block.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import fc from 'fast-check';
import { native } from '../../src/native/index.js';
import { Bench, type Facts } from '../../src/nvme/conform/bench.js';
import { learn } from '../../src/nvme/conform/index.js';
import type { Outcome, RawConnection } from '../../src/nvme/conform/raw.js';
import { Controller } from '../../src/nvme/host/controller.js';
import { Subsystem } from '../../src/nvme/target/subsystem.js';
import { Target } from '../../src/nvme/target/target.js';
import { NvmOpcode, rwCmd, sqe } from '../../src/nvme/wire/index.js';
import { hostid, hostnqn } from '../support/nvme-raw.js';
import { eventually } from '../support/wait.js';

const nqn = 'nqn.2014-08.org.nvmexpress:unit';
const SIZE = 4 << 20;
const LAST = 4;

type Ask = Extract<Outcome, { kind: 'r2t' }>;

describe.each([
  [512, 50],
  [4096, 0],
])('writes into memory with blocks of %d bytes, spinning for %d µs', (blockSize, spinMicroseconds) => {
  let target: Target;
  let subsystem: Subsystem;
  let facts: Facts;
  let bench: Bench;
  let options: Parameters<typeof Controller.connect>[0];

  beforeEach(async () => {
    target = new Target(native().nvme, { engine: 'sync', threads: 2, spinMicroseconds });
    subsystem = new Subsystem(native().nvme, { nqn });
    subsystem.add({ source: `ram:${SIZE}`, blockSize });
    target.addSubsystem(subsystem);
    const { port } = target.listen('127.0.0.1', 0);
    options = { address: '127.0.0.1', port, timeout: 60_000, subnqn: nqn, hostnqn, hostid, ioQueues: 1 };
    facts = await learn(options);
    bench = new Bench(facts);
  });
  afterEach(async () => {
    bench.close();
    await target.stop();
  });

  /** The WRITE of some blocks, whose data has been asked for. */
  const asked = async (io: RawConnection, slba: number, blocks: number, cid: number): Promise<Ask> => {
    io.send(
      io.capsule({ opcode: NvmOpcode.write, nsid: 1 }, { ...bench.rw(BigInt(slba), blocks, { length: blocks * blockSize }), cid }).pdu,
    );
    const ask = await io.next();
    if (ask.kind !== 'r2t') throw new Error(`no R2T but ${ask.kind}`);
    return ask;
  };
  const part = (io: RawConnection, ask: Ask, data: Buffer, datao: number, datal: number): Buffer =>
    io.h2c(
      { cccid: ask.cccid, ttag: ask.ttag, datao, datal },
      data.subarray(datao, datao + datal),
      datao + datal === data.length ? LAST : 0,
    );
  /** Sends bytes in pieces that end at some places, each by itself. */
  const inPieces = async (io: RawConnection, bytes: Buffer, ends: readonly number[]): Promise<void> => {
    let from = 0;
    for (const to of [...ends].sort((a, b) => a - b)) {
      io.send(bytes.subarray(from, to));
      from = to;
      await sleep(1);
    }
    io.send(bytes.subarray(from));
  };
  const read = async (host: Controller, slba: number, bytes: number): Promise<Buffer> => {
    const into = Buffer.alloc(bytes);
    const command = sqe.encode({ opcode: NvmOpcode.read, nsid: 1 });
    await host.queues[0]!.run(rwCmd.encode({ slba: BigInt(slba), nlb: bytes / blockSize - 1 }, command), { into });
    return into;
  };
  const contents = async (slba: number, blocks: number): Promise<Buffer> => {
    const host = await Controller.connect(options);
    const into = await read(host, slba, blocks * blockSize);
    await host.disconnect();
    return into;
  };

  /** Has compare-and-write pairs take the namespace for themselves, again and again, until it is told to stop. */
  const pairs = async (slba: number): Promise<() => Promise<void>> => {
    const host = await Controller.connect(options);
    const blocks = 131072 / blockSize;
    const half = (opcode: number, fuse: number): Promise<unknown> =>
      host.queues[0]!.run(rwCmd.encode({ slba: BigInt(slba), nlb: blocks - 1 }, sqe.encode({ opcode, nsid: 1, fuse })), {
        out: Buffer.alloc(131072),
      });
    let running = true;
    const all = (async () => {
      while (running) await Promise.all([half(NvmOpcode.compare, 1), half(NvmOpcode.write, 2)]);
    })();
    return async () => {
      running = false;
      await all;
      await host.disconnect();
    };
  };

  test.each([false, true])(
    'two writes at a time, their data in PDUs and pieces of any sizes, in turns; beside pairs: %s',
    async (beside) => {
      const { io } = await bench.session();
      const stop = beside ? await pairs((3 << 20) / blockSize) : undefined;
      const unit = fc.record({
        slba: fc.nat(40),
        blocks: fc.integer({ min: 2 * Math.ceil(8192 / blockSize), max: 131072 / blockSize }),
        cuts: fc.array(fc.record({ at: fc.nat(131072), step: fc.constantFrom(4, ...Array<number>(7).fill(blockSize)) }), { maxLength: 2 }),
      });
      const reader = await Controller.connect(options);
      const model = Buffer.alloc(2 << 20);
      let fill = 0;
      await fc.assert(
        fc.asyncProperty(
          unit,
          unit,
          fc.array(fc.nat(150_000), { maxLength: 40, size: 'max' }),
          fc.integer(),
          async (one, two, ends, order) => {
            const both = [one, two].map(({ slba, blocks, cuts }, i) => {
              const data = Buffer.alloc(blocks * blockSize, `${fill++} data `);
              const offsets = [...new Set([0, ...cuts.map(({ at, step }) => Math.floor(at / step) * step), data.length])]
                .filter((cut) => cut <= data.length)
                .sort((a, b) => a - b);
              // apart from each other: two writes of one block at a time may leave either
              return { at: slba + i * ((1 << 20) / blockSize), data, offsets };
            });
            const asks: Ask[] = [];
            for (const [i, { at, data }] of both.entries()) asks.push(await asked(io, at, data.length / blockSize, i + 1));
            const queues = both.map(({ data, offsets }, i) =>
              offsets.slice(0, -1).map((offset, k) => part(io, asks[i]!, data, offset, offsets[k + 1]! - offset)),
            );
            const pdus: Buffer[] = [];
            for (let turn = order; queues[0]!.length + queues[1]!.length > 0; turn = Math.imul(turn, 1664525) + 1013904223) {
              const next = queues[(turn >>> 16) & 1]!.length > 0 ? queues[(turn >>> 16) & 1]! : queues[~(turn >>> 16) & 1]!;
              pdus.push(next.shift()!);
            }
            const bytes = Buffer.concat(pdus);
            await inPieces(
              io,
              bytes,
              ends.filter((end) => end < bytes.length),
            );
            const done = [await io.next(), await io.next()];
            expect(done).toEqual([1, 2].map(() => expect.objectContaining({ kind: 'cqe', sct: 0, sc: 0 })));
            for (const { at, data } of both) data.copy(model, at * blockSize);
            for (let at = 0; at < model.length; at += 1 << 19)
              expect((await read(reader, at / blockSize, 1 << 19)).equals(model.subarray(at, at + (1 << 19)))).toBe(true);
          },
        ),
        { numRuns: 60 },
      );
      await stop?.();
      await reader.disconnect();
    },
  );

  test.each([1, 0.5, 1.5, 3, 7.25])('a host that vanishes %d blocks into the data leaves whole blocks', async (blocks) => {
    const all = 65536 / blockSize + 16;
    const old = Buffer.alloc(all * blockSize, 'old ');
    const { io } = await bench.session();
    const first = await asked(io, 0, all, 1);
    io.send(part(io, first, old, 0, old.length));
    expect(await io.completion(1)).toMatchObject({ kind: 'cqe', sct: 0, sc: 0 });
    const fresh = Buffer.alloc(old.length, 'new ');
    const ask = await asked(io, 0, all, 2);
    const pdu = part(io, ask, fresh, 0, fresh.length);
    const hlen = pdu.length - fresh.length;
    io.send(pdu.subarray(0, hlen));
    await sleep(20);
    io.send(pdu.subarray(hlen, hlen + blocks * blockSize));
    await sleep(20);
    io.close();
    await eventually(() => target.connections <= 1); // the admin queue of the session
    const found = await contents(0, all);
    const whole = Math.floor(blocks) * blockSize;
    expect(found.subarray(0, whole).equals(fresh.subarray(0, whole))).toBe(true);
    expect(found.subarray(whole).equals(old.subarray(whole))).toBe(true);
  });

  test.each(['before the data', 'between two PDUs', 'within a block', 'within a PDU'] as const)(
    'a namespace that is removed %s',
    async (when) => {
      const { io } = await bench.session();
      const data = Buffer.alloc(131072, 'lost ');
      const ask = await asked(io, 0, data.length / blockSize, 1);
      const one = part(io, ask, data, 0, 65536);
      const hlen = one.length - 65536;
      const stop = {
        'before the data': hlen,
        'between two PDUs': one.length,
        'within a block': hlen + blockSize * 2 + 100,
        'within a PDU': hlen + 8 * blockSize,
      }[when];
      io.send(one.subarray(0, hlen));
      await sleep(10);
      io.send(one.subarray(hlen, stop));
      await sleep(20);
      await target.remove(subsystem, 1);
      target.add(subsystem, { source: `ram:${SIZE}`, nsid: 1, blockSize });
      io.send(Buffer.concat([one.subarray(stop), part(io, ask, data, 65536, 65536)]));
      expect(await io.completion(1)).toMatchObject({ kind: 'cqe', sct: 0, sc: 0x0b });
      expect((await contents(0, data.length / blockSize)).equals(Buffer.alloc(data.length))).toBe(true);
    },
  );

  test('compares and writes that are fused, beside large writes of the same blocks', async () => {
    const blocks = 65536 / blockSize;
    const one = await Controller.connect(options);
    const two = await Controller.connect(options);
    const all = Array.from({ length: 4 }, (_, i) => Buffer.alloc(65536, i + 1));
    const ended = new Set<string>();
    let running = true;
    const writes = (async () => {
      for (let i = 0; running; i++)
        await one.queues[0]!.run(rwCmd.encode({ slba: 0n, nlb: blocks - 1 }, sqe.encode({ opcode: NvmOpcode.write, nsid: 1 })), {
          out: all[i & 3]!,
        });
    })();
    for (let i = 0; i < 300; i++) {
      const at = BigInt(i % blocks);
      const fused = (opcode: number, fuse: number): Buffer => rwCmd.encode({ slba: at, nlb: 0 }, sqe.encode({ opcode, nsid: 1, fuse }));
      const value = Buffer.alloc(blockSize, 1 + (i & 3));
      const pair = await Promise.allSettled([
        two.queues[0]!.run(fused(NvmOpcode.compare, 1), { out: value }),
        two.queues[0]!.run(fused(NvmOpcode.write, 2), { out: value }),
      ]);
      // with the namespace to itself, the compare has seen a block of one write
      ended.add(pair.map(({ status }) => status).join());
    }
    running = false;
    await writes;
    expect([...ended].sort()).toEqual(['fulfilled,fulfilled', 'rejected,rejected']);
    for (let last = await contents(0, blocks); last.length > 0; last = last.subarray(blockSize))
      expect(new Set(last.subarray(0, blockSize)).size).toBe(1);
    await one.disconnect();
    await two.disconnect();
  });
});
