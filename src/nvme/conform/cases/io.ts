/** I/O commands (io). What cases write is what was there, or it is put back. */
import { copyRange, dsmCmd, dsmRange, NvmOpcode, Oncs } from '../../wire/index.js';
import { type Bench, expectSetup, type Facts } from '../bench.js';
import { type Case, lacks, noInCapsule } from '../case.js';
import { describeOutcome, holds, ok, permanent, status, term } from '../expect.js';
import { type CommandOptions, finding, type Outcome } from '../raw.js';

const read =
  (slba: bigint | ((facts: Facts) => bigint), options: CommandOptions = {}, fields: { nsid?: number; fuse?: number } = {}) =>
  async (bench: Bench): Promise<Outcome> => {
    const { io } = await bench.session();
    const at = typeof slba === 'bigint' ? slba : slba(bench.facts);
    return io.command({ opcode: NvmOpcode.read, nsid: bench.facts.ns.nsid, ...fields }, bench.rw(at, 1, { read: bench.bs, ...options }));
  };

/** A command with SLBA and NLB but no data. */
const plain =
  (opcode: number, slba: (facts: Facts) => bigint, blocks: number) =>
  async (bench: Bench): Promise<Outcome> => {
    const { io } = await bench.session();
    return io.command({ opcode, nsid: bench.facts.ns.nsid }, bench.rw(slba(bench.facts), blocks, {}));
  };

const dsm =
  (ranges: { slba: bigint; nlb: number }[], nr = ranges.length) =>
  async (bench: Bench): Promise<Outcome> => {
    const { io } = await bench.session();
    const data = Buffer.concat(ranges.map((range) => dsmRange.encode(range)));
    return io.command(
      { opcode: NvmOpcode.datasetManagement, nsid: bench.facts.ns.nsid },
      { data, inCapsule: data.length <= bench.facts.inCapsule, tweak: (sqe) => void dsmCmd.encode({ nr: nr - 1, ad: 1 }, sqe) },
    );
  };

const end = (facts: Facts) => facts.ns.blocks;
const range = 'NVM 3: LBA Out of Range; sums are not cut to 64 bits';
const length = 'Data SGL Length Invalid; never memory that was not read';

export const ioCases: Case[] = [
  { id: 'io01', title: 'READ past the end', spec: range, accept: [permanent(0x80)], run: read(end) },
  { id: 'io02', title: 'READ from SLBA 2^64-1', spec: range, accept: [permanent(0x80)], run: read(0xffff_ffff_ffff_ffffn) },
  { id: 'io03', title: 'READ with NSID 0', spec: 'Invalid Namespace or Format', accept: [permanent(0x0b)], run: read(0n, {}, { nsid: 0 }) },
  {
    id: 'io04',
    title: 'READ with NSID FFFFFFFFh',
    spec: 'Invalid Namespace or Format',
    accept: [permanent(0x0b)],
    run: read(0n, {}, { nsid: 0xffffffff }),
  },
  {
    id: 'io05',
    title: 'READ of 2 blocks with an SGL for one',
    spec: length,
    accept: [permanent(0x0f)],
    run: async (bench) => bench.read((await bench.session()).io, 0n, 2, { length: bench.bs }),
  },
  {
    id: 'io06',
    title: 'READ of 1 block with an SGL for 8',
    spec: length,
    accept: [permanent(0x0f), holds('one block and no more')],
    run: async (bench) => {
      const outcome = await bench.read((await bench.session()).io, 0n, 1, { length: 8 * bench.bs });
      if (outcome.kind === 'cqe' && outcome.sc === 0)
        return finding(
          outcome.data.length === bench.bs,
          outcome.data.length === bench.bs ? 'one block and no more' : describeOutcome(outcome),
        );
      return outcome;
    },
  },
  {
    id: 'io07',
    title: 'READ with SGL type 4 (keyed)',
    spec: 'SGL Descriptor Type Invalid',
    accept: [permanent(0x11)],
    run: read(0n, { tweak: (sqe) => void sqe.writeUInt8(0x40, 39) }),
  },
  {
    id: 'io08',
    title: 'READ with an address in its command-buffer SGL',
    spec: 'SGL Offset Invalid',
    accept: [permanent(0x16)],
    run: read(0n, { tweak: (sqe) => void sqe.writeBigUInt64LE(64n, 24) }),
  },
  {
    id: 'io09',
    title: 'READ with PSDT 00 (PRP)',
    spec: 'fabrics commands use SGLs',
    accept: [permanent(0x02)],
    run: read(0n, { tweak: (sqe) => void sqe.writeUInt8(0, 1) }),
  },
  {
    id: 'io10',
    title: 'in-capsule WRITE with less data than its SGL says',
    spec: 'refused; never a silent wait for data that will not come',
    accept: [term(1, 4), permanent(0x0f)],
    run: async (bench) => {
      const { io } = await bench.session();
      const data = await bench.contents(io);
      return bench.write(io, 0n, data.subarray(0, bench.bs / 2), {
        length: bench.bs,
        inCapsule: true,
        tweak: (sqe) => void sqe.writeUInt16LE(0, 48),
      });
    },
    skip: noInCapsule,
  },
  {
    id: 'io11',
    title: 'in-capsule WRITE with SGL offset 64',
    spec: 'the data lies beyond the capsule: SGL Offset Invalid, or a header error',
    accept: [permanent(0x16), term(1)],
    run: async (bench) => {
      const { io } = await bench.session();
      return bench.write(io, 0n, await bench.contents(io), { tweak: (sqe) => void sqe.writeBigUInt64LE(64n, 24) });
    },
    skip: noInCapsule,
  },
  {
    id: 'io12',
    title: 'WRITE past the end',
    spec: range,
    accept: [permanent(0x80)],
    run: async (bench) => bench.write((await bench.session()).io, bench.facts.ns.blocks, Buffer.alloc(bench.bs)),
  },
  {
    id: 'io13',
    title: 'WRITE with an SGL of 4 GiB less a block',
    spec: 'more than MDTS: refused, nothing of that size allocated',
    accept: [permanent(0x0f), permanent(0x02), permanent(0x80)],
    run: async (bench) => {
      const { io } = await bench.session();
      return io.command({ opcode: NvmOpcode.write, nsid: bench.facts.ns.nsid }, bench.rw(0n, 65536, { length: 2 ** 32 - bench.bs }));
    },
  },
  {
    id: 'io14',
    title: 'READ with an in-capsule SGL',
    spec: 'in-capsule data is for commands that write',
    accept: [permanent(0x02), permanent(0x11)],
    run: read(0n, { tweak: (sqe) => void sqe.writeUInt8(0x01, 39) }),
  },
  {
    id: 'io15',
    title: 'READ of more than MDTS',
    spec: 'Invalid Field',
    accept: [permanent(0x02)],
    run: async (bench) => {
      const blocks = (4096 * 2 ** bench.facts.identify.mdts) / bench.bs + 1;
      return bench.read((await bench.session()).io, 0n, blocks);
    },
    skip: ({ identify, ns }) =>
      identify.mdts === 0 ||
      (4096 * 2 ** identify.mdts) / ns.blockSize + 1 > 65536 ||
      BigInt((4096 * 2 ** identify.mdts) / ns.blockSize + 1) > ns.blocks
        ? 'MDTS is not below 65,536 blocks and the namespace'
        : undefined,
  },
  {
    id: 'io16',
    title: 'FLUSH with NSID FFFFFFFFh',
    spec: 'Base 5.17.2.1 VWC: 10b all fail with 0Bh, 11b all namespaces are flushed',
    accept: [holds('as VWC says')],
    run: async (bench) => {
      const outcome = await (await bench.session()).io.command({ opcode: NvmOpcode.flush, nsid: 0xffffffff }, {});
      const mode = (bench.facts.identify.vwc >> 1) & 3;
      const good = mode === 2 ? permanent(0x0b).match(outcome) : mode === 3 ? ok().match(outcome) : outcome.kind === 'cqe';
      return finding(good, good ? 'as VWC says' : `VWC ${bench.facts.identify.vwc}: ${describeOutcome(outcome)}`);
    },
  },
  {
    id: 'io17',
    title: 'FUSE 01 on WRITE',
    spec: 'Base 3.4.2: only Compare and Write can be fused, and Write comes second; never parked',
    accept: [permanent(0x02), status(0, 0x0a)],
    run: async (bench) => {
      const { io } = await bench.session();
      const data = await bench.contents(io);
      return bench.write(io, 0n, data, { tweak: (sqe) => void sqe.writeUInt8(0x41, 1) });
    },
  },
  {
    id: 'io18',
    title: 'FUSE 10 on WRITE without a first command',
    spec: 'Base 3.4.2: Command Aborted due to Missing Fused Command, or Invalid Field where fused commands are not offered',
    accept: [permanent(0x02), status(0, 0x0a)],
    run: async (bench) => {
      const { io } = await bench.session();
      const data = await bench.contents(io);
      return bench.write(io, 0n, data, { tweak: (sqe) => void sqe.writeUInt8(0x42, 1) });
    },
  },
  {
    id: 'io19',
    title: 'Connect on an I/O queue in use',
    spec: 'Base 6.3: one Connect per queue',
    accept: [permanent(0x0c)],
    run: async (bench) => {
      const { io, cntlid } = await bench.session();
      return bench.connect(io, { qid: 1, cntlid, sqsize: bench.entries - 1 });
    },
  },
  {
    id: 'io20',
    title: 'an opcode that does not exist (78h)',
    spec: 'Invalid Command Opcode',
    accept: [permanent(0x01)],
    run: plain(0x78, () => 0n, 1),
  },
  {
    id: 'io21',
    title: 'DSM: 256 ranges, one past the end',
    spec: range,
    accept: [permanent(0x80)],
    run: (bench) =>
      dsm([...Array.from({ length: 255 }, () => ({ slba: bench.facts.ns.blocks - 1n, nlb: 0 })), { slba: bench.facts.ns.blocks, nlb: 8 }])(
        bench,
      ),
    skip: lacks(Oncs.dsm, 'Dataset Management'),
  },
  {
    id: 'io22',
    title: 'DSM: SLBA 2^64-8 with 16 blocks',
    spec: range,
    accept: [permanent(0x80)],
    run: dsm([{ slba: 0xffff_ffff_ffff_fff8n, nlb: 16 }]),
    skip: lacks(Oncs.dsm, 'Dataset Management'),
  },
  {
    id: 'io23',
    title: 'DSM: 256 ranges announced, data for one',
    spec: 'Data SGL Length Invalid; never memory that was not sent',
    accept: [permanent(0x0f), permanent(0x02)],
    run: dsm([{ slba: 0n, nlb: 0 }], 256),
    skip: lacks(Oncs.dsm, 'Dataset Management'),
  },
  {
    id: 'io24',
    title: 'WRITE ZEROES of 65,536 blocks past the end',
    spec: range,
    accept: [permanent(0x80)],
    run: plain(NvmOpcode.writeZeroes, (facts) => facts.ns.blocks - 1n, 65536),
    skip: lacks(Oncs.writeZeroes, 'Write Zeroes'),
  },
  {
    id: 'io25',
    title: 'COMPARE with what is there, and with something else (legal)',
    spec: 'success, and Compare Failure (2/85h)',
    accept: [holds('success, then 2/85h')],
    run: async (bench) => {
      const { io } = await bench.session();
      const data = await bench.contents(io);
      const compare = (bytes: Buffer) =>
        io.command(
          { opcode: NvmOpcode.compare, nsid: bench.facts.ns.nsid },
          bench.rw(0n, 1, { data: bytes, inCapsule: bytes.length <= bench.facts.inCapsule }),
        );
      const same = await compare(data);
      const other = await compare(Buffer.from(data.map((b) => b ^ 1)));
      const good = ok().match(same) && status(2, 0x85).match(other);
      return finding(good, good ? 'success, then 2/85h' : `${describeOutcome(same)}; ${describeOutcome(other)}`);
    },
    skip: lacks(Oncs.compare, 'Compare'),
  },
  {
    id: 'io26',
    title: 'VERIFY past the end',
    spec: range,
    accept: [permanent(0x80)],
    run: plain(NvmOpcode.verify, end, 1),
    skip: lacks(Oncs.verify, 'Verify'),
  },
  {
    id: 'io27',
    title: 'COPY with a source past the end',
    spec: range,
    accept: [permanent(0x80), permanent(0x02)],
    run: async (bench) => {
      const { io } = await bench.session();
      const source = Buffer.alloc(32);
      source.writeBigUInt64LE(bench.facts.ns.blocks, 8);
      const sdlba = bench.facts.ns.blocks - 1n;
      return io.command(
        { opcode: NvmOpcode.copy, nsid: bench.facts.ns.nsid },
        { data: source, inCapsule: bench.facts.inCapsule >= 32, tweak: (sqe) => void sqe.writeBigUInt64LE(sdlba, 40) },
      );
    },
    skip: lacks(Oncs.copy, 'Copy'),
  },
  {
    id: 'io28',
    title: 'two hosts write one block at once, many times (legal)',
    spec: 'both are served, and the block is one of what they wrote',
    accept: [holds('both served, the block is whole')],
    run: async (bench) => {
      const [a, b] = [await bench.session(), await bench.session()];
      const old = await bench.contents(a.io);
      const [one, two] = [Buffer.alloc(bench.bs, 0x11), Buffer.alloc(bench.bs, 0x22)];
      let fault: Outcome | undefined;
      for (let i = 0; i < 20 && !fault; i++) {
        const done = await Promise.all([bench.write(a.io, 0n, one), bench.write(b.io, 0n, two)]);
        fault = done.find((o) => !ok().match(o));
      }
      const now = await bench.contents(b.io);
      await bench.write(a.io, 0n, old);
      const whole = now.equals(one) || now.equals(two);
      return finding(
        !fault && whole,
        fault ? describeOutcome(fault) : whole ? 'both served, the block is whole' : 'the block is a mixture',
      );
    },
  },
  {
    id: 'io29',
    title: 'SUCCESS flag with SQ flow control on',
    spec: 'TCP 3.3.2.2: the flag replaces the completion only where SQ flow control is off',
    accept: [holds('a CapsuleResp')],
    run: async (bench) => {
      const outcome = await bench.read((await bench.session()).io, 0n);
      const good = outcome.kind === 'cqe' && outcome.sc === 0 && !outcome.flagged;
      return finding(good, good ? 'a CapsuleResp' : describeOutcome(outcome));
    },
  },
  {
    id: 'io30',
    title: 'SQHD of 40 READs one after the other',
    spec: 'Base 3.3.3.2: SQHD runs through the queue and around',
    accept: [holds('SQHD runs 1, 2, … around the queue')],
    run: async (bench) => {
      const { io } = await bench.session();
      const seen: number[] = [];
      for (let i = 0; i < 40; i++) {
        const { sqhd } = await expectSetup('READ', bench.read(io, 0n), 'cqe');
        seen.push(sqhd);
      }
      const good = seen.every((sqhd, i) => sqhd === (seen[0]! + i) % bench.entries);
      return finding(good, good ? 'SQHD runs 1, 2, … around the queue' : `SQHD ${seen.slice(0, 8).join(', ')}, …`);
    },
  },
  {
    id: 'io31',
    title: 'COPY onto its own source (legal)',
    spec: 'NVM 3.3.2: each overlapping block then holds one of the source blocks (or 1/87h and nothing is copied); no other block changes',
    accept: [holds('each block is one of the source blocks, no other changed')],
    run: async (bench) => {
      const { io } = await bench.session();
      const { bs } = bench;
      const old = await bench.contents(io, 8);
      // blocks 1 to 4 onto 2 to 5, and block 2 onto 6
      const before = Buffer.concat(Array.from({ length: 8 }, (_, i) => Buffer.alloc(bs, 0x30 + i)));
      await expectSetup('WRITE', bench.write(io, 0n, before), 'cqe');
      const ranges = Buffer.concat([copyRange.encode({ slba: 1n, nlb: 3 }), copyRange.encode({ slba: 2n, nlb: 0 })]);
      const outcome = await io.command(
        { opcode: NvmOpcode.copy, nsid: bench.facts.ns.nsid },
        {
          data: ranges,
          inCapsule: bench.facts.inCapsule >= ranges.length,
          tweak: (sqe) => {
            sqe.writeBigUInt64LE(2n, 40);
            sqe.writeUInt32LE(1, 48);
          },
        },
      );
      const after = await bench.contents(io, 8);
      await expectSetup('WRITE', bench.write(io, 0n, old), 'cqe');
      const one = (at: number) => after.subarray(at * bs, (at + 1) * bs);
      const whole = (at: number) => one(at).equals(Buffer.alloc(bs, one(at)[0]));
      const letter = (at: number) => one(at)[0]! - 0x30;
      const kept = after.equals(before);
      const sources = [1, 2, 3, 4];
      const right =
        Array.from({ length: 8 }, (_, at) => at).every(whole) &&
        [0, 1, 7].every((at) => letter(at) === at) &&
        [2, 3, 4].every((at) => sources.includes(letter(at))) &&
        // sources are read before they are overwritten, or after
        [5, 6].every((at) => sources.includes(letter(at)));
      const good = (ok().match(outcome) && right) || (status(1, 0x87).match(outcome) && kept);
      return finding(
        good,
        good
          ? 'each block is one of the source blocks, no other changed'
          : `${describeOutcome(outcome)}; blocks are ${Array.from({ length: 8 }, (_, at) => (whole(at) ? letter(at) : 'mixed')).join(' ')}`,
      );
    },
    skip: (facts) =>
      lacks(Oncs.copy, 'Copy')(facts) ??
      (facts.ns.identify.msrc < 1 || facts.ns.blocks < 8n ? 'MSRC or the namespace is too small' : undefined),
  },
  {
    id: 'io32',
    title: 'DSM: 256 ranges that overlap (legal)',
    spec: 'NVM 3.2.3: ranges may overlap; deallocated blocks read as zeroes or as they were',
    accept: [holds('success, zeroes or the old data')],
    run: async (bench) => {
      const { io } = await bench.session();
      const old = await bench.contents(io, 8);
      const data = Buffer.concat(Array.from({ length: 256 }, (_, i) => dsmRange.encode({ slba: BigInt(i % 4), nlb: 4 })));
      const outcome = await io.command(
        { opcode: NvmOpcode.datasetManagement, nsid: bench.facts.ns.nsid },
        { data, inCapsule: data.length <= bench.facts.inCapsule, tweak: (sqe) => void dsmCmd.encode({ nr: 255, ad: 1 }, sqe) },
      );
      const after = await bench.contents(io, 8);
      await expectSetup('WRITE', bench.write(io, 0n, old), 'cqe');
      const zero = Buffer.alloc(bench.bs);
      const right = Array.from({ length: 8 }, (_, at) => {
        const block = after.subarray(at * bench.bs, (at + 1) * bench.bs);
        const kept = block.equals(old.subarray(at * bench.bs, (at + 1) * bench.bs));
        return kept || (at < 7 && (block.equals(zero) || block.every((byte) => byte === 0xff)));
      }).every(Boolean);
      const good = ok().match(outcome) && right;
      return finding(good, good ? 'success, zeroes or the old data' : `${describeOutcome(outcome)}; ${right ? '' : 'other data was lost'}`);
    },
    skip: (facts) => lacks(Oncs.dsm, 'Dataset Management')(facts) ?? (facts.ns.blocks < 8n ? 'the namespace is too small' : undefined),
  },
];
