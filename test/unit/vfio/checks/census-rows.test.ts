import { planBind } from '../../../../src/vfio/binding/bind.js';
import { Census } from '../../../../src/vfio/census/census.js';
import type { LiveNetwork } from '../../../../src/vfio/census/conversations.js';
import { hostDevices } from '../../../../src/vfio/census/domains.js';
import { usesOf } from '../../../../src/vfio/checks/checks.js';
import { readDevice } from '../../../../src/vfio/devices/pci.js';
import { inventory } from '../../../../src/vfio/inventory/inventory.js';
import { PciTree } from '../../../support/pci-tree.js';

const A = '0000:03:00.0';
const B = '0000:04:00.0';
let tree: PciTree;
let live: LiveNetwork | undefined;
beforeEach(() => {
  tree = new PciTree();
  live = undefined;
});
afterEach(() => tree.remove());

const census = () => new Census(tree.root, { live });
const uses = (bdf: string) => usesOf(census(), readDevice(tree.root, bdf)!).map(({ check, message }) => `${check}: ${message}`);
const real = (bdf: string) => `/sys/devices/pci0000:00/${bdf}`;

describe('what runs over a network interface', () => {
  /** Two ports with an address each: eth1 has 10.9.0.1/16, eth2 10.8.0.1/16. */
  beforeEach(() => {
    for (const [bdf, name, index] of [
      [A, 'eth1', 2],
      [B, 'eth2', 3],
    ] as const) {
      tree.net(tree.device(bdf, { class: 0x020000, driver: 'igb' }), name);
      for (const [key, value] of [
        ['flags', '0x1043'],
        ['ifindex', String(index)],
      ] as const)
        tree.file(`${real(bdf)}/net/${name}/${key}`, `${value}\n`);
    }
    tree.file(
      '/proc/net/route',
      'Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\t\n' +
        ['eth1\t0000090A', 'eth2\t0000080A'].map((line) => `${line}\t00000000\t0001\t0\t0\t0\t0000FFFF\t\n`).join(''),
    );
    const leaf = (address: string) => `        |-- ${address}\n           /32 host LOCAL\n`;
    tree.file('/proc/net/fib_trie', `Local:\n  +-- 0.0.0.0/0 3 0 5\n${leaf('10.8.0.1')}${leaf('10.9.0.1')}${leaf('127.0.0.1')}`);
  });
  const sessions = (bdf: string) => uses(bdf).filter((text) => text.startsWith('session'));

  test('TCP: connections and listeners by their local address; loopback, wildcards and ended ones are not of an interface', () => {
    tree.file(
      '/proc/net/tcp',
      [
        '  sl  local_address rem_address   st',
        '   0: 0100090A:03FF 0500090A:0801 01 0:0', // established
        '   1: 0100090A:0016 00000000:0000 0A 0:0', // listens on 10.9.0.1:22
        '   2: 00000000:0016 00000000:0000 0A 0:0', // listens everywhere
        '   3: 0100007F:0017 00000000:0000 0A 0:0', // loopback
        '   4: 0100080A:0016 0500080A:9999 06 0:0', // time-wait
        'junk',
      ].join('\n'),
    );
    expect(sessions(A)).toEqual([
      'session: 1 TCP connection (10.9.0.1:1023 to 10.9.0.5:2049) runs over eth1',
      'session: 1 TCP listener (10.9.0.1:22) runs over eth1',
    ]);
    expect(sessions(B)).toEqual([]);
  });

  test('TCP over IPv6, and IPv4 in IPv6', () => {
    tree.file('/proc/net/if_inet6', 'fd000000000000000000000000000001 02 40 00 80     eth1\n');
    const peer = 'x: 000000FD000000000000000001000000:0016 000000FD000000000000000002000000:8000 01';
    tree.file('/proc/net/tcp6', `${peer}\nx: 0000000000000000FFFF00000100080A:0016 0000000000000000FFFF00000500080A:8000 01\n`);
    expect(sessions(A)).toEqual(['session: 1 TCP connection ([fd00::1]:22 to [fd00::2]:32768) runs over eth1']);
    expect(sessions(B)).toEqual(['session: 1 TCP connection (10.8.0.1:22 to 10.8.0.5:32768) runs over eth2']);
  });

  test('more than three connections are counted', () => {
    const line = (port: number) => `x: 0100090A:${port.toString(16).padStart(4, '0')} 0500090A:0801 01\n`;
    tree.file('/proc/net/tcp', Array.from({ length: 40 }, (_, i) => line(i + 1)).join(''));
    expect(sessions(A)[0]).toMatch(/^session: 40 TCP connections \(.*, …\) run over eth1$/);
  });

  test('iSCSI', () => {
    tree.file('/sys/class/iscsi_connection/connection3:0/address', '10.9.0.5\n');
    tree.file('/sys/class/iscsi_session/session3/targetname', 'iqn.2003-01.org.x:disk\n');
    expect(sessions(A)).toEqual(['session: the iSCSI session iqn.2003-01.org.x:disk with 10.9.0.5 runs over eth1']);
    expect(sessions(B)).toEqual([]);
  });

  test('NVMe over TCP: by the source address, or by the way to the target; PCIe is none', () => {
    const nvme = (name: string, transport: string, address: string) => {
      tree.file(`/sys/class/nvme/${name}/transport`, `${transport}\n`);
      tree.file(`/sys/class/nvme/${name}/address`, `${address}\n`);
    };
    nvme('nvme0', 'pcie', '0000:05:00.0');
    nvme('nvme1', 'tcp', 'traddr=10.9.0.5,trsvcid=4420,src_addr=10.8.0.1');
    nvme('nvme2', 'tcp', 'traddr=10.9.0.5,trsvcid=4420');
    expect(sessions(A)).toEqual(['session: the NVMe/TCP controller nvme2 with 10.9.0.5 runs over eth1']);
    expect(sessions(B)).toEqual(['session: the NVMe/TCP controller nvme1 with 10.9.0.5 runs over eth2']);
  });

  test('NBD: the server in the words of its client', () => {
    tree.file('/sys/class/block/nbd0/pid', '77\n');
    tree.process(77, 'nbd-client', {}, { cmdline: 'nbd-client\x0010.9.0.5\x0010809\x00/dev/nbd0\x00' });
    expect(sessions(A)).toEqual(['session: the network block device nbd0 with 10.9.0.5 runs over eth1']);
  });

  test('targets that listen on an address: nvmet with something to export, portals of LIO', () => {
    const port = '/sys/kernel/config/nvmet/ports/1';
    tree.file(`${port}/addr_trtype`, 'tcp\n');
    tree.file(`${port}/addr_traddr`, '10.9.0.1\n');
    tree.folder(`${port}/subsystems`);
    tree.file('/sys/kernel/config/target/iscsi/iqn.x/tpgt_1/enable', '1\n');
    tree.folder('/sys/kernel/config/target/iscsi/iqn.x/tpgt_1/np/10.8.0.1:3260');
    expect(sessions(A)).toEqual([]);
    expect(sessions(B)).toEqual(['session: the iSCSI target iqn.x listens on an address of eth2']);
    tree.folder(`${port}/subsystems/nqn.x`);
    expect(sessions(A)).toEqual(['session: port 1 of the NVMe target listens on an address of eth1']);
  });

  test('packet sockets of one interface; those of all are of none', () => {
    tree.file(
      '/proc/net/packet',
      'sk               RefCnt Type Proto  Iface R Rmem   User   Inode\n000 3 3 0003 2 1 0 0 1\n000 3 3 88cc 0 1 0 0 2\n',
    );
    expect([sessions(A), sessions(B)]).toEqual([['session: there is a packet socket on eth1'], []]);
  });

  test('AF_XDP, XDP programs and WireGuard, which only the running system tells', () => {
    live = {
      xdpPrograms: () => ['eth2'],
      xdpSockets: () => [{ device: 'eth1', queue: 3 }],
      wireguard: () => [{ name: 'wg0', peer: '10.9.0.7' }],
    };
    expect(sessions(A)).toEqual([
      'session: a WireGuard peer of wg0 with 10.9.0.7 runs over eth1',
      'session: there is an AF_XDP socket on queue 3 on eth1',
    ]);
    expect(sessions(B)).toEqual(['session: there is an XDP program on eth2']);
  });

  test('through a bridge above the interface', () => {
    tree.net(undefined, 'br0');
    tree.link(`${real(A)}/net/eth1/upper_br0`, '/sys/devices/virtual/net/br0');
    tree.file(
      '/proc/net/route',
      'Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\t\nbr0\t0000090A\t00000000\t0001\t0\t0\t0\t0000FFFF\t\n',
    );
    tree.file('/sys/class/iscsi_connection/connection3:0/address', '10.9.0.5\n');
    expect(sessions(A)).toHaveLength(1);
  });
});

describe('what hangs on a controller', () => {
  const usb = (at: string, driver: string | undefined, product?: string) => {
    const folder = `${real(A)}/usb1/${at}`;
    tree.file(`${folder}/idVendor`, '046d\n');
    tree.file(`${folder}/idProduct`, 'c31c\n');
    if (product !== undefined) tree.file(`${folder}/product`, `${product}\n`);
    const last = at.split('/').pop()!;
    tree.folder(`${folder}/${last}:1.0`);
    if (driver !== undefined) tree.link(`${folder}/${last}:1.0/driver`, `/sys/bus/usb/drivers/${driver}`);
  };
  beforeEach(() => {
    for (const bdf of [A, B]) {
      tree.device(bdf, { class: 0x0c0330, driver: 'xhci_hcd' });
      tree.link(`${real(bdf)}/usb1/1-0:1.0/driver`, '/sys/bus/usb/drivers/hub');
    }
  });

  test('USB devices with a driver, also behind a hub; hubs and devices without a driver are none', () => {
    usb('1-2', 'hub');
    usb('1-3', undefined);
    expect(uses(A)).toEqual([]);
    usb('1-2/1-2.1', 'usbhid', 'USB Keyboard');
    expect(uses(A)).toEqual(['attached: USB device 1-2.1 (USB Keyboard, driver usbhid) hangs on it']);
    expect(uses(B)).toEqual([]);
  });

  test('input devices that are not on USB; jacks of sound cards are none', () => {
    const input = (number: number, folder: string, name: string) => {
      tree.file(`${real(A)}/${folder}/input${number}/name`, `${name}\n`);
      tree.link(`/sys/class/input/input${number}`, `${real(A)}/${folder}/input${number}`);
    };
    input(3, 'sound/card0', 'HDA Intel PCH Headphone');
    expect(uses(A)).toEqual([]);
    input(4, 'virtio3/input', 'QEMU Virtio Keyboard');
    expect(uses(A)).toEqual(['attached: the input device input4 (QEMU Virtio Keyboard) hangs on it']);
  });

  test('a sound card that plays', () => {
    tree.link('/sys/class/sound/card0', `${real(A)}/sound/card0`);
    tree.file('/proc/asound/card0/pcm0p/sub0/status', 'closed\n');
    expect(uses(A)).toEqual([]);
    tree.file('/proc/asound/card0/pcm0p/sub0/status', 'state: RUNNING\nowner_pid   : 812\n');
    expect(uses(A)).toEqual(['open: the sound card card0 plays (pcm0p)']);
  });

  test('registers that a process has mapped through sysfs', () => {
    tree.process(88, 'testpmd', {}, { maps: `7f00-7f10 rw-s 00000000 00:15 99   /sys/devices/pci0000:00/${A}/resource0\n` });
    expect([uses(A), uses(B)]).toEqual([['open: testpmd (pid 88) has its resource0 mapped'], []]);
  });

  test('mediated devices', () => {
    tree.folder(`${real(A)}/83b8f4f2-509f-382f-3c1e-e6bfe0fa1001`);
    expect(uses(A)).toEqual(['holder: mediated devices are made of it (83b8f4f2-509f-382f-3c1e-e6bfe0fa1001)']);
  });
});

describe('what the machine relies on', () => {
  beforeEach(() => {
    for (const bdf of [A, B]) tree.device(bdf, { driver: 'nvme' });
  });

  test('a watchdog that runs', () => {
    tree.link('/sys/class/watchdog/watchdog0', `${real(A)}/watchdog/watchdog0`);
    tree.file(`${real(A)}/watchdog/watchdog0/state`, 'inactive\n');
    expect(uses(A)).toEqual([]);
    tree.file(`${real(A)}/watchdog/watchdog0/state`, 'active\n');
    tree.file(`${real(A)}/watchdog/watchdog0/identity`, 'i6300ESB timer\n');
    expect(uses(A)).toEqual(['watchdog: its watchdog watchdog0 (i6300ESB timer) runs: if nobody serves it, the machine reboots']);
    expect(uses(B)).toEqual([]);
  });

  test('a watchdog without a parent, known by what it calls itself', () => {
    tree.driver('i6300ESB timer', 'i6300esb');
    tree.bind(B, 'i6300ESB timer');
    tree.link('/sys/class/watchdog/watchdog0', '/sys/devices/virtual/watchdog/watchdog0');
    tree.file('/sys/devices/virtual/watchdog/watchdog0/state', 'active\n');
    tree.file('/sys/devices/virtual/watchdog/watchdog0/identity', 'Software Watchdog\n');
    expect(uses(B)).toEqual([]);
    tree.file('/sys/devices/virtual/watchdog/watchdog0/identity', 'i6300ESB timer\n');
    expect(uses(B)).toEqual([expect.stringContaining('watchdog: its watchdog watchdog0 (i6300ESB timer) runs')]);
    expect(uses(A)).toEqual([]);
  });

  test('EDAC, by its device or by its driver', () => {
    tree.link('/sys/devices/system/edac/mc/mc0/device', `${real(A)}`);
    expect([uses(A), uses(B)]).toEqual([['edac: the kernel watches memory errors with it (EDAC, mc0)'], []]);
    tree.driver('ie31200_edac');
    tree.bind(B, 'ie31200_edac');
    expect(uses(B)).toEqual(['edac: the kernel watches memory errors with it (EDAC, ie31200_edac)']);
  });

  test('the target of crash dumps, once a crash kernel is loaded: disks by path and UUID, hosts by their route', () => {
    tree.block(`${real(A)}/nvme/nvme0`, 'nvme0n1', '259:0');
    tree.file('/dev/nvme0n1', '');
    tree.file('/etc/kdump.conf', '# raw /dev/sda\nraw UUID=1234-AB\n');
    tree.link('/dev/disk/by-uuid/1234-AB', '../../nvme0n1');
    expect(uses(A)).toEqual([]);
    tree.file('/sys/kernel/kexec_crash_loaded', '1\n');
    expect(uses(A)).toEqual(['kdump: the loaded crash kernel writes its dump to /dev/nvme0n1']);
    tree.net(real(B), 'eth0');
    expect(uses(B)).toEqual([]);
    tree.file(
      '/proc/net/route',
      'Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\t\neth0\t0000090A\t00000000\t0001\t0\t0\t0\t0000FFFF\t\n',
    );
    tree.file('/etc/default/kdump-tools', '#NFS="10.1.0.5:/x"\nSSH="root@10.9.0.5"\n');
    expect(uses(B)).toEqual(['kdump: the loaded crash kernel writes its dump to 10.9.0.5 through eth0']);
  });
});

describe('whose the device is', () => {
  beforeEach(() => {
    for (const bdf of [A, B]) tree.device(bdf);
  });
  const xml = (name: string, bus: string) =>
    `<domain type='kvm'><name>${name}</name><devices><hostdev mode='subsystem' type='pci' managed='yes'>
    <driver name='vfio'/><source>\n <address domain='0x0000' bus='${bus}' slot='0x00' function='0x0'/></source>
    <address type='pci' domain='0x0000' bus='0x04' slot='0x00' function='0x0'/></hostdev></devices></domain>`;

  test('libvirt: the address on the host counts, not that in the guest', () => {
    tree.file('/etc/libvirt/qemu/vm.xml', xml('a&amp;b', '0x03'));
    expect([uses(A), uses(B)]).toEqual([['owned: the libvirt domain a&b has it as a host device'], []]);
    tree.file('/run/libvirt/qemu/vm.xml', xml('vm', '3'));
    expect(uses(A)).toEqual(['owned: the running libvirt domain vm has it as a host device']);
    expect(hostDevices('<domain/>')).toBeUndefined();
  });

  test('libvirt: what it keeps about a domain that runs; a disk of NVMe; devices of other buses', () => {
    const usb = "<hostdev mode='subsystem' type='usb'><source><address bus='5' device='3'/></source></hostdev>";
    const disk =
      "<disk type='nvme' device='disk'><source type='pci' managed='yes' namespace='1'><address domain='0x0000' bus='0x05' slot='0x00' function='0x0'/></source></disk>";
    const vm = xml('vm', '0x03').replace('<devices>', `<devices>${usb}`);
    tree.file(
      '/run/libvirt/qemu/vm.xml',
      `<!--\nWARNING: THIS IS AN AUTO-GENERATED FILE.\n-->\n<domstatus state='running' reason='booted' pid='4711'>\n  <taint flag='host-cpu'/>
  <monitor path='/var/lib/libvirt/qemu/domain-1-vm/monitor.sock' type='unix'/>\n  <devices><device alias='hostdev0'/></devices>\n  ${vm}\n</domstatus>\n`,
    );
    expect([uses(A), uses(B)]).toEqual([['owned: the running libvirt domain vm has it as a host device'], []]);
    tree.file('/etc/libvirt/qemu/disk.xml', `<domain type='kvm'><name>disk</name><devices>${disk}</devices></domain>`);
    tree.device('0000:05:00.0');
    expect(uses('0000:05:00.0')).toEqual(['owned: the libvirt domain disk has it as a host device']);
  });

  test('libvirt: a network of host devices, by address and by the physical function', () => {
    const network = (mode: string, what: string) =>
      `<network><name>vfs</name><forward mode='${mode}' managed='yes'>${what}</forward></network>`;
    const file = '/etc/libvirt/qemu/networks/vfs.xml';
    tree.file(file, network('hostdev', "<driver name='vfio'/><address type='pci' domain='0x0000' bus='0x03' slot='0x00' function='0x0'/>"));
    expect([uses(A), uses(B)]).toEqual([['owned: the libvirt network vfs hands it to domains'], []]);
    tree.file(file, network('nat', "<address type='pci' domain='0' bus='3' slot='0' function='0'/>"));
    expect(uses(A)).toEqual([]);
    tree.net(real(A), 'eth7');
    tree.link(`${real(A)}/virtfn0`, real(B));
    tree.link(`${real(A)}/net/eth7/device`, real(A));
    tree.file('/run/libvirt/network/vfs.xml', network('hostdev', "<pf dev='eth7'/>"));
    expect(uses(B)).toEqual(['owned: the running libvirt network vfs hands it to domains']);
  });

  test('driverctl, whatever driver it gives; the kernel command line', () => {
    tree.file(`/etc/driverctl.d/${A}`, 'nvme\n');
    expect([uses(A), uses(B)]).toEqual([[`owned: driverctl gives it to a driver at boot (/etc/driverctl.d/${A})`], []]);
    tree.file('/proc/cmdline', 'vfio-pci.ids=1b36:0010\n');
    expect(uses(B)).toEqual(['owned: kernel command line gives it to a driver at boot (vfio-pci.ids)']);
  });

  test('LIO has a disk as backstore', () => {
    tree.block(`${real(A)}/nvme/nvme0`, 'nvme0n1', '259:0');
    tree.file('/sys/kernel/config/target/core/iblock_0/disk/udev_path', '/dev/nvme0n1\n');
    tree.file('/sys/kernel/config/target/core/iblock_0/disk/enable', '0\n');
    expect(uses(A)).toEqual([]);
    tree.file('/sys/kernel/config/target/core/iblock_0/disk/enable', '1\n');
    expect(uses(A)).toEqual(["holder: /dev/nvme0n1 is used by the SCSI target's backstore disk"]);
  });
});

test('graphics: an output that is on, a DRM master; an output that is off is none', () => {
  tree.device(A, { class: 0x030000 });
  const drm = (name: string) => tree.link(`/sys/class/drm/${name}`, `${real(A)}/drm/${name}`);
  drm('card0');
  drm('card0-HDMI-A-1');
  tree.file(`${real(A)}/drm/card0-HDMI-A-1/enabled`, 'disabled\n');
  expect(uses(A)).toEqual([]);
  tree.file(`${real(A)}/drm/card0-HDMI-A-1/enabled`, 'enabled\n');
  tree.file(
    '/sys/kernel/debug/dri/0/clients',
    '             command  tgid dev master a   uid      magic\n        gnome shell  812   0   y    y  1000          0\n   x 9 0 n y 0 0\n',
  );
  expect(uses(A)).toEqual(['display: gnome shell (pid 812) is master of card0', `display: ${A} shows a picture on its output HDMI-A-1`]);
});

test('bridges are never unused and never bound, whatever is allowed', () => {
  tree.driver('vfio-pci');
  tree.device(A, { class: 0x060400, group: 3 });
  tree.device(B, { class: 0x060000, group: 4 });
  expect(inventory(census(), { unused: true })).toEqual([]);
  for (const bdf of [A, B])
    expect(() => planBind(census(), { bdfs: [bdf], allow: ['bridge', 'chipset'] }, { privileged: false })).toThrow(
      expect.objectContaining({ exit: 3, hint: 'VFIO takes endpoints only' }),
    );
});
