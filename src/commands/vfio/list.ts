import { Command, type Example } from '../../cli/command.js';
import { Flags } from '../../cli/flags.js';
import { counted } from '../../common/units.js';
import { describeHolder } from '../../vfio/census/holders.js';
import { systemCensus } from '../../vfio/census/live.js';
import { noIommu, readIommu } from '../../vfio/devices/iommu.js';
import { type DeviceRow, inventory } from '../../vfio/inventory/inventory.js';
import { asTree, type TreeRow } from '../../vfio/inventory/tree.js';

const inUse = (row: DeviceRow): string =>
  [
    ...new Set([
      ...(row.busy ? ['locked by the kernel'] : []),
      ...row.uses.map((use) => use.brief),
      ...row.holders.map((holder) => describeHolder(holder)),
    ]),
  ].join(', ');
const names = (row: DeviceRow): string => [row.vendorName, row.deviceName].filter((name) => name !== undefined).join(' ');

export default class VfioList extends Command {
  static override readonly description =
    'Lists the PCI devices with driver, driver override, IOMMU group, and what uses each of them: mounted file systems, swap, ' +
    'stacked block devices, routes, addresses; processes that have it open if nothing else does (`vfio show` names all of ' +
    'them).\n\nA host without an IOMMU gets a warning; `vioctl vfio doctor` reports in its exit status whether the host is ready.';
  static readonly examples: readonly Example[] = [
    ['vioctl vfio list', 'all devices'],
    [
      "vioctl vfio list --class nvme --unused --json | jq -r '.devices[].bdf' | xargs -r vioctl vfio bind",
      'bind all unused NVMe controllers',
    ],
    ['vioctl vfio list --driver vfio-pci', 'what is bound to VFIO'],
    ['vioctl vfio list --tree --columns address,driver,group', 'what hangs on what, and which groups it makes'],
  ];
  static override readonly flags = {
    driver: Flags.string({ summary: 'only devices with this driver; "none": without a driver', helpValue: 'DRIVER' }),
    class: Flags.string({ summary: 'only devices of this class: nvme, net, display, usb, … or digits such as 0108', helpValue: 'CLASS' }),
    unused: Flags.boolean({ summary: 'only endpoints without users and holders' }),
    tree: Flags.boolean({ summary: 'draw the bridges, and virtual functions below their physical one' }),
    group: Flags.integer({ summary: 'only members of this IOMMU group', min: 0, helpValue: 'NUMBER' }),
  };
  static override readonly formats = ['json', 'ndjson'] as const;
  static override readonly list = true;

  async run(): Promise<undefined> {
    const { flags } = await this.parse(VfioList);
    const census = systemCensus(this.sysroot, process.pid);
    const rows = inventory(census, { ...flags, parents: flags.tree });
    const drawn = flags.tree ? asTree(rows) : rows.map((row): TreeRow => ({ ...row, branch: '' }));
    await this.out.list(
      drawn,
      [
        { title: 'ADDRESS', priority: 9, min: 12, value: (row) => `${row.branch}${row.bdf}` },
        { title: 'CLASS', priority: 3, value: (row) => row.className },
        { title: 'ID', priority: 3, min: 9, value: (row) => row.id },
        { title: 'DRIVER', priority: 6, value: (row) => row.driver },
        { title: 'OVERRIDE', priority: 1, value: (row) => row.override },
        { title: 'GROUP', priority: 4, value: (row) => row.group, align: 'right' },
        { title: 'USED BY', priority: 5, value: inUse },
        { title: 'NAME', priority: 2, value: names },
      ],
      'devices',
      ({ branch: _, ...row }) => row,
    );
    // Only for --unused: to count them is to look at every descriptor of the host.
    const hidden = flags.unused ? census.processes.hidden : 0;
    if (hidden > 0) this.warn(`${counted(hidden, 'process', 'processes')} may not be read: a listed device may be in use (run as root)`);
    const iommu = readIommu(this.sysroot);
    if (!iommu.present && !iommu.noiommu) this.warn(`${noIommu(iommu).message} (vioctl vfio doctor says what is missing)`);
    return undefined;
  }
}
