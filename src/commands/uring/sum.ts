import { argumentBytes } from '../../cli/arguments/argv.js';
import { Command, type Example } from '../../cli/command.js';
import { Args, Flags } from '../../cli/flags.js';
import { filesAndStdin, readSome } from '../../cli/streams/input.js';
import { ListCheck } from '../../groups/uring/check.js';
import { bulkFlags, FileReport, printSums, sumJson } from '../../groups/uring/files.js';
import { algorithms } from '../../uring/bulk/lines.js';
import { sumFiles, sumStream } from '../../uring/bulk/sum.js';
import { filesBelow } from '../../uring/bulk/walk.js';

export default class Sum extends Command {
  static override readonly description = [
    'Reads many files at once through an io_uring and prints their checksums, one line for each file as coreutils does. The ' +
      'gain is large for files that are not in the page cache, because the disk sees many reads at once. The names are the ' +
      'arguments or, without arguments, the lines of stdin.',
    '--check reads lists of checksums instead (plain, BSD or xxhsum lines) and verifies the files that they name. It prints ' +
      'what coreutils print, in the order of the lines. The exit status is 4 if a file differs, and 1 if a file cannot be ' +
      'read or no line is properly formatted. Without --algorithm, each line tells its algorithm: BSD lines by name, plain ' +
      'lines by the length of the checksum.',
    'If a file cannot be read, or shrinks meanwhile, the command reports it, continues with the others, and exits with 1. A ' +
      'line is printed when its file is finished; --ordered keeps the order of the names.',
  ].join('\n\n');
  static readonly examples: readonly Example[] = [
    ['find . -type f -print0 | vioctl uring sum -0 >/tmp/sums; sha256sum -c --quiet /tmp/sums', 'sum a tree, and let coreutils check it'],
    ["find . -type f -print0 | vioctl uring sum -0 --ndjson | jq -r 'select(.error).path'", 'list the files that cannot be read'],
    ['vioctl uring sum --check --quiet SHA256SUMS', 'verify files, many at once, and print only what is wrong'],
    [
      'vioctl uring sum -r -a blake3 /srv/images >sums; vioctl uring sum -c -a blake3 sums',
      'sum a tree, and check later whether it changed',
    ],
    ['vioctl uring sum --algorithm crc32c --ordered disk*.img', 'print the CRC-32C of some images, in order'],
  ];
  static override readonly byteNames = true;
  static override readonly args = {
    file: Args.string({ description: 'files; - is stdin: data, or with -0 a list of names', multiple: true }),
  };
  static override readonly flags = {
    ...bulkFlags,
    algorithm: Flags.option({
      char: 'a',
      options: Object.keys(algorithms),
      helpValue: 'NAME',
      summary: `checksum [default: sha256]: ${Object.keys(algorithms).join(', ')}`,
    })(),
    recursive: Flags.boolean({ char: 'r', summary: 'sum all files below a folder' }),
    check: Flags.boolean({
      char: 'c',
      exclusive: ['tag', 'recursive', 'ordered', 'null'],
      summary: 'verify the lists of checksums in FILES',
    }),
    status: Flags.boolean({ dependsOn: ['check'], summary: 'with --check: print nothing; the exit status is the result' }),
    'ignore-missing': Flags.boolean({ dependsOn: ['check'], summary: 'with --check: ignore files that do not exist' }),
    strict: Flags.boolean({ dependsOn: ['check'], summary: 'with --check: fail if a line is malformed' }),
    warn: Flags.boolean({ char: 'w', dependsOn: ['check'], summary: 'with --check: name each malformed line' }),
    ordered: Flags.boolean({ summary: 'print in the order of the names' }),
    tag: Flags.boolean({ default: false, summary: 'print BSD lines: "SHA256 (name) = digest"' }),
    zero: Flags.boolean({ default: false, char: 'z', summary: 'end lines with NUL, and do not escape names' }),
  };
  static override readonly formats = ['json', 'ndjson'] as const;

  async run(): Promise<number | undefined> {
    const { args, flags } = await this.parse(Sum);
    if (flags.check) return this.#check();
    const { engine, depth, algorithm = 'sha256', ordered, zero, tag } = flags;
    const text = this.out.format === 'text';
    const report = new FileReport('uring sum', text, flags.stats ?? false);
    const { signal } = this.life;
    const note = (message: string) => this.warn(message);
    const { follow: live } = this.progress('sum', 0, { streams: true });
    const options = { live, engine, depth, algorithm, ordered, sysroot: this.sysroot, signal, note, spent: report.spent };
    const batches = filesAndStdin(
      args.file ?? [],
      flags.null,
      (names) => sumFiles(flags.recursive ? filesBelow(names) : names, options),
      async () => [await sumStream('-', algorithm, (into) => readSome(0, into, signal), signal)],
      signal,
    );
    if (text) await printSums(batches, report, this.out, { zero, tag, algorithm });
    else await this.out.list(report.rows(batches), [], 'files', (result) => sumJson(algorithm, result));
    return report.end(this.out);
  }

  async #check(): Promise<number> {
    const { args, flags } = await this.parse(Sum);
    const { engine, depth, algorithm, zero, status, strict, warn } = flags;
    const { sysroot, life } = this;
    const { follow: live } = this.progress('check', 0, { streams: !status });
    const options = { live, note: (message: string) => this.warn(message), engine, depth, algorithm, zero, sysroot, signal: life.signal };
    const judgement = { status, quiet: this.quiet, ignoreMissing: flags['ignore-missing'], strict, warn };
    const check = new ListCheck(this.out, judgement, options);
    const lists = argumentBytes(args.file ?? ['-']);
    if (this.out.format === 'text') await check.print(lists);
    else await this.out.list(check.rows(lists), [], 'files', ListCheck.json);
    return check.end();
  }
}
