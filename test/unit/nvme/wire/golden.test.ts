/**
 * Bytes written out by hand from the figures of the specifications (NVMe TCP Transport 1.0, NVMe Base 2.0, NVM Command
 * Set 1.0), compared with what the tables make and read.
 */
import { native } from '../../../../src/native/index.js';
import {
  capsuleCmd,
  cc,
  ccValue,
  connectCmd,
  connectData,
  copyRange,
  cqe,
  decodeIdDescriptors,
  decodeNamespaceList,
  decodeStatus,
  describeRecord,
  discoveryHeader,
  discoveryRecord,
  dsmCmd,
  dsmRange,
  encodeAnaLog,
  encodeIdDescriptors,
  encodePdu,
  encodeStatus,
  errorEntry,
  featureCmd,
  formatInUse,
  getLogCmd,
  identifyCmd,
  identifyController,
  identifyNamespace,
  NvmStatus,
  pdus,
  propertyCmd,
  rwCmd,
  Status,
  smartLog,
  sqe,
  statusText,
  transferOf,
} from '../../../../src/nvme/wire/index.js';

const hex = (text: string) => Buffer.from(text.replace(/\s/g, ''), 'hex');
const { crc32c } = native().common;

describe('PDUs', () => {
  test('ICReq asking for both digests', () => {
    const bytes = encodePdu(pdus.icReq, { pfv: 0, hpda: 3, dgst: 3, maxr2t: 1 });
    expect(bytes.subarray(0, 16)).toEqual(hex('00 00 80 00 80000000 0000 03 03 01000000'));
    expect(bytes.length).toBe(128);
    expect(bytes.subarray(16).every((b) => b === 0)).toBe(true);
  });
  test('ICResp', () => {
    const bytes = encodePdu(pdus.icResp, { pfv: 0, cpda: 0, dgst: 1, maxh2cdata: 0x20000 });
    expect(bytes.subarray(0, 16)).toEqual(hex('01 00 80 00 80000000 0000 00 01 00000200'));
  });
  test('R2T', () => {
    expect(encodePdu(pdus.r2t, { cccid: 0x1234, ttag: 0x5678, r2to: 0x1000, r2tl: 0x2000 })).toEqual(
      hex('09 00 18 00 18000000 3412 7856 00100000 00200000 00000000'),
    );
  });
  test('the last H2CData of a command, with both digests and 16-byte alignment', () => {
    // header 24, its digest to 28, padding to 32, data 8, its digest: PDO 32, PLEN 44, flags HDGSTF|DDGSTF|LAST_PDU
    const data = Buffer.from('12345678');
    const bytes = encodePdu(
      pdus.h2cData,
      { cccid: 5, ttag: 9, datao: 16, datal: 8 },
      { flags: 4, data, align: 16, headerDigest: true, dataDigest: true, crc32c },
    );
    const header = hex('06 07 18 20 2c000000 0500 0900 10000000 08000000 00000000');
    expect(bytes.subarray(0, 24)).toEqual(header);
    expect(bytes.readUInt32LE(24)).toBe(crc32c(header));
    expect(bytes.subarray(28, 32)).toEqual(Buffer.alloc(4));
    expect(bytes.subarray(32, 40)).toEqual(data);
    expect(bytes.readUInt32LE(40)).toBe(crc32c(data));
    expect(bytes.length).toBe(44);
  });
  test('C2HTermReq: header 24 with FES and FEI, the header in error as data, PDO reserved', () => {
    const bytes = encodePdu(pdus.c2hTermReq, { fes: 1, fei: 4 }, { data: hex('0400480050000000') });
    expect(bytes).toEqual(hex('03 00 18 00 20000000 0100 04000000 00000000000000000000 0400480050000000'));
  });
  test('CapsuleCmd carries the SQE at 8', () => {
    const head = encodePdu({ ...pdus.capsuleCmd, header: capsuleCmd }, {});
    expect(head.subarray(0, 8)).toEqual(hex('04 00 48 00 48000000'));
    expect(head.length).toBe(72);
  });
});

describe('commands', () => {
  test('Read: 8 blocks from LBA 0x123456789A, FUA, command-buffer SGL', () => {
    const bytes = sqe.encode({ opcode: 2, psdt: 1, cid: 7, nsid: 1, sglAddress: 0n, sglLength: 4096, sglId: 0x5a });
    rwCmd.encode({ slba: 0x123456789an, nlb: 7, fua: 1 }, bytes);
    expect(bytes).toEqual(
      hex(
        '02 40 0700 01000000 00000000 00000000 0000000000000000 0000000000000000 00100000 000000 5a' +
          '9a78563412000000 07000040 00000000 00000000 00000000',
      ),
    );
  });
  test('Connect to the admin queue', () => {
    const bytes = sqe.encode({ opcode: 0x7f, psdt: 1, cid: 0, fctype: 1, sglLength: 1024, sglId: 0x01 });
    connectCmd.encode({ recfmt: 0, qid: 0, sqsize: 31, cattr: 4, kato: 5000 }, bytes);
    expect(bytes.subarray(0, 8)).toEqual(hex('7f 40 0000 01 000000'));
    expect(bytes.subarray(24, 40)).toEqual(hex('0000000000000000 00040000 000000 01'));
    expect(bytes.subarray(40, 52)).toEqual(hex('0000 0000 1f00 04 00 88130000'));
  });
  test('Connect data: HOSTID, CNTLID, NQNs at 256 and 512', () => {
    const bytes = connectData.encode({ hostid: Buffer.alloc(16, 0xab), cntlid: 0xffff, subnqn: 'nqn.a', hostnqn: 'nqn.b' });
    expect(bytes.length).toBe(1024);
    expect(bytes.subarray(0, 18)).toEqual(hex('abababababababababababababababab ffff'));
    expect(bytes.toString('latin1', 256, 262)).toBe('nqn.a\0');
    expect(bytes.toString('latin1', 512, 518)).toBe('nqn.b\0');
  });
  test('Property Set of CC = 460001h and Get of CAP', () => {
    const value = ccValue({ en: 1, iosqes: 6, iocqes: 4 });
    expect(value).toBe(0x460001);
    const set = propertyCmd.encode({ attrib: 0, ofst: 0x14, value: BigInt(value) });
    expect(set.subarray(40, 56)).toEqual(hex('00 000000 14000000 0100460000000000'));
    expect(propertyCmd.encode({ attrib: 1, ofst: 0 }).subarray(40, 48)).toEqual(hex('01 000000 00000000'));
    expect(cc.decode(hex('61406400'))).toMatchObject({ en: 1, css: 6, shn: 1, iosqes: 4, iocqes: 6 });
  });
  test('Identify, Get Log Page, Set Features, Dataset Management', () => {
    expect(identifyCmd.encode({ cns: 6, cntid: 0x1234, csi: 2 }).subarray(40, 48)).toEqual(hex('06 00 3412 0000 00 02'));
    expect(getLogCmd.encode({ lid: 0x70, lsp: 1, rae: 1, numdl: 0xff, numdu: 1, lpo: 0x400n }).subarray(40, 56)).toEqual(
      hex('70 81 ff00 0100 0000 0004000000000000'),
    );
    expect(featureCmd.encode({ fid: 7, value: 0x00030003 }).subarray(40, 48)).toEqual(hex('07 00 00 00 03000300'));
    expect(dsmCmd.encode({ nr: 1, ad: 1 }).subarray(40, 48)).toEqual(hex('01000000 04000000'));
    expect(dsmRange.encode({ nlb: 8, slba: 16n })).toEqual(hex('00000000 08000000 1000000000000000'));
    expect(copyRange.encode({ slba: 3n, nlb: 4 })).toEqual(hex('0000000000000000 0300000000000000 0400 000000000000 0000000000000000'));
  });
  test('transfer directions are the two low opcode bits', () => {
    expect([0x00, 0x01, 0x02, 0x06, 0x09, 0x0c, 0x05].map(transferOf)).toEqual(['none', 'write', 'read', 'read', 'write', 'none', 'write']);
  });
});

describe('completions', () => {
  test('a CQE: Connect Invalid Parameters with DNR, IPO 256 in the data', () => {
    const bytes = hex('00010100 00000000 0300 0000 0700 0483');
    expect(cqe.decode(bytes)).toEqual({ dw0: 0x00010100, dw1: 0, sqhd: 3, sqid: 0, cid: 7, status: 0x8304 });
    expect(decodeStatus(0x8304)).toEqual({ sct: 1, sc: 0x82, dnr: true, more: false, crd: 0 });
    expect(encodeStatus(Status.connectInvalidParameters)).toBe(0x8304);
  });
  test('names by queue', () => {
    expect(statusText({ sct: 0, sc: 2, dnr: true })).toBe('Invalid Field in Command (02h, DNR)');
    expect(statusText({ sct: 1, sc: 0x82 })).toBe('Connect Invalid Parameters (1/82h)');
    expect(statusText({ sct: 1, sc: 0x82 }, 'io')).toBe('Attempted Write to Read Only Range (1/82h)');
    expect(statusText({ sct: 7, sc: 0xaa })).toBe('unknown status (7/AAh)');
  });
  test('every status survives the field, and no two share a code', () => {
    for (const status of [...Object.values(Status), ...Object.values(NvmStatus)])
      expect(decodeStatus(encodeStatus(status))).toMatchObject({ sct: status.sct, sc: status.sc, dnr: status.dnr });
    const codes = Object.values(Status).map(({ sct, sc }) => `${sct}/${sc}`);
    expect(new Set(codes).size).toBe(codes.length);
  });
});

describe('Identify', () => {
  test('controller fields lie where the figure says', () => {
    const raw = Buffer.alloc(4096);
    raw.write('SN1'.padEnd(20), 4, 'latin1');
    raw.write('vioctl'.padEnd(40), 24, 'latin1');
    raw.writeUInt8(8, 77);
    raw.writeUInt16LE(0x1234, 78);
    raw.writeUInt32LE(0x20000, 80);
    raw.writeUInt8(1, 111);
    raw.writeUInt16LE(10, 320);
    raw.writeUInt8(0x66, 512);
    raw.writeUInt32LE(16, 516);
    raw.writeUInt8(7, 525);
    raw.writeUInt32LE(0x100001, 536);
    raw.write('nqn.x', 768);
    raw.writeUInt32LE(1028, 1792);
    raw.writeUInt32LE(1, 1796);
    raw.writeUInt8(1, 1803);
    expect(identifyController.decode(raw)).toMatchObject({
      sn: 'SN1',
      mn: 'vioctl',
      mdts: 8,
      cntlid: 0x1234,
      ver: 0x20000,
      cntrltype: 1,
      kas: 10,
      sqes: 0x66,
      nn: 16,
      vwc: 7,
      sgls: 0x100001,
      subnqn: 'nqn.x',
      ioccsz: 1028,
      iorcsz: 1,
      msdbd: 1,
    });
  });
  test('namespace fields and the format in use', () => {
    const raw = Buffer.alloc(4096);
    raw.writeBigUInt64LE(0x1_0000_0000n, 0);
    raw.writeUInt8(1, 25);
    raw.writeUInt8(1, 26);
    raw.writeUInt8(1, 99);
    raw.fill(0x11, 104, 120);
    raw.fill(0x22, 120, 128);
    raw.writeUInt32LE(9 << 16, 128);
    raw.writeUInt32LE(12 << 16, 132);
    const ns = identifyNamespace.decode(raw);
    expect(ns).toMatchObject({ nsze: 0x1_0000_0000n, nlbaf: 1, flbas: 1, nsattr: 1 });
    expect(Buffer.from(ns.nguid).toString('hex')).toBe('11'.repeat(16));
    expect(Buffer.from(ns.eui64).toString('hex')).toBe('22'.repeat(8));
    expect(formatInUse(ns)).toEqual({ ms: 0, ds: 12, rp: 0 });
    expect(() => formatInUse({ ...ns, flbas: 0x25 })).toThrow('FLBAS');
  });
  test('descriptors: read, and refused when they run beyond the list', () => {
    const list = [
      { type: 1, id: Buffer.alloc(8, 1) },
      { type: 3, id: Buffer.alloc(16, 2) },
      { type: 4, id: Buffer.from([0]) },
    ];
    const raw = encodeIdDescriptors(list);
    expect(raw.subarray(0, 13)).toEqual(hex('01 08 0000 0101010101010101 03'));
    expect(decodeIdDescriptors(raw)).toEqual(list);
    expect(() => decodeIdDescriptors(hex('09200000 00'))).toThrow('beyond the list');
    expect(() => decodeIdDescriptors(hex('01040000 00000000'))).toThrow('is 4 bytes long, not 8');
  });
  test('namespace lists end at 0 and must increase', () => {
    expect(decodeNamespaceList(hex('01000000 05000000 00000000 07000000'))).toEqual([1, 5]);
    expect(() => decodeNamespaceList(hex('05000000 05000000'))).toThrow('not in order');
  });
});

describe('logs', () => {
  test('SMART and error entries', () => {
    const raw = Buffer.alloc(512);
    raw.writeUInt16LE(300, 1);
    raw.writeBigUInt64LE(7n, 32);
    raw.writeBigUInt64LE(1n, 56);
    expect(smartLog.decode(raw)).toMatchObject({ temperature: 300, data_units_read: 7n, data_units_written: 1n << 64n });
    const error = Buffer.alloc(64);
    error.writeBigUInt64LE(9n, 0);
    error.writeUInt16LE(1, 8);
    error.writeUInt16LE(0x8304, 12);
    error.writeUInt32LE(3, 24);
    expect(errorEntry.decode(error)).toMatchObject({ error_count: 9n, sqid: 1, status_field: 0x4182, phase_tag: 0, nsid: 3 });
  });
  test('ANA log', () => {
    expect(encodeAnaLog(2n, [{ grpid: 1, chgcnt: 2n, state: 1, nsids: [1, 4] }])).toEqual(
      hex(`0200000000000000 0100 000000000000 01000000 02000000 0200000000000000 01 ${'00'.repeat(15)} 01000000 04000000`),
    );
  });
  test('discovery log: header and record, in the words of nvme-cli', () => {
    const raw = Buffer.alloc(2048);
    raw.writeBigUInt64LE(4n, 0);
    raw.writeBigUInt64LE(1n, 8);
    expect(discoveryHeader.decode(raw)).toEqual({ genctr: 4n, numrec: 1n, recfmt: 0 });
    raw.set([3, 1, 2, 4], 1024);
    raw.writeUInt16LE(0xffff, 1030);
    raw.writeUInt16LE(32, 1032);
    raw.write('4420'.padEnd(32), 1056);
    raw.write('nqn.2014-08.org.example:a\0', 1280);
    raw.write('127.0.0.1\0', 1536);
    expect(describeRecord(discoveryRecord.decode(raw, 1024))).toEqual({
      trtype: 'tcp',
      adrfam: 'ipv4',
      subtype: 'nvme subsystem',
      treq: 'not specified, sq flow control disable supported',
      portid: 0,
      trsvcid: '4420',
      subnqn: 'nqn.2014-08.org.example:a',
      traddr: '127.0.0.1',
      eflags: 'none',
      sectype: 'none',
    });
  });
});
