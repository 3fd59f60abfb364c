import fs from 'node:fs';
import path from 'node:path';
import zlib from 'node:zlib';
import { VioError } from '../../../../src/common/errors.js';
import { openInput } from '../../../../src/migration/containers/input.js';
import { extract } from '../../../../src/migration/export/extract.js';
import { type Verification, verify } from '../../../../src/migration/inspect/verify.js';
import * as m from '../../../support/migration.js';

/** One way in which an input is bad, and what must be said about it. */
interface Case {
  name: string;
  bytes: Buffer;
  verdict: Verification['verdict'];
  /** code, offset, and parts of expected and found of an issue that must be reported */
  issue?: { code: string; offset?: number; path?: string; expected?: RegExp; found?: RegExp; message?: RegExp; severity?: string };
  /** pages of pc.ram that are there all the same */
  present?: number;
  devices?: number;
  force?: boolean;
}

const whole = m.sample();
const configurationEnd = 8 + m.configuration().length;
const pagesAt = configurationEnd + m.start(2, 'ram', 4, m.cat(m.blockList(['pc.ram', 16 * m.PAGE]), m.EOS)).length + 5;
/** Offset of the record of page n in sample(): page 0 has the name, every fourth is a page of 4 KiB, the others 9 bytes. */
const recordAt = (n: number): number => {
  let at = pagesAt;
  for (let i = 0; i < n; i++) at += i % 4 === 0 ? 8 + m.PAGE + (i === 0 ? 7 : 0) : 9;
  return at;
};
const edit = (at: number, ...bytes: number[]): Buffer => {
  const out = Buffer.from(whole);
  out.set(bytes, at);
  return out;
};
const withPages = (...records: Buffer[]): Buffer => m.sample({ ram: m.ramSections(m.cat(m.page(0, m.pattern(0), 'pc.ram'), ...records)) });
const timerAt = whole.indexOf(m.full(0, 'timer', 1, m.timerBody));
const cpuAt = whole.indexOf(m.full(3, 'cpu', 1, m.cpuBody));
const descriptionAt = whole.length - m.vmdesc(m.devices).length;
const mapped = (header: Buffer): Buffer =>
  m.sample({
    configuration: m.configuration('pc', m.capabilities('mapped-ram')),
    ram: m.start(2, 'ram', 4, m.cat(m.blockList(['pc.ram', 65536, header]), m.EOS)),
  });
const mappedHeader = (version: number, page: number, bitmap: number, pages: number): Buffer =>
  m.cat(m.be32(version), m.be64(page), m.be64(bitmap), m.be64(pages));

const cases: Case[] = [
  { name: '1 empty file', bytes: Buffer.alloc(0), verdict: 'truncated', issue: { code: 'empty', offset: 0 } },
  {
    name: '2 seven bytes',
    bytes: whole.subarray(0, 7),
    verdict: 'truncated',
    issue: { code: 'truncated', offset: 7, expected: /8 bytes/, found: /^7$/ },
  },
  { name: '3 wrong magic', bytes: edit(0, 0x58), verdict: 'damaged', issue: { code: 'magic', offset: 0, expected: /QEVM/, found: /XEVM/ } },
  {
    name: '4 version 2',
    bytes: m.sample({ header: m.header(2) }),
    verdict: 'damaged',
    issue: { code: 'version', offset: 4, expected: /3/, found: /2/, message: /obsolete/ },
  },
  {
    name: '4 version 4',
    bytes: m.sample({ header: m.header(4) }),
    verdict: 'damaged',
    issue: { code: 'version', offset: 4, found: /4/, message: /unknown/ },
  },
  {
    name: '4 version 4 with --force',
    bytes: m.sample({ header: m.header(4) }),
    verdict: 'damaged',
    force: true,
    present: 16,
    devices: 2,
    issue: { code: 'version' },
  },
  {
    name: '5 machine name of 4 GiB',
    bytes: edit(9, 0xff, 0xff, 0xff, 0xff),
    verdict: 'damaged',
    issue: { code: 'machine-name', offset: 9, expected: /4096/, found: /4294967295/ },
    present: 16,
    devices: 2,
  },
  {
    name: '6 unknown configuration subsection',
    bytes: m.sample({ configuration: m.configuration('pc', m.subsection('configuration/new', 1, m.be64(7))) }),
    verdict: 'damaged',
    issue: { code: 'configuration', path: 'configuration' },
    present: 16,
    devices: 2,
  },
  {
    name: '7 unknown capability',
    bytes: m.sample({ configuration: m.configuration('pc', m.capabilities('x-future')) }),
    verdict: 'complete',
    issue: { code: 'capability', severity: 'warning', message: /x-future/ },
    present: 16,
    devices: 2,
  },
  ...[0, 7, 17, 0xffffffff].map(
    (bits): Case => ({
      name: `5 target pages of 2^${bits} bytes`,
      bytes: m.sample({ configuration: m.configuration('pc', m.subsection('configuration/target-page-bits', 1, m.be32(bits))) }),
      verdict: 'damaged',
      issue: { code: 'page-bits', path: 'configuration', expected: /2\^8 to 2\^16/, found: new RegExp(`^2\\^${bits}$`) },
      present: 16,
      devices: 2,
    }),
  ),
  {
    name: '8 unknown record type',
    bytes: m.sample({ devices: m.cat(m.full(0, 'timer', 1, m.timerBody), Buffer.from([0x55, 1, 2, 3]), m.full(3, 'cpu', 1, m.cpuBody)) }),
    verdict: 'damaged',
    issue: { code: 'record-type', offset: cpuAt, expected: /00-04/, found: /0x55/ },
    present: 16,
    devices: 2,
  },
  {
    name: '9 cut inside a page',
    bytes: whole.subarray(0, recordAt(8) + 8 + 1811),
    verdict: 'truncated',
    issue: { code: 'truncated-ram', offset: recordAt(8), message: /pc\.ram page 0x8000: the record has 1819 bytes/ },
    present: 8,
  },
  {
    name: '10 cut at the end of a section',
    bytes: whole.subarray(0, cpuAt),
    verdict: 'truncated',
    issue: { code: 'no-eof', offset: cpuAt, message: /EOF record is missing/ },
    present: 16,
    devices: 1,
  },
  { name: '11 no description', bytes: whole.subarray(0, descriptionAt), verdict: 'complete-without-description', present: 16, devices: 2 },
  {
    name: '11 description cut by a byte',
    bytes: whole.subarray(0, whole.length - 1),
    verdict: 'complete-without-description',
    issue: { code: 'description-cut', severity: 'warning', expected: /bytes/ },
    present: 16,
    devices: 2,
  },
  {
    name: '13 description length beyond the file',
    bytes: edit(descriptionAt + 1, 0x00, 0x0f),
    verdict: 'complete-without-description',
    issue: { code: 'description-cut', severity: 'warning' },
    present: 16,
    devices: 2,
  },
  {
    name: '14 described fields do not end at the footer',
    bytes: m.sample({ devices: m.cat(m.full(0, 'timer', 1, m.cat(m.timerBody, Buffer.alloc(3))), m.full(3, 'cpu', 1, m.cpuBody)) }),
    verdict: 'damaged',
    issue: { code: 'fields-size', path: 'timer (0)', expected: /8 bytes/, found: /11 bytes \(\+3\)/ },
    present: 16,
    devices: 2,
  },
  {
    name: '15 footer of another section',
    bytes: edit(cpuAt - 4, 0, 0, 0, 9),
    verdict: 'damaged',
    issue: { code: 'footer-id', offset: cpuAt - 5, path: 'timer (0)', expected: /^0$/, found: /^9$/ },
    present: 16,
    devices: 2,
  },
  {
    name: '16 no footers (machine types before 2.4)',
    bytes: m.cat(
      m.header(),
      m.section(1, 2, 'ram', 4, m.cat(m.blockList(['pc.ram', m.PAGE]), m.EOS)),
      m.u8(3),
      m.be32(2),
      m.page(0, m.pattern(1), 'pc.ram'),
      m.EOS,
      m.section(4, 0, 'timer', 1, m.timerBody),
      m.section(4, 3, 'cpu', 1, m.cpuBody),
      m.eof,
      m.vmdesc(m.devices),
    ),
    verdict: 'complete',
    issue: { code: 'no-footers', severity: 'note' },
    present: 1,
    devices: 2,
  },
  {
    name: '16 no footers and no description',
    bytes: m.cat(m.header(), m.section(4, 0, 'timer', 1, m.timerBody), m.section(4, 3, 'cpu', 1, m.cpuBody), m.eof),
    verdict: 'memory-elsewhere',
    issue: { code: 'no-ram', severity: 'warning' },
    devices: 2,
  },
  {
    name: '17 PART of an unknown section',
    bytes: m.sample({
      devices: m.cat(m.part(77, Buffer.alloc(20, 1)), m.full(0, 'timer', 1, m.timerBody), m.full(3, 'cpu', 1, m.cpuBody)),
    }),
    verdict: 'damaged',
    issue: { code: 'section-unknown', offset: timerAt, found: /77/, expected: /2/ },
    present: 16,
    devices: 2,
  },
  {
    name: '18 a section id twice',
    bytes: m.sample({ devices: m.cat(m.full(0, 'timer', 1, m.timerBody), m.full(0, 'cpu', 1, m.cpuBody)) }),
    verdict: 'damaged',
    issue: {
      code: 'section-twice',
      offset: cpuAt,
      message: new RegExp(`first at 0x${timerAt.toString(16)}`),
      found: /cpu \(0\).*timer \(0\)/,
    },
    present: 16,
    devices: 2,
  },
  {
    name: '19 a block longer than the total',
    bytes: m.sample({ ram: m.ramSections(undefined, m.cat(m.be64(0x10004), m.str8('pc.ram'), m.be64(1n << 63n))) }),
    verdict: 'damaged',
    issue: { code: 'ram-block-length', path: 'ram', message: /pc\.ram/, expected: /0x10000/, found: /0x8000000000000000/ },
    devices: 2,
  },
  { name: '20 a block name that runs into the data', bytes: edit(configurationEnd + 24, 200), verdict: 'damaged', devices: 2 },
  {
    name: '21 page address behind its block',
    bytes: withPages(m.page(16 * m.PAGE, m.pattern(1)), m.zero(m.PAGE)),
    verdict: 'damaged',
    issue: { code: 'ram-outside', offset: recordAt(1), path: 'ram/pc.ram', message: /0x10000/ },
    present: 2,
    devices: 2,
  },
  {
    name: '22 CONTINUE before any name',
    bytes: m.sample({ ram: m.ramSections(m.cat(m.zero(0))) }),
    verdict: 'damaged',
    issue: { code: 'ram-no-block', offset: pagesAt, expected: /name/, found: /CONTINUE/ },
    present: 0,
    devices: 2,
  },
  {
    name: '23 a page filled with 0xaa',
    bytes: withPages(m.zero(m.PAGE, undefined, 0xaa), m.zeros(2 * m.PAGE, 16 * m.PAGE)),
    verdict: 'complete',
    issue: { code: 'ram-fill', severity: 'warning', message: /0xaa/ },
    present: 16,
    devices: 2,
  },
  {
    name: '23 a flood of such pages, and an error behind them',
    bytes: m.sample({
      ram: m.cat(
        m.start(2, 'ram', 4, m.cat(m.blockList(['pc.ram', 64 * m.PAGE]), m.EOS)),
        ...Array.from({ length: 20 }, () =>
          m.part(2, m.cat(...Array.from({ length: 64 }, (_, i) => m.zero(i * m.PAGE, i === 0 ? 'pc.ram' : undefined, 0xaa)), m.EOS)),
        ),
        m.end(2, m.EOS),
      ),
      devices: m.cat(m.section(4, 0, 'timer', 1, m.timerBody), m.footer(9), m.full(3, 'cpu', 1, m.cpuBody)),
    }),
    verdict: 'damaged',
    issue: { code: 'footer-id', path: 'timer (0)', expected: /^0$/, found: /^9$/ },
    present: 64,
    devices: 2,
  },
  {
    name: '24 PAGE|ZERO',
    bytes: withPages(m.be64(m.PAGE | 0x2a)),
    verdict: 'damaged',
    issue: { code: 'ram-flags', offset: recordAt(1), found: /ZERO\|PAGE\|CONTINUE \(0x102a\)/ },
    present: 1,
    devices: 2,
  },
  {
    name: '24 HOOK',
    bytes: withPages(m.be64(0x80)),
    verdict: 'damaged',
    issue: { code: 'ram-flags', found: /HOOK/ },
    present: 1,
    devices: 2,
  },
  {
    name: '24 COMPRESS_PAGE|HOOK',
    bytes: withPages(m.be64(0x1a0)),
    verdict: 'damaged',
    issue: { code: 'ram-flags', found: /HOOK\|COMPRESS_PAGE/ },
    devices: 2,
  },
  {
    name: '25 XBZRLE longer than the page',
    bytes: withPages(m.xbzrle(0, Buffer.alloc(0), 5000)),
    verdict: 'damaged',
    issue: { code: 'ram-xbzrle-header', found: /length 5000/ },
    present: 1,
    devices: 2,
  },
  {
    name: '25 XBZRLE runs past the page',
    bytes: withPages(m.xbzrle(0, m.u8(0xff, 0x1f, 2, 1, 2)), m.zero(m.PAGE)),
    verdict: 'damaged',
    issue: { code: 'ram-xbzrle', offset: recordAt(1), path: 'ram/pc.ram' },
    present: 1,
    devices: 2,
  },
  {
    name: '25 XBZRLE of a page never sent',
    bytes: withPages(m.xbzrle(m.PAGE, m.u8(0, 1, 5)), m.zero(2 * m.PAGE)),
    verdict: 'damaged',
    issue: { code: 'ram-xbzrle-base', message: /0x1000/ },
    present: 2,
    devices: 2,
  },
  {
    name: '26 compressed page: not zlib',
    bytes: withPages(m.compressed(m.PAGE, Buffer.alloc(30, 7)), m.zero(2 * m.PAGE)),
    verdict: 'damaged',
    issue: { code: 'ram-zlib', message: /0x1000/ },
    present: 2,
    devices: 2,
  },
  {
    name: '26 compressed page: inflates to less',
    bytes: withPages(m.compressed(m.PAGE, zlib.deflateSync(Buffer.alloc(100))), m.zero(2 * m.PAGE)),
    verdict: 'damaged',
    issue: { code: 'ram-zlib', found: /100 bytes/ },
    present: 2,
    devices: 2,
  },
  {
    name: '26 compressed page: inflates to more',
    bytes: withPages(m.compressed(m.PAGE, zlib.deflateSync(Buffer.alloc(5000)))),
    verdict: 'damaged',
    issue: { code: 'ram-zlib' },
    present: 1,
    devices: 2,
  },
  {
    name: '26 compressed length of 4 GiB',
    bytes: withPages(m.compressed(m.PAGE, Buffer.alloc(0), 0xffffffff)),
    verdict: 'damaged',
    issue: { code: 'ram-zlib-length', message: /4294967295/ },
    present: 1,
    devices: 2,
  },
  {
    name: '27 mapped-ram pages behind the end',
    bytes: mapped(mappedHeader(1, 4096, 200, 1 << 30)),
    verdict: 'damaged',
    issue: { code: 'mapped-ram', path: 'ram/pc.ram', found: /0x40000000/ },
  },
  {
    name: '27 mapped-ram bitmap in the pages',
    bytes: mapped(mappedHeader(1, 4096, 8192, 4096)),
    verdict: 'damaged',
    issue: { code: 'mapped-ram', message: /overlap/ },
  },
  {
    name: '27 mapped-ram pages not aligned',
    bytes: mapped(mappedHeader(1, 4096, 200, 5000)),
    verdict: 'damaged',
    issue: { code: 'mapped-ram', message: /aligned/ },
  },
  {
    name: '27 mapped-ram version 2',
    bytes: mapped(mappedHeader(2, 4096, 200, 8192)),
    verdict: 'damaged',
    issue: { code: 'mapped-ram', expected: /1/, found: /2/ },
  },
  {
    name: '28 mapped-ram page size 0',
    bytes: mapped(mappedHeader(1, 0, 200, 8192)),
    verdict: 'damaged',
    issue: { code: 'mapped-ram', expected: /0x1000/, found: /0x0/ },
  },
  {
    name: '28 mapped-ram page size of 8 KiB',
    bytes: mapped(mappedHeader(1, 8192, 200, 8192)),
    verdict: 'damaged',
    issue: { code: 'mapped-ram', found: /0x2000/ },
  },
  {
    name: '29 PACKAGED longer than the file',
    bytes: m.sample({ devices: m.command(7, m.be32(1 << 30)) }),
    verdict: 'truncated',
    devices: 0,
  },
  {
    name: '29 PACKAGED three deep',
    bytes: m.sample({ devices: m.cat(...[27, 18, 9, 0].map((n) => m.command(7, m.be32(n))), m.full(0, 'timer', 1, m.timerBody)) }),
    verdict: 'damaged',
    issue: { code: 'packaged-depth' },
    devices: 1,
  },
  {
    name: '29 a record that runs over the end of its package',
    bytes: m.sample({
      devices: m.cat(m.command(7, m.be32(20)), m.full(0, 'timer', 1, m.timerBody).subarray(0, 20), m.full(3, 'cpu', 1, m.cpuBody)),
    }),
    verdict: 'damaged',
    issue: { code: 'package-end', offset: timerAt + 9 + 19 },
    devices: 1,
  },
  {
    name: '29 pages that run over the end of their package',
    bytes: m.sample({
      ram: m.cat(
        m.start(2, 'ram', 4, m.cat(m.blockList(['pc.ram', 4 * m.PAGE]), m.EOS)),
        m.command(7, m.be32(100)),
        m.part(2, m.page(0, m.pattern(1), 'pc.ram')).subarray(0, 100),
        m.part(2, m.cat(m.page(m.PAGE, m.pattern(2), 'pc.ram'), m.EOS)),
        m.end(2, m.EOS),
      ),
    }),
    verdict: 'damaged',
    issue: { code: 'package-end', path: 'ram', message: /page 0x0: the record has 95 bytes, then the enclosing record ends/ },
    present: 1,
    devices: 2,
  },
  {
    name: '29 an unknown command',
    bytes: m.sample({ devices: m.cat(m.command(99, Buffer.alloc(5)), m.full(0, 'timer', 1, m.timerBody)) }),
    verdict: 'damaged',
    issue: { code: 'command', offset: timerAt, message: /unknown command 99, 5 bytes skipped/ },
    devices: 1,
  },
];

describe('bad input', () => {
  test.each(cases.map((c) => [c.name, c] as const))('%s', async (_name, c) => {
    await m.inFolder(async (dir) => {
      const file = path.join(dir, 'f');
      fs.writeFileSync(file, c.bytes);
      const result = await verify(openInput(file), () => {}, c.force);
      expect(result.verdict).toBe(c.verdict);
      if (c.issue) {
        const { code, offset, path: where, expected, found, message, severity } = c.issue;
        const issue = result.issues.find((i) => i.code === code);
        expect(result.issues.map((i) => i.code)).toContain(code);
        if (offset !== undefined) expect(Number(issue!.offset)).toBe(offset);
        if (where !== undefined) expect(issue!.path).toBe(where);
        if (expected) expect(issue!.expected).toMatch(expected);
        if (found) expect(issue!.found).toMatch(found);
        if (message) expect(issue!.message).toMatch(message);
        expect(issue!.severity).toBe(severity ?? 'error');
      }
      if (c.present !== undefined) expect(result.ram?.present ?? 0).toBe(c.present);
      if (c.devices !== undefined) expect(result.devices).toBe(c.devices);
    });
  });

  test('every prefix of a stream says that it was cut off, and never more than it has', async () => {
    await m.inFolder(async (dir) => {
      const file = path.join(dir, 'f');
      for (let size = 0; size < whole.length; size += size < 150 || size > recordAt(15) ? 1 : 499) {
        fs.writeFileSync(file, whole.subarray(0, size));
        const result = await verify(openInput(file), () => {});
        const past = size > descriptionAt - 1;
        expect({ size, verdict: result.verdict }).toEqual({ size, verdict: past ? 'complete-without-description' : 'truncated' });
        if (!past) expect(Number(result.end)).toBeLessThanOrEqual(size);
      }
    });
  });

  test('what a cut stream has is extracted', async () => {
    await m.inFolder(async (dir) => {
      const file = path.join(dir, 'f');
      fs.writeFileSync(file, whole.subarray(0, recordAt(8) + 100));
      const fd = fs.openSync(path.join(dir, 'out'), 'w+');
      const done = await extract(openInput(file), fd, { as: 'sparse' }, () => {});
      fs.closeSync(fd);
      expect(done).toMatchObject({ complete: false, blocks: [{ name: 'pc.ram', pages: 16, present: 8 }] });
      const expected = m.sampleRam();
      expected.fill(0, 8 * m.PAGE);
      expect(fs.readFileSync(path.join(dir, 'out')).equals(expected)).toBe(true);
    });
  });

  test('trailing bytes are counted, and are no damage', async () => {
    await m.inFolder(async (dir) => {
      const file = path.join(dir, 'f');
      fs.writeFileSync(file, m.cat(whole, Buffer.alloc(123)));
      expect(await verify(openInput(file), () => {})).toMatchObject({ verdict: 'complete', trailing: 123 });
    });
  });

  test('an older and larger stream behind the end, as in a volume that was used before', async () => {
    await m.inFolder(async (dir) => {
      const file = path.join(dir, 'f');
      const older = m.sample({
        devices: m.full(0, 'timer', 1, m.cat(m.timerBody, m.timerBody)),
        tail: m.cat(m.eof, m.vmdesc([m.device('timer', [{ name: 'ticks', type: 'uint64', size: 8, array_len: 2 }])])),
      });
      fs.writeFileSync(file, m.cat(whole, Buffer.alloc(1000), older));
      expect(await verify(openInput(file), () => {})).toMatchObject({
        verdict: 'complete',
        devices: 2,
        trailing: 1000 + older.length,
        issues: [],
      });
    });
  });

  test('a folder and a missing file are plain errors', () => {
    expect(() => openInput('/')).toThrow(VioError);
    expect(() => openInput('/nonexistent/x')).toThrow(/ENOENT/);
  });
});

test('a file that ends within its RAM is told of once, wherever the cut is', () =>
  m.inFolder(async (dir) => {
    const file = path.join(dir, 'cut');
    for (const at of [recordAt(3), recordAt(4) + 3, recordAt(4) + 8, recordAt(4) + 100, recordAt(5) + 8]) {
      fs.writeFileSync(file, whole.subarray(0, at));
      const { issues } = await verify(openInput(file), () => {});
      expect(issues.map(({ code }) => code)).toEqual(['truncated-ram']);
    }
  }));
