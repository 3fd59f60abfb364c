import { execFileSync, spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { openInput } from '../../src/migration/containers/input.js';
import { collect } from '../../src/migration/inspect/dump.js';
import { verify } from '../../src/migration/inspect/verify.js';
import { Walker } from '../../src/migration/walk.js';
import { vioctl } from '../support/cli.js';
import { skip, which } from '../support/skip.js';
import { eventually } from '../support/wait.js';
import { cacheRoot } from '../vm/cache.js';
import { kernel } from '../vm/kernels.js';
import { qemuForTest } from '../vm/qemu.js';
import { consoleSays, linuxArgs } from './linux-guest.js';
import { dirtyingDisk, put } from './migration-guest.js';
import { from, hashOf, memory, ranges, uri, withGuest } from './migration-memory.js';

const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-live-'));
const file = (name: string) => path.join(dir, name);
afterAll(() => fs.rmSync(dir, { recursive: true, force: true }));

test.each(['7.2', '10', '11'] as const)(
  'a running guest of QEMU %s with XBZRLE: the deltas make the memory that the restored guest has',
  async (name) => {
    const build = await qemuForTest(name, 'XBZRLE of a running guest');
    if (!build) return;
    const out = file('live');
    const args = ['-M', 'pc', '-m', '32', '-drive', `file=${put(dir, 'boot', dirtyingDisk())},format=raw,if=ide`];
    await withGuest(build, dir, args, async (guest) => {
      await guest.qmp.run('cont');
      // The last page that the boot sector counts in.
      const counts = async () =>
        !/: 0x00000000\s*$/.test((await guest.qmp.run('human-monitor-command', { 'command-line': 'xp /1wx 0x8f000' })) as string);
      await eventually(counts);
      await guest.migrate({
        uri: uri(name, out),
        capabilities: ['xbzrle'],
        parameters: { 'max-bandwidth': 2 << 20, 'downtime-limit': 1 },
        meanwhile: async (qmp) => {
          // The first rounds send pages whole; deltas come later. A machine in a hurry may be done before it is stopped.
          for (let i = 0; i < 500; i++) {
            const now = (await qmp.run('query-migrate')) as { status: string; 'xbzrle-cache'?: { pages: number } };
            if ((now['xbzrle-cache']?.pages ?? 0) > 60 || now.status === 'completed') break;
            await sleep(20);
          }
          await qmp.run('stop');
          await qmp.run('migrate-set-parameters', { 'max-bandwidth': 2 ** 33, 'downtime-limit': 2000 });
        },
      });
    });
    const input = openInput(out);
    const dump = await collect(input, new Walker(input.reader));
    expect(dump.issues).toEqual([]);
    expect(dump.ram!.blocks.reduce((n, b) => n + b.state.xbzrle, 0)).toBeGreaterThan(20);
    await memory(out, file('live.mem'));
    await withGuest(build, dir, [...args, '-incoming', 'defer'], async (guest) => {
      await guest.load(from(name, out));
      for (const [at, size] of ranges(32 << 20)) {
        expect({ at, hash: await hashOf(file('live.mem'), at, size) }).toEqual({ at, hash: await guest.memoryHash(dir, at, size) });
      }
    });
    fs.rmSync(file('live.mem'));
  },
  60_000,
);

describe('convert', () => {
  test.each(['7.2', '10'] as const)(
    'a stream of QEMU %s as mapped-ram: QEMU 10 loads it, and its memory is the same',
    async (name) => {
      const build = await qemuForTest(name, 'converting streams');
      const loader = await qemuForTest('10', 'converting streams');
      if (!build || !loader) return;
      const out = file('stream');
      const blob = put(dir, 'data', Buffer.from(Array.from({ length: 1 << 20 }, (_, i) => (i * 13 + (i >> 11)) & 0xff)));
      const args = ['-M', 'pc-i440fx-7.2', '-m', '32', '-smp', '2', '-device', `loader,file=${blob},addr=0x180000,force-raw=on`];
      await withGuest(build, dir, args, (guest) => guest.migrate({ uri: uri(name, out) }));
      for (const through of [out, '-']) {
        const made = vioctl(
          ['migration', 'convert', through, '--to', 'mapped-ram', '-o', file('mapped')],
          through === '-' ? { input: fs.readFileSync(out) } : {},
        );
        expect(made).toMatchObject({ status: 0, stderr: '' });
        expect(await verify(openInput(file('mapped')), () => {})).toMatchObject({ verdict: 'complete', issues: [] });
        await memory(out, file('a.mem'));
        await withGuest(loader, dir, [...args, '-incoming', 'defer'], async (guest) => {
          await guest.load(from('10', file('mapped')), ['mapped-ram']);
          for (const [at, size] of ranges(32 << 20)) {
            expect({ at, hash: await guest.memoryHash(dir, at, size) }).toEqual({ at, hash: await hashOf(file('a.mem'), at, size) });
          }
        });
      }
    },
    60_000,
  );
});

describe('compressed pages (up to QEMU 9.0)', () => {
  test('a stream with zlib pages extracts to the memory of the restored guest', async () => {
    const build = await qemuForTest('7.2', 'compressed migration pages');
    if (!build) return;
    const out = file('compress');
    const blob = put(dir, 'text', Buffer.from('All work and no play makes Jack a dull boy.\n'.repeat(40000)));
    const args = ['-M', 'pc', '-m', '32', '-device', `loader,file=${blob},addr=0x200000,force-raw=on`];
    await withGuest(build, dir, args, (guest) => guest.migrate({ uri: uri('7.2', out), capabilities: ['compress'] }));
    const result = await verify(openInput(out), () => {});
    expect(result).toMatchObject({ verdict: 'complete', issues: [] });
    const input = openInput(out);
    const dump = await collect(input, new Walker(input.reader));
    expect(dump.ram!.blocks.find((b) => b.name === 'pc.ram')!.state.compressed).toBeGreaterThan(100);
    await memory(out, file('compress.mem'));
    await withGuest(build, dir, [...args, '-incoming', 'defer'], async (guest) => {
      await guest.load(from('7.2', out), ['compress']);
      for (const [at, size] of ranges(32 << 20)) {
        expect({ at, hash: await hashOf(file('compress.mem'), at, size) }).toEqual({ at, hash: await guest.memoryHash(dir, at, size) });
      }
    });
  });
});

/** As much of a core as has its headers and notes. */
function headOf(name: string): Buffer {
  const fd = fs.openSync(name, 'r');
  try {
    const bytes = Buffer.alloc(1 << 20);
    return bytes.subarray(0, fs.readSync(fd, bytes));
  } finally {
    fs.closeSync(fd);
  }
}

/** The notes of an ELF64 core: name, type, bytes. */
function coreNotes(name: string): [string, number, string][] {
  const bytes = headOf(name);
  const notes: [string, number, string][] = [];
  const headers = Number(bytes.readBigUInt64LE(32));
  for (let i = 0; i < bytes.readUInt16LE(56); i++) {
    const header = headers + 56 * i;
    if (bytes.readUInt32LE(header) !== 4) continue; // PT_NOTE
    let at = Number(bytes.readBigUInt64LE(header + 8));
    for (const end = at + Number(bytes.readBigUInt64LE(header + 32)); at < end; ) {
      const [nameSize, size, type] = [0, 4, 8].map((o) => bytes.readUInt32LE(at + o)) as [number, number, number];
      const desc = at + 12 + ((nameSize + 3) & ~3);
      notes.push([bytes.toString('latin1', at + 12, at + 11 + nameSize), type, bytes.toString('hex', desc, desc + size)]);
      at = desc + ((size + 3) & ~3);
    }
  }
  return notes;
}

/** Whether the notes of an ELF64 core end before its first segment, which is as far as crash reads them. */
function notesBeforeMemory(name: string): boolean {
  const bytes = headOf(name);
  const [notes, first] = [0, 56].map((i) => Number(bytes.readBigUInt64LE(32)) + i) as [number, number];
  return bytes.readBigUInt64LE(notes + 8) + bytes.readBigUInt64LE(notes + 32) <= bytes.readBigUInt64LE(first + 8);
}

/** Whether the kernel is here or may be fetched; otherwise that is noted as skipped. */
function mayUseKernel(what: string): boolean {
  if (process.env.VIOCTL_NO_SKIP === '1' || fs.existsSync(path.join(cacheRoot(), 'kernel-6.12'))) return true;
  skip(what, 'the kernel is not here; get it with: npx tsx test/vm/prefetch.ts');
  return false;
}

test('the notes of the ELF core are those that QEMU itself writes for crash and gdb (dump-guest-memory)', async () => {
  const build = await qemuForTest('10', 'the notes of an ELF core');
  if (!build || !mayUseKernel('the notes of an ELF core')) return;
  // A kernel without a root file system: it ends in a panic, in 64-bit mode with paging, both CPUs up.
  const args = ['-M', 'q35', '-m', '128', '-smp', '2', '-kernel', (await kernel('6.12')).vmlinuz, '-append', 'panic=0 quiet'];
  await withGuest(build, dir, args, async (guest) => {
    await guest.qmp.run('cont');
    const longMode = async () =>
      /CS64/.test((await guest.qmp.run('human-monitor-command', { 'command-line': 'info registers -a' })) as string);
    await eventually(longMode);
    await sleep(1000);
    await guest.qmp.run('stop');
    await guest.qmp.run('dump-guest-memory', { paging: false, protocol: `file:${file('theirs')}` });
    await guest.migrate({ uri: `file:${file('kernel.mig')}` });
  });
  expect(await memory(file('kernel.mig'), file('ours'), { as: 'elf' })).toMatchObject({ complete: true, cpus: 2 });
  const theirs = coreNotes(file('theirs'));
  expect(theirs.map(([name, type, bytes]) => [name, type, bytes.length / 2])).toEqual([
    ['CORE', 1, 336],
    ['CORE', 1, 336],
    ['QEMU', 0, 440],
    ['QEMU', 0, 440],
  ]);
  // A kernel that came far enough has VMCOREINFO in its memory, where QEMU does not look.
  expect(coreNotes(file('ours')).filter(([name]) => name !== 'VMCOREINFO')).toEqual(theirs);
  const identity = (name: string) => headOf(file(name)).toString('hex', 0, 24); // up to e_version
  expect(identity('ours')).toBe(identity('theirs'));
  expect(notesBeforeMemory(file('ours'))).toBe(true);
  expect(notesBeforeMemory(file('theirs'))).toBe(true);
});

test("a guest with the device vmcoreinfo: its note is in the ELF core as in QEMU's own (dump-guest-memory)", async () => {
  const build = await qemuForTest('10', 'VMCOREINFO in an ELF core');
  if (!build || !mayUseKernel('VMCOREINFO in an ELF core')) return;
  const { dir: tree, release } = await kernel('6.12');
  const module = path.join(tree, 'lib/modules', release, 'kernel/drivers/firmware/qemu_fw_cfg.ko.xz');
  const linux = await linuxArgs(dir, '/bin/busybox insmod /qemu_fw_cfg.ko && echo NOTE IS THERE', [
    { name: 'qemu_fw_cfg.ko', type: 'file', data: execFileSync('xz', ['-dc', module], { maxBuffer: 1 << 24 }) },
  ]);
  await withGuest(build, dir, [...linux, '-m', '128', '-device', 'vmcoreinfo'], async (guest) => {
    await guest.qmp.run('cont');
    await consoleSays(dir, 'NOTE IS THERE', 90);
    await guest.qmp.run('stop');
    await guest.qmp.run('dump-guest-memory', { paging: false, protocol: `file:${file('theirs')}` });
    await guest.migrate({ uri: `file:${file('kernel.mig')}` });
  });
  expect(await memory(file('kernel.mig'), file('ours'), { as: 'elf' })).toMatchObject({ complete: true, cpus: 1 });
  const theirs = coreNotes(file('theirs'));
  expect(theirs.map(([name]) => name)).toEqual(['CORE', 'QEMU', 'VMCOREINFO']);
  expect(Buffer.from(theirs[2]![2], 'hex').toString('latin1')).toContain(`OSRELEASE=${release}\n`);
  expect(coreNotes(file('ours'))).toEqual(theirs);
}, 150_000);

describe('gdb', () => {
  test('opens the ELF core and shows registers and memory of each CPU', async () => {
    const build = await qemuForTest('10', 'an ELF core of a guest');
    if (!build) return;
    if (!which('gdb')) {
      skip('an ELF core in gdb', 'gdb is not installed');
      return;
    }
    const out = file('core.mig');
    const blob = put(dir, 'marks', Buffer.from('VIOCTL!!'.repeat(512)));
    const args = ['-M', 'q35,max-ram-below-4g=64M', '-m', '96', '-smp', '2'];
    for (const at of [0x300000, 2 ** 32 + 0x1000]) args.push('-device', `loader,file=${blob},addr=${at},force-raw=on`);
    const registers = await withGuest(build, dir, args, async (guest) => {
      await guest.qmp.run('cont');
      await sleep(1000);
      await guest.qmp.run('stop');
      const text = (await guest.qmp.run('human-monitor-command', { 'command-line': 'info registers' })) as string;
      await guest.migrate({ uri: `file:${out}` });
      return text;
    });
    expect(await memory(out, file('core'), { as: 'elf' })).toMatchObject({ complete: true, cpus: 2 });
    // The guest may be in any mode: the core is of the first CPU's, and $eax is in both.
    const ask = ['p/x (long long)$pc', 'p/x (long long)$sp', 'p/x $eax', 'info threads', 'x/s 0x300000', 'x/2gx 0x100001000'].flatMap(
      (c) => ['-ex', c],
    );
    const said = spawnSync('gdb', ['-nx', '-batch', ...ask, '-c', file('core')], { encoding: 'utf8' });
    const value = (name: string) => BigInt(`0x${new RegExp(`\\bE?R?${name} ?=([0-9a-f]+)`, 'i').exec(registers)![1]}`).toString(16);
    expect(said.stdout).toContain(`$1 = 0x${value('IP')}`);
    expect(said.stdout).toContain(`$2 = 0x${value('SP')}`);
    expect(said.stdout).toContain(`$3 = 0x${value('AX')}`);
    expect(said.stdout).toMatch(/LWP 1\b[\s\S]*LWP 2\b/);
    expect(said.stdout).toContain('VIOCTL!!VIOCTL!!');
    expect(said.stdout).toContain('0x21214c54434f4956');
    fs.rmSync(file('core'));
  });
});
