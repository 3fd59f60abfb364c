/** The safety checks of bind, each of which can be allowed by its name, and what it keeps from happening. */
export const checks = {
  mounted: 'a file system on it, or one that is reached through it, is mounted, in any mount namespace',
  swap: 'the device holds active swap',
  holder: 'LVM, dm-crypt, MD, bcache, ZFS, btrfs, a loop device, a storage target (nvmet, LIO) or a mediated device uses it',
  open: 'a process has a device node of it open',
  route: 'a default route, or the route to the peer of this ssh session, leads out of it',
  address: 'an interface of it is up and has an address or a route',
  session: 'TCP, iSCSI, NVMe/TCP, NBD, WireGuard, AF_XDP or a packet socket runs over an interface of it, or a target listens there',
  upper: 'a bond, bridge, VLAN, VRF or Open vSwitch is stacked on its interface',
  console: "the kernel's console is on it: graphics adapter, serial port, virtio console",
  display: 'it drives a monitor, or a process is master of its DRM device',
  attached: 'a USB device with a driver, or an input device, hangs on it',
  watchdog: 'a watchdog on it runs',
  edac: 'the kernel watches memory errors with it (EDAC)',
  kdump: 'the loaded crash kernel writes its dumps through it',
  owned: 'driverctl, libvirt, the kernel command line, module options, or a rule of udev or the initramfs gives it to somebody',
  'pf-with-vfs': 'it is a physical function with virtual functions, which would vanish',
  bridge: 'it is a PCI bridge',
  chipset: 'the machine runs on it: host or ISA bridge, SMBus, IOMMU, timer, event collector, performance counters, …',
  'boot-disk': 'it carries /, /boot, /usr or another folder the system runs from',
  'group-member': 'another member of its IOMMU group is on a host driver, so VFIO could not use the group',
} as const;
export type CheckName = keyof typeof checks;
export const checkNames = Object.keys(checks) as CheckName[];

/** One reason why a device should not be taken from its driver. */
export interface Finding {
  check: CheckName;
  /** The device node, interface or PCI address it is about. */
  subject: string;
  /** A few words for a table: `mounted /srv`. */
  brief: string;
  /** A sentence: `/dev/nvme0n1p2 is mounted on /srv`. */
  message: string;
  /** The command that takes the reason away. */
  fix: string | undefined;
}
