import { Command, type Example } from '../../cli/command.js';
import { Args, Flags } from '../../cli/flags.js';
import { usage } from '../../common/errors.js';
import { parseSize } from '../../common/units.js';
import { lockLimit } from '../../dma/lock-limit.js';
import { parseSpecs } from '../../dma/spec.js';
import { apiFlag, tokenFlag } from '../../groups/vfio/options.js';
import { execReplacing } from '../../launch/handover.js';
import { interruptible, supervise } from '../../launch/supervise.js';
import { systemHost } from '../../vfio/binding/host.js';
import { parseOwner } from '../../vfio/binding/owner.js';
import { expand } from '../../vfio/devices/select.js';
import { execPlan, prepareExec } from '../../vfio/session/exec.js';

export default class VfioExec extends Command {
  static override readonly description =
    'Runs CMD with open devices and with memory that is mapped for them. CMD inherits the descriptors, from 3 on. LISTEN_FDS ' +
    'is their number, and LISTEN_FDNAMES lists their names in order: vfio-container or iommufd, vfio-group, vfio-device ' +
    '(vfio-group-1 and vfio-device-1 for a second device), and dma-NAME for each mapping. VIOCTL_VFIO describes the mappings ' +
    'as JSON.\n\nIn the words of CMD, vioctl replaces {device}, {group}, {container}, {iommufd} and {NAME.fd} by descriptor ' +
    'numbers, {NAME.iova} by the address that the device uses, {NAME.size} by the bytes of the mapping, and {vf-token} by the ' +
    'token of --vf-token or `vfio sriov`. If CMD uses {iommufd} and there is no --map, the device is not attached to any ' +
    'address space: QEMU attaches it.\n\nSignals go to CMD, and its exit status is the exit status of vioctl. Afterwards vioctl ' +
    'unmaps and closes everything, and the devices return to their drivers. If the IOMMU blocks an access of a device and the ' +
    'kernel log is readable, a message names the mapping.';
  static readonly examples: readonly Example[] = [
    [
      'vioctl vfio exec 01:00.0 --bind --map ring=64M,huge=2M --map fw=./fw.bin,ro -- ./driver {device} {ring.iova} {ring.fd}',
      'run a driver in user space',
    ],
    [
      'vioctl vfio exec 01:00.0 --user qemu --memlock unlimited -- qemu-system-x86_64 -object iommufd,id=i0,fd={iommufd} -device ' +
        'vfio-pci,id=v0,iommufd=i0,fd={device}',
      'run QEMU without privileges',
    ],
  ];
  static override readonly args = {
    bdf: Args.string({ required: true, multiple: true, description: 'PCI addresses; they share the mappings' }),
  };
  static override readonly flags = {
    map: Flags.string({
      multiple: true,
      helpValue: 'NAME=SIZE|FILE[,…]',
      summary: 'map memory: options ro, huge=2M, align=2M, iova=0x…, below4g, temp',
    }),
    bind: Flags.boolean({ summary: 'bind the IOMMU groups of the devices first, and give them back at the end' }),
    replace: Flags.boolean({ summary: 'replace vioctl with CMD, without clean-up afterwards (for systemd units)' }),
    user: Flags.string({ helpValue: 'USER[:GROUP]', summary: 'run CMD as this user, without supplementary groups' }),
    memlock: Flags.string({ helpValue: 'SIZE|unlimited', summary: 'limit of locked memory for CMD' }),
    api: apiFlag,
    'vf-token': tokenFlag,
    'dry-run': Flags.boolean({ summary: 'print what would be bound, mapped and run, and do nothing' }),
  };
  static override readonly formats = [] as const;
  static override readonly changes = true;
  static override readonly passthrough = 'required';

  async run(): Promise<number | undefined> {
    const { args, flags } = await this.parse(VfioExec);
    const specs = parseSpecs(flags.map ?? []);
    if (flags.replace && flags.bind) throw usage('--replace undoes nothing: bind first with vioctl vfio bind');
    const user = flags.user === undefined ? undefined : parseOwner(this.sysroot, flags.user);
    const memlock =
      flags.memlock === undefined ? undefined : flags.memlock === 'unlimited' ? Number.POSITIVE_INFINITY : parseSize(flags.memlock);
    const bdfs = expand(this.sysroot, args.bdf as unknown as string[]);
    if (flags['dry-run']) {
      for (const line of execPlan(this.sysroot, { bdfs, words: this.rest ?? [], specs, bind: flags.bind })) await this.out.line(line);
      return undefined;
    }
    const prepare = (signal?: AbortSignal) =>
      prepareExec(systemHost(this.sysroot, process.pid), {
        signal,
        bdfs,
        words: this.rest ?? [],
        specs,
        api: flags.api,
        token: flags['vf-token'],
        bind: flags.bind,
        limit: lockLimit(this.sysroot.attr('/proc/self/status') ?? ''),
        memlock,
      });
    // without a bind there is nothing to undo that the kernel does not undo itself
    const prepared = flags.bind ? await interruptible(prepare) : await prepare();
    if (typeof prepared === 'number') return prepared;
    if (flags.replace) return execReplacing(prepared.program, this.env, user);
    const { argv, env, fds } = prepared.program;
    const faults = prepared.watchFaults((text) => this.warn(text));
    try {
      return await supervise({ argv, fds, env: { ...this.env, ...env }, user: user && { uid: user.uid, gid: user.gid } });
    } finally {
      faults?.close();
      await prepared.close();
    }
  }
}
