/** Handshake (ic) and PDU headers (ch). Sections are those of the NVMe TCP Transport Specification 1.0. */
import { encodePdu, NvmOpcode, PduFlag, pdus } from '../../wire/index.js';
import type { Bench } from '../bench.js';
import { type Case, noInCapsule } from '../case.js';
import { closed, describeOutcome, holds, icresp, ok, term } from '../expect.js';
import { finding, type Outcome, patience } from '../raw.js';

/** ICReq with one byte or more changed. */
const badIcReq =
  (change: (pdu: Buffer) => void) =>
  async (bench: Bench): Promise<Outcome> => {
    const connection = await bench.raw();
    const pdu = encodePdu(pdus.icReq, {});
    change(pdu);
    connection.send(pdu);
    return connection.next();
  };

/** First bytes of a connection. */
const first =
  (bytes: () => Buffer) =>
  async (bench: Bench): Promise<Outcome> => {
    const connection = await bench.raw();
    connection.send(bytes());
    return connection.next();
  };

/** A READ capsule with a changed header on an I/O queue. */
const badRead =
  (change: (pdu: Buffer) => void, options = {}) =>
  async (bench: Bench): Promise<Outcome> => {
    const { io } = await bench.session(options);
    return bench.read(io, 0n, 1, { spoil: change });
  };

/** An in-capsule WRITE of what is there, with a changed header. */
const badWrite =
  (change: (pdu: Buffer, bench: Bench) => void) =>
  async (bench: Bench): Promise<Outcome> => {
    const { io } = await bench.session();
    const data = await bench.contents(io);
    return bench.write(io, 0n, data, { spoil: (pdu) => change(pdu, bench) });
  };

/** As many as this, or as the limit on open files allows. */
const silentCrowd = 10_000;
const header = '3.6.1 and 3.5: a header field in error ends the connection with C2HTermReq and the offset of the field';

export const connectionCases: Case[] = [
  {
    id: 'ic01',
    title: 'the first PDU is a CapsuleCmd',
    spec: '3.4: ICReq comes first; else PDU Sequence Error',
    accept: [term(2)],
    run: first(() => encodePdu(pdus.capsuleCmd, {})),
  },
  {
    id: 'ic02',
    title: 'ICReq with PFV 1',
    spec: '3.6.2.2: unsupported PDU format version',
    accept: [term(6, 8), term(1, 8)],
    run: badIcReq((pdu) => pdu.writeUInt16LE(1, 8)),
  },
  { id: 'ic03', title: 'ICReq with HLEN 127', spec: header, accept: [term(1, 2)], run: badIcReq((pdu) => pdu.writeUInt8(127, 2)) },
  { id: 'ic04', title: 'ICReq with PLEN 129', spec: header, accept: [term(1, 4)], run: badIcReq((pdu) => pdu.writeUInt32LE(129, 4)) },
  {
    id: 'ic05',
    title: 'ICReq with PLEN FFFFFFFFh',
    spec: `${header}; at once, nothing more is read`,
    accept: [term(1, 4)],
    run: badIcReq((pdu) => pdu.writeUInt32LE(0xffffffff, 4)),
  },
  {
    id: 'ic06',
    title: 'ICReq with a flag set',
    spec: '3.6.2.2: FLAGS are reserved',
    accept: [term(1, 1), icresp],
    run: badIcReq((pdu) => pdu.writeUInt8(0x80, 1)),
  },
  {
    id: 'ic07',
    title: 'ICReq with HPDA 3, then a READ (legal)',
    spec: '3.6.2.2: the host may ask for 16-byte alignment; C2HData then has PDO at a multiple of 16',
    accept: [ok()],
    run: async (bench) => {
      const { io } = await bench.session({ hpda: 3 });
      return bench.read(io, 0n);
    },
  },
  {
    id: 'ic08',
    title: 'ICReq with reserved DGST bits',
    spec: '3.6.2.2: reserved bits are refused, or ignored',
    accept: [term(1, 11), icresp],
    run: badIcReq((pdu) => pdu.writeUInt8(0xfc, 11)),
  },
  {
    id: 'ic09',
    title: 'ICReq with HPDA 32',
    spec: '3.6.2.2: HPDA is 0 to 31',
    accept: [term(1, 10), term(6, 10)],
    run: badIcReq((pdu) => pdu.writeUInt8(32, 10)),
  },
  {
    id: 'ic10',
    title: 'a second ICReq',
    spec: '3.4: one ICReq per connection',
    accept: [term(2)],
    run: async (bench) => {
      const connection = await bench.initialised();
      connection.send(encodePdu(pdus.icReq, {}));
      return connection.next();
    },
  },
  {
    id: 'ic11',
    title: 'the first PDU is an ICResp',
    spec: '3.6: a PDU type of the other direction',
    accept: [term(1, 0), term(2)],
    run: first(() => encodePdu(pdus.icResp, { maxh2cdata: 4096 })),
  },
  {
    id: 'ic13',
    title: 'an HTTP request',
    spec: '3.6: no such PDU type',
    accept: [term(1), term(2)],
    run: first(() => Buffer.from('GET / HTTP/1.1\r\nHost: localhost\r\n\r\n')),
  },
  {
    id: 'ic14',
    title: 'a TLS ClientHello',
    spec: '3.6: no such PDU type on a connection without TLS',
    accept: [term(1), term(2)],
    run: first(() => Buffer.concat([Buffer.from('16030100c8010000c40303', 'hex'), Buffer.alloc(200, 0x5a)])),
  },
  {
    id: 'ic15',
    title: 'ICReq byte by byte (legal)',
    spec: 'TCP is a stream: PDUs may be cut anywhere',
    accept: [icresp],
    run: async (bench) => {
      const connection = await bench.raw();
      for (const byte of encodePdu(pdus.icReq, {})) {
        connection.send(Buffer.of(byte));
        await new Promise((resolve) => setImmediate(resolve));
      }
      return connection.next();
    },
  },
  {
    id: 'ic16',
    title: '64 connections that say nothing, then a host',
    spec: 'a silent client does not hold up others',
    accept: [holds('the host is served')],
    run: async (bench) => {
      for (let i = 0; i < 64; i++) await bench.raw();
      const { io } = await bench.session();
      const outcome = await bench.read(io, 0n);
      return finding(ok().match(outcome), ok().match(outcome) ? 'the host is served' : describeOutcome(outcome));
    },
  },
  {
    id: 'ic17',
    title: `${silentCrowd} connections that say nothing, then a host`,
    spec: 'those who say nothing do not keep hosts out: the handshake has a deadline, or the oldest make room',
    accept: [holds('the host is served')],
    run: async (bench) => {
      const open = await bench.silent(silentCrowd);
      const { io } = await bench.session();
      const outcome = await bench.read(io, 0n);
      const good = ok().match(outcome) && open > 0;
      return { ...finding(good, good ? 'the host is served' : describeOutcome(outcome)), note: `${open} connections were open` };
    },
  },
  {
    id: 'ch01',
    title: 'a PDU type that does not exist (0Fh)',
    spec: header,
    accept: [term(1, 0)],
    run: async (bench) => {
      const { admin } = await bench.admin();
      admin.send(Buffer.from('0f00180018000000'.padEnd(48, '0'), 'hex'));
      return admin.next();
    },
  },
  {
    id: 'ch02',
    title: 'a CapsuleResp from the host',
    spec: '3.6: a PDU type of the other direction',
    accept: [term(1, 0)],
    run: async (bench) => {
      const { admin } = await bench.admin();
      admin.send(encodePdu(pdus.capsuleResp, {}));
      return admin.next();
    },
  },
  { id: 'ch03', title: 'CapsuleCmd with HLEN 71', spec: header, accept: [term(1, 2)], run: badRead((pdu) => pdu.writeUInt8(71, 2)) },
  { id: 'ch04', title: 'CapsuleCmd with PLEN 71', spec: header, accept: [term(1, 4)], run: badRead((pdu) => pdu.writeUInt32LE(71, 4)) },
  {
    id: 'ch05',
    title: 'CapsuleCmd with PLEN FFFFFFFFh',
    spec: 'longer than header, padding, in-capsule data and digests can be: refused at once, nothing allocated',
    accept: [term(5), term(1, 4)],
    run: badWrite((pdu) => pdu.writeUInt32LE(0xffffffff, 4)),
    skip: noInCapsule,
  },
  {
    id: 'ch06',
    title: 'CapsuleCmd with reserved flags F0h',
    spec: header,
    accept: [term(1, 1)],
    run: badRead((pdu) => pdu.writeUInt8(0xf0, 1)),
  },
  {
    id: 'ch07',
    title: 'CapsuleCmd with LAST_PDU set',
    spec: header,
    accept: [term(1, 1)],
    run: badRead((pdu) => pdu.writeUInt8(PduFlag.last, 1)),
  },
  {
    id: 'ch08',
    title: 'in-capsule data at PDO 7',
    spec: header,
    accept: [term(1, 3)],
    run: badWrite((pdu) => pdu.writeUInt8(7, 3)),
    skip: noInCapsule,
  },
  {
    id: 'ch09',
    title: 'PDO beyond PLEN',
    spec: header,
    accept: [term(1, 3)],
    run: async (bench) => {
      const { io } = await bench.session();
      const { pdu } = io.capsule(
        { opcode: NvmOpcode.write, nsid: bench.facts.ns.nsid },
        bench.rw(0n, 1, { data: Buffer.alloc(8), inCapsule: true }),
      );
      pdu.writeUInt8(0xf8, 3);
      io.send(pdu);
      return io.next();
    },
  },
  {
    id: 'ch10',
    title: 'in-capsule data at PDO 96 behind padding (legal)',
    spec: '3.6.1: PDO is any multiple of the alignment behind the header',
    accept: [ok(0)],
    run: async (bench) => {
      const { io } = await bench.session();
      const data = await bench.contents(io);
      const { pdu, cid } = io.capsule({ opcode: NvmOpcode.write, nsid: bench.facts.ns.nsid }, bench.rw(0n, 1, { data, inCapsule: true }));
      const padded = Buffer.concat([pdu.subarray(0, 72), Buffer.alloc(24), data]);
      padded.writeUInt8(96, 3);
      padded.writeUInt32LE(padded.length, 4);
      io.send(padded);
      return io.completion(cid);
    },
    // With CPDA 0 the capsule may be longer by the padding only where the target's limit leaves room.
    skip: noInCapsule,
  },
  {
    id: 'ch11',
    title: 'a wrong header digest',
    spec: '3.5: Header Digest Error with the digest received',
    accept: [term(3)],
    run: async (bench) => {
      const { io } = await bench.session({ headerDigest: true });
      const outcome = await bench.read(io, 0n, 1, { spoil: (pdu) => pdu.writeUInt32LE(0x00000100, 72) });
      if (outcome.kind === 'term' && outcome.fes === 3 && outcome.fei !== 0x100)
        return finding(false, `FEI ${outcome.fei.toString(16)}h is not the digest received (100h)`);
      return outcome;
    },
  },
  {
    id: 'ch12',
    title: 'no header digest where one was agreed',
    spec: '3.6.1: HDGSTF is set iff header digests are agreed',
    accept: [term(1, 1)],
    run: badRead((pdu) => pdu.writeUInt8(0, 1), { headerDigest: true }),
  },
  {
    id: 'ch13',
    title: 'READ with both digests (legal)',
    spec: '3.4: digests asked for are granted and right; or not granted',
    accept: [ok(), holds('digests are not granted')],
    run: async (bench) => {
      const probe = await bench.raw();
      const answer = await probe.initialise({ headerDigest: true, dataDigest: true });
      if (answer.kind === 'icresp' && answer.dgst !== 3) return finding(true, 'digests are not granted');
      const { io } = await bench.session({ headerDigest: true, dataDigest: true });
      return bench.read(io, 0n);
    },
  },
  {
    id: 'ch14',
    title: 'H2CTermReq of 153 bytes',
    spec: 'a TermReq is 24 to 152 bytes; no answer to a TermReq but closing',
    accept: [closed],
    run: async (bench) => {
      const { admin } = await bench.admin();
      admin.send(encodePdu(pdus.h2cTermReq, { fes: 1 }, { data: Buffer.alloc(129) }));
      return admin.next();
    },
  },
  {
    id: 'ch15',
    title: 'H2CTermReq, well formed',
    spec: '3.5: the controller closes the connection',
    accept: [closed],
    run: async (bench) => {
      const { admin } = await bench.admin();
      admin.send(encodePdu(pdus.h2cTermReq, { fes: 2 }, { data: encodePdu(pdus.capsuleResp, {}) }));
      return admin.next();
    },
  },
  {
    id: 'ch16',
    title: 'commands byte by byte (legal)',
    spec: 'TCP is a stream: PDUs may be cut anywhere',
    accept: [ok()],
    run: async (bench) => {
      const { io } = await bench.session();
      const { pdu, cid } = io.capsule({ opcode: NvmOpcode.read, nsid: bench.facts.ns.nsid }, bench.rw(0n, 1, { read: bench.bs }));
      for (const byte of pdu) {
        io.send(Buffer.of(byte));
        await new Promise((resolve) => setImmediate(resolve));
      }
      return io.completion(cid);
    },
  },
  {
    id: 'ch17',
    title: 'a host that never reads, with many READs, then another host',
    spec: 'a full send buffer holds up one connection alone',
    accept: [holds('the other host is served')],
    run: async (bench) => {
      const { io } = await bench.session();
      io.socket.pause();
      const blocks = Math.max(1, Math.min(bench.facts.maxTransfer, 1 << 17) / bench.bs);
      for (let i = 0; i < bench.entries - 1; i++) {
        const slba = 0n;
        io.send(io.capsule({ opcode: NvmOpcode.read, nsid: bench.facts.ns.nsid }, bench.rw(slba, blocks, { read: blocks * bench.bs })).pdu);
      }
      await new Promise((resolve) => setTimeout(resolve, 100));
      const other = await bench.session();
      const outcome = await bench.read(other.io, 0n);
      return finding(ok().match(outcome), ok().match(outcome) ? 'the other host is served' : describeOutcome(outcome));
    },
  },
  {
    id: 'ch18',
    title: 'half a header, then silence, while another host works',
    spec: 'a half-open PDU holds up one connection alone',
    accept: [ok()],
    run: async (bench) => {
      const half = await bench.initialised();
      half.send(encodePdu(pdus.capsuleCmd, {}).subarray(0, 5));
      const { io } = await bench.session();
      return bench.read(io, 0n, 1, { wait: patience });
    },
  },
];
