import { Command, type Example } from '../../cli/command.js';
import { doctorLines } from '../../groups/vfio/views.js';
import { systemHost } from '../../vfio/binding/host.js';
import { Census } from '../../vfio/census/census.js';
import { diagnose, diagnosisStatus } from '../../vfio/inventory/doctor.js';

export default class VfioDoctor extends Command {
  static override readonly description =
    'Checks whether this host is ready for VFIO, and says how to solve each problem. It checks IOMMU and interrupt remapping ' +
    '(firmware, kernel command line), modules, groups that are not viable, limits, hugepages, and interrupted runs of ' +
    'vioctl.\n\nThe exit status is 0 if the host is ready, 1 if a check fails, and 7 if there is no IOMMU.';
  static readonly examples: readonly Example[] = [
    ['vioctl vfio doctor', 'check everything'],
    ['vioctl vfio doctor --json | jq \'.findings[] | select(.level == "fail")\'', 'print only the problems'],
  ];

  async run(): Promise<number> {
    await this.parse(VfioDoctor);
    const census = new Census(this.sysroot);
    const findings = diagnose(systemHost(this.sysroot, process.pid, census.modules), census);
    await this.out.document({ findings }, (doc) => doctorLines(doc.findings));
    return diagnosisStatus(findings);
  }
}
