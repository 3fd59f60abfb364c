import { Command, type Example } from '../../cli/command.js';
import { Args, Flags } from '../../cli/flags.js';
import { nameBatches } from '../../cli/streams/input.js';
import { bulkFlags, FileReport } from '../../groups/uring/files.js';
import { catFiles } from '../../uring/bulk/cat.js';
import { outputGuard } from '../../uring/bulk/itself.js';

/** Pieces below this size are copied and leave together; larger ones are written at once. */
const copy = 32 * 1024;

export default class Cat extends Command {
  static override readonly description = [
    'Writes many files to stdout one after another, in the order of the arguments, and reads the next ones ahead through direct ' +
      'descriptors of an io_uring. The gain is large for files that are not in the page cache. Names come from the ' +
      'arguments or, without any, from stdin.',
    'A file that fails, or shrinks while it is read, is reported and the others go on; the exit status is 1 at the end. The output ' +
      'file itself is an error too, as reading it would make it grow.',
  ].join('\n\n');
  static readonly examples: readonly Example[] = [
    ['find logs -name "*.log" -print0 | sort -z | vioctl uring cat -0 | grep -c ERROR', 'search many cold files'],
    ['vioctl uring cat --no-ordered -0 <names | wc -c', 'files as they come: none waits for another'],
  ];
  static override readonly args = { file: Args.string({ description: 'files; - is the list on stdin', multiple: true }) };
  static override readonly flags = {
    ...bulkFlags,
    ordered: Flags.boolean({ default: true, allowNo: true, summary: 'write in the order of the names (default)' }),
  };
  static override readonly formats = [] as const;

  async run(): Promise<undefined> {
    const { args, flags } = await this.parse(Cat);
    const { engine, depth, ordered } = flags;
    const report = new FileReport('uring cat', true, flags.stats ?? false);
    const { signal } = this.life;
    const progress = this.progress('read', 0, { streams: true });
    const write = async (bytes: Buffer): Promise<void> => {
      progress.add(bytes.length);
      if (bytes.length < copy) return this.out.raw(Buffer.from(bytes));
      await this.out.raw(bytes);
      await this.out.flush();
    };
    const names = nameBatches(args.file ?? [], flags.null, signal);
    const note = (message: string) => this.warn(message);
    const direct = async (run: (fd: number) => Promise<number>): Promise<number> => {
      const size = await this.out.direct(run);
      progress.add(size);
      return size;
    };
    const { sysroot } = this;
    const options = { engine, depth, ordered, write, direct, isOutput: outputGuard(1), sysroot, signal, note, spent: report.spent };
    for await (const batch of catFiles(names, options)) {
      for (const { name, size, error } of batch) report.note(name, error, size);
    }
    return report.end(this.out);
  }
}
