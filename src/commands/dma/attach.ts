import { Command, type Example } from '../../cli/command.js';
import { Args } from '../../cli/flags.js';
import { handOver } from '../../dma/handover.js';
import { attachToHolder } from '../../dma/holder.js';
import { execReplacing } from '../../launch/handover.js';

export default class DmaAttach extends Command {
  static override readonly description =
    'Runs CMD in place of this process, with the descriptors of a running `dma map --listen SOCK`. They begin at 3; LISTEN_FDS counts them, and LISTEN_FDNAMES names them: vfio-container or iommufd, vfio-group, vfio-device, dma-NAME. VIOCTL_VFIO describes the mappings as JSON. In the words of CMD, {device} {group} {container} {iommufd} {NAME.fd} {NAME.iova} {NAME.size} are replaced.\n\nThe mappings end with `dma map`, even if CMD still has the descriptors.';
  static readonly examples: readonly Example[] = [
    ['vioctl dma attach /run/buf.sock -- ./probe --fd {buf.fd} --iova {buf.iova}', 'a program that shares the mapping "buf"'],
  ];
  static override readonly args = { socket: Args.string({ required: true, description: 'socket of the holder' }) };
  static override readonly formats = [] as const;
  static override readonly passthrough = 'required';

  async run(): Promise<never> {
    const { args } = await this.parse(DmaAttach);
    const { info, fds } = await attachToHolder(args.socket);
    return execReplacing(handOver(this.rest ?? [], fds, info), this.env);
  }
}
