import { Command, type Example } from '../../cli/command.js';
import { Args } from '../../cli/flags.js';
import { handOver } from '../../dma/handover.js';
import { attachToHolder } from '../../dma/holder.js';
import { execReplacing } from '../../launch/handover.js';

export default class DmaAttach extends Command {
  static override readonly description =
    'Runs CMD in place of this process, with the descriptors of a running `dma map --listen SOCK`. They begin at 3. ' +
    'LISTEN_FDS is their number, and LISTEN_FDNAMES lists their names in order: vfio-container or iommufd, vfio-group, ' +
    'vfio-device, and dma-NAME for each mapping. VIOCTL_VFIO describes the mappings as JSON.\n\nIn the words of CMD, vioctl ' +
    'replaces {device}, {group}, {container}, {iommufd} and {NAME.fd} by descriptor numbers, {NAME.iova} by the address that ' +
    'the device uses, and {NAME.size} by the bytes of the mapping.\n\nThe mappings end with `dma map`, even if CMD still has ' +
    'the descriptors.';
  static readonly examples: readonly Example[] = [
    ['vioctl dma attach /run/buf.sock -- ./probe --fd {buf.fd} --iova {buf.iova}', 'run a program that uses the mapping "buf"'],
  ];
  static override readonly args = { socket: Args.string({ required: true, description: 'socket of dma map --listen' }) };
  static override readonly formats = [] as const;
  static override readonly passthrough = 'required';

  async run(): Promise<never> {
    const { args } = await this.parse(DmaAttach);
    const { info, fds } = await attachToHolder(args.socket);
    return execReplacing(handOver(this.rest ?? [], fds, info), this.env);
  }
}
