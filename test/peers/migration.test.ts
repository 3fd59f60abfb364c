import { execFileSync, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { collect } from '../../src/migration/dump.js';
import { type ExtractOptions, extract } from '../../src/migration/extract.js';
import { openInput } from '../../src/migration/input.js';
import { verify } from '../../src/migration/verify.js';
import { Walker } from '../../src/migration/walk.js';
import { vioctl } from '../support/cli.js';
import { skip, which } from '../support/skip.js';
import { type QemuBuild, type QemuName, qemuForTest } from '../vm/qemu.js';
import { dirtyingDisk, type Migration, put, TestGuest } from './migration-guest.js';

const builds: QemuName[] = ['7.2', '10', '11'];
const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-qemu-'));
const file = (name: string) => path.join(dir, name);
afterAll(() => fs.rmSync(dir, { recursive: true, force: true }));

/** One file that QEMU writes. */
interface Kind {
  name: string;
  builds?: QemuName[];
  /** another program than that of x86 */
  program?: string;
  args: string[];
  migration?: Partial<Migration> & { offset?: number };
  /** runs before the migration */
  before?: (guest: TestGuest) => Promise<void>;
  /** what must be in the file besides */
  shows?: object;
  /** devices are not described */
  undescribed?: boolean;
}

const smp = ['-smp', '2'];
const zoo = (...not: string[]) =>
  [
    ...[
      'virtio-net-pci',
      'virtio-rng-pci',
      'virtio-balloon-pci',
      'virtio-serial-pci',
      'virtio-scsi-pci',
      'virtio-keyboard-pci',
      'virtio-gpu-pci',
    ],
    ...[
      'qemu-xhci',
      'usb-tablet',
      'usb-kbd',
      'e1000',
      'e1000e',
      'rtl8139,netdev=n',
      'ich9-ahci',
      'intel-hda',
      'hda-duplex,audiodev=a',
      'lsi53c895a',
      'pvpanic',
    ],
  ]
    .filter((d) => !not.includes(d))
    .flatMap((d) => ['-device', d]);
const slirp = ['-netdev', 'user,id=n', '-audiodev', 'none,id=a'];
const shared = (name: string) => ['-object', `memory-backend-file,id=m,size=32M,mem-path=${file(name)},share=on`];

const kinds: Kind[] = [
  { name: 'pc', args: ['-M', 'pc', '-m', '64'] },
  { name: 'q35', args: ['-M', 'q35', '-m', '64', ...smp] },
  { name: 'microvm', args: ['-M', 'microvm', '-m', '32'] },
  { name: 'devices', args: ['-M', 'q35', '-m', '64', ...slirp, ...zoo()] },
  { name: 'devices of an i440fx', args: ['-M', 'pc', '-m', '32', ...slirp, ...zoo('e1000e')] },
  { name: 'no description', args: ['-M', 'pc,suppress-vmdesc=on', '-m', '16'], undescribed: true },
  {
    name: 'uuid',
    args: ['-M', 'pc', '-m', '16', '-uuid', '12345678-9abc-def0-1234-56789abcdef0'],
    migration: { capabilities: ['validate-uuid'] },
    shows: { configuration: { uuid: '12345678-9abc-def0-1234-56789abcdef0' } },
  },
  {
    name: 'NUMA nodes',
    args: ['-M', 'pc', '-m', '32', '-object', 'memory-backend-ram,id=a,size=16M', '-object', 'memory-backend-ram,id=b,size=16M'].concat([
      '-numa',
      'node,memdev=a',
      '-numa',
      'node,memdev=b',
    ]),
  },
  {
    name: 'ignore-shared',
    args: ['-M', 'pc', '-m', '32', ...shared('shm'), '-machine', 'memory-backend=m'],
    migration: { capabilities: ['x-ignore-shared'] },
  },
  { name: 'postcopy capability', args: ['-M', 'pc', '-m', '16'], migration: { capabilities: ['postcopy-ram'], mayFail: true } },
  { name: 'return path', args: ['-M', 'pc', '-m', '16'], migration: { capabilities: ['return-path'], mayFail: true } },
  {
    name: 'dirty bitmaps',
    args: ['-M', 'pc', '-m', '16', '-blockdev', `driver=null-co,node-name=n0,size=1048576`],
    migration: { capabilities: ['dirty-bitmaps'] },
    before: async (g) => {
      await g.qmp.run('block-dirty-bitmap-add', { node: 'n0', name: 'bm0' });
    },
  },
  {
    name: 'virtio-mem',
    args: [
      '-M',
      'pc',
      '-m',
      '16,maxmem=1G,slots=1',
      '-object',
      'memory-backend-ram,id=vm,size=64M',
      '-device',
      'virtio-mem-pci,memdev=vm,requested-size=32M',
    ],
  },
  {
    name: 'Arm',
    builds: ['7.2'],
    program: 'qemu-system-aarch64',
    args: ['-M', 'virt', '-m', '32', '-cpu', 'cortex-a57'],
    shows: { configuration: { pageBits: 12 } },
  },
  {
    name: 'pseries with its hash table',
    builds: ['7.2'],
    program: 'qemu-system-ppc64',
    args: ['-M', 'pseries,cap-cfpc=broken,cap-sbbc=broken,cap-ibs=broken,cap-ccf-assist=off', '-m', '256'],
  },
  { name: 'offset', builds: ['10', '11'], args: ['-M', 'pc', '-m', '16'], migration: { offset: 66000 } },
  { name: 'mapped-ram', builds: ['10', '11'], args: ['-M', 'q35', '-m', '64'], migration: { capabilities: ['mapped-ram'] } },
  {
    name: 'mapped-ram at an offset',
    builds: ['10', '11'],
    args: ['-M', 'pc', '-m', '16'],
    migration: { capabilities: ['mapped-ram'], offset: 65923 },
  },
  ...[2, 4, 8].map((n) => ({
    name: `mapped-ram, ${n} multifd channels`,
    builds: ['10', '11'] as QemuName[],
    args: ['-M', 'pc', '-m', '32'],
    migration: { capabilities: ['mapped-ram', 'multifd'], parameters: { 'multifd-channels': n } },
  })),
  {
    name: 'mapped-ram, direct I/O',
    builds: ['10', '11'],
    args: ['-M', 'pc', '-m', '32'],
    migration: { capabilities: ['mapped-ram', 'multifd'], parameters: { 'direct-io': true } },
  },
  ...['legacy', 'none'].map((z) => ({
    name: `zero page detection ${z}`,
    builds: ['10', '11'] as QemuName[],
    args: ['-M', 'pc', '-m', '16'],
    migration: { parameters: { 'zero-page-detection': z } },
  })),
  {
    name: 'nvme',
    builds: ['11'],
    args: ['-M', 'q35', '-m', '16', '-blockdev', 'driver=null-co,node-name=d0,size=1048576', '-device', 'nvme,serial=1,drive=d0'],
  },
  {
    name: 'ignore-shared with mapped-ram',
    builds: ['11'],
    args: ['-M', 'pc', '-m', '32', ...shared('shm2'), '-machine', 'memory-backend=m'],
    migration: { capabilities: ['x-ignore-shared', 'mapped-ram'] },
  },
];

/** What `use` makes of a guest that is stopped in any case. */
async function withGuest<T>(build: QemuBuild, args: readonly string[], use: (guest: TestGuest) => Promise<T>): Promise<T> {
  const guest = await TestGuest.start(build, dir, args);
  try {
    return await use(guest);
  } finally {
    await guest.stop();
  }
}

/** Extracts guest memory. */
async function memory(from: string, to: string, options: Partial<ExtractOptions> = {}) {
  const fd = fs.openSync(to, 'w+');
  try {
    return await extract(openInput(from), fd, { as: 'sparse', ...options }, () => {});
  } finally {
    fs.closeSync(fd);
  }
}

async function hashOf(name: string, at: number, size: number): Promise<string> {
  const hash = createHash('sha256');
  for await (const bytes of fs.createReadStream(name, { start: at, end: at + size - 1, highWaterMark: 1 << 20 }))
    hash.update(bytes as Buffer);
  return hash.digest('hex');
}

/** RAM that nothing else is mapped over: below the video memory, from 1 MiB on, from 4 GiB on. */
const ranges = (low: number, high = 0): [number, number][] => [
  [0, 0xa0000],
  [1 << 20, low - (1 << 20)],
  ...(high > 0 ? ([[2 ** 32, high]] as [number, number][]) : []),
];

/** URI of a file to write or load; 7.2 has no `file:`. */
const uri = (build: QemuName, name: string, offset?: number) =>
  build === '7.2' ? `exec:cat > ${name}` : `file:${name}${offset === undefined ? '' : `,offset=${offset}`}`;

const from = (build: QemuName, name: string) => (build === '7.2' ? `exec:cat ${name}` : `file:${name}`);

/** Whether a file has bytes and has not grown for two seconds. */
function settled(name: string): () => boolean {
  let size = 0;
  let since = Date.now();
  return () => {
    const now = fs.statSync(name, { throwIfNoEntry: false })?.size ?? 0;
    if (now !== size || now === 0) since = Date.now();
    size = now;
    return Date.now() - since > 2000;
  };
}

const make = (build: QemuBuild, name: QemuName, kind: Kind, out: string): Promise<void> =>
  withGuest(kind.program ? { ...build, argv: (_program, args) => build.argv(kind.program!, args) } : build, kind.args, async (guest) => {
    await kind.before?.(guest);
    await guest.migrate({
      ...kind.migration,
      uri: uri(name, out, kind.migration?.offset),
      ...(kind.migration?.mayFail && { written: settled(out) }),
    });
  });

describe.each(builds)('files of QEMU %s', (name) => {
  let build: QemuBuild | undefined;
  beforeAll(async () => {
    build = await qemuForTest(name, 'migration files of real guests');
  }, 600_000);

  test.each(kinds.filter((k) => k.builds?.includes(name) ?? true).map((k) => [k.name, k] as const))(
    '%s: parsed to the last byte, every device by its description',
    async (_name, kind) => {
      if (!build) return;
      if (kind.program && !which(kind.program)) {
        skip(`migration files of ${kind.program}`, 'it is not installed');
        return;
      }
      const out = file('m');
      await make(build, name, kind, out);
      const offset = kind.migration?.offset ?? 0;
      const input = openInput(out, { offset });
      const dump = await collect(input, new Walker(input.reader, { fields: true, ram: { check: true } }));
      expect(dump.issues).toEqual([]);
      expect(dump).toMatchObject({ complete: true, ...kind.shows });
      expect(dump.trailing).toBeUndefined();
      const last = dump.records.at(-1) as { offset: bigint; size?: number };
      expect(Number(last.offset) + (last.size ?? 1)).toBe(fs.statSync(out).size);
      for (const r of dump.records) {
        if (r.type !== 'section' || r.record !== 'full') continue;
        expect({ name: r.name, bounded: r.bounded, fields: r.fields !== undefined }).toEqual({
          name: r.name,
          bounded: kind.undescribed ? 'footer' : 'description',
          fields: !kind.undescribed,
        });
      }
      // Memory that virtio-mem has not plugged is not sent.
      const seen = dump.ram!.blocks.filter((b) => !b.shared && b.gpa === undefined && !b.name.endsWith('/vm'));
      if (!kind.migration?.capabilities?.includes('mapped-ram')) {
        for (const b of seen) expect({ block: b.name, seen: b.state.seen }).toEqual({ block: b.name, seen: Number(b.length) / 4096 });
      }
      // The same through a pipe: same records, same counters.
      if (offset === 0) {
        const text = execFileSync(process.execPath, ['bin/run.js', 'migration', 'verify', '-', '--json'], {
          input: fs.readFileSync(out),
          maxBuffer: 1 << 28,
        });
        const piped = JSON.parse(text.toString()) as { verdict: string; sections: number };
        const whole = await verify(openInput(out), () => {});
        expect(piped).toMatchObject({ verdict: whole.verdict, sections: whole.sections });
        expect(whole.verdict).toBe(kind.undescribed ? 'complete-without-description' : 'complete');
      }
    },
    60_000,
  );

  // The deltas of a live guest come from 11, whose emulated guest dirties pages in every round.
  if (name === '11') {
    test('a running guest with XBZRLE: the deltas make the memory that the restored guest has', async () => {
      if (!build) return;
      const out = file('live');
      const args = ['-M', 'pc', '-m', '32', '-drive', `file=${put(dir, 'boot', dirtyingDisk())},format=raw,if=ide`];
      await withGuest(build, args, async (guest) => {
        await guest.qmp.run('cont');
        await sleep(2500);
        await guest.migrate({
          uri: uri(name, out),
          capabilities: ['xbzrle'],
          parameters: { 'max-bandwidth': 2 << 20, 'downtime-limit': 0 },
          meanwhile: async (qmp) => {
            // The first rounds send pages whole; deltas come later.
            for (let i = 0; i < 500; i++) {
              const { 'xbzrle-cache': cache } = (await qmp.run('query-migrate')) as { 'xbzrle-cache'?: { pages: number } };
              if ((cache?.pages ?? 0) > 60) break;
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
      await withGuest(build, [...args, '-incoming', 'defer'], async (guest) => {
        await guest.load(from(name, out));
        for (const [at, size] of ranges(32 << 20)) {
          expect({ at, hash: await hashOf(file('live.mem'), at, size) }).toEqual({ at, hash: await guest.memoryHash(dir, at, size) });
        }
      });
      fs.rmSync(file('live.mem'));
    }, 60_000);
  }

  test.each([
    ['pc', 3840, 3072],
    ['q35', 2944, 2048],
  ] as const)(
    '%s with %i MiB: physical memory below and above 4 GiB is what the restored guest has',
    async (machine, size, low) => {
      if (!build) return;
      const out = file('large');
      const blob = put(dir, 'blob', Buffer.from(Array.from({ length: 3 << 20 }, (_, i) => (i * 7 + (i >> 9)) & 0xff)));
      const places = [0x20000, 0x100000, (low - 8) * 0x100000, 2 ** 32, 2 ** 32 + (size - low - 4) * 0x100000];
      const args = ['-M', machine, '-m', String(size)];
      for (const [i, at] of places.entries())
        args.push('-device', `loader,file=${i === 0 ? put(dir, 'small', dirtyingDisk().subarray(0, 512)) : blob},addr=${at},force-raw=on`);
      const capabilities = name === '7.2' || machine === 'q35' ? [] : ['mapped-ram'];
      await withGuest(build, args, (guest) => guest.migrate({ uri: uri(name, out), capabilities }));
      const done = await memory(out, file('large.mem'));
      expect(done).toMatchObject({ complete: true, size: 2 ** 32 + (size - low) * 2 ** 20 });
      // Holes where there is nothing: a few MB on disk for gigabytes of memory.
      expect(fs.statSync(file('large.mem')).blocks * 512).toBeLessThan(64 << 20);
      // The RAM is compared whole above 4 GiB; below it around all that was put there.
      await withGuest(build, [...args, '-incoming', 'defer'], async (guest) => {
        await guest.load(from(name, out), capabilities);
        const parts: [number, number][] = [
          [0, 0xa0000],
          [1 << 20, 64 << 20],
          [(low - 64) << 20, 64 << 20].map((n) => n >>> 0) as [number, number],
          [2 ** 32, (size - low) << 20],
        ];
        for (const [at, length] of parts) {
          expect({ at, hash: await hashOf(file('large.mem'), at, length) }).toEqual({ at, hash: await guest.memoryHash(dir, at, length) });
        }
        expect(await hashOf(file('large.mem'), 2 ** 32, 3 << 20)).toBe(await hashOf(blob, 0, 3 << 20));
      });
      fs.rmSync(file('large.mem'));
    },
    120_000,
  );

  test('an internal snapshot of a qcow2 image, in place', async () => {
    if (!build) return;
    const image = file('disk.qcow2');
    execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', image, '64M']);
    const args = [
      '-M',
      'pc',
      '-m',
      '16',
      '-blockdev',
      `driver=qcow2,node-name=d,file.driver=file,file.filename=${image}`,
      '-device',
      'ide-hd,drive=d',
    ];
    await withGuest(build, args, async (guest) => {
      const said = await guest.qmp.run('human-monitor-command', { 'command-line': 'savevm first' });
      expect(said).toBe('');
      await guest.qmp.run('quit');
    });
    const input = openInput(image, { snapshot: 'first' });
    const dump = await collect(input, new Walker(input.reader, { fields: true }));
    expect(dump).toMatchObject({ complete: true, issues: [], container: { type: 'qcow2', name: 'first' } });
    expect(dump.ram!.blocks.find((b) => b.name === 'pc.ram')!.state.seen).toBe(4096);
    fs.rmSync(image);
  }, 60_000);
});

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
      await withGuest(build, args, (guest) => guest.migrate({ uri: uri(name, out) }));
      for (const through of [out, '-']) {
        const made = vioctl(
          ['migration', 'convert', through, '--to', 'mapped-ram', '-o', file('mapped')],
          through === '-' ? { input: fs.readFileSync(out) } : {},
        );
        expect(made).toMatchObject({ status: 0, stderr: '' });
        expect(await verify(openInput(file('mapped')), () => {})).toMatchObject({ verdict: 'complete', issues: [] });
        await memory(out, file('a.mem'));
        await withGuest(loader, [...args, '-incoming', 'defer'], async (guest) => {
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
    await withGuest(build, args, (guest) => guest.migrate({ uri: uri('7.2', out), capabilities: ['compress'] }));
    const result = await verify(openInput(out), () => {});
    expect(result).toMatchObject({ verdict: 'complete', issues: [] });
    const input = openInput(out);
    const dump = await collect(input, new Walker(input.reader));
    expect(dump.ram!.blocks.find((b) => b.name === 'pc.ram')!.state.compressed).toBeGreaterThan(100);
    await memory(out, file('compress.mem'));
    await withGuest(build, [...args, '-incoming', 'defer'], async (guest) => {
      await guest.load(from('7.2', out), ['compress']);
      for (const [at, size] of ranges(32 << 20)) {
        expect({ at, hash: await hashOf(file('compress.mem'), at, size) }).toEqual({ at, hash: await guest.memoryHash(dir, at, size) });
      }
    });
  }, 60_000);
});

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
    const args = ['-M', 'q35', '-m', '3072', '-smp', '2'];
    for (const at of [0x300000, 2 ** 32 + 0x1000]) args.push('-device', `loader,file=${blob},addr=${at},force-raw=on`);
    const registers = await withGuest(build, args, async (guest) => {
      await guest.qmp.run('cont');
      await sleep(1000);
      await guest.qmp.run('stop');
      const text = (await guest.qmp.run('human-monitor-command', { 'command-line': 'info registers' })) as string;
      await guest.migrate({ uri: `file:${out}` });
      return text;
    });
    expect(await memory(out, file('core'), { as: 'elf' })).toMatchObject({ complete: true, cpus: 2 });
    const ask = ['p/x $rip', 'p/x $rsp', 'p/x $rax', 'info threads', 'x/s 0x300000', 'x/2gx 0x100001000'].flatMap((c) => ['-ex', c]);
    const said = spawnSync('gdb', ['-nx', '-batch', ...ask, '-c', file('core')], { encoding: 'utf8' });
    const value = (name: string) => BigInt(`0x${new RegExp(`\\bE?R?${name} ?=([0-9a-f]+)`, 'i').exec(registers)![1]}`).toString(16);
    expect(said.stdout).toContain(`$1 = 0x${value('IP')}`);
    expect(said.stdout).toContain(`$2 = 0x${value('SP')}`);
    expect(said.stdout).toContain(`$3 = 0x${value('AX')}`);
    expect(said.stdout).toMatch(/LWP 1\b[\s\S]*LWP 2\b/);
    expect(said.stdout).toContain('VIOCTL!!VIOCTL!!');
    expect(said.stdout).toContain('0x21214c54434f4956');
    fs.rmSync(file('core'));
  }, 60_000);
});
