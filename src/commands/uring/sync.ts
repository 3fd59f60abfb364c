import { Command, type Example } from '../../cli/command.js';
import { Args, Flags } from '../../cli/flags.js';
import { nameBatches } from '../../cli/streams/input.js';
import { bulkFlags, errorJson, FileReport, nameJson } from '../../groups/uring/files.js';
import { syncFileSystems, syncFiles } from '../../uring/bulk/sync.js';

export default class Sync extends Command {
  static override readonly description = [
    'Makes files durable: fsync(2) of each, many at once (on an io_uring or, without one, on threads), so that they share the ' +
      'commits of the ' +
      "file system's journal. Names come from the arguments or, without any, from stdin. Nothing is printed for " +
      'files that went well, except as --json or --ndjson.',
    '--filesystem calls syncfs(2) once for each file system instead. That is often faster for very many files, but it also writes ' +
      'the dirty data of other programs.',
    'A file that fails is reported and the others go on; the exit status is 1 at the end.',
  ].join('\n\n');
  static readonly examples: readonly Example[] = [
    ['find /srv/images -newer stamp -print0 | vioctl uring sync -0', 'make what was copied durable'],
    ['vioctl uring sync --filesystem /srv/images', 'the whole file system at once'],
  ];
  static override readonly byteNames = true;
  static override readonly args = { file: Args.string({ description: 'files; - is the list on stdin', multiple: true }) };
  static override readonly flags = {
    ...bulkFlags,
    data: Flags.boolean({ char: 'd', summary: 'data only, as fdatasync(2)' }),
    filesystem: Flags.boolean({ char: 'f', exclusive: ['data'], summary: 'syncfs(2) for each file system' }),
    ordered: Flags.boolean({ summary: 'report in the order of the names' }),
  };
  static override readonly formats = ['json', 'ndjson'] as const;

  async run(): Promise<undefined> {
    const { args, flags } = await this.parse(Sync);
    const { engine, depth, data, ordered, filesystem } = flags;
    const text = this.out.format === 'text';
    const report = new FileReport('uring sync', text, flags.stats ?? false);
    const { signal } = this.life;
    const names = nameBatches(args.file ?? [], flags.null, signal);
    const progress = this.progress('sync', 0, { unit: 'items' });
    const note = (message: string) => this.warn(message);
    const batches = filesystem
      ? syncFileSystems(names)
      : syncFiles(names, { engine, depth, data, ordered, sysroot: this.sysroot, signal, note, spent: report.spent });
    // Text has no rows: a step of a generator for each file would cost as much as the file.
    if (text) {
      for await (const batch of batches) {
        for (const { name, error } of batch) report.note(name, error);
        progress.add(batch.length);
      }
    } else {
      await this.out.list(report.rows(batches), [], 'files', ({ name, error }) => ({
        ...nameJson(name),
        ...(error !== undefined && { error: errorJson(error) }),
      }));
    }
    return report.end(this.out);
  }
}
