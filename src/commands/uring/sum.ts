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
    'Reads many files at once through direct descriptors of an io_uring and prints their checksums in the lines that ' +
      'coreutils print and check. The gain is large for files that are not in the page cache, because the disk sees many ' +
      'reads at once. Names come from the arguments or, without any, from stdin.',
    '--check reads lists of checksums instead, plain, BSD or xxhsum lines, and sums the files that they name, many at once. It ' +
      'prints what ' +
      'coreutils print, in the order of the lines. The exit status is 4 if a file differs, and 1 if one cannot be read or no line is ' +
      'properly formatted. Without --algorithm, the algorithm follows from each line: BSD lines name it, and the length of plain ' +
      'lines tells it.',
    'A file that fails, or shrinks while it is read, is reported and the others go on; the exit status is 1 at the end. Lines come ' +
      'as files finish; ' +
      'with --ordered in the order of the names.',
  ].join('\n\n');
  static readonly examples: readonly Example[] = [
    [
      'find . -type f -print0 | vioctl uring sum -0 >/tmp/sums; sha256sum -c --quiet /tmp/sums',
      'checksums of a tree, checked by coreutils',
    ],
    ["find . -type f -print0 | vioctl uring sum -0 --ndjson | jq -r 'select(.error).path'", 'which files cannot be read?'],
    ['vioctl uring sum --check --quiet SHA256SUMS', 'verify files, many at once, and print only what is wrong'],
    ['vioctl uring sum -r -a blake3 /srv/images >sums; vioctl uring sum -c -a blake3 sums', 'a whole tree, and later whether it changed'],
    ['vioctl uring sum --algorithm crc32c --ordered disk*.img', 'CRC-32C of some images, in order'],
  ];
  static override readonly args = { file: Args.string({ description: 'files; - is the data of stdin, with -0 a list', multiple: true }) };
  static override readonly flags = {
    ...bulkFlags,
    algorithm: Flags.option({
      char: 'a',
      options: Object.keys(algorithms),
      helpValue: 'NAME',
      summary: `checksum [default: sha256]: ${Object.keys(algorithms).join(', ')}`,
    })(),
    recursive: Flags.boolean({ char: 'r', summary: 'sum the files below folders' }),
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
    tag: Flags.boolean({ default: false, summary: 'lines of the form "SHA256 (name) = digest"' }),
    zero: Flags.boolean({ default: false, char: 'z', summary: 'lines end with NUL, names are not escaped' }),
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
