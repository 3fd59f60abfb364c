import fc from 'fast-check';
import { native } from '../../../../src/native/index.js';
import {
  c2hData,
  checkIcReq,
  checkIcResp,
  type Direction,
  encodePdu,
  icReq,
  icResp,
  type Pdu,
  PduError,
  PduReader,
  pdus,
} from '../../../../src/nvme/wire/index.js';

const { crc32c } = native().common;
const hello = encodePdu(pdus.icReq, {});
const helloBack = encodePdu(pdus.icResp, { maxh2cdata: 65536 });

function reader(direction: Direction, digests = { headerDigest: false, dataDigest: false }, align = 4): PduReader {
  const r = new PduReader({ direction, crc32c, maxData: (rule) => (rule === pdus.h2cData ? 4096 : 8192) });
  expect([...r.push(direction === 'h2c' ? hello : helloBack)]).toHaveLength(1);
  r.agree({ ...digests, align });
  return r;
}

/** The error that bytes lead to. */
function errorOf(r: PduReader, bytes: Buffer): { fes: number; fei: number; silent: boolean } | undefined {
  try {
    for (const _ of r.push(bytes));
    return undefined;
  } catch (err) {
    if (!(err instanceof PduError)) throw err;
    return { fes: err.fes, fei: err.fei, silent: err.silent };
  }
}

const capsule = (change: (b: Buffer) => void, data?: Buffer): Buffer => {
  const bytes = encodePdu(pdus.capsuleCmd, {}, { data });
  change(bytes);
  return bytes;
};
const h2c = (change: (b: Buffer) => void, size = 512): Buffer => {
  const bytes = encodePdu(pdus.h2cData, { datal: size }, { data: Buffer.alloc(size) });
  change(bytes);
  return bytes;
};

describe('what breaks the rules is found from the common header alone', () => {
  const cases: [string, Buffer, { fes: number; fei: number; silent?: boolean } | undefined][] = [
    ['a type that does not exist', Buffer.from([0x47, 0x45, 0x54, 0x20, 0x2f, 0, 0, 0]), { fes: 1, fei: 0 }],
    ['the wrong direction', encodePdu(pdus.capsuleResp, {}), { fes: 1, fei: 0 }],
    ['a second ICReq', hello, { fes: 2, fei: 0 }],
    ['reserved flags', capsule((b) => b.writeUInt8(0xf0, 1)), { fes: 1, fei: 1 }],
    ['a digest flag that was not agreed', capsule((b) => b.writeUInt8(1, 1)), { fes: 1, fei: 1 }],
    ['HLEN 71', capsule((b) => b.writeUInt8(71, 2)), { fes: 1, fei: 2 }],
    ['PDO 7 with data', capsule((b) => b.writeUInt8(7, 3), Buffer.alloc(512)), { fes: 1, fei: 3 }],
    ['PDO not aligned', capsule((b) => b.writeUInt8(74, 3), Buffer.alloc(512)), { fes: 1, fei: 3 }],
    ['PDO beyond PLEN', capsule((b) => b.writeUInt8(248, 3), Buffer.alloc(4)), { fes: 1, fei: 3 }],
    ['PDO at PLEN', capsule((b) => b.writeUInt32LE(72, 4), Buffer.alloc(4)), undefined],
    ['PLEN FFFFFFFFh', capsule((b) => b.writeUInt32LE(0xffffffff, 4), Buffer.alloc(4)), { fes: 1, fei: 4 }],
    ['PLEN 0', capsule((b) => b.writeUInt32LE(0, 4)), { fes: 1, fei: 4 }],
    ['PLEN beyond the limit', capsule((b) => b.writeUInt32LE(72 + 8196, 4), Buffer.alloc(4)), { fes: 1, fei: 4 }],
    ['H2CData beyond MAXH2CDATA', h2c(() => {}, 8192), { fes: 5, fei: 0 }],
    ['H2CData without data', h2c((b) => b.writeUInt32LE(24, 4)), { fes: 1, fei: 4 }],
    ['H2CData without PDO', h2c((b) => b.writeUInt8(0, 3)), { fes: 1, fei: 3 }],
    ['TermReq of 153 bytes', encodePdu(pdus.h2cTermReq, { fes: 1 }, { data: Buffer.alloc(129) }), { fes: 1, fei: 4, silent: true }],
    ['TermReq of 23 bytes', Buffer.from('0200180017000000', 'hex'), { fes: 1, fei: 4, silent: true }],
    ['TermReq of 152 bytes', encodePdu(pdus.h2cTermReq, { fes: 1 }, { data: Buffer.alloc(128) }), undefined],
    ['a capsule without data but PDO', capsule((b) => b.writeUInt8(72, 3)), undefined],
  ];
  test.each(cases)('%s', (_name, bytes, expected) => {
    const whole = errorOf(reader('h2c'), bytes);
    expect(whole).toEqual(expected && { silent: false, ...expected });
    // Eight bytes are enough to refuse: nothing more is awaited.
    if (expected) expect(errorOf(reader('h2c'), bytes.subarray(0, 8))).toEqual(whole);
  });

  test('before ICReq only ICReq and TermReq may come', () => {
    const fresh = () => new PduReader({ direction: 'h2c', crc32c, maxData: () => 8192 });
    expect(
      errorOf(
        fresh(),
        capsule(() => {}),
      ),
    ).toEqual({ fes: 2, fei: 0, silent: false });
    expect(errorOf(fresh(), helloBack)).toEqual({ fes: 1, fei: 0, silent: false });
    for (const [offset, value, fei] of [
      [1, 1, 1],
      [2, 127, 2],
      [3, 1, 3],
      [4, 129, 4],
    ] as const) {
      const bad = Buffer.from(hello);
      bad.writeUInt8(value, offset);
      expect(errorOf(fresh(), bad)).toEqual({ fes: 1, fei, silent: false });
    }
    expect(errorOf(fresh(), encodePdu(pdus.h2cTermReq, { fes: 1 }, { data: Buffer.alloc(8) }))).toBeUndefined();
  });

  test('SUCCESS without LAST_PDU', () => {
    const bytes = encodePdu(pdus.c2hData, { datal: 4 }, { flags: 8, data: Buffer.alloc(4) });
    expect(errorOf(reader('c2h'), bytes)).toMatchObject({ fes: 1, fei: 1 });
  });
});

describe('digests', () => {
  const both = { headerDigest: true, dataDigest: true };
  const good = () => encodePdu(pdus.h2cData, { datal: 64 }, { flags: 4, data: Buffer.alloc(64, 7), align: 32, ...both, crc32c });

  test('good', () => {
    const [pdu] = [...reader('h2c', both, 32).push(good())];
    expect(pdu).toMatchObject({ dataDigestOk: true, pdo: 32, flags: 7 });
    expect(pdu!.data).toEqual(Buffer.alloc(64, 7));
  });
  test('a wrong header digest is fatal and reported as received', () => {
    const bytes = good();
    bytes.writeUInt32LE(0xdeadbeef, 24);
    expect(errorOf(reader('h2c', both, 32), bytes)).toEqual({ fes: 3, fei: 0xdeadbeef, silent: false });
  });
  test('a wrong data digest is not', () => {
    const bytes = good();
    bytes.writeUInt8(8, 40);
    expect([...reader('h2c', both, 32).push(bytes)][0]).toMatchObject({ dataDigestOk: false });
  });
  test('a PDU without the agreed header digest', () => {
    expect(errorOf(reader('h2c', both), encodePdu(pdus.capsuleCmd, {}))).toMatchObject({ fes: 1, fei: 1 });
  });
  test('a capsule without data has no data digest', () => {
    const bytes = encodePdu(pdus.capsuleCmd, {}, { ...both, crc32c });
    expect([...reader('h2c', both).push(bytes)][0]).toMatchObject({ flags: 1, plen: 76 });
  });
});

test('any cutting of the stream gives the same PDUs', () => {
  const both = { headerDigest: true, dataDigest: true };
  const stream = Buffer.concat([
    encodePdu(pdus.capsuleCmd, {}, { ...both, crc32c }),
    encodePdu(pdus.capsuleCmd, {}, { data: Buffer.alloc(100, 1), align: 16, ...both, crc32c }),
    encodePdu(pdus.h2cData, { datal: 4096 }, { data: Buffer.alloc(4096, 2), align: 16, ...both, crc32c }),
    encodePdu(pdus.h2cTermReq, { fes: 2 }, { data: Buffer.alloc(24, 3) }),
    encodePdu(pdus.h2cData, { datal: 4 }, { flags: 4, data: Buffer.alloc(4, 4), align: 16, ...both, crc32c }),
  ]);
  const shape = (pdu: Pdu) => ({
    name: pdu.rule.name,
    flags: pdu.flags,
    header: pdu.header.toString('hex'),
    data: Buffer.from(pdu.data).toString('hex'),
    ok: pdu.dataDigestOk,
  });
  const whole = [...reader('h2c', both, 16).push(stream)].map(shape);
  expect(whole.map((p) => p.name)).toEqual(['CapsuleCmd', 'CapsuleCmd', 'H2CData', 'H2CTermReq', 'H2CData']);
  expect(whole.every((p) => p.ok)).toBe(true);
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 1, max: 700 }), { minLength: 1, maxLength: 40 }), (cuts) => {
      const r = reader('h2c', both, 16);
      const got = [];
      for (let at = 0, i = 0; at < stream.length; i++) {
        const n = cuts[i % cuts.length]!;
        // As a socket does: a chunk's memory is reused for the next one.
        const chunk = Buffer.from(stream.subarray(at, at + n));
        for (const pdu of r.push(chunk)) got.push(shape(pdu));
        chunk.fill(0xee);
        at += n;
      }
      expect(got).toEqual(whole);
      expect(r.atBoundary).toBe(true);
    }),
    { numRuns: 100 },
  );
});

test('the sink gets the data and decides by the header', () => {
  const target = Buffer.alloc(1024);
  const r = new PduReader({
    direction: 'c2h',
    crc32c,
    maxData: () => 1024,
    sink: (rule, header, size) => {
      expect(rule).toBe(pdus.c2hData);
      const at = c2hData.decode(header).datao;
      return target.subarray(at, at + size);
    },
  });
  const bytes = Buffer.concat([helloBack, encodePdu(pdus.c2hData, { datao: 512, datal: 256 }, { data: Buffer.alloc(256, 9) })]);
  for (let at = 0; at < bytes.length; at += 100) for (const _ of r.push(bytes.subarray(at, at + 100)));
  expect(target.subarray(512, 768)).toEqual(Buffer.alloc(256, 9));
  expect(target.subarray(0, 512)).toEqual(Buffer.alloc(512));
});

test('random bytes never do anything but PDUs or PduError', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 600 }), fc.integer({ min: 0, max: 9 }), (noise, type) => {
      const bytes = Buffer.from(noise);
      if (bytes.length > 0) bytes.writeUInt8(type, 0);
      for (const direction of ['h2c', 'c2h'] as const) errorOf(reader(direction), bytes);
    }),
    { numRuns: 500 },
  );
});

describe('parameters of the handshake', () => {
  test.each([
    ['PFV 1', { pfv: 1 }, 6, 8],
    ['HPDA 32', { hpda: 32 }, 1, 10],
    ['digest bit 2', { dgst: 4 }, 1, 11],
  ])('ICReq with %s', (_name, fields, fes, fei) => {
    expect(() => checkIcReq(icReq.encode(fields))).toThrow(expect.objectContaining({ fes, fei }));
  });
  test.each([
    ['PFV 1', { pfv: 1 }, 6, 8],
    ['CPDA 32', { cpda: 32 }, 1, 10],
    ['a digest not asked for', { dgst: 2 }, 1, 11],
    ['MAXH2CDATA 0', { maxh2cdata: 0 }, 1, 12],
    ['MAXH2CDATA 4095', { maxh2cdata: 4095 }, 1, 12],
    ['MAXH2CDATA 4098', { maxh2cdata: 4098 }, 1, 12],
  ])('ICResp with %s', (_name, fields, fes, fei) => {
    const header = icResp.encode({ maxh2cdata: 4096, ...fields });
    expect(() => checkIcResp(header, { headerDigest: true, dataDigest: false })).toThrow(expect.objectContaining({ fes, fei }));
  });
  test('good ones', () => {
    expect(checkIcReq(icReq.encode({ hpda: 31, dgst: 3, maxr2t: 0xffffffff }))).toEqual({
      hpda: 31,
      headerDigest: true,
      dataDigest: true,
      maxr2t: 0xffffffff,
    });
    expect(checkIcResp(icResp.encode({ maxh2cdata: 0xfffffffc }), { headerDigest: true, dataDigest: true })).toMatchObject({
      headerDigest: false,
      maxh2cdata: 0xfffffffc,
    });
  });
});
