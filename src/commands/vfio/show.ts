import { Command, type Example } from '../../cli/command.js';
import { counted } from '../../common/units.js';
import { deviceArg } from '../../groups/vfio/options.js';
import { insideLines } from '../../groups/vfio/session-views.js';
import { showLines } from '../../groups/vfio/views.js';
import { systemCensus } from '../../vfio/census/live.js';
import { noIommu, readIommu } from '../../vfio/devices/iommu.js';
import { findDevice } from '../../vfio/devices/select.js';
import { report } from '../../vfio/inventory/inventory.js';
import { inspect } from '../../vfio/session/inspect.js';

export default class VfioShow extends Command {
  static override readonly description =
    'Shows everything about one device: its IOMMU group and the members that keep VFIO from using it, reserved IOVA ranges, ' +
    'NUMA node, virtual functions, BARs, interrupts, capabilities, reset methods, block devices, network interfaces, what the ' +
    'host uses it for, and the processes that have it open. If the device is bound to VFIO, free, and yours to open, the ' +
    'command also shows its regions, interrupts and resets as VFIO reports them.';
  static readonly examples: readonly Example[] = [
    ['vioctl vfio show 0000:01:00.0', 'show one device'],
    [
      "vioctl vfio show 05:02.0 --json | jq '.iommuGroup.members[] | select(.blocks) | {bdf, driver, fix}'",
      'list the members that make its group not viable',
    ],
  ];
  static override readonly args = {
    bdf: deviceArg,
  };

  async run(): Promise<undefined> {
    const { args } = await this.parse(VfioShow);
    const device = findDevice(this.sysroot, args.bdf);
    const census = systemCensus(this.sysroot, process.pid);
    const doc = { ...report(census, device), inside: this.sysroot.root === '/' ? inspect(census, device) : undefined };
    await this.out.document(doc, (d) => [...showLines(d), ...insideLines(d.inside)]);
    const iommu = readIommu(this.sysroot);
    if (!iommu.present && !iommu.noiommu) this.warn(noIommu(iommu).message);
    if (doc.hiddenProcesses > 0)
      this.warn(`${counted(doc.hiddenProcesses, 'process', 'processes')} may not be read: holders may be missing (run as root)`);
    return undefined;
  }
}
