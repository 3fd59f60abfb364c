import { Command } from '../../cli/command.js';
import { Args, Flags } from '../../cli/flags.js';
import { Exit, usage } from '../../common/errors.js';
import { inputFlags, inputOptions } from '../../groups/migration/options.js';
import { comparisonLines } from '../../groups/migration/views.js';
import { openInput } from '../../migration/containers/input.js';
import { compare } from '../../migration/inspect/diff.js';
import { damaged } from '../../migration/inspect/dump.js';
import { issueText } from '../../migration/stream/issues.js';

export default class MigrationDiff extends Command {
  static override readonly description =
    'Compares two streams: machine, sections, versions, subsections, and the fields of each device by name. Devices without a ' +
    'description are compared byte by byte. --ram also counts the pages of each block that differ, by a 64-bit hash with a secret ' +
    'key. The exit status is 4 if something differs.\n\n' +
    'The JSON has `equal`, `differences` (path, kind: only-a, only-b or changed, a, b; values below a path that one stream lacks; first ' +
    'and bytes: where two byte strings differ, and in how many), `ram` (block, pages, changed, unknown) and `issues` of both.';
  static readonly examples = [
    ['vioctl migration diff before.mig after.mig', 'fields that changed'],
    ["vioctl migration diff good.mig bad.mig --ignore '*timer*' --ignore 'cpu/*'", 'without what always changes'],
    ['vioctl migration diff a.mig b.mig --ram --json | jq .ram', 'pages that changed'],
  ] as const;
  static override readonly args = {
    a: Args.string({ required: true, description: 'file, or - for stdin' }),
    b: Args.string({ required: true, description: 'file, or - for stdin' }),
  };
  static override readonly flags = {
    ...inputFlags,
    ram: Flags.boolean({ summary: 'compare every page too' }),
    fields: Flags.boolean({ summary: 'list each field of a device that only one stream has' }),
    structure: Flags.boolean({ summary: 'compare versions, types and sizes instead of values' }),
    ignore: Flags.string({ multiple: true, helpValue: 'GLOB', summary: 'ignore matching paths' }),
  };

  async run(): Promise<number | undefined> {
    const { args, flags } = await this.parse(MigrationDiff);
    if (args.a === '-' && args.b === '-') throw usage('only one of the two can be stdin');
    const files = [args.a, args.b].map((file) => openInput(file, inputOptions(flags)));
    const known = files.every(({ size }) => size > 0);
    const progress = this.progress('compare', known ? files.reduce((sum, { size }) => sum + size, 0) : 0);
    const choice = {
      ram: flags.ram ?? false,
      ignore: flags.ignore ?? [],
      fields: flags.fields ?? false,
      structure: flags.structure ?? false,
    };
    const result = await compare(files[0]!, files[1]!, choice, (position) => progress.to(position));
    progress.end();
    for (const issue of this.out.format === 'text' ? [...result.issues.a, ...result.issues.b] : []) this.warn(issueText(issue));
    await this.out.document({ a: args.a, b: args.b, ...result }, comparisonLines);
    for (const [file, issues] of [[args.a, result.issues.a] as const, [args.b, result.issues.b] as const]) {
      if (issues.some((i) => i.severity === 'error')) throw damaged(file, issues);
    }
    return result.equal ? 0 : Exit.differs;
  }
}
