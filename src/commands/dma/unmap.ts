import { Command, type Example } from '../../cli/command.js';
import { Args, Flags } from '../../cli/flags.js';
import { unmapInHolder } from '../../dma/holder.js';

export default class DmaUnmap extends Command {
  static override readonly description =
    'Tells a running `dma map --listen SOCK` to unmap one mapping and to free its address. From then on the IOMMU blocks each ' +
    'access of the device to it, and `dma map` reports an access that it blocked. Unmapping twice succeeds.';
  static readonly examples: readonly Example[] = [['vioctl dma unmap /run/buf.sock ring', 'unmap the mapping "ring"']];
  static override readonly args = {
    socket: Args.string({ required: true, description: 'socket of dma map --listen' }),
    name: Args.string({ required: true, description: 'name of the mapping' }),
  };
  static override readonly flags = { 'dry-run': Flags.boolean({ summary: 'print what would be unmapped, and unmap nothing' }) };
  static override readonly changes = true;

  async run(): Promise<undefined> {
    const { args, flags } = await this.parse(DmaUnmap);
    const dryRun = flags['dry-run'] ?? false;
    const changed = await unmapInHolder(args.socket, args.name, dryRun);
    await this.out.document({ unmapped: args.name, changed, done: !dryRun }, (doc) =>
      doc.changed ? `${doc.done ? 'unmapped' : 'would unmap'} ${doc.unmapped}` : `${doc.unmapped} is unmapped already`,
    );
    return undefined;
  }
}
