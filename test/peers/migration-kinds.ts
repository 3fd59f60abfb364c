import { eventually } from '../support/wait.js';
import type { QemuName } from '../vm/qemu.js';
import { type Migration, put, type TestGuest } from './migration-guest.js';

/** One file that QEMU writes. */
export interface Kind {
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
  /** codes of notes that the walk makes */
  notes?: string[];
  /** memory of the guest stays in a file of the host */
  elsewhere?: boolean;
  /** fields of sections, by the end of their names */
  classes?: Record<string, object>;
  /** an iterable section that must be there, with what its parts must add up to at least */
  iterable?: { name: string; least: Record<string, number> };
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
const shared = (dir: string, name: string) => ['-object', `memory-backend-file,id=m,size=32M,mem-path=${dir}/${name},share=on`];

const MAC = '52:54:00:ab:cd:ef';
/** Devices of virtio whose state is known from their arguments. */
const virtio: Pick<Kind, 'args' | 'classes'> = {
  args: [
    ...['-M', 'q35', '-m', '64,maxmem=1G', '-object', 'memory-backend-ram,id=vm,size=64M', '-netdev', 'hubport,id=n,hubid=0'],
    ...['-netdev', 'user,id=p', '-object', 'iothread,id=io', '-blockdev', 'driver=null-co,node-name=d,size=1048576'],
    ...['-device', `virtio-net-pci,netdev=n,mac=${MAC}`, '-device', 'virtio-blk-pci,drive=d,num-queues=2'],
    ...['-device', 'virtio-serial-pci,max_ports=5', '-chardev', 'null,id=c', '-device', 'virtserialport,chardev=c,nr=3,name=x'],
    ...[
      '-device',
      'virtio-balloon-pci,free-page-hint=on,page-poison=on,iothread=io',
      '-device',
      'virtio-mem-pci,memdev=vm,requested-size=16M',
    ],
  ],
  classes: {
    '/virtio-net': { virtio: { class: { mac: MAC, promiscuous: true, macTable: [], vlans: '0-4095' } } },
    '/virtio-blk': { virtio: { class: { waitingRequests: [] } } },
    '/virtio-console': { virtio: { class: { maxPorts: 5, portsInUse: [0, 3], ports: [{ id: 3, guestConnected: false }] } } },
    '/virtio-balloon': { virtio: { class: { pages: 0, actual: 0 } } },
    '/virtio-mem': { virtio: { class: { requestedSize: 16n << 20n } } },
  },
};
/**
 * A program of s390x that sets the key of the page at 0x20000 and of the next one, and then waits. At 0 its PSW: 31-bit mode, from 0x100 on.
 * llilf r1,0x20000; lghi r2,0x96; sske r2,r1; ahi r1,0x1000; lghi r2,0x06; sske r2,r1; lghi r14,77; 1: j 1b
 */
const storageKeys = (): Buffer => {
  const code = 'c01f00020000 a7290096 b22b0021 a71a1000 a7290006 b22b0021 a7e9004d a7f40000';
  const image = Buffer.alloc(0x1000);
  image.set(Buffer.from('0008000080000100', 'hex'), 0);
  image.set(Buffer.from(code.replaceAll(' ', ''), 'hex'), 0x100);
  return image;
};

/** The kinds; files that they need lie in `dir`. */
export const kindsIn = (dir: string): Kind[] => [
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
    args: ['-M', 'pc', '-m', '32', ...shared(dir, 'shm'), '-machine', 'memory-backend=m'],
    migration: { capabilities: ['x-ignore-shared'] },
    elsewhere: true,
  },
  {
    // memory without a name cannot be found again: from 8.1 on, QEMU sends it although it is shared (RAM_NAMED_FILE)
    name: 'ignore-shared of a memfd',
    builds: ['10', '11'],
    args: ['-M', 'pc', '-m', '32', '-object', 'memory-backend-memfd,id=m,size=32M,share=on', '-machine', 'memory-backend=m'],
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
    notes: ['ram-unplugged'],
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
    program: 'qemu-system-aarch64',
    args: ['-M', 'virt', '-m', '32', '-cpu', 'cortex-a57'],
    shows: { configuration: { pageBits: 12 } },
  },
  {
    name: 'pseries whose guest enters and removes entries of its hash table',
    iterable: { name: 'spapr/htab', least: { hashShift: 26, valid: 254, invalid: 1 } },
    program: 'qemu-system-ppc64',
    // The table is as large as the most RAM asks for: its first round takes so long that the guest removes entries meanwhile.
    args: [
      ...['-M', 'pseries,cap-cfpc=broken,cap-sbbc=broken,cap-ibs=broken,cap-ccf-assist=off,resize-hpt=disabled'],
      ...['-m', '256,slots=1,maxmem=8G', '-bios', `${dir}/hash-table`],
    ],
    before: async (g) => {
      await g.qmp.run('cont');
      const entered = async () =>
        /GPR12 (\w+ ){2}0*100 /.test((await g.qmp.run('human-monitor-command', { 'command-line': 'info registers' })) as string);
      await eventually(entered);
    },
  },
  {
    name: 's390x with its storage attributes',
    builds: ['10', '11'],
    program: 'qemu-system-s390x',
    args: ['-M', 's390-ccw-virtio', '-m', '64'],
    iterable: { name: 's390-storage_attributes', least: { bytes: 0 } },
  },
  { name: 'virtio devices', ...virtio, notes: ['ram-unplugged'] },
  {
    name: 's390x whose guest sets storage keys',
    builds: ['10', '11'],
    program: 'qemu-system-s390x',
    args: ['-M', 's390-ccw-virtio', '-m', '64', '-kernel', put(dir, 'storage-keys', storageKeys())],
    before: async (g) => {
      await g.qmp.run('cont');
      const done = async () =>
        /R14=0*4d\b/i.test((await g.qmp.run('human-monitor-command', { 'command-line': 'info registers' })) as string);
      await eventually(done);
      await g.qmp.run('stop');
    },
    classes: {
      's390-skeys': {
        storageKeys: [
          {
            address: 0n,
            pages: 16384,
            byKey: { '0x96': 1 },
            runs: expect.arrayContaining([
              { address: 0x20000n, pages: 1, key: '0x96', access: 9, fetchProtected: false, referenced: true, changed: true },
            ]),
          },
        ],
      },
    },
  },
  {
    name: 'a machine before 2.4: no configuration, no footers',
    builds: ['7.2'],
    args: ['-M', 'pc-i440fx-2.3', '-m', '16', '-device', 'e1000'],
    notes: ['no-footers'],
  },
  {
    name: 'disk contents (block migration)',
    builds: ['7.2'],
    args: ['-M', 'pc', '-m', '16', '-drive', `file=${dir}/blk,format=raw,if=ide`],
    migration: { disks: true, capabilities: ['zero-blocks'] },
    iterable: { name: 'block', least: { chunks: 16, zero: 15 } },
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
    args: ['-M', 'pc', '-m', '32', ...shared(dir, 'shm2'), '-machine', 'memory-backend=m'],
    migration: { capabilities: ['x-ignore-shared', 'mapped-ram'] },
    elsewhere: true,
  },
];
