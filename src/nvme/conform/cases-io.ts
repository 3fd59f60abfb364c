/** I/O commands (io) and data transfer (h2). What cases write is what was there, or it is put back. */
import { randomBytes } from 'node:crypto';
import { dsmCmd, dsmRange, encodePdu, NvmOpcode, Oncs, PduFlag, pdus } from '../wire/index.js';
import { type Bench, expectSetup, type Facts } from './bench.js';
import type { Case } from './case.js';
import { closed, describeOutcome, holds, ok, permanent, status, term } from './expect.js';
import { type CommandOptions, finding, type Outcome, type RawConnection } from './raw.js';

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

/** The WRITE that cases send with data on request: blocks of what is there. */
async function writing(bench: Bench, blocks: number, options = {}) {
  const session = await bench.session(options);
  const data = await bench.contents(session.io, blocks);
  const { pdu, cid } = session.io.capsule(
    { opcode: NvmOpcode.write, nsid: bench.facts.ns.nsid },
    bench.rw(0n, blocks, { length: data.length }),
  );
  session.io.send(pdu);
  const ask = await session.io.next();
  if (ask.kind !== 'r2t') throw Object.assign(new Error(`no R2T: ${describeOutcome(ask)}`), { code: 'EPROTO' });
  return { ...session, data, cid, ask };
}
/** Blocks of a WRITE that is larger than a capsule holds. */
const large = ({ facts, bs }: Bench): number => Math.max(1, Math.min(8192, facts.maxTransfer) / bs);

const badH2c =
  (send: (w: Awaited<ReturnType<typeof writing>>, bench: Bench) => void, options = {}) =>
  async (bench: Bench): Promise<Outcome> => {
    const w = await writing(bench, large(bench), options);
    send(w, bench);
    return w.io.completion(w.cid);
  };

const lacks = (bit: number, name: string) => (facts: Facts) => (facts.identify.oncs & bit ? undefined : `no ${name} (ONCS)`);
const noInCapsule = (facts: Facts) => (facts.inCapsule < facts.ns.blockSize ? 'no in-capsule data for one block' : undefined);
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
];

/** Answers all that is asked for in pieces of `per` bytes. */
const pieces = (io: RawConnection, w: { ask: { cccid: number; ttag: number; r2to: number; r2tl: number }; data: Buffer }, per: number) =>
  io.answer(w.ask, w.data, per);

export const dataCases: Case[] = [
  {
    id: 'h201',
    title: 'H2CData that nobody asked for',
    spec: 'TCP 3.3.2.1: no such transfer tag',
    accept: [term(1, 10), term(1, 8), term(2)],
    run: async (bench) => {
      const { io } = await bench.session();
      io.send(io.h2c({ cccid: 0x123, ttag: 0, datao: 0, datal: 512 }, Buffer.alloc(512)));
      return io.next();
    },
  },
  {
    id: 'h202',
    title: 'H2CData with another TTAG',
    spec: 'TCP 3.3.2.1: no such transfer tag',
    accept: [term(1, 10)],
    run: badH2c(({ io, ask, data }) =>
      io.send(io.h2c({ cccid: ask.cccid, ttag: ask.ttag ^ 0x5555, datao: 0, datal: 512 }, data.subarray(0, 512), 0)),
    ),
  },
  {
    id: 'h203',
    title: 'H2CData with another CCCID',
    spec: 'TCP 3.3.2.1: the tag belongs to another command',
    accept: [term(1, 8), term(2), term(1, 10)],
    run: badH2c(({ io, ask, data }) =>
      io.send(io.h2c({ cccid: ask.cccid ^ 0x5555, ttag: ask.ttag, datao: 0, datal: ask.r2tl }, data.subarray(0, ask.r2tl))),
    ),
  },
  {
    id: 'h204',
    title: 'H2CData at an offset that was not asked for',
    spec: 'TCP 3.3.2.1: data comes in order',
    accept: [term(2), term(4)],
    run: badH2c(({ io, ask, data }) =>
      io.send(io.h2c({ cccid: ask.cccid, ttag: ask.ttag, datao: 512, datal: 512 }, data.subarray(0, 512), 0)),
    ),
  },
  {
    id: 'h205',
    title: 'H2CData beyond what was asked for',
    spec: 'TCP 3.3.2.1: Data Transfer Out of Range',
    accept: [term(4), term(2), term(5), term(1, 16)],
    run: badH2c(({ io, ask, data }) => {
      const more = Buffer.concat([data.subarray(0, ask.r2tl), Buffer.alloc(512)]);
      io.send(io.h2c({ cccid: ask.cccid, ttag: ask.ttag, datao: ask.r2to, datal: more.length }, more));
    }),
    skip: (facts) => (facts.maxTransfer < 8192 ? 'MDTS too small' : undefined),
  },
  {
    id: 'h206',
    title: 'H2CData with DATAL 0',
    spec: 'TCP 3.6.2.7: DATAL is not 0',
    accept: [term(1, 16), term(1, 4)],
    run: badH2c(({ io, ask }) => {
      const pdu = encodePdu(pdus.h2cData, { cccid: ask.cccid, ttag: ask.ttag, datao: ask.r2to, datal: 0 }, {});
      pdu.writeUInt8(24, 3);
      io.send(pdu);
    }),
  },
  {
    id: 'h207',
    title: 'H2CData with DATAL other than its data',
    spec: 'TCP 3.6.2.7: DATAL is the length of the data',
    accept: [term(1, 16), term(1, 4)],
    run: badH2c(({ io, ask, data }) =>
      io.send(io.h2c({ cccid: ask.cccid, ttag: ask.ttag, datao: 0, datal: 256 }, data.subarray(0, 512), 0)),
    ),
  },
  {
    id: 'h208',
    title: 'H2CData longer than MAXH2CDATA',
    spec: 'TCP 3.3.2.1: Data Transfer Limit Exceeded',
    accept: [term(5), term(1, 4), term(1, 16)],
    run: async (bench) => {
      const { io } = await bench.session();
      const size = Math.ceil((io.maxh2cdata + 512) / 512) * 512;
      const header = io.h2c({ cccid: 1, ttag: 0, datao: 0, datal: size }, Buffer.alloc(512), 0).subarray(0, 24);
      header.writeUInt32LE(24 + size, 4);
      io.send(header);
      return io.next();
    },
  },
  {
    id: 'h209',
    title: 'H2CData with LAST_PDU before the end, then nothing',
    spec: 'TCP 3.3.2.1: LAST_PDU is set in the last PDU of the R2T',
    accept: [term(2), term(1, 1)],
    run: badH2c(({ io, ask, data }) =>
      io.send(io.h2c({ cccid: ask.cccid, ttag: ask.ttag, datao: 0, datal: 512 }, data.subarray(0, 512), PduFlag.last)),
    ),
  },
  {
    id: 'h210',
    title: 'the data of a WRITE sent twice',
    spec: 'TCP 3.3.2.1: the tag is not valid any more',
    accept: [term(1, 10), term(1, 8), term(2)],
    run: async (bench) => {
      const w = await writing(bench, large(bench));
      pieces(w.io, w, w.io.maxh2cdata);
      await expectSetup('WRITE', w.io.completion(w.cid), 'cqe');
      pieces(w.io, w, w.io.maxh2cdata);
      return w.io.next();
    },
  },
  {
    id: 'h211',
    title: 'reset of the connection in the middle of an R2T transfer, then another host',
    spec: 'the transfer ends, others are served',
    accept: [ok()],
    run: async (bench) => {
      const w = await writing(bench, large(bench));
      w.io.send(w.io.h2c({ cccid: w.ask.cccid, ttag: w.ask.ttag, datao: 0, datal: 512 }, w.data.subarray(0, 512), 0));
      w.io.socket.resetAndDestroy();
      const { io } = await bench.session();
      return bench.read(io, 0n);
    },
  },
  {
    id: 'h212',
    title: 'a wrong data digest on H2CData',
    spec: 'TCP 3.5: not fatal: Transient Transport Error (22h), nothing written, the connection lives',
    accept: [holds('22h, nothing written, the connection lives')],
    run: async (bench) => {
      const w = await writing(bench, large(bench), { dataDigest: true });
      const other = randomBytes(w.data.length);
      for (let at = 0; at < w.ask.r2tl; at += w.io.maxh2cdata) {
        const datal = Math.min(w.io.maxh2cdata, w.ask.r2tl - at);
        const last = at + datal === w.ask.r2tl;
        const pdu = w.io.h2c(
          { cccid: w.ask.cccid, ttag: w.ask.ttag, datao: at, datal },
          other.subarray(at, at + datal),
          last ? PduFlag.last : 0,
        );
        if (last) pdu.writeUInt32LE((pdu.readUInt32LE(pdu.length - 4) ^ 1) >>> 0, pdu.length - 4);
        w.io.send(pdu);
      }
      const outcome = await w.io.completion(w.cid);
      const after = await bench.read(w.io, 0n, w.data.length / bench.bs);
      const kept = after.kind === 'cqe' && after.data.equals(w.data);
      if (!kept) await bench.write((await bench.session()).io, 0n, w.data, { inCapsule: false });
      const good = status(0, 0x22).match(outcome) && kept;
      return finding(
        good,
        good
          ? '22h, nothing written, the connection lives'
          : `${describeOutcome(outcome)}; then READ: ${kept ? 'unchanged' : describeOutcome(after)}`,
      );
    },
  },
  {
    id: 'h213',
    title: 'an R2T that is not answered, and a second WRITE (legal)',
    spec: 'waiting for data does not hold up other commands',
    accept: [ok()],
    run: async (bench) => {
      const w = await writing(bench, large(bench));
      return bench.write(w.io, 0n, w.data.subarray(0, bench.bs));
    },
  },
  {
    id: 'h214',
    title: 'a WRITE that would fit the capsule, with a command-buffer SGL (legal)',
    spec: 'TCP 3.3.2: in-capsule data is the choice of the host; R2T is sent',
    accept: [ok()],
    run: async (bench) => {
      const { io } = await bench.session();
      return bench.write(io, 0n, await bench.contents(io), { inCapsule: false });
    },
  },
  {
    id: 'h215',
    title: 'H2CTermReq in the middle of an R2T transfer',
    spec: 'TCP 3.5: the transfer is given up and the connection closed',
    accept: [closed],
    run: async (bench) => {
      const w = await writing(bench, large(bench));
      w.io.send(w.io.h2c({ cccid: w.ask.cccid, ttag: w.ask.ttag, datao: 0, datal: 512 }, w.data.subarray(0, 512), 0));
      w.io.send(encodePdu(pdus.h2cTermReq, { fes: 2 }, { data: Buffer.alloc(24) }));
      return w.io.next();
    },
  },
  {
    id: 'h216',
    title: 'the data of an R2T in H2CData PDUs of 512 bytes (legal)',
    spec: 'TCP 3.3.2.1: any number of PDUs',
    accept: [ok()],
    run: badH2c((w) => pieces(w.io, w, 512)),
  },
  {
    id: 'h217',
    title: 'a wrong data digest on in-capsule data',
    spec: 'TCP 3.5: not fatal: Transient Transport Error (22h), nothing written, the connection lives',
    accept: [holds('22h, nothing written, the connection lives')],
    run: async (bench) => {
      const { io } = await bench.session({ dataDigest: true });
      const old = await bench.contents(io);
      const outcome = await bench.write(io, 0n, randomBytes(bench.bs), {
        spoil: (pdu) => void pdu.writeUInt32LE((pdu.readUInt32LE(pdu.length - 4) ^ 1) >>> 0, pdu.length - 4),
      });
      const after = await bench.read(io, 0n);
      const kept = after.kind === 'cqe' && after.data.equals(old);
      if (!kept) await bench.write((await bench.session()).io, 0n, old);
      const good = status(0, 0x22).match(outcome) && kept;
      return finding(
        good,
        good
          ? '22h, nothing written, the connection lives'
          : `${describeOutcome(outcome)}; then READ: ${kept ? 'unchanged' : describeOutcome(after)}`,
      );
    },
    skip: noInCapsule,
  },
];
