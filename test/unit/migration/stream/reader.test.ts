import { spawn } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { openInput } from '../../../../src/migration/containers/input.js';
import { extract } from '../../../../src/migration/export/extract.js';
import { collect } from '../../../../src/migration/inspect/dump.js';
import { StreamEnd, StreamReader } from '../../../../src/migration/stream/reader.js';
import { Walker } from '../../../../src/migration/walk.js';
import { native } from '../../../../src/native/index.js';
import * as m from '../../../support/migration.js';

const n = () => native().migration;

/** A reader over bytes in a file. */
const over = <T>(bytes: Buffer, use: (reader: StreamReader, file: string) => T): Promise<T> =>
  m.inFolder((dir) => {
    const file = path.join(dir, 'f');
    fs.writeFileSync(file, bytes);
    const fd = fs.openSync(file, 'r');
    try {
      return use(new StreamReader(n().openSource({ fd, kind: 'file', start: 0 }), fd), file);
    } finally {
      fs.closeSync(fd);
    }
  });

/** What a child writes into a pipe, piece by piece with pauses between; the read end is non-blocking if asked for. */
async function piped<T>(bytes: Buffer, piece: number, use: (fd: number) => Promise<T> | T, nonblocking = false): Promise<T> {
  const [readEnd, writeEnd] = n().pipe();
  const script = `const b=Buffer.from(process.argv[1],'base64');const fs=require('fs');let i=0;
    (function next(){if(i>=b.length)return;fs.writeSync(1,b,i,Math.min(${piece},b.length-i));i+=${piece};setTimeout(next,${nonblocking ? 30 : 0});})()`;
  const child = spawn(process.execPath, ['-e', script, bytes.toString('base64')], { stdio: ['ignore', writeEnd, 'inherit'] });
  const ended = new Promise((resolve) => child.once('exit', resolve));
  fs.closeSync(writeEnd);
  try {
    if (nonblocking) n().setNonblocking(readEnd);
    return await use(readEnd);
  } finally {
    fs.closeSync(readEnd);
    await ended;
  }
}

test('no value is made from fewer bytes than it has', () =>
  over(Buffer.from([0xab, 0xab]), (reader) => {
    expect(() => reader.be32('word')).toThrow(StreamEnd);
    const again = reader.take(4);
    expect(again).toMatchObject({ ok: false, end: { kind: 'eof', need: 4 } });
  }));

test('the end of a file is an end, not a zero byte', () =>
  over(Buffer.alloc(0), (reader) => {
    expect(reader.take(1)).toMatchObject({ ok: false, end: { kind: 'eof', at: 0, need: 1, have: 0 } });
    expect(() => reader.u8('type')).toThrow(/type: 0 of 1 bytes/);
  }));

test('a read error is not an end of file', () => {
  const fd = fs.openSync('/', 'r'); // reading a folder is EISDIR
  try {
    const reader = new StreamReader(n().openSource({ fd, kind: 'pipe', start: 0 }));
    expect(reader.take(1)).toMatchObject({ ok: false, end: { kind: 'io', errno: 'EISDIR' } });
  } finally {
    fs.closeSync(fd);
  }
});

test('a pipe that has nothing yet is waited for, blocking or not', async () => {
  for (const nonblocking of [false, true]) {
    await piped(
      m.be64(0x1122334455667788n),
      3,
      (fd) => {
        const reader = new StreamReader(n().openSource({ fd, kind: 'pipe', start: 0 }));
        expect(reader.be64('word')).toBe(0x1122334455667788n);
        expect(reader.take(1)).toMatchObject({ ok: false, end: { kind: 'eof', at: 8 } });
      },
      nonblocking,
    );
  }
});

test('skipping has no bound, and positions are 64 bits wide', () =>
  m.inFolder((dir) => {
    const file = path.join(dir, 'f');
    const size = 6 * 2 ** 30;
    fs.writeFileSync(file, '');
    fs.truncateSync(file, size);
    const fd = fs.openSync(file, 'r+');
    fs.writeSync(fd, Buffer.from([0x5a]), 0, 1, size - 1);
    const reader = new StreamReader(n().openSource({ fd, kind: 'file', start: 0 }), fd);
    reader.u8('first');
    expect(reader.position).toBe(1);
    reader.skip(size - 2, 'most');
    expect([reader.position, reader.u8('last'), reader.position]).toEqual([size - 1, 0x5a, size]);
    expect(() => reader.skip(2n ** 40n, 'beyond')).toThrow(StreamEnd);
    fs.closeSync(fd);
  }));

test('limits nest, only get narrower, and end with a reason of their own', () =>
  over(Buffer.alloc(100, 7), (reader) => {
    const seen: unknown[] = [];
    function* inner(): Generator<number> {
      yield reader.bytes(10, 'a').length;
      seen.push(reader.take(50));
      yield reader.position;
    }
    function* outer(): Generator<number> {
      yield* reader.within(90, inner);
      seen.push(reader.take(50));
    }
    expect([...reader.within(40, outer)]).toEqual([10, 40]);
    expect(seen).toMatchObject([
      { ok: false, end: { kind: 'limit', at: 40, need: 50, have: 30 } },
      { ok: false, end: { kind: 'limit', at: 40, have: 0 } },
    ]);
    expect(reader.take(60)).toMatchObject({ ok: true });
  }));

test('a footer is found across the edges of what is buffered, and only where a record can follow', async () => {
  for (const at of [10, 65530, 262140, 300000]) {
    const body = Buffer.alloc(at, 0x7e);
    const bytes = m.cat(body, m.footer(5), m.u8(0x55), body, m.footer(5), m.section(4, 6, 'next', 1, m.be32(1)));
    await piped(bytes.subarray(0, 0), 1, () => {});
    await over(bytes, (reader) => expect(reader.findFooter(5)).toBe(2 * at + 6));
    await over(bytes.subarray(0, 2 * at), (reader) => expect(reader.findFooter(5)).toBeUndefined());
  }
});

test('a pipe in pieces of any size gives the same records as the file', async () => {
  const device = m.device('dev', [{ name: 'a', type: 'uint8', size: 1 }], {
    subsections: [{ vmsd_name: 'dev/sub', version: 1, fields: [{ name: 'b', type: 'uint32', size: 4 }] }],
  });
  const bytes = m.cat(
    m.header(),
    m.configuration(),
    m.full(1, 'dev', 1, m.cat(m.u8(9), m.subsection('dev/sub', 1, m.be32(77)))),
    m.eof,
    m.vmdesc([device]),
  );
  const walk = async (fd: number) => {
    const reader = new StreamReader(n().openSource({ fd, kind: 'pipe', start: 0 }));
    return [...new Walker(reader, { fields: true }).walk()].filter((e) => e.type !== 'progress');
  };
  const whole = await over(bytes, (reader) => [...new Walker(reader, { fields: true }).walk()]);
  const fields = whole.flatMap((e) => (e.type === 'section' ? [e.fields] : []));
  expect(fields).toEqual([{ a: 9, 'dev/sub': { b: 77 } }]);
  for (const piece of [1, 7, 64]) {
    const events = await piped(bytes, piece, walk);
    expect(events.filter((e) => e.type === 'section')).toMatchObject([{ name: 'dev', fields: { a: 9, 'dev/sub': { b: 77 } } }]);
    expect(events.map((e) => e.type).sort()).toEqual(whole.map((e) => e.type).sort());
  }
});

test('a failed write ends the extraction with its errno', () => {
  const fd = fs.openSync('/dev/full', 'w');
  try {
    return over(m.cat(m.page(0, m.pattern(1), 'b'), m.EOS), (reader) => {
      const ram = n().newRam({ pageSize: 4096 });
      n().addBlock(ram, 'b', 65536n);
      n().extractTo(ram, fd, BigInt64Array.from([0n, 0n, 65536n, 0n]));
      expect(() => n().stepRam(ram, reader.source, 1 << 20)).toThrow(/ENOSPC/);
    });
  } finally {
    setTimeout(() => fs.closeSync(fd), 1000).unref();
  }
});

test('later records of a page win: content over zeros, zeros over content, deltas over both', () =>
  m.inFolder(async (dir) => {
    const file = path.join(dir, 'f');
    const P = m.PAGE;
    const records = m.cat(m.page(0, m.pattern(1), 'pc.ram'), m.zero(P), m.page(2 * P, m.pattern(2)), m.page(3 * P, m.pattern(3)), m.EOS);
    const later = m.cat(
      m.zero(0, 'pc.ram'),
      m.page(P, m.pattern(4)),
      m.xbzrle(2 * P, m.u8(1, 2, 0xaa, 0xbb)),
      m.xbzrle(3 * P, m.u8(0, 1, 0xcc, 0xfe, 0x1f, 1, 0xdd)),
      m.EOS,
    );
    const ram = m.cat(
      m.start(2, 'ram', 4, m.cat(m.blockList(['pc.ram', 4 * P]), m.EOS)),
      m.part(2, records),
      m.part(2, later),
      m.end(2, m.EOS),
    );
    fs.writeFileSync(file, m.sample({ ram }));
    const expected = m.cat(Buffer.alloc(P), m.pattern(4), m.pattern(2), m.pattern(3));
    expected.set([0xaa, 0xbb], 2 * P + 1);
    expected[3 * P] = 0xcc;
    expected[3 * P + 1 + 0xffe] = 0xdd;
    for (const as of ['sparse', 'raw', 'lime', 'elf'] as const) {
      const fd = fs.openSync(path.join(dir, as), 'w+');
      const done = await extract(openInput(file), fd, { as }, () => {});
      fs.closeSync(fd);
      // this stream describes no CPU, which a core says
      expect(done.issues.map((issue) => issue.code)).toEqual(as === 'elf' ? ['no-registers'] : []);
      expect(done).toMatchObject({ complete: true, ranges: [{ address: 0n, length: BigInt(4 * P) }] });
      const out = fs.readFileSync(path.join(dir, as));
      expect(out.length).toBe(done.size);
      const at = Number(done.ranges[0]!.offset);
      expect(out.subarray(at, at + 4 * P).equals(expected)).toBe(true);
      if (as !== 'elf') continue;
      // program headers: PT_NOTE, PT_LOAD; crash takes all in front of the first PT_LOAD's bytes for headers and notes
      expect([out.readUInt32LE(64), out.readUInt32LE(64 + 56), out.readBigUInt64LE(64 + 56 + 8)]).toEqual([4, 1, BigInt(at)]);
      expect(Number(out.readBigUInt64LE(64 + 8) + out.readBigUInt64LE(64 + 32))).toBeLessThanOrEqual(at);
    }
    const fd = fs.openSync(path.join(dir, 'piece'), 'w+');
    await extract(openInput(file), fd, { as: 'sparse', at: BigInt(2 * P - 5), length: 11n }, () => {});
    fs.closeSync(fd);
    expect(fs.readFileSync(path.join(dir, 'piece')).equals(expected.subarray(2 * P - 5, 2 * P + 6))).toBe(true);
    const input = openInput(file);
    const dump = await collect(input, new Walker(input.reader));
    expect(dump.ram!.blocks[0]!.state).toMatchObject({ normal: 4, zero: 2, xbzrle: 2, resent: 4, seen: 4, content: 3, undecodable: 0 });
  }));
