/**
 * What counts as in use, judged on real objects of a kernel: sessions and sockets over an interface, devices on a controller, a
 * watchdog, targets, owners. Not here: iSCSI, WireGuard peers, NBD, Open vSwitch, EDAC, a crash kernel, DRM masters and sound, for
 * which the guest has no programs or devices; test/unit/vfio/checks has trees of files for them.
 */
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { compileC } from '../support/compile.js';
import { type Device, iommu, nvme } from './devices.js';
import { guestSteps, type Steps } from './vfio-guest.js';

const V = 'node bin/run.js vfio';
const qemu =
  (...args: string[]): Device =>
  () => ({ args });

/** A step that makes something, one that looks at the device, and one that takes it away. */
const look = (device: string) => `${V} bind ${device} --dry-run`;
const STEPS: Steps = [
  ['idle', `${V} list --unused --json`],
  ['address', `ip addr add 10.7.0.1/24 dev $E; ip link set $E up; ${look('$NIC')}`],
  ['listener', `node -e "require('net').createServer().listen(5000,'10.7.0.1')" & sleep 2; ${look('$NIC --allow address')}; kill $!`],
  [
    'packet socket',
    `python3 -c "import socket,time; s=socket.socket(17,3,3); s.bind(('$E',0)); time.sleep(60)" & sleep 3; ${look('$NIC --allow address')}; kill $!`,
  ],
  ['AF_XDP', `/tmp/xdp $E >/tmp/ready & sleep 2; cat /tmp/ready; ${look('$NIC --allow address')}; kill $!`],
  [
    'nvmet and NVMe/TCP',
    `modprobe nvmet-tcp; modprobe nvme-tcp; mount -t configfs c /sys/kernel/config; cd /sys/kernel/config/nvmet; mkdir subsystems/nqn.x ports/1
echo 1 >subsystems/nqn.x/attr_allow_any_host; echo tcp >ports/1/addr_trtype; echo ipv4 >ports/1/addr_adrfam; echo 10.7.0.1 >ports/1/addr_traddr; echo 4420 >ports/1/addr_trsvcid
ln -s $PWD/subsystems/nqn.x ports/1/subsystems/; nvme connect -t tcp -a 10.7.0.1 -s 4420 -n nqn.x; cd $OLDPWD; ${look('$NIC --allow address')}; nvme disconnect -n nqn.x`,
  ],
  ...(
    [
      ['macvlan', 'ip link add link $E name x0 type macvlan'],
      ['VLAN', 'ip link add link $E name x0 type vlan id 5'],
      ['bridge', 'ip link add x0 type bridge; ip link set $E master x0'],
      ['bond', 'modprobe bonding max_bonds=0; ip link add x0 type bond; ip link set $E down; ip link set $E master x0'],
    ] as const
  ).map(([name, make]): [string, string] => [name, `${make}; ${look('$NIC --allow address --allow session')}; ip link del x0`]),
  ['route of a table', `ip addr flush dev $E; ip link set $E up; ip route add 10.99.0.0/16 dev $E table 77; ${look('$NIC')}`],
  ['down', `ip link set $E down; ${look('$NIC')}`],
  ['keyboard on USB', look('$XHCI1')],
  ['USB without devices', look('$XHCI2')],
  ['virtio keyboard', look('$KEYS')],
  ['watchdog off', look('$DOG')],
  ['watchdog', `exec 9>/dev/watchdog0; ${look('$DOG')}; echo V >&9; exec 9>&-`],
  ['watchdog off again', look('$DOG')],
  [
    'LIO',
    `modprobe target_core_iblock; d=/sys/kernel/config/target/core/iblock_0/d; mkdir -p $d; echo udev_path=/dev/nvme0n1 >$d/control; echo /dev/nvme0n1 >$d/udev_path; echo 1 >$d/enable; ${look('$D0')}; rmdir $d`,
  ],
  [
    'passthru',
    `s=/sys/kernel/config/nvmet/subsystems/nqn.p; mkdir $s; echo /dev/nvme1 >$s/passthru/device_path; echo 1 >$s/passthru/enable; ${look('$D1')}; echo 0 >$s/passthru/enable`,
  ],
  ['driverctl', `mkdir -p /etc/driverctl.d; echo vfio-pci >/etc/driverctl.d/$D1; ${look('$D1')}; rm /etc/driverctl.d/$D1`],
  ['swap', `mkswap /dev/nvme1n1 >/dev/null; swapon /dev/nvme1n1; ${look('$D1')}; swapoff /dev/nvme1n1`],
  ['open', `exec 8</dev/nvme1n1; ${look('$D1')}; exec 8<&-`],
  ['free again', `${look('$D0')} && ${look('$D1')}`],
];

let step: (name: string) => { status: number; text: string };

beforeAll(async () => {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-xdp-'));
  try {
    const xdp = fs.readFileSync(compileC('test/vm/vfio/xdp.c', path.join(dir, 'xdp'), ['-static']));
    step = await guestSteps(
      '6.12',
      STEPS,
      `for m in vfio-pci e1000e xhci_pci usbhid hid_generic i6300esb virtio_input nvme; do modprobe $m; done; sleep 3; cd $PWD
at() { grep -l $1 /sys/bus/pci/devices/*/device | cut -d/ -f6 | sed -n "$2p"; }
NIC=$(at 0x10d3 1) XHCI1=$(at 0x000d 1) XHCI2=$(at 0x000d 2) KEYS=$(at 0x1052 1) DOG=$(at 0x25ab 1); E=$(ls /sys/bus/pci/devices/$NIC/net)
D0=$(basename $(readlink -f /sys/class/nvme/nvme0/device)) D1=$(basename $(readlink -f /sys/class/nvme/nvme1/device))`,
      [
        iommu(),
        qemu('-netdev', 'user,id=u0,restrict=on,ipv6=off', '-device', 'e1000e,netdev=u0,romfile='),
        qemu('-device', 'qemu-xhci,id=x1', '-device', 'usb-kbd,bus=x1.0', '-device', 'qemu-xhci,id=x2'),
        qemu('-device', 'i6300esb', '-device', 'virtio-keyboard-pci'),
        nvme(2),
      ],
      { files: { '/tmp/xdp': { mode: 0o755, data: xdp } } },
    );
  } finally {
    fs.rmSync(dir, { recursive: true });
  }
}, 700_000);

test.each([
  ['address', /has 10\.7\.0\.1.*check "address"/],
  ['listener', /1 TCP listener \(10\.7\.0\.1:5000\) runs over .*check "session"/],
  ['packet socket', /a packet socket on .*check "session"/],
  ['AF_XDP', /ready[\s\S]*AF_XDP socket on queue 0 on /],
  ['AF_XDP', /an XDP program on /],
  ['nvmet and NVMe/TCP', /the NVMe\/TCP controller nvme\d+ \(nqn\.x\) with 10\.7\.0\.1 runs over/],
  ['nvmet and NVMe/TCP', /port 1 of the NVMe target listens on an address of/],
  ['nvmet and NVMe/TCP', /TCP connections? \(/],
  ['macvlan', /check "upper"/],
  ['VLAN', /part of vlan x0.*check "upper"/],
  ['bridge', /part of bridge x0.*check "upper"/],
  ['bond', /part of bond x0.*check "upper"/],
  ['route of a table', /a route to 10\.99\.0\.0\/16.*check "address"/],
  ['keyboard on USB', /USB device 1-1 \(.*[Kk]eyboard.*usbhid\) hangs on it.*check "attached"/],
  ['virtio keyboard', /the input device input\d+ \(QEMU Virtio Keyboard\).*check "attached"/],
  ['watchdog', /watchdog0 \(i6300ESB.*check "watchdog"/],
  ['LIO', /\/dev\/nvme0n1 is used by the SCSI target's backstore d.*check "holder"/],
  ['passthru', /NVMe target nqn\.p \(passthru\).*check "holder"/],
  ['driverctl', /driverctl gives it.*check "owned"/],
  ['swap', /is active swap.*check "swap"/],
  ['open', /is open in .*check "open"/],
])('%s: refused with the reason %s', (name, reason) => {
  expect({ name, ...step(name) }).toMatchObject({ name, status: expect.any(Number), text: expect.stringMatching(reason) });
});

test.each(['down', 'USB without devices', 'watchdog off', 'watchdog off again', 'free again'])('%s: free', (name) => {
  expect({ name, ...step(name) }).toMatchObject({ name, status: 0, text: expect.stringContaining('driver_override') });
});

test('--unused lists what is free, and no more', () => {
  const ids = (JSON.parse(step('idle').text).devices as { id: string }[]).map(({ id }) => id).sort();
  // the network card is down and has no address; the disks are empty; the second USB controller and the watchdog are idle; there is
  // nothing at the SATA controller; the random number generator is a plain device
  expect(ids).toEqual(['1af4:1005', '1b36:000d', '1b36:0010', '1b36:0010', '8086:10d3', '8086:25ab', '8086:2922']);
});
