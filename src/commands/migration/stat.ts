import { Command } from '../../cli/command.js';
import { Args, Flags } from '../../cli/flags.js';
import { inputFlags, inputOptions } from '../../groups/migration/options.js';
import { statisticsLines } from '../../groups/migration/views.js';
import { openInput } from '../../migration/containers/input.js';
import { damaged, isDamaged } from '../../migration/inspect/dump.js';
import { statistics } from '../../migration/inspect/stat.js';
import { issueText } from '../../migration/stream/issues.js';

export default class MigrationStat extends Command {
  static override readonly description =
    'Prints how many bytes of a stream each section takes, over all its parts. For each RAM block it counts the pages that ' +
    'were zero, whole, XBZRLE deltas (differences to an earlier copy), compressed, or sent again. --duplicates reads every ' +
    'page and counts the distinct ones.';
  static readonly examples = [
    ['vioctl migration stat vm.mig', 'list sections by size, then RAM blocks'],
    ['vioctl migration stat vm.mig --duplicates --json | jq .blocks', 'show how much deduplication could save'],
  ] as const;
  static override readonly args = { file: Args.string({ required: true, description: 'file, or - for stdin' }) };
  static override readonly flags = {
    ...inputFlags,
    duplicates: Flags.boolean({ summary: 'count distinct pages (reads all of the file)' }),
  };

  async run(): Promise<number | undefined> {
    const { args, flags } = await this.parse(MigrationStat);
    const input = openInput(args.file, inputOptions(flags));
    const progress = this.progress('read', input.size);
    const result = await statistics(input, flags.duplicates ?? false, (position) => progress.to(position));
    progress.end();
    if (this.out.format === 'text') for (const issue of result.issues) this.warn(issueText(issue));
    await this.out.document({ file: args.file, ...result }, statisticsLines);
    if (isDamaged(result)) throw damaged(args.file, result.issues);
    return 0;
  }
}
