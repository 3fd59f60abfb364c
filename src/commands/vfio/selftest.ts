import { Command, type Example } from '../../cli/command.js';
import { Exit } from '../../common/errors.js';
import { apiFlag, deviceArg, tokenFlag } from '../../groups/vfio/options.js';
import { selftestLines } from '../../groups/vfio/session-views.js';
import { Census } from '../../vfio/census/census.js';
import { findDevice } from '../../vfio/devices/select.js';
import { selftest } from '../../vfio/selftest/selftest.js';
import { openSession } from '../../vfio/session/open.js';

export default class VfioSelftest extends Command {
  static override readonly description =
    'Tests a device: DMA in both directions through the IOMMU, and one interrupt. An NVMe controller answers Identify on its admin queue, and an edu device of QEMU copies memory. The device must be bound to VFIO. It is reset first. The status is 4 if a check fails.';
  static readonly examples: readonly Example[] = [
    ['vioctl vfio selftest 0000:01:00.0', 'one device, through the newest API that the kernel has'],
    ['vioctl vfio selftest 01:00.0 --api group --json | jq .ok', 'through group and container'],
  ];
  static override readonly args = {
    bdf: deviceArg,
  };
  static override readonly flags = {
    api: apiFlag,
    'vf-token': tokenFlag,
  };

  async run(): Promise<number> {
    const { args, flags } = await this.parse(VfioSelftest);
    const census = new Census(this.sysroot);
    const session = openSession(census, args.bdf, flags.api, [], flags['vf-token']);
    this.life.defer(() => session.close());
    const report = await selftest(session, findDevice(this.sysroot, args.bdf));
    await this.out.document(report, selftestLines);
    return report.ok ? Exit.ok : Exit.differs;
  }
}
