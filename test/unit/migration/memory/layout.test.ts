/** Where blocks lie in guest-physical memory, and what is done where nothing tells it. */
import fs from 'node:fs';
import path from 'node:path';
import { Evidence } from '../../../../src/migration/devices/evidence.js';
import { physicalLayout } from '../../../../src/migration/memory/layout.js';
import type { RamBlock } from '../../../../src/migration/stream/model.js';
import { vioctl } from '../../../support/cli.js';
import * as m from '../../../support/migration.js';

const M = 1n << 20n;
const G = 1n << 30n;
const blocks = (...list: [string, bigint][]): RamBlock[] => list.map(([name, length]) => ({ name, length, state: undefined as never }));
const shape = (layout: ReturnType<typeof physicalLayout>) => layout.ranges.map((r) => [r.gpa, r.length, r.from]);

/** CMOS of a PC with so much RAM below and above 4 GiB (QEMU hw/i386/pc.c, as real files have it). */
function cmos(below: bigint, above: bigint): Evidence {
  const bytes = Buffer.alloc(128);
  const units = (bytes: bigint) => Number(bytes >> 16n);
  bytes.writeUInt16LE(below > 16n * M ? units(below - 16n * M) : 0, 0x34);
  bytes.writeUInt16LE(Math.min(65535, Number((below - M) >> 10n)), 0x17);
  bytes.writeUIntLE(units(above) % 2 ** 24, 0x5b, 3);
  const evidence = new Evidence();
  evidence.note('mc146818rtc', { cmos_data: bytes });
  return evidence;
}

test.each([
  ['pc-q35-10.0', 3n * G, 2n * G],
  ['pc-q35-10.0', 3n * G, G],
  ['pc-i440fx-7.2', 64n * M, 32n * M],
  ['pc-i440fx-7.2', 3n * G, 3n * G],
  ['', 8n * M, 8n * M],
  ['pc-i440fx-7.0', 2048n * G, 3n * G],
  ['pc-i440fx-6.2', 1027n * G, 3n * G],
])('%s with %i bytes, of which the CMOS has %i below 4 GiB', (machine, size, below) => {
  const layout = physicalLayout({ machine, evidence: cmos(below, size - below) }, blocks(['pc.ram', size], ['pc.bios', M]));
  expect(shape(layout)).toEqual([[0n, below, 0n], ...(below < size ? [[4n * G, size - below, below]] : [])]);
  expect(layout.unplaced).toEqual([]);
});

test('a CMOS that does not fit the RAM is not believed, and an option overrides it', () => {
  const facts = { machine: 'pc-q35-10.0', evidence: cmos(G, G) };
  const list = blocks(['pc.ram', 3n * G]);
  expect(() => physicalLayout(facts, list)).toThrow(expect.objectContaining({ exit: 7, message: expect.stringMatching(/CMOS/) }));
  expect(shape(physicalLayout(facts, list, { below4g: G }))).toEqual([
    [0n, G, 0n],
    [4n * G, 2n * G, G],
  ]);
});

test.each([
  ['mach-virt.ram', G],
  ['riscv_virt_board.ram', 2n * G],
  ['m68k_virt.ram', 0n],
  ['openrisc.ram', 0n],
])('the machine virt whose RAM is %s', (name, base) => {
  expect(shape(physicalLayout({ machine: 'virt' }, blocks([name, 64n * M])))).toEqual([[base, 64n * M, 0n]]);
});

// Boards whose QEMU the lab has not; the addresses are those of `info mtree` of QEMU 7.2.
test.each<[string, [string, bigint][], [bigint, bigint, bigint][]]>([
  ['malta', [['mips_malta.ram', 128n * M]], [[0n, 128n * M, 0n]]],
  [
    'malta',
    [['mips_malta.ram', G]],
    [
      [0n, 256n * M, 0n],
      [0x90000000n, 768n * M, 256n * M],
    ],
  ],
  ['fuloong2e', [['fuloong2e.ram', 256n * M]], [[0n, 256n * M, 0n]]],
  [
    'SS-20',
    [
      ['sun4m.ram', 128n * M],
      ['sun4m.prom', M],
    ],
    [[0n, 128n * M, 0n]],
  ],
  ['leon3_generic', [['leon3.ram', 128n * M]], [[0x40000000n, 128n * M, 0n]]],
  [
    'sun4u',
    [
      ['sun4u.ram', 128n * M],
      ['sun4u.prom', 4n * M],
    ],
    [[0n, 128n * M, 0n]],
  ],
  // A memory backend in place of the board's own block.
  ['vexpress-a15', [['mem0', 128n * M]], [[0x80000000n, 128n * M, 0n]]],
])('the board %s with %j', (machine, list, wanted) => {
  const layout = physicalLayout({ machine }, blocks(...list));
  expect({ ranges: shape(layout), unplaced: layout.unplaced }).toEqual({ ranges: wanted, unplaced: [] });
});

test('the machine virt of an architecture that nothing tells is not laid out', () => {
  expect(() => physicalLayout({ machine: 'virt' }, blocks(['mem0', 64n * M]))).toThrow(expect.objectContaining({ exit: 7 }));
  expect(() => physicalLayout({ machine: 'virt' }, blocks(['virt.ram', 64n * M]))).toThrow(expect.objectContaining({ exit: 7 }));
});

test.each([
  [
    'pc-q35-10.0',
    [
      ['pc.ram', 64n * M],
      ['pc.bios', 256n << 10n],
    ],
    [
      [0n, 64n * M],
      [4n * G - (256n << 10n), 256n << 10n],
    ],
  ],
  [
    'pc-q35-10.0',
    [
      ['pc.ram', 64n * M],
      ['system.flash0', 3n * M],
      ['system.flash1', M],
    ],
    [
      [0n, 64n * M],
      [4n * G - 4n * M, M],
      [4n * G - 3n * M, 3n * M],
    ],
  ],
  [
    'virt-10.0',
    [
      ['mach-virt.ram', 64n * M],
      ['virt.flash0', 64n * M],
      ['virt.flash1', 64n * M],
    ],
    [
      [0n, 64n * M],
      [64n * M, 64n * M],
      [G, 64n * M],
    ],
  ],
  [
    'virt',
    [
      ['riscv_virt_board.ram', 64n * M],
      ['riscv_virt_board.mrom', 60n << 10n],
      ['virt.flash0', 32n * M],
      ['virt.flash1', 32n * M],
    ],
    [
      [0x1000n, 60n << 10n],
      [512n * M, 32n * M],
      [544n * M, 32n * M],
      [2n * G, 64n * M],
    ],
  ],
] as [string, [string, bigint][], [bigint, bigint][]][])('firmware of %s, on request', (machine, list, wanted) => {
  const [ram] = list;
  expect(physicalLayout({ machine }, blocks(...list)).ranges).toHaveLength(1);
  const { ranges, unplaced } = physicalLayout({ machine }, blocks(...list), { rom: true });
  expect({ ranges: ranges.map((r) => [r.gpa, r.length]), unplaced }).toEqual({ ranges: wanted, unplaced: [] });
  expect(physicalLayout({ machine }, blocks(ram!), { rom: true }).ranges).toHaveLength(1);
});

test('two blocks at one address', () => {
  const list = blocks(['pc.ram', 64n * M], ['md1', M]);
  const facts = { machine: 'pc-q35-10.0' };
  expect(() => physicalLayout(facts, list, { placed: [{ address: 63n * M + 1n, block: 'md1' }] })).toThrow(/pc\.ram and md1/);
  expect(physicalLayout(facts, list, { placed: [{ address: 64n * M, block: 'md1' }] })).toMatchObject({ unplaced: [] });
});

describe('a block whose address nothing tells', () => {
  const PAGES = 4;
  const list = m.blockList(['md1', PAGES * m.PAGE], ['pc.ram', PAGES * m.PAGE]);
  const pages = (name: string, at: number) => m.cat(m.page(0, m.pattern(at), name), m.zeros(m.PAGE, PAGES * m.PAGE));
  const bytes = m.sample({ ram: m.ramSections(m.cat(pages('md1', 1), pages('pc.ram', 2)), list) });
  const run = (dir: string, ...more: string[]) => {
    fs.writeFileSync(path.join(dir, 'f'), bytes);
    return vioctl(['migration', 'ram', path.join(dir, 'f'), '-o', path.join(dir, 'out'), '--json', ...more]);
  };
  const out = (dir: string) => fs.readFileSync(path.join(dir, 'out'));

  test('is named, and what has a place is written', () =>
    m.inFolder((dir) => {
      const r = run(dir);
      expect(r).toMatchObject({ status: 7, stderr: expect.stringMatching(/md1/) });
      expect(JSON.parse(r.stdout)).toMatchObject({ complete: false, unplaced: [{ block: 'md1', length: PAGES * m.PAGE }] });
      expect(out(dir).subarray(0, m.PAGE).equals(m.pattern(2))).toBe(true);
      expect(out(dir).length).toBe(PAGES * m.PAGE);
    }));

  test('is left out if that is wanted', () =>
    m.inFolder((dir) => {
      const r = run(dir, '--partial');
      expect(r.status).toBe(0);
      expect(JSON.parse(r.stdout)).toMatchObject({ complete: false, unplaced: [{ block: 'md1' }] });
    }));

  test('does not matter to a window that is full without it', () => m.inFolder((dir) => expect(run(dir, '--len', '8K').status).toBe(0)));

  test('is placed where the user says, also through a pipe', () =>
    m.inFolder((dir) => {
      const at = 0x10000;
      for (const input of [undefined, bytes]) {
        const args = ['migration', 'ram', input ? '-' : path.join(dir, 'f'), '-o', path.join(dir, 'out')];
        fs.writeFileSync(path.join(dir, 'f'), bytes);
        const r = vioctl([...args, '--layout', `0x${at.toString(16)}=md1`], input ? { input } : {});
        expect(r).toMatchObject({ status: 0 });
        const memory = out(dir);
        expect(memory.subarray(at, at + m.PAGE).equals(m.pattern(1))).toBe(true);
        expect(memory.subarray(0, m.PAGE).equals(m.pattern(2))).toBe(true);
        expect(memory.length).toBe(at + PAGES * m.PAGE);
      }
    }));
});

test('through a pipe, the CMOS comes behind the memory that it places', () =>
  m.inFolder((dir) => {
    const length = 3 * 2 ** 20;
    const low = 2 * 2 ** 20;
    const { cmos: bytes } = cmos(BigInt(low), BigInt(length - low));
    const records = m.cat(
      m.page(0, m.pattern(1), 'pc.ram'),
      m.zeros(m.PAGE, low),
      m.page(low, m.pattern(2)),
      m.zeros(low + m.PAGE, length),
    );
    const desc = m.device('mc146818rtc', [{ name: 'cmos_data', type: 'buffer', size: 128 }]);
    const stream = m.sample({
      ram: m.ramSections(records, m.blockList(['pc.ram', length])),
      devices: m.cat(m.full(5, 'mc146818rtc', 3, Buffer.from(bytes!)), m.full(0, 'timer', 1, m.timerBody)),
      tail: m.cat(m.eof, m.vmdesc([desc, ...m.devices])),
    });
    for (const as of ['sparse', 'lime', 'elf']) {
      const files = ['piped', 'file'].map((name) => path.join(dir, name));
      fs.writeFileSync(path.join(dir, 'f'), stream);
      expect(vioctl(['migration', 'ram', '-', '-o', files[0]!, '--as', as], { input: stream })).toMatchObject({ status: 0 });
      expect(vioctl(['migration', 'ram', path.join(dir, 'f'), '-o', files[1]!, '--as', as])).toMatchObject({ status: 0 });
      const [a, b] = files.map((f) => fs.openSync(f, 'r'));
      const at = as === 'lime' ? low + 64 : as === 'elf' ? 2 ** 20 + low : 2 ** 32;
      for (const fd of [a!, b!]) {
        const got = Buffer.alloc(m.PAGE);
        fs.readSync(fd, got, 0, m.PAGE, at);
        expect({ as, right: got.equals(m.pattern(2)) }).toEqual({ as, right: true });
        fs.closeSync(fd);
      }
      expect(fs.statSync(files[0]!).size).toBe(fs.statSync(files[1]!).size);
    }
    const window = vioctl(['migration', 'ram', '-', '-o', path.join(dir, 'w'), '--at', '2M', '--len', '4K'], { input: stream });
    expect(window).toMatchObject({ status: 2 });
  }));
