import { Command, type Example } from '../../cli/command.js';
import { Args, Flags } from '../../cli/flags.js';
import { nameBatches } from '../../cli/input.js';
import { bulkFlags, errorJson, FileReport, nameJson } from '../../groups/uring/files.js';
import { algorithms, sumFiles, sumLine } from '../../uring/bulk/sum.js';

export default class Sum extends Command {
  static override readonly description = [
    'Reads many files at once through direct descriptors of an io_uring and prints their checksums in the lines that ' +
      'coreutils print and check. The gain is large for files that are not in the page cache, because the disk sees many ' +
      'reads at once. Names come from the arguments or, where there are none, from stdin.',
    'A file that fails, or shrinks while it is read, is reported and the others go on; the exit status is 1 at the end. Lines come as files finish; ' +
      'with --ordered in the order of the names.',
  ].join('\n\n');
  static readonly examples: readonly Example[] = [
    [
      'find . -type f -print0 | vioctl uring sum -0 >/tmp/sums; sha256sum -c --quiet /tmp/sums',
      'checksums of a tree, checked by coreutils',
    ],
    ["find . -type f -print0 | vioctl uring sum -0 --ndjson | jq -r 'select(.error).path'", 'which files cannot be read?'],
    ['vioctl uring sum --algorithm crc32c --ordered disk*.img', 'CRC-32C of some images, in order'],
  ];
  static override readonly args = { file: Args.string({ description: 'files; - is the list on stdin', multiple: true }) };
  static override readonly flags = {
    ...bulkFlags,
    algorithm: Flags.option({
      char: 'a',
      options: Object.keys(algorithms),
      default: 'sha256',
      helpValue: 'NAME',
      summary: `checksum: ${Object.keys(algorithms).join(', ')}`,
    })(),
    ordered: Flags.boolean({ summary: 'print in the order of the names' }),
    tag: Flags.boolean({ default: false, summary: 'lines of the form "SHA256 (name) = digest"' }),
    zero: Flags.boolean({ default: false, char: 'z', summary: 'lines end with NUL, names are not escaped' }),
  };
  static override readonly formats = ['json', 'ndjson'] as const;

  async run(): Promise<undefined> {
    const { args, flags } = await this.parse(Sum);
    const { engine, depth, algorithm, ordered, zero, tag } = flags;
    const text = this.out.format === 'text';
    const report = new FileReport('uring sum', text, flags.stats ?? false);
    const { signal } = this.life;
    const names = nameBatches(args.file ?? [], flags.null, signal);
    const note = (message: string) => this.warn(message);
    const batches = sumFiles(names, { engine, depth, algorithm, ordered, sysroot: this.sysroot, signal, note, spent: report.spent });
    if (text) {
      for await (const batch of batches) {
        let lines = '';
        for (const { name, size, digest, error } of batch) {
          report.note(name, error, size);
          if (digest === undefined) continue;
          const line = sumLine(name, digest, { zero, tag, algorithm });
          if (typeof line === 'string') lines += line;
          else {
            await this.out.raw(lines);
            await this.out.raw(line);
            lines = '';
          }
        }
        if (lines !== '') await this.out.raw(lines);
      }
    } else {
      await this.out.list(report.rows(batches), [], 'files', ({ name, size, digest, error }) => ({
        ...nameJson(name),
        algorithm,
        digest,
        size,
        ...(error !== undefined && { error: errorJson(error) }),
      }));
    }
    return report.end(this.out);
  }
}
