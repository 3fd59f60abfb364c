import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import zlib from 'node:zlib';
import { plainEnv, program, vioctl } from '../support/cli.js';
import * as m from '../support/migration.js';
import { skip, which } from '../support/skip.js';

const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-migcli-'));
afterAll(() => fs.rmSync(dir, { recursive: true, force: true }));
const put = (name: string, bytes: Buffer): string => {
  fs.writeFileSync(path.join(dir, name), bytes);
  return path.join(dir, name);
};
const good = put('good', m.sample());
const cut = put('cut', m.sample().subarray(0, 9000));

/** A libvirt save image around a stream. */
function libvirt(stream: Buffer, options: { format?: number; version?: number; big?: boolean; magic?: string } = {}): Buffer {
  const data = Buffer.alloc(512);
  data.write('<domain><name>db1</name><uuid>0000-1</uuid></domain>\0');
  const head = Buffer.alloc(92);
  head.write(options.magic ?? 'LibvirtQemudSave');
  [options.version ?? 2, data.length, 1, options.format ?? 0].forEach((v, i) => {
    if (options.big) head.writeUInt32BE(v, 16 + 4 * i);
    else head.writeUInt32LE(v, 16 + 4 * i);
  });
  return Buffer.concat([head, data, stream]);
}

describe('dump', () => {
  test('text: one line per record, then the blocks', () => {
    const r = vioctl(['migration', 'dump', good]);
    expect(r).toMatchObject({ status: 0, stderr: '' });
    expect(
      r.stdout
        .trimEnd()
        .split('\n')
        .map((l) => l.replace(/^0x[0-9a-f]{8} +/, '')),
    ).toEqual([
      'header version 3',
      'configuration pc-i440fx-10.0',
      expect.stringMatching(/^start ram \(id 2, version 4\)/),
      expect.stringMatching(/^part {2}ram .*: zero 12, normal 4$/),
      expect.stringMatching(/^end {3}ram/),
      expect.stringMatching(/^full {2}timer/),
      expect.stringMatching(/^full {2}cpu/),
      'eof',
      expect.stringMatching(/^vmdescription/),
      '  block pc.ram 64K, 16 pages: zero 12, normal 4',
    ]);
  });

  test.each([
    ['t[hi]mer', ['timer']],
    ['[!t]*', ['ram', 'ram', 'ram', 'cpu']],
    ['[^a-r]*', ['timer']],
    ['[', []],
    ['[]]', []],
    ['c.u', []],
    ['?p[t-v]', ['cpu']],
  ])('--section %s', (pattern, names) => {
    const { status, stdout } = vioctl(['migration', 'dump', good, '--section', pattern, '--json']);
    expect(status).toBe(0);
    expect((JSON.parse(stdout) as { records: { name: string }[] }).records.map((r) => r.name)).toEqual(names);
  });

  test('what is no pattern is wrong usage', () => {
    for (const args of [
      ['dump', good, '--section', '[z-a]'],
      ['diff', good, good, '--ignore', '[z-a]'],
    ])
      expect(vioctl(['migration', ...args])).toMatchObject({ status: 2, stderr: expect.stringContaining('not a pattern: "[z-a]"') });
  });

  test('descriptions that are not made as they should be: the devices that are, and no inner error', () => {
    for (const field of [
      { struct: null },
      { type: 'qtailq', fields: [], subsections: [null] },
      { type: 'tmp', fields: [], subsections: 5 },
      { type: 'tmp', fields: null },
    ]) {
      const [timer, cpu] = m.devices as { fields: object[] }[];
      const file = put(
        'odd',
        m.sample({ tail: m.cat(m.eof, m.vmdesc([{ ...timer, fields: [{ name: 'x', type: 'struct', size: 8, ...field }] }, cpu!])) }),
      );
      const r = vioctl(['migration', 'dump', file, '--fields', '--json']);
      expect(r).toMatchObject({ status: 0, stderr: '' });
      const { records } = JSON.parse(r.stdout) as { records: { name?: string; fields?: object }[] };
      expect(records.find((s) => s.name === 'timer')?.fields).toBeUndefined();
      expect(records.find((s) => s.name === 'cpu')?.fields).toMatchObject({ halted: true });
    }
  });

  test('--section and --fields pick one device; the same in all formats', () => {
    const args = ['migration', 'dump', good, '--section', 'c*', '--fields'];
    expect(vioctl(args).stdout).toMatch(/regs = \[0x1 0x2 0x3 0xfffffffffffffff0\]\n +halted = yes|halted = true/);
    const json = JSON.parse(vioctl([...args, '--json']).stdout);
    expect(json.records).toMatchObject([{ name: 'cpu', fields: { regs: ['0x1', '0x2', '0x3', '0xfffffffffffffff0'], halted: true } }]);
    const lines = vioctl([...args, '--ndjson'])
      .stdout.trimEnd()
      .split('\n');
    expect(lines.map((l) => JSON.parse(l))).toEqual(json.records);
  });

  test('--desc is the description and nothing else', () => {
    expect(JSON.parse(vioctl(['migration', 'dump', good, '--desc']).stdout)).toEqual({ page_size: 4096, devices: m.devices });
  });

  test('damage: what there is on stdout, status 5, one error line, no stack trace', () => {
    const r = vioctl(['migration', 'dump', cut]);
    expect(r.status).toBe(5);
    expect(r.stdout).toContain('configuration pc-i440fx-10.0');
    expect(r.stderr).toMatch(/damaged: 0x[0-9a-f]+: ram: pc\.ram page 0x8000/);
    expect(r.stderr).not.toMatch(/\n {4}at /);
    const json = vioctl(['migration', 'dump', cut, '--json']);
    expect(json.status).toBe(5);
    expect(JSON.parse(json.stdout)).toMatchObject({
      complete: false,
      issues: [{ code: 'truncated-ram', severity: 'error', path: 'ram' }],
    });
    expect(JSON.parse(json.stderr)).toMatchObject({ error: { code: 'DAMAGED' } });
  });

  test('names from the file cannot reach the terminal raw', () => {
    const evil = '\x1b]0;owned\x07\x9b31m\x7f';
    const file = put('evil', m.sample({ devices: m.full(0, evil, 1, Buffer.alloc(4)), tail: m.cat(m.eof, m.vmdesc([])) }));
    for (const args of [
      ['dump', file],
      ['dump', file, '--json'],
      ['stat', file],
      ['verify', file],
    ]) {
      const r = vioctl(['migration', ...args]);
      expect(r.stdout + r.stderr).not.toMatch(/[\x1b\x7f-\x9f]/);
    }
  });

  test('a stream without a description has none to print: no damage, but nothing done', () => {
    const r = vioctl(['migration', 'dump', put('nodesc', m.sample({ tail: m.eof })), '--desc']);
    expect(r).toMatchObject({ status: 1, stdout: '' });
    expect(r.stderr).toMatch(/no description of its devices/);
    expect(vioctl(['migration', 'dump', cut, '--desc'])).toMatchObject({ status: 5, stdout: '' });
  });

  test('a reader that leaves early ends it silently', () => {
    const big = put('big', m.sample({ devices: m.cat(...Array.from({ length: 20000 }, () => m.command(11))) }));
    const r = spawnSync(
      'bash',
      ['-c', `"$0" "$1" migration dump "$2" --ndjson | head -n 1; echo "\${PIPESTATUS[0]}"`, process.execPath, program, big],
      { encoding: 'utf8', env: plainEnv() },
    );
    expect(r.stdout.trim().split('\n').at(-1)).toBe('141');
    expect(r.stderr).toBe('');
  });
});

describe('containers', () => {
  const tools: [name: string, format: number, pack: (b: Buffer) => Buffer | undefined][] = [
    ['raw', 0, (b) => b],
    ['gzip', 1, (b) => zlib.gzipSync(b)],
    ...(
      [
        ['bzip2', 2],
        ['xz', 3],
        ['lzop', 4],
        ['zstd', 5],
      ] as const
    ).map(([tool, format]): (typeof tools)[number] => [
      tool,
      format,
      (b) => (which(tool) ? spawnSync(tool, ['-c'], { input: b, maxBuffer: 1 << 26 }).stdout : undefined),
    ]),
  ];

  test.each(tools)('a libvirt save, %s, as file and through a pipe', (tool, format, pack) => {
    const stream = pack(m.sample());
    if (!stream) {
      skip(`libvirt save compressed with ${tool}`, `${tool} is not installed`);
      return;
    }
    const bytes = libvirt(stream, { format });
    for (const r of [
      vioctl(['migration', 'verify', put('save', bytes), '--json']),
      vioctl(['migration', 'verify', '-', '--json'], { input: bytes }),
    ]) {
      expect(r).toMatchObject({ status: 0, stderr: '' });
      expect(JSON.parse(r.stdout)).toMatchObject({
        verdict: 'complete',
        ram: { pages: 16, present: 16 },
        devices: 2,
        container: { type: 'libvirt', domain: 'db1', format: tool, wasRunning: true },
      });
    }
    const out = path.join(dir, 'mem');
    expect(vioctl(['migration', 'ram', put('save', bytes), '-o', out]).status).toBe(0);
    expect(fs.readFileSync(out).equals(m.sampleRam())).toBe(true);
  });

  test('version 1 ignores the compression field; the other byte order; a save that was interrupted', () => {
    const verify = (bytes: Buffer) => vioctl(['migration', 'verify', put('save', bytes), '--json']);
    expect(verify(libvirt(m.sample(), { version: 1, format: 3 }))).toMatchObject({ status: 0 });
    expect(JSON.parse(verify(libvirt(m.sample(), { big: true })).stdout)).toMatchObject({
      verdict: 'complete',
      container: { bigEndian: true },
    });
    const partial = verify(libvirt(m.sample(), { magic: 'LibvirtQemudPart' }));
    expect(partial.status).toBe(5);
    expect(JSON.parse(partial.stdout)).toMatchObject({ verdict: 'damaged', devices: 2, issues: [{ code: 'libvirt-partial' }] });
  });

  test('damaged compressed data is reported with what came before', () => {
    for (const tool of ['gzip', 'xz', 'zstd']) {
      const packed = tool === 'gzip' ? zlib.gzipSync(m.sample()) : spawnSync(tool, ['-c'], { input: m.sample() }).stdout;
      if (!packed?.length) continue;
      const r = vioctl([
        'migration',
        'verify',
        put('bad', libvirt(packed.subarray(0, packed.length - 40), { format: { gzip: 1, xz: 3, zstd: 5 }[tool]! })),
        '--json',
      ]);
      expect({ tool, status: r.status }).toEqual({ tool, status: 5 });
      expect(JSON.parse(r.stdout).issues.length).toBeGreaterThan(0);
    }
  });

  test('a compressed stream without a container, and a bound on what it may grow to', () => {
    const file = put('plain.gz', zlib.gzipSync(m.sample()));
    expect(vioctl(['migration', 'verify', file])).toMatchObject({ status: 0 });
    const bomb = put(
      'bomb.gz',
      zlib.gzipSync(
        m.sample({ ram: m.ramSections(m.cat(...Array.from({ length: 150 }, () => m.page(0, Buffer.alloc(m.PAGE), 'pc.ram')))) }),
      ),
    );
    const r = vioctl(['migration', 'verify', bomb, '--max-size', '100K']);
    expect(r.status).toBe(5);
    expect(r.stderr).toMatch(/larger than --max-size/);
  });

  test('a missing decompressor is named, with the package that has it', () => {
    const file = put('save', libvirt(Buffer.alloc(100), { format: 4 }));
    const r = vioctl(['migration', 'verify', file], { env: { PATH: dir } });
    expect(r.status).toBe(7);
    expect(r.stderr).toMatch(/lzop is not installed\nhint: apt install lzop/);
  });

  test('a stream at an offset', () => {
    const file = put('offset', m.cat(Buffer.alloc(12345), m.sample()));
    expect(vioctl(['migration', 'verify', file, '--offset', '12345'])).toMatchObject({ status: 0 });
    expect(vioctl(['migration', 'verify', file])).toMatchObject({ status: 5 });
  });
});

describe('ram', () => {
  test.each(['sparse', 'raw'])('%s, to a file and to stdout', (as) => {
    const out = path.join(dir, 'mem');
    expect(vioctl(['migration', 'ram', good, '--as', as, '-o', out])).toMatchObject({ status: 0, stdout: '' });
    expect(fs.readFileSync(out).equals(m.sampleRam())).toBe(true);
    const r = spawnSync(process.execPath, [program, 'migration', 'ram', '-', '--as', as, '-o', '-'], {
      input: fs.readFileSync(good),
      env: plainEnv(),
    });
    expect(r.stdout.equals(m.sampleRam())).toBe(true);
  });

  test('what is no stream is said, and nothing is written', () => {
    const out = path.join(dir, 'no-stream');
    const obsolete = Buffer.from('QEVM\0\0\0\x02....', 'latin1');
    for (const [bytes, reason] of [
      [obsolete, /no guest memory: 0x4: .*obsolete.* \(expected 3, found 2\)/],
      [
        Buffer.from('\x7fELF and more'),
        /no guest memory: 0x0: not a QEMU migration stream, but an ELF file: .* \(expected QEVM, found .*ELF\)/,
      ],
    ] as const)
      expect(vioctl(['migration', 'ram', put('other', bytes), '-o', out])).toMatchObject({
        status: 5,
        stderr: expect.stringMatching(reason),
      });
    expect(fs.existsSync(out)).toBe(false);
    fs.writeFileSync(out, 'of an earlier run, and longer than the memory that comes'.repeat(2000));
    const { size } = fs.statSync(out);
    expect(vioctl(['migration', 'ram', good, '--block', 'nope', '-o', out]).status).toBe(1);
    expect(fs.statSync(out).size).toBe(size);
    expect(vioctl(['migration', 'ram', good, '--block', 'pc.ram', '-o', out]).status).toBe(0);
    expect(fs.readFileSync(out).includes('earlier')).toBe(false);
    expect(fs.statSync(out).size).toBe(65536);
  });

  test('a window of it, and errors that name what there is', () => {
    const r = spawnSync(process.execPath, [program, 'migration', 'ram', good, '--at', '0x4001', '--len', '7', '-o', '-'], {
      env: plainEnv(),
    });
    expect(r.stdout).toEqual(m.pattern(4).subarray(1, 8));
    const none = vioctl(['migration', 'ram', good, '--block', 'nope', '-o', path.join(dir, 'x')]);
    expect(none.status).toBe(1);
    expect(none.stderr).toMatch(/no block "nope"\nhint: there are: pc\.ram/);
    expect(vioctl(['migration', 'ram', good, '--at', '1G', '-o', path.join(dir, 'x')]).status).toBe(2);
    expect(vioctl(['migration', 'ram', good, '-o', good])).toMatchObject({ status: 2 });
    expect(fs.readFileSync(good).equals(m.sample())).toBe(true);
  });

  test('the edges of a window: zeros between two ranges, nothing behind the last, an error where there is no RAM at all', () => {
    const G = 2 ** 30;
    const [low, top] = [3 * G, 6 * G];
    const last = 5 * G - m.PAGE; // in the block: its last page lies below 6 GiB
    const records = m.cat(
      m.page(0, m.pattern(1), 'pc.ram'),
      m.zeros(m.PAGE, low - m.PAGE),
      m.page(low - m.PAGE, m.pattern(2)),
      m.page(low, m.pattern(3)),
      m.zeros(low + m.PAGE, last),
      m.page(last, m.pattern(4)),
    );
    const file = put('edges', m.sample({ ram: m.ramSections(records, m.blockList(['pc.ram', 5 * G])) }));
    const bytes = (at: number, len: number, ...more: string[]) =>
      spawnSync(process.execPath, [program, 'migration', 'ram', file, '--at', String(at), '--len', String(len), '-o', '-', ...more], {
        env: plainEnv(),
      });
    for (const [at, len, expected] of [
      [0, 1, m.pattern(1).subarray(0, 1)],
      [low - 5, 5, m.pattern(2).subarray(-5)],
      [low - 5, 100, m.pattern(2).subarray(-5)],
      [4 * G - 7, 9, m.cat(Buffer.alloc(7), m.pattern(3).subarray(0, 2))],
      [4 * G, 3, m.pattern(3).subarray(0, 3)],
      [top - 3, 100, m.pattern(4).subarray(-3)],
    ] as const) {
      const r = bytes(at, len);
      expect({ at, len, status: r.status, bytes: r.stdout.toString('hex') }).toEqual({
        at,
        len,
        status: 0,
        bytes: expected.toString('hex'),
      });
    }
    for (const [at, len] of [
      [low, 4096],
      [top, 1],
      [0, 0],
    ] as const) {
      const r = bytes(at, len);
      expect({ at, len, status: r.status, stdout: r.stdout.length }).toEqual({ at, len, status: 2, stdout: 0 });
    }
    expect(bytes(last + m.PAGE - 2, 16, '--block', 'pc.ram').stdout).toEqual(m.pattern(4).subarray(-2));
    // A LiME range that begins and ends inside a page says so in its header.
    const lime = bytes(low - 5, 3, '--as', 'lime').stdout;
    expect([lime.readBigUInt64LE(8), lime.readBigUInt64LE(16)]).toEqual([BigInt(low - 5), BigInt(low - 3)]);
    expect(lime.subarray(32)).toEqual(m.pattern(2).subarray(-5, -2));
  });

  test('a block whose name nobody can type is picked as it is printed, and names no file', () => {
    const evil = '../\x1b\x9b\\x';
    const file = put('evil', m.sample({ ram: m.ramSections(m.page(0, m.pattern(7), evil), m.blockList([evil, m.PAGE])) }));
    const before = fs.readdirSync(dir);
    const none = vioctl(['migration', 'ram', file, '--block', 'x', '-o', path.join(dir, 'mem')]);
    expect(none.status).toBe(1);
    const shown = '../\\x1b\\x9b\\\\x';
    expect(none.stderr).toContain(`there are: ${shown}\n`);
    expect(vioctl(['migration', 'ram', file, '--block', shown, '-o', path.join(dir, 'mem')])).toMatchObject({ status: 0 });
    expect(fs.readFileSync(path.join(dir, 'mem')).equals(m.pattern(7))).toBe(true);
    expect(fs.readdirSync(dir)).toEqual([...new Set([...before, 'mem'])].sort());
  });

  test('the PCI hole of a large machine', () => {
    const length = 5 * 2 ** 30;
    const hole = 3 * 2 ** 30;
    const pages = [m.page(0, m.pattern(1), 'pc.ram'), m.zeros(m.PAGE, hole), m.page(hole, m.pattern(2)), m.zeros(hole + m.PAGE, length)];
    const ram = m.ramSections(m.cat(...pages), m.blockList(['pc.ram', length]));
    const out = path.join(dir, 'mem');
    const r = vioctl(['migration', 'ram', put('large', m.sample({ ram })), '-o', out, '--json']);
    expect(JSON.parse(r.stdout)).toMatchObject({
      size: 6 * 2 ** 30,
      ranges: [
        { address: '0x0', length: 0xc0000000, offset: '0x0' },
        { address: '0x100000000', length: 0x80000000, offset: '0x100000000' },
      ],
    });
    const fd = fs.openSync(out, 'r');
    const bytes = Buffer.alloc(m.PAGE);
    fs.readSync(fd, bytes, 0, m.PAGE, 2 ** 32);
    fs.closeSync(fd);
    expect(bytes.equals(m.pattern(2))).toBe(true);
    fs.rmSync(out);
  });
});

test('ram: an input that is missing leaves the output as it was', () => {
  const kept = put('kept', Buffer.from('kept'));
  expect(vioctl(['migration', 'ram', path.join(dir, 'nothing'), '-o', kept]).status).toBe(1);
  expect(fs.readFileSync(kept, 'utf8')).toBe('kept');
});

describe('verify', () => {
  const sample = m.sample();
  test.each<[string, Buffer, string, number]>([
    ['whole', sample, 'complete', 0],
    ['without description', m.sample({ tail: m.eof }), 'complete-without-description', 0],
    ['cut in a device', sample.subarray(0, sample.length - m.vmdesc(m.devices).length - 20), 'truncated', 5],
    ['empty', Buffer.alloc(0), 'truncated', 5],
    ['another footer', m.sample({ devices: m.cat(m.section(4, 0, 'timer', 1, m.timerBody), m.footer(7)) }), 'damaged', 5],
    ['several faults at once', m.cat(m.header(), m.u8(0x55), m.ramSections(m.be64(0x80)), m.full(0, 'a', 1, m.u8(1))), 'damaged', 5],
  ])('%s', (_name, bytes, verdict, status) => {
    const file = put('v', bytes);
    for (const [from, options] of [
      [file, {}],
      ['-', { input: bytes }],
    ] as const) {
      const r = vioctl(['migration', 'verify', from, '--json'], options);
      expect({ from, status: r.status, verdict: JSON.parse(r.stdout).verdict }).toEqual({ from, status, verdict });
      const text = vioctl(['migration', 'verify', from], options);
      expect(text.status).toBe(status);
      expect(text.stderr).not.toMatch(/\n {4}at /);
    }
  });

  test('bytes behind the end are damage with --strict only', () => {
    const file = put('v', m.cat(sample, Buffer.alloc(9)));
    expect(vioctl(['migration', 'verify', file])).toMatchObject({ status: 0, stdout: expect.stringMatching(/^9 bytes behind the end$/m) });
    expect(vioctl(['migration', 'verify', file, '--strict']).status).toBe(5);
    expect(vioctl(['migration', 'verify', put('v', sample), '--strict']).status).toBe(0);
  });
});

describe('stat, diff, convert', () => {
  test('stat of nothing', () => {
    const r = vioctl(['migration', 'stat', put('nothing', Buffer.alloc(0))]);
    expect(r.status).toBe(5);
    expect(r.stdout).not.toContain('NaN');
    // Counted from where the stream begins, also where nothing of it can be read.
    const wrapped = vioctl(['migration', 'stat', put('wrapped', libvirt(Buffer.from('no stream'))), '--json']);
    expect(wrapped.status).toBe(5);
    expect(JSON.parse(wrapped.stdout)).toMatchObject({ size: 0, other: 0, sections: [] });
  });

  test('stat counts all bytes', () => {
    const doc = JSON.parse(vioctl(['migration', 'stat', good, '--duplicates', '--json']).stdout);
    expect(doc.size).toBe(m.sample().length);
    expect(doc.sections.reduce((n: number, s: { bytes: number }) => n + s.bytes, 0) + doc.other).toBe(doc.size);
    expect(doc.blocks).toMatchObject([{ name: 'pc.ram', pages: 16, zero: 12, normal: 4, distinct: 4 }]);
  });

  test('diff names the fields and pages that changed: status 4', () => {
    expect(vioctl(['migration', 'diff', good, good, '--ram'])).toMatchObject({ status: 0, stderr: '' });
    const changed = m.sample({
      devices: m.cat(m.full(0, 'timer', 1, m.be64(7)), m.full(3, 'cpu', 1, m.cpuBody)),
      ram: m.ramSections(m.cat(m.page(0, m.pattern(9), 'pc.ram'), ...Array.from({ length: 15 }, (_, i) => m.zero((i + 1) * m.PAGE)))),
    });
    const r = vioctl(['migration', 'diff', good, put('changed', changed), '--ram', '--json']);
    expect(r.status).toBe(4);
    expect(JSON.parse(r.stdout)).toMatchObject({
      equal: false,
      differences: [{ path: 'timer/ticks', kind: 'changed', a: 12345, b: 7 }],
      ram: [{ block: 'pc.ram', pages: 16, changed: 4, unknown: 0 }],
    });
    expect(vioctl(['migration', 'diff', good, put('changed', changed), '--ignore', 'timer/*'])).toMatchObject({ status: 0 });
    const none = vioctl(['migration', 'diff', good, put('none', Buffer.from('root:x:0:0'))]);
    expect(none).toMatchObject({ status: 5, stdout: '' });
    expect(none.stderr).toMatch(/none: damaged: 0x0: not a QEMU migration stream/);
  });

  test('diff compares devices that nothing describes by their bytes', () => {
    const files = [m.timerBody, m.be64(99)].map((timer, i) =>
      put(`plain${i}`, m.sample({ devices: m.cat(m.full(0, 'timer', 1, timer), m.full(3, 'cpu', 1, m.cpuBody)), tail: m.eof })),
    ) as [string, string];
    for (const from of [files[0], '-']) {
      const input = from === '-' ? { input: fs.readFileSync(files[0]) } : {};
      expect(vioctl(['migration', 'diff', from, files[0]], input)).toMatchObject({ status: 0, stdout: 'no differences\n', stderr: '' });
      const r = vioctl(['migration', 'diff', from, files[1], '--json'], input);
      expect(r).toMatchObject({ status: 4, stderr: '' });
      const sums = [m.timerBody, m.be64(99)].map((b) => createHash('sha256').update(b).digest('hex'));
      expect(JSON.parse(r.stdout)).toMatchObject({
        equal: false,
        differences: [{ path: 'timer/sha256', kind: 'changed', a: sums[0], b: sums[1] }],
      });
    }
  });

  test('convert: same memory, same devices, pages at fixed places; nothing is left of a failed one', () => {
    const out = path.join(dir, 'mapped');
    expect(vioctl(['migration', 'convert', good, '--to', 'mapped-ram', '-o', out])).toMatchObject({ status: 0, stderr: '' });
    expect(vioctl(['migration', 'diff', good, out, '--ram', '--ignore', 'capabilities'])).toMatchObject({ status: 0 });
    const json = JSON.parse(vioctl(['migration', 'dump', out, '--json']).stdout);
    expect(json).toMatchObject({
      complete: true,
      configuration: { capabilities: ['mapped-ram'] },
      ram: { blocks: [{ pagesOffset: '0x100000' }] },
    });
    expect(vioctl(['migration', 'convert', cut, '--to', 'mapped-ram', '-o', path.join(dir, 'never')])).toMatchObject({ status: 5 });
    expect(fs.existsSync(path.join(dir, 'never'))).toBe(false);
  });

  test('convert: x-ignore-shared does not go together with mapped-ram before QEMU 11', () => {
    const list = m.blockList(['pc.ram', 16 * m.PAGE, m.be64(0)]);
    const records = m.cat(m.zero(0, 'pc.ram'), m.zeros(m.PAGE, 16 * m.PAGE));
    const shared = m.sample({ configuration: m.configuration('pc', m.capabilities('x-ignore-shared')), ram: m.ramSections(records, list) });
    const r = vioctl(['migration', 'convert', put('shared', shared), '--to', 'mapped-ram', '-o', path.join(dir, 'never')]);
    expect(r).toMatchObject({ status: 7, stdout: '' });
    expect(r.stderr).toMatch(/x-ignore-shared is set/);
    expect(fs.existsSync(path.join(dir, 'never'))).toBe(false);
  });

  test('convert: bitmaps in the order of the host that shall load the file', () => {
    const save = put('save-big', libvirt(fs.readFileSync(good), { big: true }));
    const converted = (name: string, file: string, ...more: string[]): Buffer => {
      const out = path.join(dir, name);
      expect(vioctl(['migration', 'convert', file, '--to', 'mapped-ram', '-o', out, ...more])).toMatchObject({ status: 0, stderr: '' });
      return fs.readFileSync(out);
    };
    const little = converted('to-little', good, '--bitmap-endian', 'little');
    const big = converted('to-big', good, '--bitmap-endian', 'big');
    const block = Buffer.concat([Buffer.from([6]), Buffer.from('pc.ram')]);
    const header = little.indexOf(block) + block.length + 8;
    const [at, pages] = [12, 20].map((o) => Number(little.readBigUInt64BE(header + o))) as [number, number];
    const bytes = Math.ceil(Number(little.readBigUInt64BE(header - 8)) / 4096 / 64) * 8;
    expect(little.subarray(at, at + bytes).some((b) => b !== 0)).toBe(true);
    const swapped = Buffer.from(little);
    swapped.subarray(at, at + bytes).swap64();
    expect(at + bytes).toBeLessThanOrEqual(pages);
    expect(swapped.equals(little)).toBe(false);
    expect(big.equals(swapped)).toBe(true);
    expect(converted('to-default', good).equals(little)).toBe(true);
    expect(converted('to-host', save).equals(big)).toBe(true);
  });
});

test('dump of named sections tells of missing memory; dump of all fails for it', () => {
  const file = path.join(dir, 'no-ram.mig');
  const ram = m.start(2, 'ram', 4, m.cat(m.blockList(['pc.ram', 2 * m.PAGE]), m.EOS));
  fs.writeFileSync(file, m.cat(m.header(), m.configuration('pc-q35-7.2'), ram, m.end(2, m.EOS), m.eof));
  const asked = vioctl(['migration', 'dump', file, '--section', 'ra*']);
  expect(asked).toMatchObject({ status: 0, stderr: expect.stringContaining('2 pages are missing') });
  const json = vioctl(['migration', 'dump', file, '--section', 'ra*', '--json']);
  expect([json.status, JSON.parse(json.stdout).complete]).toEqual([0, false]);
  expect(vioctl(['migration', 'dump', file]).status).toBe(5);
  fs.truncateSync(file, fs.statSync(file).size - 3);
  expect(vioctl(['migration', 'dump', file, '--section', 'ra*']).status).toBe(5);
});
