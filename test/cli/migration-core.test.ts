/** `migration ram`: ELF cores with the note of the guest's kernel, firmware, and machines that a stream does not name. */
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { vioctl } from '../support/cli.js';
import * as m from '../support/migration.js';

const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-core-'));
afterAll(() => fs.rmSync(dir, { recursive: true, force: true }));
const out = path.join(dir, 'out');

function ram(stream: Buffer, ...more: string[]) {
  const file = path.join(dir, 'stream');
  fs.writeFileSync(file, stream);
  fs.rmSync(out, { force: true });
  const { status, stdout, stderr } = vioctl(['migration', 'ram', file, '-o', out, '--json', ...more]);
  return { status, stderr, doc: JSON.parse(stdout || '{}') as Record<string, unknown> };
}

const PAGES = 600; // more than two of the pieces that are searched at once

/** A stream whose memory has these bytes at these addresses, and a byte in every page, so that all of it is searched. */
function withMemory(...parts: [at: number, bytes: Buffer][]): Buffer {
  const memory = Buffer.alloc(PAGES * m.PAGE);
  for (let page = 0; page < PAGES; page++) memory[page * m.PAGE] = 1;
  for (const [at, bytes] of parts) bytes.copy(memory, at);
  const pages = Array.from({ length: PAGES }, (_, i) => {
    const content = memory.subarray(i * m.PAGE, (i + 1) * m.PAGE);
    return m.page(i * m.PAGE, content, i === 0 ? 'pc.ram' : undefined);
  });
  return m.sample({ ram: m.ramSections(m.cat(...pages), m.blockList(['pc.ram', PAGES * m.PAGE])) });
}

const le32 = (v: number): Buffer => {
  const b = Buffer.alloc(4);
  b.writeUInt32LE(v);
  return b;
};
const text = (release: string, more = '') => `OSRELEASE=${release}\nPAGESIZE=4096\n${more}CRASHTIME=0\n`;
const note = (desc: string, { name = 'VMCOREINFO\0', type = 0, size = desc.length } = {}): Buffer =>
  m.cat(le32(name.length), le32(size), le32(type), name, Buffer.alloc(-name.length & 3), desc, Buffer.alloc(-desc.length & 3));

/** The descriptions of the notes VMCOREINFO in the core. */
function notesOf(file: string): string[] {
  const bytes = fs.readFileSync(file);
  const wide = bytes[4] === 2;
  const number = (at: number) => (wide ? Number(bytes.readBigUInt64LE(at)) : bytes.readUInt32LE(at));
  const header = number(wide ? 32 : 28);
  let at = number(header + (wide ? 8 : 4));
  const end = at + number(header + (wide ? 32 : 16));
  const found: string[] = [];
  while (at < end) {
    const [name, size] = [bytes.readUInt32LE(at), bytes.readUInt32LE(at + 4)];
    const desc = at + 12 + ((name + 3) & ~3);
    if (bytes.toString('latin1', at + 12, at + 11 + name) === 'VMCOREINFO') found.push(bytes.toString('latin1', desc, desc + size));
    at = desc + ((size + 3) & ~3);
  }
  return found;
}

const MIB = 1 << 20;
const one = text('6.12.1');

describe('VMCOREINFO that no device points at is found in memory', () => {
  test.each<[string, number]>([
    ['at the start of a page', 5 * m.PAGE],
    ['anywhere', 5 * m.PAGE + 1236],
    ['with its name across two pieces', MIB - 16],
    ['with its header across two pieces', MIB - 4],
    ['with its text across two pieces', MIB - 40],
  ])('%s', (_what, at) => {
    expect(ram(withMemory([at, note(one)]), '--as', 'elf')).toMatchObject({ status: 0, doc: { vmcoreinfo: 'memory' } });
    expect(notesOf(out)).toEqual([one]);
  });

  test.each<[string, Buffer]>([
    ['the name alone', Buffer.from('VMCOREINFO\0VMCOREINFO\0')],
    ['another type', note(one, { type: 1 })],
    ['another text', note('hello\n')],
    ['a size beyond any page', note(one, { size: 1 << 30 })],
    ['the name at the very start', Buffer.from('VMCOREINFO\0')],
  ])('%s is no note', (what, bytes) => {
    const { status, doc } = ram(withMemory([what.endsWith('start') ? 0 : 8192, bytes]), '--as', 'elf');
    expect({ status, vmcoreinfo: doc.vmcoreinfo }).toEqual({ status: 0, vmcoreinfo: undefined });
    expect(notesOf(out)).toEqual([]);
  });

  test('copies of one note are one note', () => {
    expect(ram(withMemory([8192, note(one)], [81920, note(one)]), '--as', 'elf')).toMatchObject({ doc: { vmcoreinfo: 'memory' } });
    expect(notesOf(out)).toEqual([one]);
  });

  const uts = (release: string) => m.cat(Buffer.alloc(4), 'Linux', Buffer.alloc(60), 'host', Buffer.alloc(61), release, Buffer.alloc(60));

  /** A kernel, an address of its image less the physical one, and what its note says if init_uts_ns is at the physical address `at`. */
  const kernels: [string, bigint, (at: number) => string][] = [
    [
      'x86-64',
      0xffffffff80000000n,
      (at) => `SYMBOL(init_uts_ns)=${(0xffffffff80000000n + BigInt(at)).toString(16)}\nNUMBER(phys_base)=0\n`,
    ],
    [
      'arm64',
      0xffffd61dd0600000n,
      (at) =>
        ['init_uts_ns', '_stext']
          .map((name, i) => `SYMBOL(${name})=${(0xffffd61dd0600000n + BigInt(i === 0 ? at : 0x30000)).toString(16)}\n`)
          .concat('SYMBOL(mem_section)=ffff00bf1fecf380\nNUMBER(kimage_voffset)=0xffffd61dd0600000\n')
          .join(''),
    ],
  ];
  test.each(kernels)('of several, the one that describes what lies in memory: %s', (name, offset, symbols) => {
    const [old, now] = [text('6.1.9', symbols(0x80000)), text('6.12.1', symbols(0x40000))];
    const parts: [number, Buffer][] = [
      [8192, note(old)],
      [16384, note(now)],
      [0x40000, uts('6.12.1')],
      [0x80000, uts('6.12.1')],
    ];
    expect(ram(withMemory(...parts), '--as', 'elf')).toMatchObject({ doc: { vmcoreinfo: 'memory' } });
    expect(notesOf(out)).toEqual([now]);
    // The kernel's image is there at its virtual address too, for debuggers that read page tables by it.
    const bytes = fs.readFileSync(out);
    const header = (i: number) => [0, 1, 2, 3, 4].map((n) => bytes.readBigUInt64LE(64 + 56 * i + 8 + 8 * n));
    expect(bytes.readUInt16LE(56)).toBe(3);
    const [[at], [imageAt, virtual, physical, size]] = [header(1), header(2)] as [bigint[], bigint[]];
    const first = name === 'arm64' ? 0x30000n : 0x40000n;
    expect([virtual, physical, imageAt! - at!]).toEqual([offset + first, first, first]);
    expect(physical! + size!).toBeGreaterThanOrEqual(0x41000n);
  });

  test.each([
    [
      'an address without the memory',
      `SYMBOL(init_uts_ns)=ffff800008040000\nSYMBOL(_stext)=ffff800008000000\nNUMBER(kimage_voffset)=0x1\n`,
    ],
    ['a number without _stext', 'SYMBOL(init_uts_ns)=ffff800008040000\nNUMBER(kimage_voffset)=0xffff800008000000\n'],
    [
      'an image above its symbols',
      `SYMBOL(init_uts_ns)=f21f494c09680000\nNUMBER(phys_base)=${0xffffffff80000000n - 0xf21f494c09640000n}\n`,
    ],
    ['symbols that wrap around', 'SYMBOL(init_uts_ns)=40000\nSYMBOL(_stext)=ffffffffffffffff\nNUMBER(kimage_voffset)=0x0\n'],
  ])('%s gives no image', (_what, symbols) => {
    expect(ram(withMemory([8192, note(text('6.12.1', symbols))], [0x40000, uts('6.12.1')]), '--as', 'elf')).toMatchObject({ status: 0 });
    expect(fs.readFileSync(out).readUInt16LE(56)).toBe(2);
  });

  test('of several that nothing tells apart, none, and that is said', () => {
    const { status, doc } = ram(withMemory([8192, note(one)], [16384, note(text('6.1.9'))]), '--as', 'elf');
    expect({ status, vmcoreinfo: doc.vmcoreinfo }).toEqual({ status: 0, vmcoreinfo: undefined });
    expect(doc.issues).toContainEqual(
      expect.objectContaining({ severity: 'note', code: 'vmcoreinfo', message: expect.stringMatching(/2 different/) }),
    );
    expect(notesOf(out)).toEqual([]);
  });
});

describe('--machine', () => {
  const stream = (machine: string | undefined) =>
    m.sample({
      configuration: machine === undefined ? Buffer.alloc(0) : m.configuration(machine),
      ram: m.ramSections(m.cat(m.page(0, m.pattern(3), 'mem'), m.zeros(m.PAGE, 4 * m.PAGE)), m.blockList(['mem', 4 * m.PAGE])),
    });

  test.each([
    [undefined, /does not name its machine/],
    ['vendor7.1', /machine \\"vendor7\.1\\" is not known/],
  ])('a stream of machine %s: refused without it, laid out with it', (machine, message) => {
    const without = ram(stream(machine));
    expect(without.status).toBe(7);
    expect(without.stderr).toMatch(message);
    expect(without.stderr).toMatch(/--machine TYPE/);
    expect(ram(stream(machine), '--machine', 'pc')).toMatchObject({
      status: 0,
      doc: { machine: 'pc', ranges: [{ address: '0x0', block: 'mem' }] },
    });
    expect(fs.readFileSync(out).subarray(0, m.PAGE).equals(m.pattern(3))).toBe(true);
  });

  test('a machine that is not known either', () => {
    expect(ram(stream(undefined), '--machine', 'toaster')).toMatchObject({
      status: 7,
      stderr: expect.stringMatching(/machine \\?"toaster/),
    });
  });

  test('it tells the architecture of a core where nothing else does', () => {
    expect(ram(stream(undefined), '--machine', 's390-ccw-virtio', '--as', 'elf')).toMatchObject({ status: 0 });
    const bytes = fs.readFileSync(out);
    expect({ data: bytes[5], machine: bytes.readUInt16BE(18) }).toEqual({ data: 2, machine: 22 });
  });
});

describe('the architecture of a core', () => {
  /** A guest whose CPU has these fields of 32 bits, or none that is described. */
  const guest = (machine: string, names: string[], values: number[]) => {
    const cpu = names.map((name) => ({ name, type: 'uint32', size: 4 }));
    return m.sample({
      configuration: m.configuration(machine),
      ram: m.ramSections(m.cat(m.page(0, m.pattern(3), 'mem'), m.zeros(m.PAGE, 4 * m.PAGE)), m.blockList(['mem', 4 * m.PAGE])),
      devices: names.length > 0 ? m.full(9, 'cpu', 1, m.cat(...values.map(m.be32))) : Buffer.alloc(0),
      tail: m.cat(m.eof, m.vmdesc(names.length > 0 ? [m.device('cpu', cpu)] : [])),
    });
  };
  const place = ['--layout', '0=mem', '--as', 'elf'];

  test.each<[string, string[], number[], object]>([
    ['PowerPC', ['env.gpr', 'env.nip'], [1, 2], { class: 2, data: 2, machine: 21 }],
    ['PowerPC of 32 bits', ['env.gpr', 'env.gprh', 'env.nip'], [1, 0, 2], { class: 1, data: 2, machine: 20 }],
    ['SPARC V8', ['env.nwindows', 'env.wim'], [8, 1], { class: 1, data: 2, machine: 2 }],
    ['SPARC V9', ['env.nwindows', 'env.asi'], [8, 1], { class: 2, data: 2, machine: 43 }],
    ['MIPS32', ['env.active_tc', 'env.CP0_Config0'], [0, 0x80000480 - 2 ** 32], { class: 1, data: 1, machine: 8 }],
    ['MIPS32, big-endian', ['env.active_tc', 'env.CP0_Config0'], [0, 0x80008480 - 2 ** 32], { class: 1, data: 2, machine: 8 }],
    ['MIPS64', ['env.active_tc', 'env.CP0_Config0'], [0, 0x80004480 - 2 ** 32], { class: 2, data: 1, machine: 8 }],
    ['Arm', ['env.xregs', 'cpsr'], [0, 0], { class: 2, data: 1, machine: 183 }],
  ])('%s, by the fields of its CPU', (_name, fields, values, wanted) => {
    const { status } = ram(guest('toaster', fields, values), ...place);
    const bytes = fs.readFileSync(out);
    const machine = bytes[5] === 2 ? bytes.readUInt16BE(18) : bytes.readUInt16LE(18);
    expect({ status, class: bytes[4], data: bytes[5], machine }).toEqual({ status: 0, ...wanted });
  });

  test.each<[string, string, string[], RegExp]>([
    ['a CPU that nobody knows', 'toaster', ['env.gr'], /does not tell the architecture/],
    ['no CPU on a board that nobody knows', 'toaster', [], /does not tell the architecture/],
    ['no CPU on a board of MIPS, which has either byte order', 'malta', [], /does not tell the byte order/],
  ])('%s: refused, and nothing is left behind; memory alone is written', (_name, machine, fields, message) => {
    const stream = guest(machine, fields, [1]);
    const where = machine === 'toaster' ? ['--layout', '0=mem'] : [];
    for (const more of [where, ['--block', 'mem']]) {
      const { status, stderr } = ram(stream, ...more, '--as', 'elf');
      expect({ status, stderr }).toEqual({ status: 7, stderr: expect.stringMatching(message) });
      expect(stderr).toMatch(/--as raw/);
      expect(fs.existsSync(out)).toBe(false);
    }
    expect(ram(stream, ...where)).toMatchObject({ status: 0 });
  });
});

describe('--rom', () => {
  const firmware = m.pattern(9);
  const stream = m.sample({
    ram: m.ramSections(
      m.cat(m.page(0, m.pattern(1), 'pc.ram'), m.zeros(m.PAGE, 4 * m.PAGE), m.page(0, firmware, 'pc.bios')),
      m.blockList(['pc.ram', 4 * m.PAGE], ['pc.bios', m.PAGE]),
    ),
  });

  test('firmware is at its address, below 4 GiB, on request only', () => {
    const ranges = (...more: string[]) =>
      ram(stream, '--as', 'elf', ...more).doc.ranges as { address: string; block: string; offset: string }[];
    expect(ranges().map((r) => [r.address, r.block])).toEqual([['0x0', 'pc.ram']]);
    const both = ranges('--rom');
    expect(both.map((r) => [r.address, r.block])).toEqual([
      ['0x0', 'pc.ram'],
      ['0xfffff000', 'pc.bios'],
    ]);
    const at = Number(both[1]!.offset);
    expect(
      fs
        .readFileSync(out)
        .subarray(at, at + m.PAGE)
        .equals(firmware),
    ).toBe(true);
  });
});
