import fs from 'node:fs';
import { Census } from '../../../../src/vfio/census/census.js';
import type { Route } from '../../../../src/vfio/census/interfaces.js';
import { parseMountinfo, parseSwaps } from '../../../../src/vfio/census/mounts.js';
import { checkDevice, usesOf } from '../../../../src/vfio/checks/checks.js';
import { type CheckName } from '../../../../src/vfio/checks/finding.js';
import { isGone, readDevice } from '../../../../src/vfio/devices/pci.js';
import { PciTree } from '../../../support/pci-tree.js';

const DISK = '0000:01:00.0';
const NIC = '0000:05:01.0';
let tree: PciTree;
let disk: string;
let nic: string;

beforeEach(() => {
  tree = new PciTree();
  for (const name of ['nvme', 'e1000', 'vfio-pci']) tree.driver(name);
  disk = tree.device(DISK, { driver: 'nvme', group: 1 });
  nic = tree.device(NIC, { driver: 'e1000', class: 0x020000, vendor: 0x8086, device: 0x100e, group: 5 });
});
afterEach(() => tree.remove());

const findings = (bdf: string, { routes, peer }: { routes?: Route[]; peer?: string } = {}) =>
  usesOf(new Census(tree.root, { peer, routes: () => routes }), readDevice(tree.root, bdf)!).map(
    ({ check, message }) => [check, message] as [CheckName, string],
  );
const namespace = () => tree.block(`${disk}/nvme/nvme0`, 'nvme0n1', '259:0');
const mounts = (...lines: string[]) => tree.file('/proc/self/mountinfo', `${lines.join('\n')}\n`);

describe('disks', () => {
  test('nothing uses it', () => {
    namespace();
    expect(findings(DISK)).toEqual([]);
  });

  test('NVMe under native multipath: the namespace hangs below the subsystem', () => {
    tree.block(`${disk}/nvme/nvme0`, 'nvme3c0n1', '259:7');
    tree.block('/sys/devices/virtual/nvme-subsystem/nvme-subsys3', 'nvme3n1', '259:0');
    mounts('40 1 259:0 / /srv rw - xfs /dev/nvme3n1 rw');
    expect(findings(DISK)).toEqual([['mounted', '/dev/nvme3n1 is mounted on /srv']]);
  });

  test('LVM on dm-crypt on a partition, mounted as /: the whole chain', () => {
    const part = tree.block(namespace(), 'nvme0n1p2', '259:2', { partition: 2, holders: ['dm-0'] });
    expect(part).toContain('nvme0n1/nvme0n1p2');
    const crypt = tree.block('/sys/devices/virtual/block', 'dm-0', '253:0', { holders: ['dm-1'] });
    tree.file(`${crypt}/dm/uuid`, 'CRYPT-LUKS2-abc\n');
    tree.file(`${crypt}/dm/name`, 'luks\n');
    const volume = tree.block('/sys/devices/virtual/block', 'dm-1', '253:1');
    tree.file(`${volume}/dm/uuid`, 'LVM-xyz\n');
    tree.file(`${volume}/dm/name`, 'vg-root\n');
    mounts('1 0 253:1 / / rw - ext4 /dev/mapper/vg-root rw');
    expect(findings(DISK)).toEqual([
      ['holder', '/dev/nvme0n1p2 is held by dm-crypt volume luks'],
      ['boot-disk', 'the system runs from it: /dev/dm-1 on /dev/dm-0 on /dev/nvme0n1p2 is mounted on /'],
      ['mounted', '/dev/dm-1 on /dev/dm-0 on /dev/nvme0n1p2 is mounted on /'],
      ['holder', '/dev/dm-0 is held by LVM volume vg-root'],
    ]);
  });

  test('MD and bcache', () => {
    const at = tree.block(`${disk}/nvme/nvme0`, 'nvme0n1', '259:0', { holders: ['md0', 'bcache0'] });
    expect(at).toContain(DISK);
    tree.folder(`${tree.block('/sys/devices/virtual/block', 'md0', '9:0')}/md`);
    tree.block('/sys/devices/virtual/block', 'bcache0', '252:0');
    expect(findings(DISK).map(([, message]) => message)).toEqual([
      '/dev/nvme0n1 is held by bcache device bcache0',
      '/dev/nvme0n1 is held by MD array md0',
    ]);
  });

  test('swap, on the disk and on a volume of it', () => {
    namespace();
    tree.file('/proc/swaps', 'Filename Type\n/dev/nvme0n1                            partition\t8\t0\t-2\n/swapfile file 1 0 -3\n');
    expect(findings(DISK)).toEqual([['swap', '/dev/nvme0n1 is active swap']]);
  });

  test('btrfs mounts an anonymous device: its source and its device list tell', () => {
    namespace();
    mounts('40 1 0:44 /sub /data rw - btrfs /dev/nvme0n1 rw');
    tree.file('/sys/fs/btrfs/1234/devices/nvme0n1', '');
    expect(findings(DISK)).toEqual([
      ['mounted', '/dev/nvme0n1 is mounted on /data'],
      ['holder', '/dev/nvme0n1 is used by btrfs 1234'],
    ]);
  });

  test('a mount in another namespace, by number', () => {
    namespace();
    tree.link('/proc/self/ns/mnt', 'mnt:[1]');
    tree.process(9, 'container', {}, { mountinfo: '9 1 259:0 / /var/lib/x rw - ext4 /dev/foo rw\n' });
    tree.link('/proc/9/ns/mnt', 'mnt:[2]');
    expect(findings(DISK)).toEqual([['mounted', '/dev/nvme0n1 is mounted on /var/lib/x']]);
  });

  test('open nodes by name; names of other devices do not count', () => {
    namespace();
    tree.file(`${disk}/nvme/nvme0/uevent`, 'DEVNAME=nvme0\n');
    tree.link('/sys/dev/char/240:0', `${disk}/nvme/nvme0`);
    tree.process(31, 'smartd', { 3: '/dev/nvme0', 4: '/dev/nvme0n1', 5: '/dev/nvme0n11', 6: '/dev/null' });
    expect(findings(DISK)).toEqual([
      ['open', '/dev/nvme0 is open in smartd (pid 31)'],
      ['open', '/dev/nvme0n1 is open in smartd (pid 31)'],
    ]);
  });

  test('terminal control characters of a mount point are escaped', () => {
    namespace();
    mounts('40 1 259:0 / /srv/\u001b[31m\\040x rw - ext4 /dev/nvme0n1 rw');
    expect(findings(DISK)[0]![1]).toBe('/dev/nvme0n1 is mounted on /srv/\\x1b[31m x');
  });

  test.each(['', '\n', 'a b c', '1 2 3:4 /', '1 2 3:4 / /x rw', '1 2 3:4 / /x rw -', '1 2 3:4 / /x rw - ext4'])(
    'mountinfo line "%s" is none',
    (line) => {
      expect(parseMountinfo(line)).toEqual([]);
    },
  );
  test('swap files are paths too; the heading is none', () => expect(parseSwaps('Filename\n/a\\040b file 1\njunk\n')).toEqual(['/a b']));
});

describe('network', () => {
  const route = (device: string, destination: string, family: 4 | 6 = 4, table = 'main'): Route => ({
    family,
    destination,
    prefix: Number(destination.split('/')[1]),
    device,
    table,
  });

  test('default routes, of the interface and of what is stacked on it', () => {
    tree.net(nic, 'eth0', { uppers: ['bond0'] });
    tree.net(undefined, 'bond0', { uppers: ['br0'] });
    tree.folder('/sys/devices/virtual/net/bond0/bonding');
    tree.net(undefined, 'br0');
    tree.folder('/sys/devices/virtual/net/br0/bridge');
    expect(findings(NIC, { routes: [route('br0', '0.0.0.0/0'), route('eth9', '::/0', 6)] })).toEqual([
      ['upper', 'interface eth0 is part of bond bond0'],
      ['upper', 'interface eth0 is part of bridge br0'],
      ['route', 'the IPv4 default route leads out of br0 over eth0'],
    ]);
  });

  test('the default route of a VRF table, and of IPv6', () => {
    tree.net(nic, 'eth0');
    const routes = [route('eth0', '0.0.0.0/0', 4, '77'), route('eth0', '::/0', 6)];
    expect(findings(NIC, { routes })).toEqual([
      ['route', 'the IPv4 default route (table 77) leads out of eth0'],
      ['route', 'the IPv6 default route leads out of eth0'],
    ]);
  });

  test('the ssh peer: the longest match decides', () => {
    tree.net(nic, 'eth0');
    const routes = [route('eth1', '10.0.0.0/8'), route('eth0', '10.1.0.0/16'), route('eth0', '2001:db8::/32', 6)];
    const says = (peer: string) => findings(NIC, { routes, peer }).map(([, message]) => message);
    expect(says('10.1.2.3')).toEqual(['this ssh session from 10.1.2.3 comes in by eth0']);
    expect(says('10.2.2.3')).toEqual([]);
    expect(says('2001:db8::5')).toEqual(['this ssh session from 2001:db8::5 comes in by eth0']);
  });

  test('the ssh session is found above sudo, which drops its variable', () => {
    tree.net(nic, 'eth0');
    tree.file('/proc/900/stat', '900 (vioctl) S 800 1\n');
    tree.file('/proc/900/environ', 'PATH=/bin\0');
    tree.file('/proc/800/stat', '800 (su do) x) S 700 1\n');
    tree.file('/proc/700/environ', 'A=1\0SSH_CONNECTION=10.1.2.3 5 10.1.0.1 22\0');
    const census = new Census(tree.root, { pid: 900, routes: () => [route('eth0', '10.1.0.0/16')] });
    expect(usesOf(census, readDevice(tree.root, NIC)!)).toMatchObject([{ check: 'route', brief: 'ssh peer 10.1.2.3' }]);
  });

  test('an interface in another network namespace, seen through the sysfs of a process there', () => {
    tree.link('/proc/self/ns/net', 'net:[1]');
    tree.process(12, 'ovs', {});
    tree.link('/proc/12/ns/net', 'net:[2]');
    tree.link(`/proc/12/root/sys/class/net/ens5`, `../../devices/pci0000:00/${NIC}/net/ens5`);
    expect(findings(NIC)[0]![1]).toMatch(/its interface ens5 is in the network namespace of ovs \(pid 12\)/);
  });

  test('a NIC that is on VFIO, or has no driver, has no interface to look for', () => {
    tree.folder('/run/netns/blue');
    expect(findings(NIC)).toMatchObject([['route', expect.stringContaining('(blue)')]]);
    tree.bind(NIC, 'vfio-pci');
    expect(findings(NIC)).toEqual([]);
    tree.bind(NIC, undefined);
    expect(findings(NIC)).toEqual([]);
  });
});

describe('an interface that is up', () => {
  const up = (flags = '0x1043') => {
    tree.net(nic, 'eth0');
    tree.file(`${nic}/net/eth0/flags`, `${flags}\n`);
  };
  const route = (device: string, destination: string): Route => ({
    family: destination.includes(':') ? 6 : 4,
    destination,
    prefix: Number(destination.split('/')[1]),
    device,
    table: 'main',
  });

  test('with a route or an address it is in use; link-local ones, and an interface that is down, are not', () => {
    up();
    expect(findings(NIC, { routes: [route('eth0', 'fe80::/64')] })).toEqual([]);
    expect(findings(NIC, { routes: [route('eth0', '10.9.0.0/16')] })).toEqual([
      ['address', 'interface eth0 is up and has a route to 10.9.0.0/16'],
    ]);
    tree.file(
      '/proc/net/if_inet6',
      'fe80000000000000505400fffe000001 02 40 20 80     eth0\n20010db8000000000000000000000005 02 40 00 80     eth0\n',
    );
    expect(findings(NIC)).toEqual([['address', 'interface eth0 is up and has 2001:0db8:0000:0000:0000:0000:0000:0005']]);
    tree.file(`${nic}/net/eth0/flags`, '0x1002\n');
    expect(findings(NIC, { routes: [route('eth0', '10.9.0.0/16')] })).toEqual([]);
  });

  test.each([
    ['nfs4', '10.9.0.5:/data', 'rw,addr=10.9.0.5,clientaddr=10.9.0.1', true],
    ['nfs', '[fd00::5]:/data', 'rw,addr=fd00::5', true],
    ['cifs', '//server/data', 'rw,addr=10.9.0.5', true],
    ['ceph', '10.9.0.5:6789,10.8.0.5:6789:/', 'rw,name=admin', true],
    ['ceph', 'admin@1234.cephfs=/', 'rw,mon_addr=10.9.0.5:3300', true],
    ['9p', '10.9.0.5', 'rw,trans=tcp', true],
    ['lustre', '10.9.0.5@tcp:/scratch', 'rw', true],
    ['nfs4', '10.7.0.5:/data', 'rw,addr=10.7.0.5', false],
    ['9p', '10.9.0.5', 'rw,trans=virtio', false],
    ['ext4', '/dev/sda1', 'rw', false],
  ])('a mounted %s of %s (%s) is reached through it: %s', (fstype, source, options, used) => {
    tree.net(nic, 'eth0');
    const routes = [route('eth0', '10.9.0.0/16'), route('eth0', 'fd00::/64'), route('eth1', '10.7.0.0/16')];
    mounts(`40 1 0:50 / /srv rw - ${fstype} ${source} ${options}`);
    const found = findings(NIC, { routes }).filter(([check]) => check === 'mounted');
    expect(found.map(([, message]) => message)).toEqual(
      used ? [`the ${fstype} file system ${source}, reached through eth0, is mounted on /srv`] : [],
    );
  });
});

describe('shares of virtio devices', () => {
  const P9 = '0000:00:1d.0';
  const FS = '0000:00:1e.0';
  let share: string;
  beforeEach(() => {
    tree.driver('virtio-pci');
    const p9 = tree.device(P9, { driver: 'virtio-pci', vendor: 0x1af4, device: 0x1009, class: 0x000200 });
    tree.file(`${p9}/virtio0/mount_tag`, 'root\0');
    share = tree.device(FS, { driver: 'virtio-pci', vendor: 0x1af4, device: 0x105a, class: 0x018000 });
    tree.folder(`${share}/virtio1`);
  });

  test('9p by its tag; other transports and tags are other devices', () => {
    mounts('22 1 0:21 / /srv rw - 9p root rw,access=any,trans=virtio');
    expect(findings(P9)).toEqual([['mounted', 'the 9p share root of virtio0 is mounted on /srv']]);
    mounts('22 1 0:21 / /srv rw - 9p root rw,trans=fd', '23 1 0:22 / /x rw - 9p other rw,trans=virtio');
    expect(findings(P9)).toEqual([]);
  });

  test('a share outside our root folder is seen by process 1, below the overlay that is our /', () => {
    mounts('30 22 0:25 / / rw - overlay o rw,lowerdir=/ro,upperdir=/rw/u,workdir=/rw/w');
    tree.process(
      1,
      'init',
      {},
      {
        mountinfo:
          '20 1 0:2 / / rw - rootfs none rw\n22 20 0:21 / /ro rw - 9p root rw,trans=virtio\n30 20 0:25 / /root2 rw - overlay o rw,lowerdir=/ro,upperdir=/rw/u\n',
      },
    );
    expect(findings(P9)).toEqual([
      ['mounted', 'the 9p share root of virtio0 is mounted on /ro'],
      ['boot-disk', 'the system runs from it: the 9p share root of virtio0 is a layer of the overlay mounted on /'],
      ['mounted', 'the 9p share root of virtio0 is a layer of the overlay mounted on /'],
      ['mounted', 'the 9p share root of virtio0 is a layer of the overlay mounted on /root2'],
    ]);
  });

  test('virtiofs: by the tag, or any where the kernel shows no tags', () => {
    mounts('23 1 0:22 / /share rw - virtiofs data rw');
    expect(findings(FS)).toEqual([['mounted', 'the virtiofs share data, perhaps of virtio1, is mounted on /share']]);
    tree.link('/sys/fs/virtiofs/4/device', `${share}/virtio1`);
    tree.file('/sys/fs/virtiofs/4/tag', 'idle\n');
    expect(findings(FS)).toEqual([]);
    tree.file('/sys/fs/virtiofs/4/tag', 'data\n');
    expect(findings(FS)).toEqual([['mounted', 'the virtiofs share data of virtio1 is mounted on /share']]);
  });

  test('layers of overlays: escaped colons, layers on layers, the longest mount point', () => {
    namespace();
    mounts(
      '1 0 0:1 / / rw - rootfs none rw',
      '40 1 259:0 / /srv/a:b rw - xfs /dev/nvme0n1 rw',
      '41 1 0:60 / /one rw - overlay o rw,lowerdir=/srv/a\\:b/x:/other',
      '42 1 0:61 / /two rw - overlay o rw,lowerdir+=/one/sub',
      '43 1 0:62 / /three rw - overlay o rw,lowerdir=/srv/a',
    );
    const layered = findings(DISK).map(([, message]) => message);
    expect(layered).toContain('/dev/nvme0n1 is mounted on /srv/a:b');
    expect(layered.some((message) => message.endsWith('overlay mounted on /three'))).toBe(false);
  });
});

describe('what the machine runs on', () => {
  const PART = '0000:00:1f.0';
  const behind = '/sys/devices/pci0000:00/0000:00:01.0';
  const bars = { resource: '0x00000000fe000000 0x00000000fe0fffff 0x0000000000040200\n' };
  test.each([
    ['host bridge', 0x8086, 0x060000, {}],
    ['ISA bridge', 0x8086, 0x060100, {}],
    ['SMBus controller', 0x1022, 0x0c0500, {}],
    ['bridge of the chipset', 0x8086, 0x068000, {}],
    ['IOMMU', 0x1022, 0x080600, {}],
    ['root complex event collector', 0x8086, 0x080700, {}],
    ['interrupt controller', 0x8086, 0x080020, {}],
    ['performance counters', 0x8086, 0x110100, {}],
    ['system peripheral of the chipset', 0x8086, 0x088000, {}],
    ['memory controller', 0x8086, 0x058000, {}],
    ['serial bus of the chipset', 0x8086, 0x0c8000, {}],
    ['instrumentation of the chipset', 0x1022, 0x130000, {}],
  ])('%s', (role, vendor, cls, attrs) => {
    tree.device(PART, { vendor, class: cls, attrs });
    expect(findings(PART)).toEqual([['chipset', `${PART} is part of the machine (${role})`]]);
  });

  test('virtio-iommu, and what sysfs shows as an IOMMU, whatever its class', () => {
    tree.device(PART, { vendor: 0x1af4, device: 0x1057, class: 0x00ff00 });
    expect(findings(PART)).toMatchObject([['chipset', expect.stringContaining('(IOMMU)')]]);
    const other = tree.device('0000:00:02.0', { class: 0xff0000 });
    expect(findings('0000:00:02.0')).toEqual([]);
    tree.link('/sys/class/iommu/smmu1', `${other}/iommu/smmu1`);
    expect(findings('0000:00:02.0')).toMatchObject([['chipset', expect.stringContaining('(IOMMU)')]]);
  });

  test.each([
    ['ivshmem, a memory controller of no chipset', 0x1af4, 0x050000, '/sys/devices/pci0000:00', {}],
    ['an FPGA board behind a bridge', 0x8086, 0x058000, behind, {}],
    ['a switch of NVIDIA (other bridge) behind a bridge', 0x10de, 0x068000, behind, {}],
    ['a data mover with registers', 0x8086, 0x088000, '/sys/devices/pci0000:00', bars],
    ['a console of virtio', 0x1af4, 0x078000, '/sys/devices/pci0000:00', {}],
    ['USB', 0x8086, 0x0c0330, '/sys/devices/pci0000:00', {}],
    ['audio', 0x8086, 0x040300, '/sys/devices/pci0000:00', {}],
    ['a co-processor', 0x8086, 0x0b4000, '/sys/devices/pci0000:00', {}],
  ])('not: %s', (_, vendor, cls, parent, attrs) => {
    tree.device(PART, { vendor, class: cls, parent, attrs });
    expect(findings(PART)).toEqual([]);
  });

  test('a CardBus bridge is a bridge', () => {
    tree.device(PART, { class: 0x060700 });
    expect(findings(PART)).toMatchObject([['bridge', expect.anything()]]);
  });
});

describe('consoles on ports', () => {
  const PORT = '0000:00:17.0';
  test('a serial port that the kernel prints on; another port, and no console, are free', () => {
    const port = tree.device(PORT, { driver: 'serial', class: 0x070002 });
    tree.link('/sys/class/tty/ttyS4', `${port}/tty/ttyS4`);
    expect(findings(PORT)).toEqual([]);
    tree.file('/proc/consoles', 'tty0 -WU (EC p) 4:7\nttyS5 -W- (EC p) 4:69\n');
    expect(findings(PORT)).toEqual([]);
    tree.file('/sys/class/tty/console/active', 'tty0 ttyS4\n');
    expect(findings(PORT)).toEqual([['console', "the kernel's console is on ttyS4, a port of it"]]);
  });

  test('a virtio console', () => {
    const port = tree.device(PORT, { driver: 'virtio-pci', vendor: 0x1af4, device: 0x1003, class: 0x078000 });
    tree.file(`${port}/virtio1/device`, '0x0003\n');
    expect(findings(PORT)).toEqual([]);
    tree.file('/proc/consoles', 'hvc0 -W- (EC p) 229:0\n');
    expect(findings(PORT)).toMatchObject([['console', expect.stringContaining('hvc0')]]);
  });
});

test.each([
  ['/dev/disk/by-id/nvme-QEMU_1', '../../nvme0n1', '/dev/nvme0n1'],
  ['/dev/disk/by-id/nvme-QEMU_1-part2', '../../nvme0n1p2', '/dev/nvme0n1p2'],
  ['/dev/nvme0n1', undefined, '/dev/nvme0n1'],
])('a disk that a target exports as %s', (name, link, used) => {
  tree.block(namespace(), 'nvme0n1p2', '259:2', { partition: 2 });
  for (const node of ['/dev/nvme0n1', '/dev/nvme0n1p2']) tree.file(node, '');
  if (link !== undefined) tree.link(name, link);
  const dir = '/sys/kernel/config/nvmet/subsystems/nqn.x/namespaces/1';
  tree.file(`${dir}/device_path`, `${name}\n`);
  tree.file(`${dir}/enable`, '1\n');
  expect(findings(DISK)).toEqual([['holder', `${used} is used by NVMe target nqn.x namespace 1`]]);
});

test('an NVMe controller that a target exports as a whole', () => {
  tree.folder(`${disk}/nvme/nvme0`);
  const dir = '/sys/kernel/config/nvmet/subsystems/nqn.x/passthru';
  tree.file(`${dir}/device_path`, '/dev/nvme0\n');
  tree.file(`${dir}/enable`, '0\n');
  expect(findings(DISK)).toEqual([]);
  tree.file(`${dir}/enable`, '1\n');
  expect(findings(DISK)).toEqual([['holder', '/dev/nvme0 is used by NVMe target nqn.x (passthru)']]);
});

describe('presence', () => {
  const header = (ids: number, type = 0) => {
    const config = Buffer.alloc(256);
    config.writeUInt32LE(ids, 0);
    config[0x0e] = type;
    return config;
  };
  const gone = (config: Buffer | undefined, physfn?: string) => {
    if (config) tree.file(`${disk}/config`, config);
    if (physfn !== undefined) tree.link(`${disk}/physfn`, `/sys/devices/pci0000:00/${physfn}`);
    return isGone(tree.root, readDevice(tree.root, DISK)!);
  };

  test('ids that read as ones mean nothing on a virtual function; a header of ones does', () => {
    expect(gone(undefined)).toBe(false);
    expect(gone(header(0x00101b36))).toBe(false);
    expect(gone(header(0xffff_ffff))).toBe(true);
    expect(gone(header(0xffff_ffff), '0000:04:00.0')).toBe(false);
    expect(gone(Buffer.alloc(256, 0xff))).toBe(true);
    expect(gone(Buffer.alloc(64, 0xff))).toBe(true);
    expect(gone(Buffer.alloc(4, 0xff))).toBe(false); // too little to tell
  });

  test('the header type of a virtual function is read although its ids are ones', () => {
    tree.file(`${disk}/class`, '0x060400\n');
    expect(gone(header(0xffff_ffff, 0x80), '0000:04:00.0')).toBe(false);
    expect(readDevice(tree.root, DISK)).toMatchObject({ bridge: false });
  });
});

describe('the rest', () => {
  test('the console adapter: boot_vga, a frame buffer of its own, the frame buffer of firmware', () => {
    const gpu = tree.device('0000:02:00.0', { class: 0x030000, attrs: { boot_vga: '1' } });
    expect(findings('0000:02:00.0')).toMatchObject([['console', expect.stringContaining('boot_vga')]]);
    tree.file(`${gpu}/boot_vga`, '0\n');
    expect(findings('0000:02:00.0')).toEqual([]);
    tree.file(`${gpu}/resource`, '0x00000000e0000000 0x00000000efffffff 0x0000000000140204\n');
    tree.file('/proc/iomem', '00000000-0000ffff : Reserved\n  e0000000-e02fffff : BOOTFB\n');
    expect(findings('0000:02:00.0')).toMatchObject([['console', expect.stringContaining("firmware's frame buffer")]]);
    tree.link('/sys/class/graphics/fb0', `${gpu}/graphics/fb0`);
    expect(findings('0000:02:00.0')).toMatchObject([['console', expect.stringContaining('fb0')]]);
  });

  test('a PF with VFs', () => {
    tree.device('0000:01:00.1');
    tree.link(`${disk}/virtfn0`, '../0000:01:00.1');
    expect(findings(DISK)).toMatchObject([['pf-with-vfs', '0000:01:00.0 has 1 virtual function (0000:01:00.1) that would vanish']]);
  });

  test('a bridge by its header type, whatever its class says', () => {
    const config = Buffer.alloc(64);
    config.writeUInt16LE(0x1b36, 0);
    config[0x0e] = 0x81;
    tree.file(`${disk}/config`, config);
    expect(findings(DISK)).toMatchObject([['bridge', expect.anything()]]);
  });

  test('members of the group: host drivers count, vfio-pci, pci-stub, bridges and what is bound along do not', () => {
    tree.driver('pci-stub');
    for (const [fn, driver] of [
      ['1', 'vfio-pci'],
      ['2', 'pci-stub'],
      ['3', 'nvme'],
      ['4', 'e1000'],
    ] as const)
      tree.device(`0000:01:00.${fn}`, { driver, group: 1 });
    tree.device('0000:00:01.0', { class: 0x060400, driver: 'pcieport', group: 1 });
    const found = checkDevice(new Census(tree.root), readDevice(tree.root, DISK)!, new Set([DISK, '0000:01:00.4']));
    expect(found.map(({ check, subject }) => [check, subject])).toEqual([['group-member', '0000:01:00.3']]);
  });

  test('a /proc that may not be read is no reason to fail', () => {
    namespace();
    tree.process(5, 'x', {});
    fs.rmSync(tree.at('/proc/5/fd'), { recursive: true });
    expect(findings(DISK)).toEqual([]);
  });
});
