/**
 * What counts as in use, judged on real objects of a kernel: sessions and sockets over an interface, devices on a controller, a
 * watchdog, targets, owners, a picture, sound, a crash kernel. The emulated chipset has no memory controller that EDAC knows: a driver
 * of EDAC takes another device there. Not here: libvirt, for which test/unit/vfio/checks has trees of files.
 */
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { compileC } from '../support/compile.js';
import { type Device, edu, iommu, nvme } from './devices.js';
import { guestTools } from './guest-tools.js';
import { kernel } from './kernels.js';
import { guestSteps, type Steps } from './vfio-guest.js';

const V = 'node bin/run.js vfio';
const qemu =
  (...args: string[]): Device =>
  () => ({ args });

/** A step that makes something, one that looks at the device, and one that takes it away. */
const look = (device: string) => `${V} bind ${device} --dry-run`;
/** Looks while a program runs that has said "ready". */
const during = (program: string, look: string) =>
  `: >/tmp/ready; ${program} >/tmp/ready & p=$!; becomes grep -q ready /tmp/ready; ${look}; kill $p; wait $p; true`;
const python = (code: string) => `python3 -c "${code}; print('ready',flush=True); time.sleep(600)"`;
const STEPS: Steps = [
  ['idle', `${V} list --unused --json`],
  ['address', `ip addr add 10.7.0.1/24 dev $E; ip link set $E up; ${look('$NIC')}`],
  [
    'listener',
    during(`node -e "require('net').createServer().listen(5000,'10.7.0.1',()=>console.log('ready'))"`, look('$NIC --allow address')),
  ],
  ['packet socket', during(python(`import socket,time; s=socket.socket(17,3,3); s.bind(('$E',0))`), look('$NIC --allow address'))],
  ['AF_XDP', during('/tmp/xdp $E', look('$NIC --allow address'))],
  [
    'nvmet and NVMe/TCP',
    `modprobe nvmet-tcp; modprobe nvme-tcp; mount -t configfs c /sys/kernel/config; cd /sys/kernel/config/nvmet; mkdir subsystems/nqn.x ports/1
echo 1 >subsystems/nqn.x/attr_allow_any_host; echo tcp >ports/1/addr_trtype; echo ipv4 >ports/1/addr_adrfam; echo 10.7.0.1 >ports/1/addr_traddr; echo 4420 >ports/1/addr_trsvcid
ln -s $PWD/subsystems/nqn.x ports/1/subsystems/; nvme connect -t tcp -a 10.7.0.1 -s 4420 -n nqn.x; cd $OLDPWD; ${look('$NIC --allow address')}; nvme disconnect -n nqn.x`,
  ],
  [
    'iSCSI',
    `modprobe -a target_core_mod iscsi_target_mod iscsi_tcp; c=/sys/kernel/config/target/core/rd_mcp_0/r; mkdir -p $c; echo rd_pages=64 >$c/control; echo 1 >$c/enable
t=/sys/kernel/config/target/iscsi/iqn.2003-01.org.x:d/tpgt_1; mkdir -p $t/lun/lun_0 $t/np/10.7.0.1:3260; ln -s $c $t/lun/lun_0/x
echo 0 >$t/attrib/authentication; echo 1 >$t/attrib/generate_node_acls; echo 1 >$t/enable
iscsistart -i iqn.2003-01.org.x:me -t iqn.2003-01.org.x:d -g 1 -a 10.7.0.1; ${look('$NIC --allow address')}`,
  ],
  [
    'NBD',
    `modprobe nbd; truncate -s 1M /tmp/n; qemu-nbd --bind 10.7.0.1 -p 10809 -f raw -t /tmp/n & q=$!; becomes 'ss -tln | grep -q 10.7.0.1:10809'
nbd-client -L -n 10.7.0.1 10809 /dev/nbd0 & becomes test -e /sys/block/nbd0/pid; ${look('$NIC --allow address')}; nbd-client -d /dev/nbd0; nbd-client 10.7.0.1 10809 /dev/nbd1
echo "the client left"; ${look('$NIC --allow address')}; nbd-client -d /dev/nbd1; kill $q`,
  ],
  [
    'WireGuard',
    `modprobe wireguard; ip link add wg0 type wireguard; umask 77; wg genkey >/tmp/k; peer() { wg genkey | wg pubkey; }
wg set wg0 private-key /tmp/k peer $(peer) endpoint 10.7.0.2:51820 peer $(peer) endpoint '[fd00::7]:5' peer $(peer); ${look('$NIC --allow address')}; ip link del wg0`,
  ],
  [
    'Open vSwitch',
    `modprobe openvswitch; python3 test/vm/vfio/ovs.py $E; ${look('$NIC --allow address --allow session')}; python3 test/vm/vfio/ovs.py`,
  ],
  [
    'crash dump to a host',
    `python3 test/vm/vfio/crash.py $KERNEL; echo nfs 10.7.0.5:/x >/etc/kdump.conf; ${look('$NIC --allow address --allow session')}`,
  ],
  ['crash dump to a disk', `echo raw /dev/nvme1n1 >/etc/kdump.conf; ${look('$D1')}`],
  ['no crash kernel', `python3 test/vm/vfio/crash.py; ${look('$D1')}; s=$?; rm /etc/kdump.conf; exit $s`],
  [
    'registers',
    during(python(`import mmap,time; f=open('/sys/bus/pci/devices/$EDU/resource0','r+b',0); m=mmap.mmap(f.fileno(),4096)`), look('$EDU')),
  ],
  ['no EDAC', look('$EDU')],
  ['no picture', look('$DISPLAY')],
  [
    'picture',
    `modprobe bochs; becomes test -e /dev/dri/card0 -a -e /dev/fb0; ${look('$DISPLAY')}; mount -t debugfs d /sys/kernel/debug; exec 7<>/dev/dri/card0; ${look('$DISPLAY --allow console')}; true`,
  ],
  ['no sound', `modprobe -a snd-hda-codec-generic snd-hda-intel; becomes test -e /dev/snd/pcmC0D0p; ${look('$SOUND')}`],
  ['sound', `exec 7>/dev/snd/pcmC0D0p; ${look('$SOUND')}; true`],
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
  [
    // last, as x38_edac cannot be unloaded after that. It finds its registers by the address at 48h of the config space; there the edu has a part of its MSI capability
    'EDAC',
    `d=/sys/bus/pci/devices/$EDU; echo x38_edac >$d/driver_override; bar=$(head -n 1 $d/resource | cut -d' ' -f1)
python3 -c "import struct; f=open('$d/config','r+b',0); f.seek(0x48); f.write(struct.pack('<I', $bar | 1))"; modprobe x38_edac; ls -d /sys/devices/system/edac/mc/mc0
${look('$EDU')}`,
  ],
];

let step: (name: string) => { status: number; text: string };

beforeAll(async () => {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-xdp-'));
  try {
    const xdp = fs.readFileSync(compileC('test/vm/vfio/xdp.c', path.join(dir, 'xdp'), ['-static']));
    step = await guestSteps(
      '6.12',
      STEPS,
      `${await guestTools()}
for m in vfio-pci e1000e xhci_pci usbhid hid_generic i6300esb virtio_input nvme; do modprobe $m; done; sleep 3; cd $PWD
becomes() { for i in $(seq 300); do eval "$*" && return; sleep 0.2; done; echo "it does not become: $*"; }
at() { grep -l $1 /sys/bus/pci/devices/*/device | cut -d/ -f6 | sed -n "$2p"; }
NIC=$(at 0x10d3 1) EDU=$(at 0x11e8 1) DISPLAY=$(at 0x1111 1) SOUND=$(at 0x2668 1) KERNEL=${(await kernel('6.12')).vmlinuz} XHCI1=$(at 0x000d 1) XHCI2=$(at 0x000d 2) KEYS=$(at 0x1052 1) DOG=$(at 0x25ab 1); E=$(ls /sys/bus/pci/devices/$NIC/net)
D0=$(basename $(readlink -f /sys/class/nvme/nvme0/device)) D1=$(basename $(readlink -f /sys/class/nvme/nvme1/device))`,
      [
        iommu(),
        qemu('-netdev', 'user,id=u0,restrict=on,ipv6=off', '-device', 'e1000e,netdev=u0,romfile='),
        qemu('-device', 'qemu-xhci,id=x1', '-device', 'usb-kbd,bus=x1.0', '-device', 'qemu-xhci,id=x2'),
        qemu('-device', 'i6300esb', '-device', 'virtio-keyboard-pci'),
        nvme(2),
        edu(),
        qemu('-device', 'bochs-display', '-audiodev', 'none,id=a0', '-device', 'intel-hda', '-device', 'hda-output,audiodev=a0'),
      ],
      { append: 'crashkernel=192M', timeout: 800, files: { '/tmp/xdp': { mode: 0o755, data: xdp } } },
    );
  } finally {
    fs.rmSync(dir, { recursive: true });
  }
}, 1_000_000);

test.each([
  ['address', /has 10\.7\.0\.1.*check "address"/],
  ['listener', /1 TCP listener \(10\.7\.0\.1:5000\) runs over .*check "session"/],
  ['packet socket', /a packet socket on .*check "session"/],
  ['AF_XDP', /AF_XDP socket on queue 0 on /],
  ['AF_XDP', /an XDP program on /],
  ['nvmet and NVMe/TCP', /the NVMe\/TCP controller nvme\d+ \(nqn\.x\) with 10\.7\.0\.1 runs over/],
  ['nvmet and NVMe/TCP', /port 1 of the NVMe target listens on an address of/],
  ['nvmet and NVMe/TCP', /TCP connections? \(/],
  ['iSCSI', /the iSCSI session iqn\.2003-01\.org\.x:d with 10\.7\.0\.1 runs over/],
  ['iSCSI', /the iSCSI target iqn\.2003-01\.org\.x:d listens on an address of/],
  ['NBD', /the network block device nbd0 with 10\.7\.0\.1 runs over[\s\S]*the client left[\s\S]*TCP connections \([^)]*10\.7\.0\.1:10809/],
  ['WireGuard', /a WireGuard peer of wg0 with 10\.7\.0\.2 runs over/],
  ['Open vSwitch', /part of Open vSwitch ovs-system.*check "upper"/],
  ['crash dump to a host', /writes its dump to 10\.7\.0\.5 through .*check "kdump"/],
  ['crash dump to a disk', /writes its dump to \/dev\/nvme1n1.*check "kdump"/],
  ['registers', /python3 \(pid \d+\) has its resource0 mapped.*check "open"/],
  ['EDAC', /mc0[\s\S]*memory errors with it \(EDAC, x38_edac\).*check "edac"/],
  ['picture', /it drives the console frame buffer fb0.*check "console"/],
  ['picture', /sh \(pid \d+\) is master of card0.*check "display"/],
  ['sound', /the sound card card0 plays.*\/dev\/snd\/pcmC0D0p is open in sh/],
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

test.each([
  'no crash kernel',
  'no EDAC',
  'no picture',
  'no sound',
  'down',
  'USB without devices',
  'watchdog off',
  'watchdog off again',
  'free again',
])('%s: free', (name) => {
  expect({ name, ...step(name) }).toMatchObject({ name, status: 0, text: expect.stringContaining('driver_override') });
});

test('--unused lists what is free, and no more', () => {
  const ids = (JSON.parse(step('idle').text).devices as { id: string }[]).map(({ id }) => id).sort();
  // the network card is down and has no address; the disks are empty; the second USB controller and the watchdog are idle; there is
  // nothing at the SATA controller; display and sound have no driver; edu and the random number generator are plain devices
  expect(ids).toEqual([
    '1234:1111',
    '1234:11e8',
    '1af4:1005',
    '1b36:000d',
    '1b36:0010',
    '1b36:0010',
    '8086:10d3',
    '8086:25ab',
    '8086:2668',
    '8086:2922',
  ]);
});
