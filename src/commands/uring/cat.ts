import { Command, type Example } from '../../cli/command.js';
import { Args, Flags } from '../../cli/flags.js';
import { filesAndStdin, readSome } from '../../cli/streams/input.js';
import { codeOf } from '../../common/errors.js';
import { bulkFlags, FileReport } from '../../groups/uring/files.js';
import { type CatResult, catFiles } from '../../uring/bulk/cat.js';
import { inputIsOutput, outputGuard } from '../../uring/bulk/itself.js';

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
  static override readonly byteNames = true;
  static override readonly args = { file: Args.string({ description: 'files; - is the data of stdin, with -0 a list', multiple: true }) };
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
    let written = 0;
    const write = async (bytes: Buffer): Promise<void> => {
      written += bytes.length;
      progress.add(bytes.length);
      if (bytes.length < copy) return this.out.raw(Buffer.from(bytes));
      await this.out.raw(bytes);
      await this.out.flush();
    };
    const note = (message: string) => this.warn(message);
    const direct = async (run: (fd: number) => Promise<number>): Promise<number> => {
      const size = await this.out.direct(run);
      written += size;
      progress.add(size);
      return size;
    };
    const { sysroot } = this;
    const guard = outputGuard(1);
    const isOutput = guard && ((name: string | Buffer): boolean => guard(name, written));
    const options = { engine, depth, ordered, write, direct, isOutput, sysroot, signal, note, spent: report.spent };
    const batches = filesAndStdin(
      args.file ?? [],
      flags.null,
      (names) => catFiles(names, options),
      async () => [await copyStdin({ write, isOutput, signal })],
      signal,
    );
    for await (const batch of batches) {
      for (const { name, size, error } of batch) report.note(name, error, size);
    }
    return report.end(this.out);
  }
}

/** Writes what standard input has until its end. */
async function copyStdin(on: {
  write: (bytes: Buffer) => Promise<void>;
  isOutput: ((name: string) => boolean) | undefined;
  signal: AbortSignal;
}): Promise<CatResult> {
  const chunk = Buffer.allocUnsafe(256 * 1024);
  let size = 0;
  for (;;) {
    let count: number;
    try {
      if (size === 0 && on.isOutput?.('/proc/self/fd/0')) throw Object.assign(new Error(inputIsOutput), { code: inputIsOutput });
      count = await readSome(0, chunk, on.signal);
    } catch (err) {
      const error = codeOf(err);
      if (error === undefined || on.signal.aborted) throw err;
      return { name: '-', size, error };
    }
    if (count === 0) return { name: '-', size, error: undefined };
    await on.write(chunk.subarray(0, count));
    size += count;
  }
}
