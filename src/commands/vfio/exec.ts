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
    'Runs CMD with devices and with memory that is mapped for them. CMD inherits their descriptors, from 3 on. LISTEN_FDS counts ' +
    'them, and LISTEN_FDNAMES names them: vfio-container or iommufd, vfio-group, vfio-device, dma-NAME (with -1 behind the names of ' +
    'a second device). VIOCTL_VFIO describes the mappings as JSON. In the words of CMD, {device} {group} {container} {iommufd} ' +
    '{vf-token} {NAME.fd} {NAME.iova} {NAME.size} are replaced; the token is that of --vf-token or `vfio sriov`.\n\nSignals go to ' +
    'CMD, and its exit status is the exit status of vioctl. Afterwards everything is unmapped and closed, and the devices return to ' +
    'their drivers. If the IOMMU blocks an access of a device and the kernel log can be read, stderr names the mapping. If CMD uses ' +
    '{iommufd} and nothing is mapped, it gets the device untouched, as QEMU requires.';
  static readonly examples: readonly Example[] = [
    [
      'vioctl vfio exec 01:00.0 --bind --map ring=64M,huge=2M --map fw=./fw.bin,ro -- ./driver {device} {ring.iova} {ring.fd}',
      'a driver in user space',
    ],
    [
      'vioctl vfio exec 01:00.0 --user qemu --memlock unlimited -- qemu-system-x86_64 -object iommufd,id=i0,fd={iommufd} -device ' +
        'vfio-pci,id=v0,iommufd=i0,fd={device}',
      'a QEMU without privileges',
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
    memlock: Flags.string({ helpValue: 'SIZE|unlimited', summary: 'locked memory that CMD may have' }),
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
