/** Data transfer (h2). What cases write is what was there, or it is put back. */
import { randomBytes } from 'node:crypto';
import { encodePdu, NvmOpcode, PduFlag, pdus } from '../../wire/index.js';
import { type Bench, expectSetup } from '../bench.js';
import { type Case, noInCapsule } from '../case.js';
import { closed, describeOutcome, holds, ok, status, term } from '../expect.js';
import { finding, type Outcome, type RawConnection } from '../raw.js';

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
