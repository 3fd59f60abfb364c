import { Command, type Example } from '../../cli/command.js';
import { Args } from '../../cli/flags.js';
import { listHolder } from '../../dma/holder.js';
import { holderLines } from '../../groups/dma/views.js';

export default class DmaList extends Command {
  static override readonly description = 'Lists the mappings of a running `dma map --listen SOCK`.';
  static readonly examples: readonly Example[] = [
    ['vioctl dma list /run/buf.sock', 'list the mappings'],
    ['vioctl dma list /run/buf.sock --json | jq -r ".maps[0].iova"', 'print the address of the first mapping'],
  ];
  static override readonly args = { socket: Args.string({ required: true, description: 'socket of dma map --listen' }) };

  async run(): Promise<undefined> {
    const { args } = await this.parse(DmaList);
    await this.out.document(await listHolder(args.socket), holderLines);
    return undefined;
  }
}
