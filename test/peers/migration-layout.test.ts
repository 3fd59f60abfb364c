/**
 * Where memory lies: marks that qtest writes at guest-physical addresses, read back at these addresses from what `ram`
 * makes of the stream. `info mtree -f` says which addresses are RAM, and of which block.
 */
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { openInput } from '../../src/migration/containers/input.js';
import { type Extracted, extract } from '../../src/migration/export/extract.js';
import { everything } from '../support/effort.js';
import { Qtest } from '../support/qtest.js';
import { foreignQemuForTest, type QemuBuild, type QemuName, qemuForTest } from '../vm/qemu.js';
import { uri, withGuest } from './migration-memory.js';

const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-layout-'));
afterAll(() => fs.rmSync(dir, { recursive: true, force: true }));

// Firmware, without which a Virt machine has no ACPI, and so no memory hotplug.
fs.writeFileSync(path.join(dir, 'zero.bin'), Buffer.alloc(1 << 20));

interface Machine {
  name: string;
  args: string[];
  program?: string;
  /** a block may be seen at several addresses: the marks are those of the address that was written last */
  mirrors?: boolean;
  /** builds that have it */
  builds?: QemuName[];
  /** blocks whose address the stream does not tell */
  unplaced?: string[];
  /** blocks of which nothing is plugged, so that nothing is sent */
  unplugged?: string[];
}

const G = 1024;
const ram = (id: string, size: string) => ['-object', `memory-backend-ram,id=${id},size=${size}`];
const split = (machine: string, size: number, ...more: string[]): Machine => ({
  name: `${machine}, ${size} MiB ${more.join(' ')}`.trim(),
  args: ['-M', machine, '-m', `${size}`, ...more],
});
const arm = (size: string, ...more: string[]): Machine => ({
  name: `Arm virt, ${size} ${more.join(' ')}`.trim(),
  program: 'qemu-system-aarch64',
  args: ['-M', 'virt', '-cpu', 'cortex-a57', '-m', size, ...more],
});
/** Boards with so much memory; they have no DIMMs. */
const boards = (program: string, builds: QemuName[], sizes: Record<string, string>): Machine[] =>
  Object.entries(sizes).map(([board, size]) => ({
    name: `${board}, ${size}`,
    program,
    builds,
    args: ['-M', board, '-m', size],
    mirrors: true,
  }));
/** Machines with much memory: with every build in the soak, with these in `npm test`. */
const large = (builds: QemuName[], all: Machine[]): Machine[] => (everything ? all : all.map((m) => ({ ...m, builds })));
const pseries = ['-M', 'pseries,cap-cfpc=broken,cap-sbbc=broken,cap-ibs=broken,cap-ccf-assist=off'];

const machines: Machine[] = [
  split('pc', 32),
  split('pc,max-ram-below-4g=64M', 100),
  split('q35', 32),
  split('q35,max-ram-below-4g=100M', 132),
  split('microvm', 64),
  // Split by their size: one build shows it, as a gigabyte costs seconds.
  ...large(['10'], [split('q35', 2816), split('microvm', 3 * G + 64)]),
  // The CMOS says how these are split, as it does for the small ones.
  ...large(
    [],
    [
      ...[
        split('pc', 3 * G),
        split('pc', 3583),
        split('pc', 3584),
        split('pc,max-ram-below-4g=1G', 1100),
        split('pc,max-ram-below-4g=3G', 3200),
      ],
      ...[split('pc,max-ram-below-4g=2G', 2 * G + 1), split('q35', 2 * G), split('q35', 2815), split('q35,max-ram-below-4g=1G', 1500)],
    ],
  ),
  {
    name: 'NUMA',
    args: [
      '-M',
      'q35',
      '-m',
      '32',
      ...ram('ram-node0', '16M'),
      ...ram('ram-node1', '16M'),
      '-numa',
      'node,memdev=ram-node0',
      '-numa',
      'node,memdev=ram-node1',
    ],
  },
  { name: 'a memory backend', args: ['-M', 'q35,memory-backend=m', '-m', '16', ...ram('m', '16M')] },
  {
    name: 'a DIMM',
    args: ['-M', 'pc', '-m', '16,slots=2,maxmem=2G', ...ram('md1', '16M'), '-device', 'pc-dimm,memdev=md1'],
    unplaced: ['md1'],
  },
  {
    name: 'a DIMM at an address of its own',
    args: ['-M', 'q35', '-m', '16,slots=2,maxmem=2G', ...ram('md1', '16M'), '-device', 'pc-dimm,memdev=md1,addr=0x120000000'],
    unplaced: ['md1'],
  },
  { name: 'an NVDIMM', args: ['-M', 'q35,nvdimm=on', '-m', '16,slots=2,maxmem=2G', ...ram('nv', '16M'), '-device', 'nvdimm,memdev=nv'] },
  {
    name: 'an NVDIMM at an address of its own',
    args: ['-M', 'q35,nvdimm=on', '-m', '16,slots=2,maxmem=2G', ...ram('nv', '16M'), '-device', 'nvdimm,memdev=nv,addr=0x120000000'],
  },
  {
    name: 'NVDIMM and DIMM of one size',
    args: [
      '-M',
      'q35,nvdimm=on',
      '-m',
      '16,slots=2,maxmem=2G',
      ...ram('md', '16M'),
      ...ram('nv', '16M'),
      '-device',
      'pc-dimm,memdev=md',
      '-device',
      'nvdimm,memdev=nv',
    ],
    unplaced: ['md', 'nv'],
  },
  {
    name: 'virtio-mem',
    args: ['-M', 'q35', '-m', '32,maxmem=1G', ...ram('vm', '128M'), '-device', 'virtio-mem-pci,memdev=vm,requested-size=128M'],
    unplugged: ['vm'],
  },
  {
    name: 'AMD above 1 TiB',
    args: ['-M', 'q35,max-ram-below-4g=64M', '-m', '96,slots=2,maxmem=1100G', '-cpu', 'EPYC,phys-bits=48'],
    builds: ['7.2', '10', '11'],
  },
  arm('64'),
  ...large([], [arm('512')]),
  arm('64,slots=2,maxmem=1G', '-bios', path.join(dir, 'zero.bin'), ...ram('md1', '128M'), '-device', 'pc-dimm,memdev=md1'),
  { name: 'pseries', program: 'qemu-system-ppc64', args: [...pseries, '-m', '256'] },
  ...large(
    ['11'],
    [
      {
        name: 'pseries with a DIMM',
        program: 'qemu-system-ppc64',
        args: [...pseries, '-m', '256,slots=2,maxmem=2G', ...ram('md1', '256M'), '-device', 'pc-dimm,memdev=md1'],
        unplaced: ['md1'],
      },
    ],
  ),
  ...boards('qemu-system-arm', ['7.2'], {
    'vexpress-a9': '128',
    'vexpress-a15': '128',
    versatilepb: '64',
    'realview-eb': '64',
    'realview-pb-a8': '300',
    sabrelite: '128',
    raspi0: '512',
    'xilinx-zynq-a9': '128',
    'ast2600-evb': '256',
    'romulus-bmc': '128',
    'palmetto-bmc': '128',
    'npcm750-evb': '512',
    smdkc210: '128',
    highbank: '128',
    'imx25-pdk': '128',
    integratorcp: '128',
    lm3s6965evb: '64k',
    'mcimx6ul-evk': '128',
    'mcimx7d-sabre': '128',
  }),
  ...boards('qemu-system-aarch64', ['7.2'], { 'sbsa-ref': '128', 'xlnx-zcu102': '2100' }),
  ...boards('qemu-system-arm', ['7.2'], { 'imx25-pdk': '64', 'realview-pb-a8': '128' }),
  ...boards('qemu-system-ppc64', ['7.2'], { powernv9: '1G', mac99: '64', g3beige: '64' }),
  { name: 's390x', program: 'qemu-system-s390x', args: ['-M', 's390-ccw-virtio', '-m', '128'], builds: ['10', '11'] },
];
machines.find((m) => m.name.includes('128M'))!.unplaced = ['md1'];

/** A run of RAM that guests see: its first address, its end, and the block. */
interface Seen {
  from: bigint;
  to: bigint;
  block: string;
}

/** RAM of the address space `memory`, without ROM. */
function flatRam(text: string): Seen[] {
  const view = text.split(/^FlatView/m).find((v) => /AS "memory", root: system/.test(v)) ?? '';
  return [...view.matchAll(/^ +([0-9a-f]{16})-([0-9a-f]{16}) \(prio -?\d+, ram\): (\S+)/gm)].map((m) => ({
    from: BigInt(`0x${m[1]}`),
    to: BigInt(`0x${m[2]}`) + 1n,
    block: m[3]!.replace(/^\/objects\//, ''),
  }));
}

/** Marks of 16 bytes near both ends of each run and in its middle, each another one. */
function* marksOf(seen: readonly Seen[]): Generator<{ at: bigint; bytes: Buffer; block: string }> {
  let n = 1;
  for (const { from, to, block } of seen) {
    for (const at of [from + 0x40n, from + (((to - from) >> 1n) & ~15n), to - 0x90n]) {
      const bytes = Buffer.alloc(16);
      bytes.writeBigUInt64LE(at ^ 0x5a5a5a5a5a5a5a5an, 0);
      bytes.writeBigUInt64BE((BigInt(n++) * 0x9e3779b97f4a7c15n) % (1n << 64n), 8);
      yield { at, bytes, block };
    }
  }
}

const ofDevice = /rom|bios|vga|flash|acpi/;

async function check(build: QemuBuild, name: QemuName, { args, unplaced = [], unplugged = [], mirrors }: Machine): Promise<void> {
  const [stream, socket, out] = ['m', 'qtest', 'mem'].map((f) => path.join(dir, f)) as [string, string, string];
  fs.rmSync(socket, { force: true });
  const marks: { at: bigint; bytes: Buffer; block: string }[] = [];
  await withGuest(build, dir, [...args, '-qtest', `unix:${socket},server=on,wait=off`], async (guest) => {
    const text = (await guest.qmp.run('human-monitor-command', { 'command-line': 'info mtree -f' })) as string;
    const qtest = await Qtest.open(socket, () => true);
    for (const mark of marksOf(flatRam(text).filter((s) => !ofDevice.test(s.block) && s.to - s.from >= 0x1000n))) {
      await qtest.write(mark.at, mark.bytes);
      marks.push(mark);
    }
    // A mirror has the marks that were written at another address.
    if (mirrors) for (const mark of marks) mark.bytes = await qtest.read(mark.at, 16);
    qtest.close();
    await guest.migrate({ uri: uri(name, stream) });
  });
  expect(marks.length).toBeGreaterThan(2);
  const fd = fs.openSync(out, 'w+');
  let done: Extracted;
  try {
    done = await extract(openInput(stream), fd, { as: 'sparse' }, () => {});
    const has = (at: bigint) => done.ranges.some((r) => r.address <= at && at < r.address + r.length);
    if (mirrors) expect(marks.filter((m) => !has(m.at)).map((m) => `0x${m.at.toString(16)} ${m.block}`)).toEqual([]);
    for (const { at, bytes, block } of marks) {
      const got = Buffer.alloc(16);
      fs.readSync(fd, got, 0, 16, Number(at));
      const there = { at: `0x${at.toString(16)}`, block, right: got.equals(bytes) };
      // What is named as left out has nothing at its address: neither its own bytes nor another block's.
      if ([...unplaced, ...unplugged].includes(block))
        expect({ ...there, right: got.equals(Buffer.alloc(16)) }).toMatchObject({ right: true });
      else expect(there).toMatchObject({ right: true });
    }
  } finally {
    fs.closeSync(fd);
  }
  expect((done.unplaced ?? []).map((u) => u.block).sort()).toEqual([...unplaced].sort());
  expect(done.complete).toBe(unplaced.length === 0);
}

describe.each<QemuName>(['7.2', '10', '11'])('QEMU %s', (name) => {
  test.each(machines.filter((m) => m.builds?.includes(name) ?? true).map((m) => [m.name, m] as const))(
    '%s',
    async (_name, machine) => {
      const build = machine.program
        ? await foreignQemuForTest(name, machine.program, `memory layout of ${machine.program}`)
        : await qemuForTest(name, 'memory layout of real machines');
      if (!build) return;
      const { program } = machine;
      await check(program ? { ...build, argv: (_program, args) => build.argv(program, args) } : build, name, machine);
    },
    120_000,
  );
});

/** Flash with something at each place. */
fs.writeFileSync(
  path.join(dir, 'flash.bin'),
  Buffer.from(Array.from({ length: 512 << 8 }, (_, i) => Buffer.from([i, i >> 8, i >> 16, 0x5a])).flatMap((b) => [...b])),
);
/** A BIOS that leaves room above the option ROMs: where a part is closed and nothing lies over it, guests see the RAM. */
fs.writeFileSync(path.join(dir, 'small.bin'), Buffer.from(Array.from({ length: 1 << 16 }, (_, i) => i | 1)));
const small = ['-bios', path.join(dir, 'small.bin')];
const flash = ['-drive', `if=pflash,format=raw,readonly=on,file=${path.join(dir, 'flash.bin')}`];
const [legacy, mebi, part] = [0xc0000, 0x100000, 0x4000];

/** Below 1 MiB: the seven registers of the chipset open the RAM behind the ROM, part by part, to reads (1), writes (2) or both (3). */
describe.each<QemuName>(['7.2', '10', '11'])('ROM over RAM, QEMU %s', (name) => {
  test.each<[string, string[], number[] | undefined]>([
    ['pc', [], [0, 0, 0, 0, 0, 0, 0]],
    ['pc', [], [0x10, 0x31, 0x02, 0x13, 0x20, 0x01, 0x33]],
    ['pc', [], [0x20, 0x11, 0x33, 0x13, 0x31, 0x30, 0x03]],
    // Nothing describes the registers.
    ['pc,suppress-vmdesc=on', [], [0x10, 0x31, 0x02, 0x13, 0x20, 0x01, 0x30]],
    ['q35,suppress-vmdesc=on', [], [0x10, 0x31, 0x02, 0x13, 0x20, 0x01, 0x30]],
    ['q35', [], [0x30, 0x33, 0x33, 0x33, 0x33, 0x33, 0x33]],
    ['q35', flash, [0x00, 0x31, 0x02, 0x13, 0x20, 0x01, 0x30]],
    ['pc', small, [0, 0, 0, 0, 0, 0, 0]],
    ['pc', small, [0x20, 0x11, 0x32, 0x13, 0x31, 0x20, 0x02]],
    ['q35', small, [0, 0, 0, 0, 0, 0, 0]],
    ['isapc', [], undefined],
    ['microvm', [], undefined],
  ])('%s %j, registers %j', async (machine, more, registers) => {
    const build = await qemuForTest(name, 'ROM of real machines');
    if (!build) return;
    const [stream, socket, out] = ['m', 'qtest', 'mem'].map((f) => path.join(dir, f)) as [string, string, string];
    fs.rmSync(socket, { force: true });
    const seen: Buffer[] = [];
    await withGuest(build, dir, ['-M', machine, '-m', '4', ...more, '-qtest', `unix:${socket},server=on,wait=off`], async (guest) => {
      const qtest = await Qtest.open(socket, () => true);
      if (registers) {
        const { write } = qtest.pci(0);
        const set = async (all: number[]) => {
          // Doublewords, with what lies beside the registers as QEMU has it after a reset.
          const bytes = machine.startsWith('pc') ? [0, ...all] : [...all, 0];
          const words = Buffer.from(bytes);
          for (const at of [0, 4]) await write((machine.startsWith('pc') ? 0x58 : 0x90) + at, words.readUInt32LE(at));
        };
        await set(Array.from({ length: 7 }, () => 0x33));
        for (let at = legacy; at < mebi; at += part) await qtest.write(BigInt(at), Buffer.from(`RAM at ${at}`));
        await set(registers);
      }
      for (let at = legacy; at < mebi; at += part) seen.push(await qtest.read(BigInt(at), part));
      qtest.close();
      await guest.migrate({ uri: uri(name, stream) });
    });
    const fd = fs.openSync(out, 'w+');
    try {
      const { ranges, complete, unplaced } = await extract(openInput(stream), fd, { as: 'sparse' }, () => {});
      expect({ complete, unplaced }).toEqual({ complete: true, unplaced: undefined });
      const wrong = seen.flatMap((bytes, i) => {
        const got = Buffer.alloc(part);
        fs.readSync(fd, got, 0, part, legacy + i * part);
        return got.equals(bytes) ? [] : [(legacy + i * part).toString(16)];
      });
      expect({ wrong, ranges: ranges.map((r) => `${r.block} 0x${r.address.toString(16)}`) }).toMatchObject({ wrong: [] });
      // Something is there to be wrong: ROMs, marks, or both.
      expect(seen.filter((bytes) => bytes.some((b) => b !== 0)).length).toBeGreaterThan(1);
    } finally {
      fs.closeSync(fd);
    }
  });
});
