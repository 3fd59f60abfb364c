/** What manual pages say of a group beside its commands: files, environment, notes and related pages. Only the generator reads it. */

/** A term or a note, and the verbs whose pages have it; every verb of the group without a list. */
type Entry = readonly [term: string, text: string, verbs?: readonly string[]];
type Note = string | readonly [text: string, verbs: readonly string[]];

export interface GroupManual {
  files: readonly Entry[];
  environment: readonly Entry[];
  /** The first one explains the terms of the group. */
  notes: readonly Note[];
  /** Pages of the kernel and of other programs: `nvme(1)`. */
  seeAlso: readonly string[];
}

/** For every page. */
export const commonEnvironment: readonly Entry[] = [
  ['NO_COLOR, FORCE_COLOR', 'disable or force colours; --color overrides both'],
  ['COLUMNS', 'width of tables and help texts [default: that of the terminal]'],
  ['LC_ALL, LC_CTYPE, LANG', 'ASCII frames and bars if the character set is not UTF-8'],
  ['VIOCTL_DEBUG', 'set to 1 to print a stack trace with each error'],
];

const vfioChanges = ['bind', 'unbind', 'restore', 'apply', 'sriov', 'exec'];
const vfioOpens = ['bar', 'config', 'irq', 'reset', 'selftest', 'exec', 'show'];
const dmaPlaces = ['plan', 'map'];
const uringBulk = ['cat', 'sum', 'sync'];
const nvmfHosts = ['discover', 'identify', 'read', 'write', 'logs', 'ping', 'bench', 'conform'];

export const manuals: Readonly<Record<string, GroupManual>> = {
  vfio: {
    files: [
      ['/run/vioctl/vfio', 'journals of changes, and the drivers that devices had before', vfioChanges],
      ['/dev/vfio/GROUP, /dev/vfio/devices/vfioN', 'nodes that give access to a group or a device', [...vfioOpens, 'bind', 'apply']],
      ['/sys/bus/pci/devices/ADDRESS/driver_override', 'name of the driver that takes the device', [...vfioChanges, 'list', 'show']],
      ['/etc/vioctl/vfio.d', 'declarations that --persist writes', ['bind', 'unbind', 'sriov', 'apply']],
      [
        '/etc/udev/rules.d, /etc/systemd/system',
        'the rule and the unit that apply the declarations after a reboot',
        ['bind', 'unbind', 'sriov', 'apply'],
      ],
    ],
    environment: [],
    notes: [
      'An IOMMU group is the smallest set of devices that the hardware isolates from others. A BAR (base address register) is a ' +
        'window to registers or memory of a device. An IOVA is an address that a device uses for DMA.',
      [
        'A device is safe to hand over only behind an IOMMU: vioctl vfio doctor tells whether the host has one.',
        ['bind', 'apply', 'sriov', 'exec', 'doctor'],
      ],
      ['A group opens only if all its members are on a VFIO driver or on none.', [...vfioOpens, 'bind', 'list']],
    ],
    seeAlso: ['lspci(8)', 'setpci(8)', 'driverctl(8)', 'udev(7)'],
  },
  dma: {
    files: [
      ['/sys/kernel/iommu_groups/N/reserved_regions', 'addresses that no mapping may have', dmaPlaces],
      ['/sys/kernel/mm/hugepages', 'hugepages that are reserved and free', dmaPlaces],
    ],
    environment: [],
    notes: [
      'An IOVA is an address that a device uses for DMA; the IOMMU translates it to an address in memory. A container is a set of ' +
        'mappings that devices share.',
      ['Pinned memory counts against the limit of locked memory of a user who is not root: ulimit -l.', dmaPlaces],
    ],
    seeAlso: ['mmap(2)', 'memfd_create(2)', 'getrlimit(2)'],
  },
  uring: {
    files: [
      [
        '/proc/sys/kernel/io_uring_disabled',
        'who may create rings: 0 everybody, 1 one group, 2 nobody',
        [...uringBulk, 'probe', 'register', 'bench'],
      ],
      ['/proc/PID/fdinfo/FD', 'the state of a ring', ['list', 'inspect']],
    ],
    environment: [],
    notes: [
      'A ring is one io_uring: a queue of requests (submissions) and a queue of results (completions). The kernel knows registered ' +
        'files and buffers in advance; requests name them by their slot in a table.',
      ['If io_uring is missing or forbidden, vioctl uses plain system calls on several threads.', uringBulk],
      ['A large file goes into a pipe without a copy: the reader may see what is written to the file meanwhile.', ['cat']],
    ],
    seeAlso: ['io_uring(7)', 'io_uring_setup(2)', 'sha256sum(1)', 'sync(1)'],
  },
  nvmf: {
    files: [
      ['/etc/vioctl/nvmf.json', 'the configuration that vioctl-nvmf.service serves', ['serve', 'ctl']],
      ['/etc/nvme/hostnqn, /etc/nvme/hostid', 'name and identifier of this host, as for nvme-cli', nvmfHosts],
      ['/etc/machine-id', 'source of the name of this host if there is no hostnqn', nvmfHosts],
    ],
    environment: [
      [
        'NOTIFY_SOCKET, WATCHDOG_USEC',
        'set by systemd, which is told when the server is ready, reloads, stops, and that it lives',
        ['serve'],
      ],
      ['LISTEN_FDS, LISTEN_FDNAMES', 'listening sockets that systemd has opened, or kept from an earlier run', ['serve']],
      ['STATE_DIRECTORY', 'default of --state-dir, as systemd sets it', ['serve']],
    ],
    notes: [
      'A host connects to a subsystem, which is a set of namespaces (disks). An NQN (NVMe qualified name) names a host or a ' +
        'subsystem. A PDU (protocol data unit) is one message on the connection.',
      'By default the discovery service has port 8009, and subsystems have port 4420.',
      ['A write is durable when a Flush, or a write with FUA, has succeeded.', ['serve', 'write', 'bench']],
    ],
    seeAlso: ['vioctl-nvmf(5)', 'nvme(1)', 'nvme-connect(1)', 'nvme-discover(1)'],
  },
  'vhost-user': {
    files: [
      ['/etc/vioctl/vhost-user/NAME.json', 'the configuration that vioctl-vhost-user@NAME.service serves', ['serve blk', 'ctl']],
      ['/proc/net/unix', 'the UNIX sockets of this host', ['list']],
      ['/usr/share/qemu/vhost-user', 'descriptions of installed back-ends', ['list']],
    ],
    environment: [
      ['LISTEN_FDS, LISTEN_PID', 'sockets that systemd has opened', ['serve blk']],
      ['NOTIFY_SOCKET', 'set by systemd, which is told when the server is ready and when it stops', ['serve blk']],
      ['STATE_DIRECTORY', 'default of --state-dir, as systemd sets it', ['serve blk']],
    ],
    notes: [
      "The front-end is the virtual machine monitor (VMM), such as QEMU. The back-end is the program that serves the guest's device. " +
        'Both share the memory of the guest and its rings (virtqueues).',
      [
        'With QEMU, -object memory-backend-memfd,share=on makes the memory of the guest shared.',
        ['serve blk', 'shmem serve', 'trace', 'check'],
      ],
    ],
    seeAlso: ['vioctl-vhost-user(5)', 'qemu-system-x86_64(1)', 'qemu-storage-daemon(1)', 'unix(7)'],
  },
  migration: {
    files: [['NAME.PID.part', 'output that is not complete yet, beside the file that it becomes', ['ram', 'convert']]],
    environment: [['TMPDIR', 'folder for temporary copies of input that comes through a pipe; they have no name']],
    notes: [
      'A stream is what QEMU writes when it migrates or saves a guest: sections with the state of each device, and the pages of each ' +
        'RAM block.',
      ['The stream has no checksums: a changed byte inside a page cannot be seen.', ['ram', 'convert']],
    ],
    seeAlso: ['qemu-system-x86_64(1)', 'virsh(1)', 'gdb(1)', 'crash(8)'],
  },
};

/** What the page of one command has of its group. @param verb such as `bind` or `shmem serve` */
export function manualOf(
  group: string,
  verb: string,
): { files: Entry[]; environment: Entry[]; notes: string[]; seeAlso: readonly string[] } {
  const { files, environment, notes, seeAlso } = manuals[group]!;
  const of = (list: readonly Entry[]): Entry[] => list.filter(([, , verbs]) => verbs?.includes(verb) ?? true);
  return {
    files: of(files),
    environment: of(environment),
    notes: notes.flatMap((note) => (typeof note === 'string' ? [note] : note[1].includes(verb) ? [note[0]] : [])),
    seeAlso,
  };
}
