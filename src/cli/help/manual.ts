/** What manual pages say of a group beside its commands: files, environment, notes and related pages. Only the generator reads it. */

type Entry = readonly [term: string, text: string];

export interface GroupManual {
  files: readonly Entry[];
  environment: readonly Entry[];
  notes: readonly string[];
  /** Pages of the kernel and of other programs: `nvme(1)`. */
  seeAlso: readonly string[];
}

/** For every page. */
export const commonEnvironment: readonly Entry[] = [
  ['NO_COLOR, FORCE_COLOR', 'no colours, or colours everywhere; --color comes first'],
  ['COLUMNS', 'width of tables and help texts, instead of the width of the terminal'],
  ['LC_ALL, LC_CTYPE, LANG', 'ASCII frames if the character set is not UTF-8'],
  ['VIOCTL_DEBUG', 'with 1, an error prints where it happened'],
];

export const manuals: Readonly<Record<string, GroupManual>> = {
  vfio: {
    files: [
      ['/run/vioctl/vfio', 'journals of changes, and the drivers that devices had before'],
      ['/dev/vfio/GROUP, /dev/vfio/devices/vfioN', 'nodes that give access to a group or a device'],
      ['/sys/bus/pci/devices/ADDRESS/driver_override', 'the driver that takes the device'],
      ['/etc/udev/rules.d, /etc/systemd/system', 'the rule and the unit that --persist writes'],
    ],
    environment: [],
    notes: [
      'A device is safe to hand over only behind an IOMMU: vioctl vfio doctor tells whether the host has one.',
      'A group opens only if all its members are on a VFIO driver or on none.',
    ],
    seeAlso: ['lspci(8)', 'setpci(8)', 'driverctl(8)', 'udev(7)'],
  },
  dma: {
    files: [
      ['/sys/kernel/iommu_groups/N/reserved_regions', 'addresses that no mapping may have'],
      ['/sys/kernel/mm/hugepages', 'hugepages that are reserved and free'],
    ],
    environment: [],
    notes: ['Pinned memory counts against the limit of locked memory of a user who is not root: ulimit -l.'],
    seeAlso: ['mmap(2)', 'memfd_create(2)', 'getrlimit(2)'],
  },
  uring: {
    files: [
      ['/proc/sys/kernel/io_uring_disabled', 'whether users may have rings: 0 all, 1 one group, 2 nobody'],
      ['/proc/PID/fdinfo/FD', 'the state of a ring, which list and inspect read'],
    ],
    environment: [],
    notes: ['If io_uring is missing or forbidden, the bulk commands use plain system calls on several threads.'],
    seeAlso: ['io_uring(7)', 'io_uring_setup(2)', 'sha256sum(1)', 'sync(1)'],
  },
  nvmf: {
    files: [
      ['/etc/vioctl/nvmf.json', 'the configuration that vioctl-nvmf.service serves'],
      ['/etc/nvme/hostnqn, /etc/nvme/hostid', 'name and identifier of this host, as for nvme-cli'],
      ['/etc/machine-id', 'the name of this host is made from it if there is no hostnqn'],
    ],
    environment: [
      ['NOTIFY_SOCKET, WATCHDOG_USEC', 'serve tells systemd when it is ready, reloads and stops, what it does, and that it lives'],
      ['LISTEN_FDS, LISTEN_FDNAMES', 'listening sockets that systemd has opened, or kept from an earlier run'],
      ['STATE_DIRECTORY', 'default of --state-dir, as systemd sets it'],
    ],
    notes: [
      'The discovery service has port 8009, subsystems have port 4420.',
      'A write is durable when a Flush, or a write with FUA, has succeeded.',
    ],
    seeAlso: ['vioctl-nvmf(5)', 'nvme(1)', 'nvme-connect(1)', 'nvme-discover(1)'],
  },
  'vhost-user': {
    files: [
      ['/etc/vioctl/vhost-user/NAME.json', 'the configuration that vioctl-vhost-user@NAME.service serves'],
      ['/proc/net/unix', 'the sockets of this host, which vhost-user list reads'],
      ['/usr/share/qemu/vhost-user', 'descriptions of installed back-ends (list --installed)'],
    ],
    environment: [
      ['LISTEN_FDS, LISTEN_PID', 'sockets that systemd has opened for serve blk'],
      ['NOTIFY_SOCKET', 'serve blk tells systemd when it is ready and when it stops'],
      ['STATE_DIRECTORY', 'default of --state-dir, as systemd sets it'],
    ],
    notes: ['The front-end must share its memory: with QEMU, -object memory-backend-memfd,share=on.'],
    seeAlso: ['vioctl-vhost-user(5)', 'qemu-system-x86_64(1)', 'qemu-storage-daemon(1)', 'unix(7)'],
  },
  migration: {
    files: [['NAME.PID.part', 'output that is not complete yet, beside the file that it becomes']],
    environment: [['TMPDIR', 'folder for what must be spooled, under no name']],
    notes: ['The stream has no checksums: a changed byte inside a page cannot be seen.'],
    seeAlso: ['qemu-system-x86_64(1)', 'virsh(1)', 'gdb(1)', 'crash(8)'],
  },
};
