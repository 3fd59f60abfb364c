import { Command } from '../../cli/command.js';
import { Args, Flags } from '../../cli/flags.js';
import { Exit, usage, VioError } from '../../common/errors.js';
import { inputFlags, inputOptions } from '../../groups/migration/options.js';
import { againstLines, verificationLines } from '../../groups/migration/views.js';
import { openInput } from '../../migration/containers/input.js';
import { against } from '../../migration/inspect/against.js';
import { damaged, memoryElsewhere } from '../../migration/inspect/dump.js';
import { verify } from '../../migration/inspect/verify.js';
import { issueText } from '../../migration/stream/issues.js';

export default class MigrationVerify extends Command {
  static override readonly description =
    'Checks whether a stream or save file is complete. It reads every record, checks lengths, footers, pages and their ' +
    "compression, compares the devices with the stream's own description, and counts the pages. The verdict is complete, " +
    'complete without description, truncated, or damaged; the last two have exit status 5. The format has no checksums, so a ' +
    'changed byte inside a page goes unnoticed.\n\nWith --against, the command checks whether a destination would load the ' +
    'stream. DEST is a stream of the destination, which was started with -S and never run, or the JSON of its -dump-vmstate. ' +
    "The output names each device and block that does not fit, with QEMU's message and the change that helps. The exit status " +
    'is then 4, or 7 if no device could be compared.';
  static readonly examples = [
    ['vioctl migration verify vm.mig --against dest.mig', 'check whether a destination would load it'],
    ['vioctl migration verify vm.mig', 'print the verdict and count pages and sections'],
    ['vioctl migration verify db1.save --json | jq .verdict', 'print only the verdict'],
  ] as const;
  static override readonly args = { file: Args.string({ required: true, description: 'file, or - for stdin' }) };
  static override readonly flags = {
    ...inputFlags,
    strict: Flags.boolean({ summary: 'treat bytes after the end as damage' }),
    against: Flags.string({
      helpValue: 'DEST',
      summary: 'check whether a destination loads it; DEST is its stream or vmstate',
    }),
    force: Flags.boolean({ summary: 'continue even if the stream version is unknown' }),
  };

  async run(): Promise<number | undefined> {
    const { args, flags } = await this.parse(MigrationVerify);
    if (flags.against !== undefined && (args.file === '-' || flags.against === '-')) throw usage('--against reads both files by name');
    const input = openInput(args.file, inputOptions(flags));
    const progress = this.progress('verify', input.size * (flags.against === undefined ? 1 : 2));
    const tick = (position: number) => progress.to(position);
    const result = await verify(input, tick, flags.force);
    progress.phase(input.size);
    const whole = result.complete || result.verdict === 'memory-elsewhere';
    const judged =
      flags.against !== undefined && whole ? await against(openInput(args.file, inputOptions(flags)), flags.against, {}, tick) : undefined;
    progress.end();
    if (this.out.format === 'text') for (const issue of result.issues) this.warn(issueText(issue));
    await this.out.document({ file: args.file, ...result, ...(judged && { against: { file: flags.against, ...judged } }) }, (v) => [
      ...verificationLines(v),
      ...(judged ? againstLines(judged) : []),
    ]);
    if (result.verdict === 'memory-elsewhere' && !judged) throw memoryElsewhere(args.file, result.missing ?? []);
    if (result.verdict === 'truncated' || result.verdict === 'damaged') throw damaged(args.file, result.issues);
    if (flags.strict && result.trailing)
      throw new VioError(`${args.file}: damaged: ${result.trailing} bytes behind the end`, { code: 'TRAILING', exit: Exit.damaged });
    if (judged?.loads === null) {
      const hint = 'give a stream of the destination, started with -S';
      const what = `${flags.against}: no device could be compared: whether it loads ${args.file} is not known`;
      throw new VioError(what, { code: 'NOT_COMPARED', exit: Exit.unsupported, hint });
    }
    return judged && !judged.loads ? Exit.differs : 0;
  }
}
