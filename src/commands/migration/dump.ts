import { Command } from '../../cli/command.js';
import { Args, Flags } from '../../cli/flags.js';
import { VioError } from '../../common/errors.js';
import { globs } from '../../common/glob.js';
import { inputFlags, inputOptions, ticker } from '../../groups/migration/options.js';
import { openInput } from '../../migration/containers/input.js';
import { blockLines, collect, containerLine, damaged, eventLines, events, isDamaged, shows } from '../../migration/inspect/dump.js';
import { Issues, issueText } from '../../migration/stream/issues.js';
import { Walker } from '../../migration/walk.js';

export default class MigrationDump extends Command {
  static override readonly description =
    'Every record of a migration stream or save file in order: configuration, sections, commands, description. With --fields the ' +
    "state of each device by name, from the stream's own description and, where that stops (virtio, PCI configuration, MSI-X), " +
    'decoded here. Pages are counted, not printed: see migration ram. With --ndjson one record a line as it comes, the counts of pages last. Damage is reported with its offset, and the walk goes on ' +
    'behind it; the exit status is then 5.';
  static readonly examples = [
    ['vioctl migration dump vm.mig', 'the records'],
    ["vioctl migration dump vm.mig --section '*virtio-net' --fields", 'one device, field by field'],
    ['ssh host cat vm.save | vioctl migration dump - --ndjson | jq -c \'select(.type=="section") | [.name,.size]\'', 'from a pipe'],
  ] as const;
  static override readonly args = { file: Args.string({ required: true, description: 'file, or - for stdin' }) };
  static override readonly flags = {
    ...inputFlags,
    section: Flags.string({ multiple: true, helpValue: 'GLOB', summary: 'only sections whose name matches' }),
    fields: Flags.boolean({ summary: 'decode the fields of devices' }),
    desc: Flags.boolean({ summary: "print the stream's own description (JSON), nothing else" }),
    force: Flags.boolean({ summary: 'read on although the stream version is unknown' }),
  };
  static override readonly formats = ['json', 'ndjson'] as const;

  async run(): Promise<number | undefined> {
    const { args, flags } = await this.parse(MigrationDump);
    const input = openInput(args.file, inputOptions(flags));
    const progress = this.progress('read', input.size);
    const tick = ticker(progress);
    const walker = new Walker(input.reader, {
      issues: input.issues,
      fields: flags.fields ?? false,
      force: flags.force ?? false,
      ram: { bitmapOrder: input.bitmapOrder },
    });
    const wanted = globs(flags.section ?? []);
    const filtered = (flags.section ?? []).length > 0;
    const issues = new Issues();
    if (flags.desc) {
      const dump = await collect(input, walker, wanted, filtered, tick);
      if (walker.description) await this.out.raw(`${walker.description.text}\n`);
      if (walker.description ? !walker.description.complete : isDamaged(dump)) throw damaged(args.file, dump.issues);
      if (!walker.description) throw new VioError(`${args.file}: the stream has no description of its devices`, { code: 'NO_DESCRIPTION' });
      return 0;
    }
    if (this.out.format === 'json') {
      const dump = { file: args.file, ...(await collect(input, walker, wanted, filtered, tick)) };
      await this.out.document(dump, () => '');
      if (isDamaged(dump)) throw damaged(args.file, dump.issues);
      return 0;
    }
    const lines = this.out.format === 'ndjson';
    if (input.container && lines && !filtered) await this.out.record({ type: 'container', container: input.container }, () => '');
    if (input.container && !lines) await this.out.line(containerLine(input.container));
    for await (const event of events(input, walker)) {
      if (event.type === 'progress') tick(event.position);
      if (event.type === 'issue') {
        issues.add(event.issue);
        if (!lines) this.warn(issueText(event.issue));
      }
      if (!shows(event, wanted, filtered)) continue;
      if (lines) await this.out.record(event, () => '');
      else for (const line of eventLines(event)) await this.out.line(line);
    }
    progress.end();
    const { ram } = walker;
    if (ram?.total !== undefined && wanted('ram')) {
      const { pageSize } = ram.options;
      if (lines) await this.out.record({ type: 'ram', pageSize, total: ram.total, blocks: ram.update() }, () => '');
      else for (const line of blockLines(ram.update(), pageSize)) await this.out.line(line);
    }
    await this.out.flush();
    if (!walker.sawEof || issues.errors > 0) throw damaged(args.file, issues.list);
    return 0;
  }
}
