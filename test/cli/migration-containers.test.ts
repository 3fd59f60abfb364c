import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import zlib from 'node:zlib';
import { plainEnv, program, vioctl } from '../support/cli.js';
import * as m from '../support/migration.js';
import { type Change, qcow2 } from '../support/migration-qcow2.js';
import { mayFetchNode, npmNode } from '../support/npm-node.js';
import { skip, which } from '../support/skip.js';

const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-migbox-'));
afterAll(() => fs.rmSync(dir, { recursive: true, force: true }));
const put = (name: string, bytes: Buffer): string => {
  fs.writeFileSync(path.join(dir, name), bytes);
  return path.join(dir, name);
};
const json = (args: string[], options = {}) => {
  const r = vioctl(['migration', ...args, '--json'], options);
  return { status: r.status, stderr: r.stderr, doc: JSON.parse(r.stdout || '{}') as Record<string, unknown> };
};

const PAGES = 70;
const present = [0, 1, 5, 63, 64, 69];
/** The mapped-ram stream of libvirt's sparse format, with stale bytes where no bit is set. */
const block: m.MappedBlock = { name: 'pc.ram', pages: PAGES, set: present, stale: 0xee };
const mappedRam = (at: number, bigEndian = false): Buffer => m.mappedRam([block], { at, bigEndian, align: 1 << 20 });
const memory = m.mappedContent(block);

describe('mapped-ram', () => {
  test('a libvirt save in the sparse format: offsets count from the start of the save, also through a pipe', () => {
    const data = Buffer.alloc(65831); // as libvirt pads its XML, to an odd position
    data.write('<domain><name>vm7</name></domain>\0');
    const head = Buffer.alloc(92);
    head.write('LibvirtQemudSave');
    [2, data.length, 0, 6].forEach((v, i) => {
      head.writeUInt32LE(v, 16 + 4 * i);
    });
    const save = put('sparse', m.cat(head, data, mappedRam(92 + data.length)));
    for (const { status, doc } of [json(['verify', save]), json(['verify', '-'], { input: fs.readFileSync(save) })]) {
      expect(status).toBe(0);
      expect(doc).toMatchObject({ verdict: 'complete', devices: 2, container: { format: 'sparse', domain: 'vm7', wasRunning: false } });
    }
    // Lines have all that the one document has: what the stream came in first, the memory last.
    const { doc } = json(['dump', save]);
    const lines = vioctl(['migration', 'dump', save, '--ndjson']).stdout.trimEnd().split('\n');
    const records = lines.map((line) => JSON.parse(line) as { type: string });
    expect(records[0]).toEqual({ type: 'container', container: doc.container });
    expect(records.at(-1)).toEqual({ type: 'ram', ...(doc.ram as object) });
    expect(records.slice(1, -1).filter(({ type }) => !['header', 'configuration'].includes(type))).toEqual(doc.records);
    const out = path.join(dir, 'mem');
    for (const [file, options] of [
      [save, {}],
      ['-', { input: fs.readFileSync(save) }],
    ] as const) {
      expect(vioctl(['migration', 'ram', file, '-o', out], options)).toMatchObject({ status: 0 });
      expect(fs.readFileSync(out).equals(memory)).toBe(true);
    }
    expect(fs.statSync(out).blocks * 512).toBeLessThan(PAGES * m.PAGE);
  });

  test('a libvirt save is in the byte order of its host, and so are the bitmaps in it', () => {
    const head = Buffer.alloc(92);
    head.write('LibvirtQemudSave');
    [2, 36, 0, 6].forEach((v, i) => {
      head.writeUInt32BE(v, 16 + 4 * i);
    });
    const save = put('sparse-big', m.cat(head, Buffer.alloc(36), mappedRam(128, true)));
    const out = path.join(dir, 'mem');
    for (const [file, options] of [
      [save, {}],
      ['-', { input: fs.readFileSync(save) }],
    ] as const) {
      expect(vioctl(['migration', 'ram', file, '-o', out], options)).toMatchObject({
        status: 0,
        stderr: expect.not.stringContaining('warning'),
      });
      expect(fs.readFileSync(out).equals(memory)).toBe(true);
    }
  });

  test('bitmaps are 64-bit words in the order of the host that wrote them: told from the pages', () => {
    const out = path.join(dir, 'mem');
    const clean: m.MappedBlock[] = [
      { name: 'pc.rom', pages: 64, set: [0, 63] }, // reads the same in both orders
      { ...block, stale: 0 },
      { name: 'vga.vram', pages: 128, set: [3, 70] },
    ];
    const cases: [file: string, more: string[], notes: string[]][] = [
      [put('little', mappedRam(0)), [], []],
      [put('little', mappedRam(0)), ['--bitmap-endian', 'little'], []],
      [put('big', mappedRam(0, true)), ['--bitmap-endian', 'big'], []],
      [put('big', m.mappedRam(clean, { bigEndian: true })), [], ['bitmap-order']],
      [put('clean', m.mappedRam(clean)), [], []],
    ];
    for (const [file, more, notes] of cases) {
      const r = json(['ram', file, '--block', 'pc.ram', ...more, '-o', out]);
      expect({ more, status: r.status, notes: (r.doc.issues as { code: string }[]).map((i) => i.code) }).toEqual({
        more,
        status: 0,
        notes,
      });
      expect(fs.readFileSync(out).equals(memory)).toBe(true);
    }
    // The same through commands that only look: what differs is what the order makes of it.
    expect(json(['diff', put('big', m.mappedRam(clean, { bigEndian: true })), put('clean', m.mappedRam(clean)), '--ram'])).toMatchObject({
      status: 0,
    });
  });

  test('through a pipe, and with no bits behind the last page, the pages tell the order as they go by', () => {
    const out = path.join(dir, 'mem');
    const ram: m.MappedBlock = { name: 'pc.ram', pages: 128, set: [3, 70, 71] };
    const all = [ram, { name: 'vga.vram', pages: 64, set: [9] }];
    const content = m.mappedContent(ram);
    const big = m.mappedRam(all, { bigEndian: true });
    // Old bytes in the page whose bit is the other reading's of page 3: none of the memory.
    const stale = Buffer.from(big);
    const first = stale.indexOf(content.subarray(3 * m.PAGE, 4 * m.PAGE)) - 3 * m.PAGE;
    stale.fill(0xee, first + 59 * m.PAGE, first + 60 * m.PAGE);
    const clean = put('pipe-little', m.mappedRam(all));
    for (const [input, notes] of [
      [fs.readFileSync(clean), []],
      [big, ['bitmap-order']],
      [stale, ['bitmap-order']],
    ] as const) {
      const r = json(['ram', '-', '--block', 'pc.ram', '-o', out], { input });
      expect({ status: r.status, notes: (r.doc.issues as { code: string }[]).map((i) => i.code) }).toEqual({ status: 0, notes });
      expect(fs.readFileSync(out).equals(content)).toBe(true);
      const page = first + 71 * m.PAGE;
      const cut = json(['ram', '-', '--block', 'pc.ram', '-o', out], { input: input.subarray(0, page) });
      expect(cut.status).toBe(5);
      expect(fs.readFileSync(out).subarray(0, page - first)).toEqual(content.subarray(0, page - first));
      expect(
        fs
          .readFileSync(out)
          .subarray(page - first)
          .every((b) => b === 0),
      ).toBe(true);
      // Hashes and counters as well: no page differs, and as many have content.
      expect(json(['diff', '-', clean, '--ram'], { input }).status).toBe(0);
      const [piped, plain] = [json(['stat', '-', '--duplicates'], { input }), json(['stat', clean, '--duplicates'])];
      expect(piped.doc.blocks).toEqual(plain.doc.blocks);
    }
  });

  test('more pages through a pipe than both readings have room for: an error, not a mixture of the two', () => {
    const length = 2 ** 39; // the pages of one reading have room, those of both have not
    const bitmap = Buffer.alloc(length / m.PAGE / 8);
    for (let word = 0; word < bitmap.length; word += 512) bitmap[word + 7] = 1 << 3; // page 3, big-endian, in every 16 MiB
    const at = m.mappedRam([{ name: 'pc.ram', pages: 64, set: [] }]).indexOf(m.str8('pc.ram'));
    const head = m.mappedRam([{ name: 'pc.ram', pages: 64, set: [] }]).subarray(0, at - 8);
    const bitmapAt = at + 7 + 8 + 28;
    const pagesAt = Math.ceil((bitmapAt + bitmap.length) / m.PAGE) * m.PAGE;
    const list = [
      m.be64(BigInt(length) | 4n),
      m.str8('pc.ram'),
      m.be64(length),
      m.be32(1),
      m.be64(m.PAGE),
      m.be64(bitmapAt),
      m.be64(pagesAt),
    ];
    const input = m.cat(head, ...list, bitmap, Buffer.alloc(pagesAt - bitmapAt - bitmap.length), Buffer.alloc(4 * m.PAGE, 7));
    const codes = (more: string[]) => {
      const { status, doc } = json(['stat', '-', '--duplicates', ...more], { input });
      return { status, codes: (doc.issues as { code: string }[]).map((i) => i.code) };
    };
    expect(codes([])).toEqual({ status: 5, codes: ['bitmap-order', 'ram-order', 'truncated-ram'] });
    expect(codes(['--bitmap-endian', 'big'])).toEqual({ status: 5, codes: ['truncated-ram'] });
  });

  test('an order that was given stays, with a warning where the pages of a file contradict it', () => {
    const out = path.join(dir, 'mem');
    const ram: m.MappedBlock = { name: 'pc.ram', pages: 128, set: [3, 70] };
    for (const [bigEndian, given, expected] of [
      [true, 'little', ['bitmap-order warning']],
      [false, 'big', ['bitmap-order warning']],
      [true, 'big', []],
      [false, 'little', []],
    ] as const) {
      const r = json(['ram', put('given', m.mappedRam([ram], { bigEndian })), '--block', 'pc.ram', '--bitmap-endian', given, '-o', out]);
      const issues = (r.doc.issues as { code: string; severity: string }[]).map((i) => `${i.code} ${i.severity}`);
      expect({ status: r.status, issues }).toEqual({ status: 0, issues: expected });
      expect(fs.readFileSync(out).equals(m.mappedContent(ram))).toBe(expected.length === 0);
    }
  });

  test('a bitmap read in the wrong order is no silent loss: bits behind the last page', () => {
    for (const [file, order] of [
      [put('big', mappedRam(0, true)), 'little'],
      [put('little', mappedRam(0)), 'big'],
    ] as const) {
      const { status, doc } = json(['verify', file, '--bitmap-endian', order]);
      expect(status).toBe(5);
      expect(doc.issues).toContainEqual(
        expect.objectContaining({ code: 'ram-spare-bits', path: 'ram/pc.ram', expected: 'none', found: '2' }),
      );
    }
  });

  test('27 and 28: an error for the block whose header is wrong, the others are extracted', () => {
    const out = path.join(dir, 'mem');
    const blocks = (wrong: object): m.MappedBlock[] => [
      { name: 'pc.ram', pages: 16, set: [0, 3, 9] },
      { name: 'pc.bios', pages: 8, set: [1], wrong },
      { name: 'vga.vram', pages: 16, set: [2, 15] },
    ];
    for (const [wrong, reached] of [
      [{ page: 8192 }, true],
      [{ page: 0 }, true],
      [{ version: 2 }, true],
      [{ pages: 1 << 30 }, false], // where the next block's entry is, nobody knows
      [{ bitmap: 4 }, false],
      [{ pages: 12345 }, false],
    ] as const) {
      const file = put('wrong', m.mappedRam(blocks(wrong)));
      const at = fs.readFileSync(file).indexOf(m.str8('pc.bios')) + 16;
      const { status, stderr, doc } = json(['verify', file]);
      expect({ wrong, status }).toEqual({ wrong, status: 5 });
      expect(stderr).toMatch(/DAMAGED/);
      expect(doc).toMatchObject({ verdict: 'damaged', devices: 2, ram: reached ? { pages: 40, present: 32 } : { pages: 24, present: 16 } });
      expect((doc.issues as object[])[0]).toMatchObject({ code: 'mapped-ram', path: 'ram/pc.bios', offset: `0x${at.toString(16)}` });
      for (const b of [blocks({})[0]!, ...(reached ? [blocks({})[2]!] : [])]) {
        expect(vioctl(['migration', 'ram', file, '--block', b.name, '-o', out])).toMatchObject({ status: 5 });
        expect({ wrong, same: fs.readFileSync(out).equals(m.mappedContent(b)) }).toEqual({ wrong, same: true });
      }
    }
  });

  test('9: a file that was cut is truncated there, with the pages before the cut', () => {
    const out = path.join(dir, 'mem');
    const blocks: m.MappedBlock[] = [
      { name: 'pc.ram', pages: 16, set: [0, 3, 9] },
      { name: 'vga.vram', pages: 16, set: [2, 15] },
    ];
    const whole = m.mappedRam(blocks);
    const entry = whole.indexOf(m.str8('vga.vram'));
    const first = m.mappedContent(blocks[0]!);
    const cases: [size: number, ram: object | undefined, pages: number][] = [
      [entry - 16 * m.PAGE + 3 * m.PAGE + 1811, { pages: 16, present: 14 }, 1], // inside page 3: a zero page is known by its bit
      [entry - m.PAGE, { pages: 16, present: 16 }, 16], // only zeros are missing
      [entry + 5, { pages: 16, present: 16 }, 16],
      [entry + 17 + 28 + 3, { pages: 32, present: 16 }, 16], // inside the bitmap
      [entry + 17 + 28 + 8, { pages: 32, present: 30 }, 16], // the bitmap, none of the pages
      [whole.length - m.vmdesc(m.devices).length - 60, { pages: 32, present: 32 }, 16],
    ];
    for (const [size, ram, pages] of cases) {
      const file = put('cut', whole.subarray(0, size));
      for (const { status, doc } of [json(['verify', file]), json(['verify', '-'], { input: fs.readFileSync(file) })]) {
        expect({ size, status, verdict: doc.verdict, ram: doc.ram }).toMatchObject({ size, status: 5, verdict: 'truncated', ram });
        expect(Number(doc.end)).toBeLessThanOrEqual(size);
      }
      for (const [input, options] of [
        [file, {}],
        ['-', { input: fs.readFileSync(file) }],
      ] as const) {
        const r = vioctl(['migration', 'ram', input, '--block', 'pc.ram', '-o', out], options);
        expect({ size, input, status: r.status }).toEqual({ size, input, status: 5 });
        const memory = fs.readFileSync(out);
        expect({ size, input, length: memory.length }).toEqual({ size, input, length: 16 * m.PAGE });
        expect({ size, input, same: memory.subarray(0, pages * m.PAGE).equals(first.subarray(0, pages * m.PAGE)) }).toMatchObject({
          same: true,
        });
        expect(memory.subarray(pages * m.PAGE).every((b) => b === 0)).toBe(true);
      }
    }
  });
});

describe('the domain XML of a libvirt save', () => {
  const xml = "<domain type='kvm'>\n  <name>vm7</name>\n  <title>\u{1f427}</title>\n</domain>\n";
  const save = (data: Buffer, { length = data.length, format = 0, stream = m.sample(), big = false } = {}): Buffer => {
    const head = Buffer.alloc(92);
    head.write('LibvirtQemudSave');
    for (const [i, v] of [2, length, 1, format].entries()) big ? head.writeUInt32BE(v, 16 + 4 * i) : head.writeUInt32LE(v, 16 + 4 * i);
    return m.cat(head, data, stream);
  };
  const data = m.cat(Buffer.from(xml), m.u8(0), '<cookie/>', Buffer.alloc(700));
  const dump = (bytes: Buffer, ...more: string[]) => vioctl(['migration', 'dump', put('save', bytes), '--xml', ...more]);

  test.each<[string, Buffer]>([
    ['raw', save(data)],
    ['of a big-endian host', save(data, { big: true })],
    ['compressed with gzip', save(data, { format: 1, stream: zlib.gzipSync(m.sample()) })],
    ['whose stream is missing', save(data, { stream: Buffer.alloc(0) })],
  ])('%s: as it is in the file, without the cookie', (_what, bytes) => {
    expect(dump(bytes)).toMatchObject({ status: 0, stdout: xml, stderr: '' });
  });

  test('from a pipe, as JSON, and with one end of line', () => {
    expect(vioctl(['migration', 'dump', '-', '--xml'], { input: save(data) })).toMatchObject({ status: 0, stdout: xml });
    const { status, stdout } = dump(save(data), '--json');
    expect({ status, doc: JSON.parse(stdout) as unknown }).toMatchObject({
      status: 0,
      doc: { xml, container: { type: 'libvirt', domain: 'vm7' } },
    });
    expect(dump(save(Buffer.from('<domain/>\0')))).toMatchObject({ status: 0, stdout: '<domain/>\n' });
  });

  test('cut off: what there is, and status 5', () => {
    const cut = dump(save(Buffer.from(xml.slice(0, 30)), { length: 65536, stream: Buffer.alloc(0) }));
    expect(cut).toMatchObject({ status: 5, stdout: `${xml.slice(0, 30)}\n` });
    expect(cut.stderr).toMatch(/damaged/);
  });

  test('of something else: an error', () => {
    const other = dump(m.sample());
    expect(other).toMatchObject({ status: 1, stdout: '' });
    expect(other.stderr).toMatch(/not a libvirt save/);
  });
});

describe('30 qcow2 snapshots', () => {
  // Pages of three clusters, so that losing the second leaves the first, and the third cannot be told.
  const state = m.sample({
    ram: m.ramSections(
      m.cat(...Array.from({ length: 40 }, (_, i) => m.page(i * m.PAGE, m.pattern(i), i === 0 ? 'pc.ram' : undefined))),
      m.blockList(['pc.ram', 40 * m.PAGE]),
    ),
  });
  test('a whole one is read in place, by id, by name, or because it is the only one', () => {
    const file = put('q', qcow2(state));
    for (const more of [[], ['--snapshot', '1'], ['--snapshot', 'first']]) {
      const { status, doc } = json(['verify', file, ...more]);
      expect({ more, status }).toEqual({ more, status: 0 });
      expect(doc).toMatchObject({
        verdict: 'complete',
        ram: { pages: 40, present: 40 },
        devices: 2,
        container: { type: 'qcow2', name: 'first' },
      });
    }
  });

  test.each<[string, Change]>([
    ['version 2, whose snapshots have no 64-bit sizes', { version: 2 }],
    ['clusters of 512 bytes', { clusterBits: 9 }],
    ['clusters of 2 MiB', { clusterBits: 21 }],
    ['extended L2 entries', { extended: true }],
    ['extended L2 entries, clusters of 16 KiB', { extended: true, clusterBits: 14 }],
    ['an image that was not closed', { header: (b) => b.writeBigUInt64BE(1n, 72) }],
  ])('%s', (_name, change) => {
    const { status, doc } = json(['verify', put('q', qcow2(state, change))]);
    expect(status).toBe(0);
    expect(doc).toMatchObject({ verdict: 'complete', ram: { pages: 40, present: 40 }, devices: 2 });
  });

  test.each([14, 16, 21])(
    'subclusters in clusters of 2^%i bytes: those that are not allocated are zeros, whatever lies there',
    (clusterBits) => {
      const content = Array.from({ length: 640 }, (_, i) => (i % 7 < 3 ? Buffer.alloc(m.PAGE) : m.pattern(i)));
      const pages = m.cat(...content.map((c, i) => m.page(i * m.PAGE, c, i === 0 ? 'pc.ram' : undefined)));
      const sparse = m.sample({ ram: m.ramSections(pages, m.blockList(['pc.ram', 640 * m.PAGE])) });
      const out = path.join(dir, 'memory');
      expect(vioctl(['migration', 'ram', put('q', qcow2(sparse, { extended: true, clusterBits })), '-o', out])).toMatchObject({
        status: 0,
      });
      expect(fs.readFileSync(out).equals(m.cat(...content))).toBe(true);
    },
  );

  test('several snapshots: by id or name, never by a guess', () => {
    const file = put(
      'q',
      qcow2(state, {
        snapshots: [
          ['1', 'daily'],
          ['2', 'daily'],
          ['3', '1'],
          ['4', 'once'],
        ],
      }),
    );
    const pick = (...more: string[]) => vioctl(['migration', 'verify', file, '--json', ...more]);
    for (const [wanted, id] of [
      ['2', '2'],
      ['1', '1'], // an id before a name, as QEMU has it
      ['once', '4'],
    ] as const) {
      expect(JSON.parse(pick('--snapshot', wanted).stdout)).toMatchObject({ container: { snapshot: id } });
    }
    for (const [more, said] of [
      [[], /4 snapshots with a VM state.*1 \(daily\), 2 \(daily\), 3 \(1\), 4 \(once\)/s],
      [['--snapshot', 'daily'], /2 snapshots are named .*daily.*ids 1, 2/s],
      [['--snapshot', 'never'], /no snapshot .*never.*there are: 1 \(daily\)/s],
    ] as const) {
      const r = pick(...more);
      expect(r).toMatchObject({ status: 2, stdout: '' });
      expect(r.stderr).toMatch(said);
    }
  });

  test.each<[string, Parameters<typeof qcow2>[1], RegExp]>([
    [
      'a compressed cluster',
      { l2: (b) => b.writeBigUInt64BE((1n << 62n) | 0x60000n, 8) },
      /0x10000: 65536 bytes of the VM state cannot be read \(compressed\)/,
    ],
    [
      'a subcluster that is both allocated and zero',
      { extended: true, l2: (b) => b.writeUInt32BE(1 << 3, 16 + 8) },
      /0x11800: 2048 bytes of the VM state cannot be read \(a subcluster that is both allocated and zero\)/,
    ],
    ['a cluster behind the end of the file', { l2: (b) => b.writeBigUInt64BE((1n << 63n) | (1n << 40n), 8) }, /0x10000: 65536 bytes/],
    [
      'a VM state of exabytes',
      { entry: (b) => b.writeBigUInt64BE(1n << 62n, 40) },
      /0x20000000: \d+ bytes of the VM state cannot be read \(behind the end of the L1 table\)/,
    ],
    [
      'an L2 table behind the end of the file',
      { l1: (b) => b.writeBigUInt64BE(1n << 40n, 8) },
      /0x0: \d+ bytes of the VM state cannot be read/,
    ],
  ])('%s: an error with its place, and the pages in front of it', (_name, change, message) => {
    const { status, stderr, doc } = json(['verify', put('q', qcow2(state, change))]);
    expect(status).toBe(5);
    expect(stderr).toMatch(/DAMAGED/);
    expect((doc.issues as { code: string }[])[0]!.code).toBe('qcow2-cluster');
    const text = vioctl(['migration', 'verify', path.join(dir, 'q')]);
    expect(text.stderr).toMatch(message);
    expect(text.stderr).not.toMatch(/\n {4}at /);
    if (message.source.startsWith('0x10000')) expect((doc.ram as { present: number }).present).toBe(15);
  });

  test.each<[string, Parameters<typeof qcow2>[1], number, RegExp]>([
    [
      'a snapshot table behind the end',
      { header: (b) => b.writeBigUInt64BE(1n << 50n, 64) },
      5,
      /snapshot 0 at 0x4000000000000 lies behind the end/,
    ],
    ['2^32 snapshots', { header: (b) => b.writeUInt32BE(0xffffffff, 60) }, 5, /4294967295 snapshots/],
    ['clusters of 2 TiB', { header: (b) => b.writeUInt32BE(41, 20) }, 5, /cluster size of 2\^41/],
    ['encryption', { header: (b) => b.writeUInt32BE(2, 32) }, 7, /encrypted/],
    ['an external data file', { header: (b) => b.writeBigUInt64BE(4n, 72) }, 7, /external data file/],
    ['subclusters of less than 512 bytes', { extended: true, clusterBits: 13 }, 5, /subclusters in clusters of 2\^13 bytes/],
    ['a feature of the future', { header: (b) => b.writeBigUInt64BE(0x41n, 72) }, 7, /incompatible features 0x40 are not read/],
    ['no snapshot with a VM state', { header: (b) => b.writeUInt32BE(0, 60) }, 2, /0 snapshots with a VM state/],
  ])('%s: said in one line', (_name, change, status, message) => {
    const r = vioctl(['migration', 'verify', put('q', qcow2(state, change))]);
    expect(r).toMatchObject({ status, stdout: '' });
    expect(r.stderr).toMatch(message);
    expect(r.stderr).not.toMatch(/\n {4}at /);
  });
});

describe('zstd in the process itself', () => {
  const pack = (bytes: Buffer): Buffer => spawnSync('zstd', ['-c'], { input: bytes, maxBuffer: 1 << 26 }).stdout;
  const run = (node: string, file: string, ...more: string[]) => {
    const args = [program, 'migration', 'verify', file, '--json', ...more];
    const r = spawnSync(node, args, { encoding: 'utf8', env: plainEnv({ PATH: dir }), timeout: 90_000 });
    return { status: r.status, stderr: r.stderr, doc: JSON.parse(r.stdout || '{}') as Record<string, unknown> };
  };

  test('frames one after the other, cut data, a bound: as with the tool, without it', () => {
    const here = 'createZstdDecompress' in zlib;
    if (!here && !mayFetchNode)
      return skip('zstd through node:zlib', 'Node 22.15 or newer has it; fetched from npm with VIOCTL_NO_SKIP=1 only');
    if (!which('zstd')) return skip('zstd through node:zlib', 'zstd is missing, which makes the input');
    const stream = m.sample();
    const whole = m.cat(pack(stream.subarray(0, 7000)), pack(stream.subarray(7000)));
    for (const node of here ? [process.execPath] : [22, 24, 26].map((major) => npmNode('x64', major))) {
      expect(run(node, put('z', whole))).toMatchObject({ status: 0, stderr: '', doc: { verdict: 'complete', ram: { present: 16 } } });
      const cut = run(node, put('z', pack(stream).subarray(0, -300)));
      expect(cut.status).toBe(5);
      expect((cut.doc.issues as unknown[]).length).toBeGreaterThan(0);
      const bad = run(node, put('z', m.cat(pack(stream.subarray(0, 9000)), Buffer.alloc(5000, 0x77))));
      expect(bad.status).toBe(5);
      expect(bad.doc.issues).toContainEqual(expect.objectContaining({ code: 'decompress', message: expect.stringMatching(/^zstd: /) }));
      const bomb = m.sample({
        ram: m.ramSections(m.cat(...Array.from({ length: 2000 }, () => m.page(0, Buffer.alloc(m.PAGE), 'pc.ram')))),
      });
      const bounded = run(node, put('z', pack(bomb)), '--max-size', '1M');
      expect(bounded.status).toBe(5);
      expect(JSON.stringify(bounded.doc.issues)).toMatch(/larger than --max-size/);
    }
  }, 240_000);
});

test('gzip of a whole stream with something else behind it', () => {
  const file = put('gz', m.cat(zlib.gzipSync(m.sample()), Buffer.alloc(100)));
  expect(json(['verify', file])).toMatchObject({ status: 0, doc: { verdict: 'complete' } });
});
