import { Command } from '../../cli/command.js';
import { Args, Flags } from '../../cli/flags.js';
import { VioError } from '../../common/errors.js';
import { inputFlags, inputOptions } from '../../groups/migration/options.js';
import { sectionFilter } from '../../groups/migration/sections.js';
import { type Input, openInput } from '../../migration/containers/input.js';
import { blockLines, collect, containerLine, damaged, eventLines, events, fails, isDamaged, shows } from '../../migration/inspect/dump.js';
import { Issues, issueText } from '../../migration/stream/issues.js';
import { Walker } from '../../migration/walk.js';

export default class MigrationDump extends Command {
  static override readonly description =
    'Prints every record of a migration stream or save file in order: configuration, sections, commands, description. --fields also ' +
    "decodes the state of each device. It uses the stream's own description, and vioctl's own knowledge of virtio, PCI configuration " +
    'and MSI-X. ' +
    'Pages are counted but not printed; use migration ram for their contents. --ndjson prints each record as it is read, and the ' +
    'page counts last. Damage is reported with its offset; the command continues behind it and exits with 5. With --section, missing ' +
    'memory is only a warning. --xml prints the domain XML of a libvirt save.\n\n' +
    'The JSON has `complete`, `container` (of a save file or image), `version`, `configuration` (machine, pageBits, capabilities, uuid), ' +
    '`records` (type and offset; sections with record, id, name, instance, version, size, footer, bounded, detail, fields), ' +
    '`ram` (pageSize, total, blocks with their counters in `state`), `description`, `missing` (block, pages, reason, first, lost), ' +
    '`stream` (start, end, length), `trailing` and `issues` (severity, code, offset, path, message; expected, found, recovered). ' +
    'With --fields a virtio device has the state of its type in `class`, and s390x its storage keys in `storageKeys`.';
  static readonly examples = [
    ['vioctl migration dump vm.mig', 'the records'],
    ["vioctl migration dump vm.mig --section '*virtio-net' --fields", 'one device, field by field'],
    ['vioctl migration dump db1.save --xml > db1.xml', 'the domain XML of a libvirt save'],
    ['ssh host cat vm.save | vioctl migration dump - --ndjson | jq -c \'select(.type=="section") | [.name,.size]\'', 'from a pipe'],
  ] as const;
  static override readonly args = { file: Args.string({ required: true, description: 'file, or - for stdin' }) };
  static override readonly flags = {
    ...inputFlags,
    section: Flags.string({ multiple: true, helpValue: 'GLOB', summary: 'only sections whose name matches' }),
    fields: Flags.boolean({ summary: 'decode the fields of devices' }),
    desc: Flags.boolean({ summary: "print the stream's own description (JSON), nothing else" }),
    xml: Flags.boolean({ exclusive: ['desc'], summary: 'print the domain XML of a libvirt save, nothing else' }),
    force: Flags.boolean({ summary: 'continue even if the stream version is unknown' }),
  };
  static override readonly formats = ['json', 'ndjson'] as const;

  /** The XML as it lies in the save. */
  async #xml(input: Input): Promise<number> {
    const { xml, issues, name } = input;
    await input.close();
    if (!xml) {
      const hint = 'only a file of virsh save or managedsave has one';
      throw new VioError(`${name}: not a libvirt save: there is no domain XML`, { code: 'NO_XML', hint });
    }
    if (this.out.format === 'text') await this.out.raw(xml.at(-1) === 0x0a ? xml : Buffer.concat([xml, Buffer.from('\n')]));
    else await this.out.document({ file: name, container: input.container, xml: xml.toString('utf8') }, () => '');
    const cut = issues.filter((i) => i.code === 'truncated');
    if (cut.length > 0) throw damaged(name, cut);
    return 0;
  }

  async run(): Promise<number | undefined> {
    const { args, flags } = await this.parse(MigrationDump);
    const input = openInput(args.file, inputOptions(flags));
    if (flags.xml) return this.#xml(input);
    const progress = this.progress('read', input.size, { streams: true });
    const tick = (position: number) => progress.to(position);
    const walker = new Walker(input.reader, {
      issues: input.issues,
      fields: flags.fields ?? false,
      force: flags.force ?? false,
      ram: { bitmapOrder: input.bitmapOrder },
    });
    const { wanted, filtered, idle } = sectionFilter(flags.section ?? []);
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
      for (const text of idle()) this.warn(text);
      await this.out.document(dump, () => '');
      if (fails(walker, dump.issues, filtered)) throw damaged(args.file, dump.issues);
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
      else await this.out.lines(eventLines(event));
    }
    progress.end();
    const { ram } = walker;
    if (ram?.total !== undefined && wanted('ram')) {
      const { pageSize } = ram.options;
      if (lines) await this.out.record({ type: 'ram', pageSize, total: ram.total, blocks: ram.update() }, () => '');
      else await this.out.lines(blockLines(ram.update(), pageSize));
    }
    await this.out.flush();
    for (const text of idle()) this.warn(text);
    if (fails(walker, issues.list, filtered)) throw damaged(args.file, issues.list);
    return 0;
  }
}
