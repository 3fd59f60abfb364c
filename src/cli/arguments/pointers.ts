/** Where the words of other programs lead here. */

const connects = 'vioctl nvmf read, write and bench connect by themselves; for a kernel device use nvme connect';
const control = 'vioctl nvmf ctl SOCKET changes a running target; nvmetcli configures the one of the kernel';

/** Words of nvme-cli, nvmetcli, driverctl, dpdk-devbind and virsh, by group. */
const foreign: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  nvmf: {
    connect: connects,
    'connect-all': connects,
    disconnect: 'nothing stays connected here; for a kernel device use nvme disconnect',
    list: 'vioctl nvmf discover lists subsystems; nvme list shows the devices of the kernel',
    'list-subsys': 'vioctl nvmf discover lists subsystems; nvme list-subsys shows those of the kernel',
    'id-ctrl': 'vioctl nvmf identify --nqn NQN',
    'id-ns': 'vioctl nvmf identify --nqn NQN --namespace-id 1',
    'list-ns': 'vioctl nvmf identify --nqn NQN',
    'smart-log': 'vioctl nvmf logs smart --nqn NQN',
    'error-log': 'vioctl nvmf logs error --nqn NQN',
    'get-log': 'vioctl nvmf logs --help',
    create: control,
    ls: control,
    saveconfig: control,
    restoreconfig: 'vioctl nvmf serve --config FILE',
  },
  vfio: {
    'set-override': 'vioctl vfio bind DEVICE --persist',
    'unset-override': 'vioctl vfio unbind DEVICE --persist',
    'list-devices': 'vioctl vfio list',
    'list-overrides': 'vioctl vfio list --columns address,override',
    status: 'vioctl vfio list',
    'nodedev-detach': 'vioctl vfio bind DEVICE',
    'nodedev-reattach': 'vioctl vfio unbind DEVICE',
    'nodedev-list': 'vioctl vfio list',
    'nodedev-dumpxml': 'vioctl vfio show DEVICE --json',
    attach: 'vioctl vfio bind DEVICE',
    detach: 'vioctl vfio bind DEVICE takes a device from its driver, vioctl vfio unbind DEVICE gives it back',
  },
  migration: {
    save: 'virsh save NAME FILE saves a guest; vioctl migration verify FILE checks the file',
    restore: 'virsh restore FILE starts the guest; vioctl migration verify FILE checks the file first',
    info: 'vioctl migration stat FILE',
  },
  uring: { check: 'vioctl uring sum --check FILE', hash: 'vioctl uring sum FILE' },
};

/** Programs whose name somebody may type as a group. */
const programs: Readonly<Record<string, string>> = {
  lspci: 'vioctl vfio list',
  man: 'vioctl help --man GROUP VERB',
  driverctl: 'vioctl vfio bind',
  'dpdk-devbind': 'vioctl vfio bind',
  nvme: 'vioctl nvmf --help',
  nvmet: 'vioctl nvmf serve FILE',
  nvmetcli: 'vioctl nvmf ctl SOCKET list',
  sha256sum: 'vioctl uring sum FILE',
  b3sum: 'vioctl uring sum --algorithm blake3 FILE',
};

const at = (table: Readonly<Record<string, string>> | undefined, word: string): string | undefined =>
  table && Object.hasOwn(table, word) ? table[word] : undefined;

/** The hint for a verb that a group does not have, if another program has it. */
export const verbPointer = (group: string, verb: string): string | undefined => at(foreign[group], verb);

/** The hint for a word in the place of a group: a program, or a verb of some groups. @param verbs of each group */
export function groupPointer(word: string, verbs: ReadonlyMap<string, readonly string[]>): string | undefined {
  const known = at(programs, word);
  if (known !== undefined) return known;
  const having = [...verbs].flatMap(([group, names]) =>
    names.filter((name) => name === word || name.startsWith(`${word} `)).map((name) => `vioctl ${group} ${name}`),
  );
  if (having.length === 0) return undefined;
  return `which group? ${having.join(', ')}`;
}
