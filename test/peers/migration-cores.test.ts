/**
 * ELF cores of every architecture against those that QEMU writes of the same guest (dump-guest-memory): headers, notes, memory;
 * and in gdb, which shows the registers that it set in the guest before.
 */
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { foreignQemuForTest, type QemuBuild, type QemuName, qemuForTest } from '../vm/qemu.js';
import { gdb, gdbForTest } from './gdb.js';
import type { TestGuest } from './migration-guest.js';
import { memory, uri, withGuest } from './migration-memory.js';

const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-cores-'));
const file = (name: string) => path.join(dir, name);
afterAll(() => fs.rmSync(dir, { recursive: true, force: true }));

interface Core {
  /** e_ident, type, machine, version, entry, flags; not the places of headers, nor e_ehsize, which QEMU has as 8 */
  header: Record<string, number>;
  loads: { offset: number; address: number; virtual: number; size: number; memory: number; flags: number; align: number }[];
  /** program headers of notes */
  noteHeaders: number;
  notes: { name: string; type: number; desc: Buffer }[];
}

/** A core by its specification (System V ABI). */
function readCore(bytes: Buffer): Core {
  const [wide, little] = [bytes[4] === 2, bytes[5] === 1];
  const u16 = (at: number) => (little ? bytes.readUInt16LE(at) : bytes.readUInt16BE(at));
  const u32 = (at: number) => (little ? bytes.readUInt32LE(at) : bytes.readUInt32BE(at));
  const u64 = (at: number) => Number(little ? bytes.readBigUInt64LE(at) : bytes.readBigUInt64BE(at));
  const word = (at: number, index: number) => (wide ? u64(at + 8 * index) : u32(at + 4 * index));
  const tail = wide ? 48 : 36; // e_flags
  const header = {
    class: bytes[4]!,
    data: bytes[5]!,
    version: bytes[6]!,
    abi: bytes[7]!,
    type: u16(16),
    machine: u16(18),
    elfVersion: u32(20),
    entry: word(24, 0),
    flags: u32(tail),
    programHeaderSize: u16(tail + 6),
  };
  const headers = word(24, 1);
  const core: Core = { header, loads: [], noteHeaders: 0, notes: [] };
  for (let i = 0; i < u16(tail + 8); i++) {
    const at = headers + header.programHeaderSize * i;
    const [offset, virtual, address, size, inMemory] = [0, 1, 2, 3, 4].map((n) => word(at + (wide ? 8 : 4), n)) as [
      number,
      number,
      number,
      number,
      number,
    ];
    if (u32(at) === 1) {
      const flags = u32(at + (wide ? 4 : 24));
      core.loads.push({ offset, address, virtual, size, memory: inMemory, flags, align: wide ? u64(at + 48) : u32(at + 28) });
    } else {
      expect({ type: u32(at), size }).toEqual({ type: 4, size: inMemory });
      core.noteHeaders += 1;
      for (let note = offset; note < offset + size; ) {
        const [nameSize, descSize, type] = [u32(note), u32(note + 4), u32(note + 8)];
        const desc = note + 12 + ((nameSize + 3) & ~3);
        core.notes.push({
          name: bytes.toString('latin1', note + 12, note + 11 + nameSize),
          type,
          desc: bytes.subarray(desc, desc + descSize),
        });
        note = desc + ((descSize + 3) & ~3);
      }
    }
  }
  return core;
}

/** Where video memory is, a core has the RAM behind it. */
const VIDEO = [0xa0000, 0xc0000] as const;

interface Guest {
  name: string;
  program: string;
  args: string[];
  builds: QemuName[];
  /** settings of gdb before it connects */
  settings?: string[];
  /** registers of each CPU that gdb sets, and shows from the core; of 32 or 64 bits, or doubles */
  set: string[];
  bits?: 32 | 64;
  doubles?: string[];
  /** registers that are set as well, and which gdb does not show, since it takes their being there from other notes than QEMU's */
  hidden?: string[];
  /** commands before that */
  first?: string[];
  /** registers that cannot have any value */
  fixed?: Record<string, bigint>;
  /** QEMU writes the program status of an A profile, which this CPU has not */
  otherStatus?: boolean;
  /** QEMU writes the number of a CPU in another byte order, or not at all */
  otherPid?: boolean;
  /** what QEMU leaves out of a stream of this guest */
  lost?: string;
  cpus?: number;
  /** instructions that the first CPU runs from its reset on, until there is a mark in its memory */
  firmware?: number[];
  header: { class: number; data: number; machine: number };
}

const each = <T>(count: number, name: (i: number) => T, from = 0): T[] => Array.from({ length: count }, (_, i) => name(i + from));
const pseries = ['-M', 'pseries,cap-cfpc=broken,cap-sbbc=broken,cap-ibs=broken,cap-ccf-assist=off', '-m', '256'];
const ppc = {
  program: 'qemu-system-ppc64',
  args: pseries,
  builds: ['7.2', '10'] as QemuName[],
  set: [...each(32, (i) => `$r${i}`), '$pc', '$lr', '$ctr', '$cr'],
  hidden: [...each(32, (i) => `$vr${i}.v4_int32[${i & 3}]`), ...each(32, (i) => `$vs${i}h`)],
  doubles: each(32, (i) => `$f${i}`),
  otherPid: true,
};

/** Instructions of AArch64 (Arm ARM, C4.1). */
const movz = (register: number, value: number, shift: 0 | 16 = 0) => (shift === 16 ? 0xd2a00000 : 0xd2800000) | (value << 5) | register;
const msr = (register: number, op1: number, crn: number, crm: number, op2: number) =>
  0xd5180000 | (op1 << 16) | (crn << 12) | (crm << 8) | (op2 << 5) | register;
const adr = (register: number, ahead: number) => 0x10000000 | ((ahead >> 2) << 5) | register;
const [isb, eret, loop] = [0xd5033fdf, 0xd69f03e0, 0x14000000];
/** Where the firmware leaves its mark. */
const MARK = 0x40000100;
/** What it leaves there; before, parts of the device tree may lie there. */
const LEFT = '0x40000000';
/** x1 is the start of the memory, and what is not zero is written to the mark. */
const mark = [movz(1, MARK >> 16, 16), 0xf9000021 | ((MARK & 0xffff) << 7)];
/** SVE for EL1 and EL0, and vectors of as many quadwords as the CPU has, or of so many. */
const vectors = (quads = 16) => [movz(0, 0x33, 16), msr(0, 0, 1, 0, 2), isb, movz(0, quads - 1), msr(0, 0, 1, 2, 0), isb, ...mark, loop];
/** Values of x2 to x30, and so of banked registers. */
const distinct = each(29, (i) => movz(i + 2, 0x1000 + 0x111 * (i + 2)));
/** To AArch32 from the exception level whose registers have this op1. @param mode CPSR; interrupts are masked */
const toAarch32 = (op1: number, mode: number, code: number[]) => [
  ...distinct,
  movz(0, 0x1c0 | mode),
  msr(0, op1, 4, 0, 0),
  adr(0, 16),
  msr(0, op1, 4, 0, 1),
  movz(0, 0x4321),
  eret,
  ...code,
  // mov r1, #0x40000000; str r1, [r1, #0x100]; b .
  ...[0xe3a01101, 0xe5811100, 0xeafffffe],
];
const arm64 = (cpu: string, machine = 'virt') => ({
  program: 'qemu-system-aarch64',
  args: ['-M', machine, '-m', '16', '-cpu', cpu],
  builds: ['7.2', '10'] as QemuName[],
  settings: ['set architecture aarch64'],
  header: { class: 2, data: 1, machine: 183 },
});
/** Each doubleword of the vectors, and each byte of the predicates. */
const scalable = (quads: number) => [
  ...each(32, (i) => each(2 * quads, (j) => `$z${i}.d.u[${j}]`)).flat(),
  ...each(16, (i) => each(2 * quads, (j) => `$p${i}[${j}]`)).flat(),
  ...each(2 * quads, (j) => `$ffr[${j}]`),
];

const guests: Guest[] = [
  {
    name: 'x86 in real mode',
    program: 'qemu-system-i386',
    args: ['-M', 'pc', '-m', '16', '-smp', '2'],
    builds: ['7.2'],
    cpus: 2,
    bits: 32,
    set: ['$eax', '$ebx', '$ecx', '$edx', '$esi', '$edi', '$ebp', '$esp'],
    header: { class: 2, data: 1, machine: 3 },
  },
  {
    name: 'x86-64, not in long mode',
    program: 'qemu-system-x86_64',
    args: ['-M', 'q35', '-m', '16'],
    builds: ['7.2', '10'],
    settings: ['set architecture i386:x86-64'],
    bits: 32,
    set: ['$eax', '$ebx', '$ecx', '$edx'],
    header: { class: 2, data: 1, machine: 3 },
  },
  {
    name: 'AArch64',
    program: 'qemu-system-aarch64',
    args: ['-M', 'virt', '-m', '16', '-cpu', 'cortex-a57', '-smp', '2'],
    builds: ['7.2', '10'],
    cpus: 2,
    set: [...each(31, (i) => `$x${i}`), '$sp', '$pc', ...each(64, (i) => `$v${i >> 1}.d.u[${i & 1}]`), '$fpsr', '$fpcr'],
    header: { class: 2, data: 1, machine: 183 },
  },
  { name: 'AArch64 with SVE, short vectors', ...arm64('max'), set: each(31, (i) => `$x${i}`), hidden: scalable(1) },
  { name: 'AArch64 with SVE, 128 bytes', ...arm64('max'), firmware: vectors(8), set: [], hidden: scalable(8) },
  { name: 'AArch64 with SVE, 80 bytes', ...arm64('max'), firmware: vectors(5), set: [], hidden: scalable(5) },
  {
    name: 'AArch64 with SVE, 256 bytes, of which QEMU saves 128',
    ...arm64('max'),
    firmware: vectors(),
    set: [],
    hidden: scalable(16).filter((name) => !/^\$z/.test(name) || Number(/(\d+)\]/.exec(name)![1]) < 16),
    lost: 'QEMU did not save the last 128 bytes of each SVE register: they are zeros in the core',
  },
  { name: 'A64FX, whose vectors have 64 bytes', ...arm64('a64fx'), firmware: vectors(), set: [], hidden: scalable(4) },
  { name: 'A64FX, 48 bytes, which it has not', ...arm64('a64fx'), firmware: vectors(3), set: [], hidden: scalable(2) },
  { name: 'Neoverse V1', ...arm64('neoverse-v1'), builds: ['10'], firmware: vectors(), set: [], hidden: scalable(2) },
  { name: 'Neoverse N2', ...arm64('neoverse-n2'), builds: ['10'], firmware: vectors(), set: [], hidden: scalable(1) },
  { name: 'AArch64 in User mode of AArch32', ...arm64('cortex-a57'), firmware: toAarch32(0, 0x10, []), set: [] },
  {
    name: 'AArch64 in FIQ mode of AArch32',
    ...arm64('cortex-a57', 'virt,virtualization=on'),
    // cps #FIQ; mov r8, #0x55; mov r13, #0x66; mov r14, #0x77
    firmware: toAarch32(4, 0x13, [0xf1020011, 0xe3a08055, 0xe3a0d066, 0xe3a0e077]),
    set: [],
  },
  {
    name: 'Arm',
    program: 'qemu-system-arm',
    args: ['-M', 'virt', '-m', '16', '-cpu', 'cortex-a15', '-smp', '2'],
    builds: ['7.2', '10'],
    cpus: 2,
    bits: 32,
    set: [...each(13, (i) => `$r${i}`), '$sp', '$lr', '$pc'],
    hidden: each(32, (i) => `$d${i}.u64`),
    header: { class: 1, data: 1, machine: 40 },
  },
  {
    name: 'Arm, exceptions taken big-endian',
    program: 'qemu-system-arm',
    args: ['-M', 'virt', '-m', '16', '-cpu', 'cortex-a15'],
    builds: ['7.2', '10'],
    // mrc p15, 0, r0, c1, c0, 0; orr r0, #0x02000000; mcr p15, 0, r0, c1, c0, 0; mov r1, #0x40000000; str r1, [r1, #0x100]; b .
    firmware: [0xee110f10, 0xe3800402, 0xee010f10, 0xe3a01101, 0xe5811100, 0xeafffffe],
    set: [],
    header: { class: 1, data: 2, machine: 40 },
  },
  { name: 'PowerPC, big-endian', ...ppc, settings: ['set endian big'], header: { class: 2, data: 2, machine: 21 } },
  {
    name: 'PowerPC 970 of a Mac, whose board is of 32 and of 64 bits',
    ...ppc,
    args: ['-M', 'mac99', '-m', '64'],
    builds: ['7.2'],
    settings: ['set endian big'],
    hidden: each(32, (i) => `$vr${i}.v4_int32[${i & 3}]`),
    header: { class: 2, data: 2, machine: 21 },
  },
  {
    name: 'PowerPC 750, on the target of 64 bits',
    ...ppc,
    args: ['-M', 'g3beige', '-m', '64'],
    builds: ['7.2'],
    settings: ['set endian big'],
    set: [],
    hidden: [],
    doubles: [],
    header: { class: 2, data: 2, machine: 21 },
  },
  {
    name: 'Arm Cortex-M',
    program: 'qemu-system-arm',
    args: ['-M', 'lm3s6965evb'],
    builds: ['7.2'],
    bits: 32,
    set: each(13, (i) => `$r${i}`),
    otherStatus: true,
    header: { class: 1, data: 1, machine: 40 },
  },
  {
    name: 'PowerPC, interrupts taken little-endian',
    ...ppc,
    builds: ['10'],
    settings: ['set endian big'],
    first: ['set var $lpcr = $lpcr | 0x02000000'],
    header: { class: 2, data: 1, machine: 21 },
  },
  {
    name: 's390x',
    program: 'qemu-system-s390x',
    args: ['-M', 's390-ccw-virtio', '-m', '64', '-smp', '2', '-cpu', 'max'],
    builds: ['10'],
    cpus: 2,
    settings: ['set endian big'],
    set: [...each(16, (i) => `$r${i}`), '$pswm', '$pswa', ...each(16, (i) => `$acr${i}`)],
    hidden: [...each(16, (i) => `$v${i}l`), ...each(16, (i) => `$v${i}.v2_int64[${i & 1}]`, 16)],
    doubles: each(16, (i) => `$f${i}`),
    fixed: { $pswm: 0x180000000n, $pswa: 0x12340n },
    otherPid: true,
    header: { class: 2, data: 2, machine: 22 },
  },
  {
    name: 'RISC-V',
    program: 'qemu-system-riscv64',
    args: ['-M', 'virt', '-m', '16', '-smp', '2', '-bios', 'none'],
    builds: ['10'],
    cpus: 2,
    set: ['ra', 'gp', 'sp', 'tp', 'fp', 'pc', ...each(7, (i) => `t${i}`), ...each(8, (i) => `a${i}`), ...each(11, (i) => `s${i + 1}`)].map(
      (r) => `$${r}`,
    ),
    header: { class: 2, data: 1, machine: 243 },
  },
];

/** Another number for each register of each CPU, even so that a program counter may have it. */
function values(guest: Guest): string[] {
  const { set, hidden = [], doubles = [], fixed = {}, bits = 64, cpus = 1 } = guest;
  return each(cpus, (cpu) => cpu).flatMap((cpu) => [
    `thread ${cpu + 1}`,
    ...[...set, ...hidden].map((name, i) => {
      const value = (BigInt(i + 3) * 0x0102040810204081n + (BigInt(cpu) << 20n)) & ((1n << BigInt(bits)) - 1n) & ~7n;
      return `set var ${name} = 0x${(fixed[name] ?? value).toString(16)}`;
    }),
    ...doubles.map((name, i) => `set var ${name} = ${i + cpu}.5`),
  ]);
}

/** Commands that print each register of each CPU on a line. */
const show = ({ set, doubles = [], cpus = 1 }: Guest): string[] =>
  each(cpus, (cpu) => cpu).flatMap((cpu) => [
    `thread ${cpu + 1}`,
    ...set.flatMap((name) => [`echo CPU ${cpu} ${name} = `, `output/x ${name}`, 'echo \\n']),
    ...doubles.flatMap((name) => [`echo CPU ${cpu} ${name} = `, `output ${name}`, 'echo \\n']),
  ]);
const shown = (text: string): string[] => text.split('\n').filter((line) => line.startsWith('CPU '));

/** A file with these instructions, as long as a flash. */
function firmware(code: number[]): string {
  const bytes = Buffer.alloc(64 << 10);
  for (const [i, word] of code.entries()) bytes.writeUInt32LE(word >>> 0, 4 * i);
  fs.writeFileSync(file('firmware'), bytes);
  return file('firmware');
}

/** Lets a guest run until its firmware has done its work. */
async function untilMark({ qmp }: TestGuest): Promise<void> {
  await qmp.run('cont');
  for (let i = 0; i < 3000; i++) {
    const text = (await qmp.run('human-monitor-command', { 'command-line': `xp /1wx 0x${MARK.toString(16)}` })) as string;
    if (text.trimEnd().endsWith(`: ${LEFT}`)) return void (await qmp.run('stop'));
    await sleep(20);
  }
  throw new Error('the firmware left no mark');
}

async function both(build: QemuBuild, name: QemuName, guest: Guest, debugger_: string): Promise<string[]> {
  const socket = file('gdb');
  fs.rmSync(socket, { force: true });
  const program = { ...build, argv: (_program: string, args?: readonly string[]) => build.argv(guest.program, args) };
  const stub = ['-chardev', `socket,path=${socket},server=on,wait=off,id=gdb`, '-gdb', 'chardev:gdb'];
  const code = guest.firmware ? ['-bios', firmware(guest.firmware)] : [];
  return withGuest(program, dir, [...guest.args, ...stub, ...code], async (running) => {
    if (guest.firmware) await untilMark(running);
    const connect = [...(guest.settings ?? []), `target remote ${socket}`];
    const live = gdb(debugger_, [...connect, ...(guest.first ?? []), ...values(guest), ...show(guest), 'disconnect']);
    await running.qmp.run('stop');
    await running.qmp.run('dump-guest-memory', { paging: false, protocol: `file:${file('theirs')}` });
    await running.migrate({ uri: uri(name, file('stream')) });
    if (process.env.CORES_DEBUG) console.error(live.stderr);
    return shown(live.stdout);
  });
}

/** A note for comparison. */
const comparable =
  ({ otherPid = false, otherStatus = false, header }: Guest) =>
  ({ name, type, desc }: Core['notes'][0]) => {
    const bytes = Buffer.from(desc);
    if (otherPid && type === 1) bytes.fill(0, header.class === 2 ? 32 : 24, header.class === 2 ? 36 : 28);
    if (otherStatus && type === 1) bytes.fill(0, 136, 139);
    return { name, type, size: bytes.length, desc: bytes.toString('hex') };
  };

describe.each<QemuName>(['7.2', '10'])('QEMU %s', (name) => {
  test.each(guests.filter((g) => g.builds.includes(name)).map((g) => [g.name, g] as const))(
    '%s',
    async (_name, guest) => {
      const foreign = !/x86_64|i386/.test(guest.program);
      const build = foreign
        ? await foreignQemuForTest(name, guest.program, `ELF cores of ${guest.program}`)
        : await qemuForTest(name, 'ELF cores');
      const debugger_ = await gdbForTest('ELF cores in gdb');
      if (!build || !debugger_) return;
      const live = await both(build, name, guest, debugger_);
      expect(live).toHaveLength((guest.set.length + (guest.doubles?.length ?? 0)) * (guest.cpus ?? 1));
      const made = await memory(file('stream'), file('ours'), { as: 'elf', rom: !foreign });
      expect(made).toMatchObject({ complete: true, cpus: guest.cpus ?? 1 });
      expect(made.issues.map((i) => i.message)).toEqual(guest.lost ? [guest.lost] : []);
      // Once: each file is as large as the memory.
      const [a, b] = [fs.readFileSync(file('ours')), fs.readFileSync(file('theirs'))];
      const [ours, theirs] = [readCore(a), readCore(b)];
      expect(theirs.header).toMatchObject(guest.header);
      expect(ours.header).toEqual(theirs.header);
      expect(ours.noteHeaders).toBe(theirs.noteHeaders);
      expect(ours.notes.map(comparable(guest))).toEqual(theirs.notes.map(comparable(guest)));
      // All of our memory is in theirs, with the same bytes, and headers of the same form.
      for (const load of ours.loads) {
        expect(load).toMatchObject({ virtual: load.address, memory: load.size, flags: 0, align: 0 });
        for (let at = load.address; at < load.address + load.size; ) {
          if (!foreign && at >= VIDEO[0] && at < VIDEO[1]) {
            at = VIDEO[1];
            continue;
          }
          const there = theirs.loads.find((l) => l.address <= at && at < l.address + l.size);
          if (!there) throw new Error(`0x${at.toString(16)} is not in QEMU's core`);
          expect(there).toMatchObject({ virtual: there.address, memory: there.size, flags: 0, align: 0 });
          const most = foreign || at >= VIDEO[1] ? load.address + load.size : VIDEO[0];
          const end = Math.min(load.address + load.size, there.address + there.size, most);
          const same = a.compare(
            b,
            there.offset + at - there.address,
            there.offset + end - there.address,
            load.offset + at - load.address,
            load.offset + end - load.address,
          );
          expect({ at: at.toString(16), end: end.toString(16), same }).toMatchObject({ same: 0 });
          at = end;
        }
      }
      const core = gdb(debugger_, ['set osabi GNU/Linux', `core-file ${file('ours')}`, ...show(guest)]);
      if (process.env.CORES_DEBUG) console.error(core.stderr);
      expect(shown(core.stdout)).toEqual(live);
    },
    120_000,
  );
});
