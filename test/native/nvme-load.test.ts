/** The native I/O queues of `nvmf bench`: right against a right target, and against targets that break the protocol. */
import { native } from '../../src/native/index.js';
import type { LoadOptions, LoadResult } from '../../src/native/nvme-host.js';
import { Subsystem } from '../../src/nvme/target/subsystem.js';
import { Target } from '../../src/nvme/target/target.js';
import { NvmOpcode, PduFlag, sqe } from '../../src/nvme/wire/index.js';
import { type FakeConnection, type FakeHooks, FakeTarget } from '../support/nvme-fake.js';
import { hostid, hostnqn } from '../support/nvme-raw.js';

const subnqn = 'nqn.2014-08.org.nvmexpress:load';
const base = {
  hostnqn,
  subnqn,
  hostid,
  nsid: 1,
  queues: 1,
  threads: 1,
  depth: 8,
  entries: 32,
  keepAliveMs: 0,
  lossMs: 0,
  replay: false,
  headerDigest: false,
  dataDigest: false,
  flowControl: true,
  blockSize: 512,
  ioBlocks: 8,
  first: 0n,
  blocks: 2048n,
  readPercent: 50,
  random: true,
  durationMs: 80,
  warmupMs: 0,
  timeoutMs: 3000,
  spinUs: 20,
  seed: 1,
} satisfies Omit<LoadOptions, 'addresses'>;
const at = (port: number) => [{ host: '127.0.0.1', port }];
/** A short run; a longer one where a busy machine has ended no command in it. */
async function loaded(options: Partial<LoadOptions> & Pick<LoadOptions, 'addresses'>): Promise<LoadResult> {
  for (let durationMs = base.durationMs; ; durationMs *= 4) {
    const result = await native().nvmeHost.loadRun({ ...base, ...options, durationMs }).done;
    if (result.reads + result.writes + result.errors > 0 || durationMs > 10_000) return result;
  }
}

describe('against our target', () => {
  let target: Target;
  let port: number;
  beforeAll(() => {
    target = new Target(native().nvme);
    const subsystem = new Subsystem(native().nvme, { nqn: subnqn });
    subsystem.add({ source: `ram:${8 << 20}` });
    target.addSubsystem(subsystem);
    port = target.listen('127.0.0.1', 0).port;
  });
  afterAll(() => target.stop());

  const digests = [
    {},
    { headerDigest: true },
    { dataDigest: true },
    { headerDigest: true, dataDigest: true, flowControl: false },
    { flowControl: false },
  ];
  const shapes = [
    { ioBlocks: 1, depth: 31 },
    { ioBlocks: 32, readPercent: 0 }, // all of a capsule
    { ioBlocks: 33, readPercent: 0 },
    { ioBlocks: 2048, blocks: 16384n, depth: 4, readPercent: 30 },
    { queues: 3, threads: 2, random: false, readPercent: 100 },
  ];
  test.each(digests)('%j in all sizes and mixtures', async (options) => {
    for (const shape of shapes) {
      const { reads, writes, errors, percentilesNs, histogramNs, minNs, maxNs } = await loaded({
        ...options,
        ...shape,
        addresses: at(port),
      });
      expect({
        shape,
        errors,
        some: reads + writes > 0,
        only: shape.readPercent === 0 ? reads : shape.readPercent === 100 ? writes : 0,
      }).toEqual({
        shape,
        errors: 0,
        some: true,
        only: 0,
      });
      expect(percentilesNs[0]).toBeGreaterThan(0);
      const buckets = Array.from({ length: histogramNs.length / 3 }, (_, i) => [...histogramNs.subarray(3 * i, 3 * i + 3)]);
      expect(buckets.reduce((sum, [, , count]) => sum + count!, 0)).toBe(reads + writes);
      for (const [i, [from, to, count]] of buckets.entries())
        expect(
          from! >= (buckets[i - 1]?.[1] ?? 0) && to! > from! && count! > 0 && (to! - from! === 1 || (to! - from!) / from! <= 1 / 32),
        ).toBe(true);
      expect(buckets[0]![0]! <= minNs && minNs < buckets[0]![1]!).toBe(true);
      expect(buckets.at(-1)![0]! <= maxNs && maxNs < buckets.at(-1)![1]!).toBe(true);
    }
  });

  test('a subsystem that is not there, and an association that is ended', async () => {
    const run = (nqn: string) => native().nvmeHost.loadRun({ ...base, addresses: at(port), subnqn: nqn, durationMs: 5000 });
    await expect(run(`${subnqn}x`).done).rejects.toMatchObject({ code: 'ECONNREFUSED', status: 0x4182 });
    const { done } = run(subnqn);
    const ended = expect(done).rejects.toMatchObject({ code: 'ECONNRESET' });
    await new Promise((resolve) => setTimeout(resolve, 200));
    target.kick(() => true);
    await ended;
  });
});

describe('against a target that breaks the protocol', () => {
  const against = async (hooks: FakeHooks, options: Partial<LoadOptions> = {}) => {
    const fake = new FakeTarget(hooks);
    const port = await fake.listen();
    try {
      return await native().nvmeHost.loadRun({ ...base, depth: 1, timeoutMs: 700, durationMs: 200, ...options, addresses: at(port) }).done;
    } finally {
      fake.close();
    }
  };
  /** Lies instead of the answer to the first READ or WRITE. */
  const on = (opcode: number, lie: (connection: FakeConnection, cid: number) => void): FakeHooks => ({
    command: (connection, command) => {
      if (connection.qid === 0 || sqe.get(command, 'opcode') !== opcode) return false;
      lie(connection, sqe.get(command, 'cid'));
      return true;
    },
  });
  const data = Buffer.alloc(4096, 7);
  const read = (lie: (connection: FakeConnection, cid: number) => void) => on(NvmOpcode.read, lie);
  const write = (lie: (connection: FakeConnection, cid: number) => void) => on(NvmOpcode.write, lie);
  const ic = (answer: (connection: FakeConnection) => void): FakeHooks => ({ ic: (c) => [answer(c)].length > 0 });

  test.each<[string, FakeHooks, string, number?]>([
    ['another PDU instead of ICResp', ic((c) => c.complete(0)), 'EPROTO'],
    ['ICResp with PFV 1', ic((c) => c.icResp({ pfv: 1 })), 'EPROTO'],
    ['CPDA 32', ic((c) => c.icResp({ cpda: 32 })), 'EPROTO'],
    ['MAXH2CDATA 4095', ic((c) => c.icResp({ maxh2cdata: 4095 })), 'EPROTO'],
    ['a digest not asked for', ic((c) => c.icResp({ dgst: 3 })), 'EPROTO'],
    ['ICResp byte by byte, one every 300 ms', ic((c) => void setInterval(() => c.send(Buffer.of(1)), 300).unref()), 'ETIMEDOUT'],
    ['completion of an unknown command', read((c) => c.complete(0x777)), 'EPROTO'],
    ['success before the data', read((c, cid) => c.complete(cid)), 'EPROTO'],
    ['success after half of the data', read((c, cid) => void [c.c2h(cid, data.subarray(0, 2048), {}, 0), c.complete(cid)]), 'EPROTO'],
    ['data for an unknown command', read((c) => c.c2h(0x777, data)), 'EPROTO'],
    ['data out of order', read((c, cid) => c.c2h(cid, data.subarray(0, 2048), { datao: 2048 }, 0)), 'EPROTO'],
    ['data beyond the command', read((c, cid) => c.c2h(cid, Buffer.alloc(8192))), 'EPROTO'],
    ['data at FFFFF000h', read((c, cid) => c.c2h(cid, data, { datao: 0xfffff000 })), 'EPROTO'],
    ['DATAL 0', read((c, cid) => c.c2h(cid, data, { datal: 0 })), 'EPROTO'],
    ['LAST_PDU before the end', read((c, cid) => c.c2h(cid, data.subarray(0, 512))), 'EPROTO'],
    ['SUCCESS without LAST_PDU', read((c, cid) => c.c2h(cid, data, {}, PduFlag.success)), 'EPROTO'],
    ['a PDU of 4 GiB', read((c) => c.send(Buffer.from('07041818ffffffff'.padEnd(48, '0'), 'hex'))), 'EPROTO'],
    ['an R2T for a READ', read((c, cid) => c.r2t(cid, { r2tl: 4096 })), 'EPROTO'],
    ['an R2T of 0 bytes', write((c, cid) => c.r2t(cid, { r2tl: 0 })), 'EPROTO', 0],
    ['an R2T beyond the command', write((c, cid) => c.r2t(cid, { r2tl: 8192 })), 'EPROTO', 0],
    ['an R2T out of order', write((c, cid) => c.r2t(cid, { r2to: 512, r2tl: 512 })), 'EPROTO', 0],
    ['data for a WRITE', write((c, cid) => c.c2h(cid, data)), 'EPROTO', 0],
    ['success before data was asked for', write((c, cid) => c.complete(cid)), 'EPROTO', 0],
    ['no answer', read(() => {}), 'ETIMEDOUT'],
    ['closing', read((c) => c.socket.destroy()), 'ECONNRESET'],
    ['data of a byte at a time, for ever', read((c, cid) => trickle(c, cid)), 'ETIMEDOUT'],
  ])('%s', async (_name, hooks, code, readPercent = 100) => {
    const started = performance.now();
    await expect(against(hooks, { readPercent })).rejects.toMatchObject({ code });
    expect(performance.now() - started).toBeLessThan(30_000);
  });

  /** C2HData of one byte each: legal PDUs, but the command never ends in time. */
  function trickle(connection: FakeConnection, cid: number): void {
    let at = 0;
    const timer = setInterval(() => {
      if (connection.socket.destroyed) clearInterval(timer);
      else connection.c2h(cid, data.subarray(0, 1), { datao: at++, datal: 1 }, 0);
    }, 100);
    timer.unref();
  }

  test('a wrong digest of header or data, and statuses that are no success', async () => {
    const spoil = (at: (pdu: Buffer) => number): FakeHooks =>
      read((c, cid) => {
        const { send } = c;
        c.send = (pdu) => {
          pdu.writeUInt32LE((pdu.readUInt32LE(at(pdu)) ^ 1) >>> 0, at(pdu));
          send.call(c, pdu);
        };
        c.c2h(cid, data, {}, PduFlag.last | PduFlag.success);
      });
    const both = { headerDigest: true, dataDigest: true, readPercent: 100 };
    await expect(
      against(
        spoil(() => 24),
        both,
      ),
    ).rejects.toMatchObject({ code: 'EPROTO', message: expect.stringContaining('Header Digest Error') });
    await expect(
      against(
        spoil((pdu) => pdu.length - 4),
        both,
      ),
    ).rejects.toMatchObject({ code: 'EBADMSG' });
    const failing = await against(
      read((c, cid) => c.complete(cid, { status: 0x4281 << 1 })),
      { readPercent: 100 },
    );
    expect([failing.errors > 0, failing.reads, failing.firstError >> 1]).toEqual([true, 0, 0x4281]);
  });
});
