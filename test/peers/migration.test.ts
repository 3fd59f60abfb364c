import { execFileSync, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { collect } from '../../src/migration/dump.js';
import { extract } from '../../src/migration/extract.js';
import { openInput } from '../../src/migration/input.js';
import { verify } from '../../src/migration/verify.js';
import { Walker } from '../../src/migration/walk.js';
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
const zoo = [
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
    'hda-duplex',
    'lsi53c895a',
    'pvpanic',
  ],
].flatMap((d) => ['-device', d]);
const slirp = ['-netdev', 'user,id=n'];
const shared = (name: string) => ['-object', `memory-backend-file,id=m,size=32M,mem-path=${file(name)},share=on`];

const kinds: Kind[] = [
  { name: 'pc', args: ['-M', 'pc', '-m', '64'] },
  { name: 'q35', args: ['-M', 'q35', '-m', '64', ...smp] },
  { name: 'microvm', args: ['-M', 'microvm', '-m', '32'] },
  { name: 'devices', args: ['-M', 'q35', '-m', '64', ...slirp, ...zoo] },
  { name: 'devices of an i440fx', args: ['-M', 'pc', '-m', '32', ...slirp, ...zoo.filter((d) => d !== 'e1000e')] },
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
  { name: 'nvme', builds: ['11'], args: ['-M', 'q35', '-m', '16', '-device', 'nvme,serial=1'] },
  {
    name: 'ignore-shared with mapped-ram',
    builds: ['11'],
    args: ['-M', 'pc', '-m', '32', ...shared('shm2'), '-machine', 'memory-backend=m'],
    migration: { capabilities: ['x-ignore-shared', 'mapped-ram'] },
  },
];

/** URI of a file to write or load; 7.2 has no `file:`. */
const uri = (build: QemuName, name: string, offset?: number) =>
  build === '7.2' ? `exec:cat > ${name}` : `file:${name}${offset === undefined ? '' : `,offset=${offset}`}`;

/** Whether this build's device models of `args` can migrate at all: QEMU says so at once. */
const blocked = (err: unknown) => /non-migratable|not supported|is not available|does not support/.test(String(err));

async function make(build: QemuBuild, name: QemuName, kind: Kind, out: string): Promise<void> {
  const guest = await TestGuest.start(build, dir, kind.args);
  try {
    await kind.before?.(guest);
    await guest.migrate({ ...kind.migration, uri: uri(name, out, kind.migration?.offset) });
  } finally {
    await guest.stop();
  }
}

describe.each(builds)('files of QEMU %s', (name) => {
  let build: QemuBuild | undefined;
  beforeAll(async () => {
    build = await qemuForTest(name, 'migration files of real guests');
  }, 600_000);

  test.each(kinds.filter((k) => k.builds?.includes(name) ?? true).map((k) => [k.name, k] as const))(
    '%s: parsed to the last byte, every device by its description',
    async (_name, kind) => {
      if (!build) return;
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
      const seen = dump.ram!.blocks.filter((b) => !b.shared && b.gpa === undefined);
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
});
