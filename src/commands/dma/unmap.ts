import { Command, type Example } from '../../cli/command.js';
import { Args, Flags } from '../../cli/flags.js';
import { VioError } from '../../common/errors.js';
import { ask } from '../../dma/channel.js';
import { parseHolderInfo } from '../../dma/views.js';

export default class DmaUnmap extends Command {
  static override readonly description =
    'Takes one mapping away from the device: a running `dma map --listen SOCK` unmaps it and frees its address. From then on the ' +
    'IOMMU blocks every access of the device there, and the holder names the mapping when one comes.';
  static readonly examples: readonly Example[] = [['vioctl dma unmap /run/buf.sock ring', 'unmap "ring"']];
  static override readonly args = {
    socket: Args.string({ required: true, description: 'socket of the holder' }),
    name: Args.string({ required: true, description: 'name of the mapping' }),
  };
  static override readonly flags = { 'dry-run': Flags.boolean({ summary: 'only tell whether the mapping is there' }) };
  static override readonly changes = true;

  async run(): Promise<undefined> {
    const { args, flags } = await this.parse(DmaUnmap);
    if (flags['dry-run']) {
      const { maps } = parseHolderInfo((await ask(args.socket, { op: 'list' })).answer);
      if (!maps.some((map) => map.name === args.name)) throw new VioError(`no mapping ${args.name}`, { code: 'ENOENT' });
    } else {
      await ask(args.socket, { op: 'unmap', name: args.name });
    }
    await this.out.document(
      { unmapped: args.name, done: !flags['dry-run'] },
      (doc) => `${doc.done ? 'unmapped' : 'would unmap'} ${doc.unmapped}`,
    );
    return undefined;
  }
}
