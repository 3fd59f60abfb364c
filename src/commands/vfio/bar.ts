import { Command, type Example } from '../../cli/command.js';
import { Args, Flags } from '../../cli/flags.js';
import { usage } from '../../common/errors.js';
import { apiFlag, deviceArg, tokenFlag } from '../../groups/vfio/options.js';
import { hexLines } from '../../groups/vfio/session-views.js';
import { Census } from '../../vfio/census/census.js';
import { barIndex, dumpRange, writeWidths } from '../../vfio/session/bar.js';
import { access, parseAccess } from '../../vfio/session/config.js';
import { openSession } from '../../vfio/session/open.js';
import { openSpace } from '../../vfio/session/space.js';

export default class VfioBar extends Command {
  static override readonly description =
    'Reads and writes the BARs of a device that is bound to VFIO. `read` and `write` access each register once, with the ' +
    'given width: .b, .w, .l and .q stand for 1, 2, 4 and 8 bytes. `dump` copies a range. Reading a register can change the ' +
    'device, so vioctl reads only the registers that you name.\n\nIf the device has no driver, vioctl reads its memory BARs ' +
    'through sysfs, and keeps the device awake meanwhile.';
  static readonly examples: readonly Example[] = [
    ['vioctl vfio bar 0000:01:00.0 0 read 0.q 8.l', 'print the capabilities and the version of an NVMe controller'],
    ['vioctl vfio bar 00:04.0 0 write 4.l=12345678', 'write a register and print its new value'],
    ['vioctl vfio bar 01:00.0 0 dump --offset 0 --size 4K --raw > bar0.bin', 'copy the first page into a file'],
  ];
  static override readonly args = {
    bdf: deviceArg,
    bar: Args.string({ required: true, description: '0 to 5, or rom' }),
    verb: Args.string({ required: true, options: ['read', 'write', 'dump'], description: 'read, write or dump' }),
    register: Args.string({
      multiple: true,
      description: 'OFFSET[.b|.w|.l|.q] to read, OFFSET[.b|.w|.l|.q]=VALUE to write, in hexadecimal',
    }),
  };
  static override readonly flags = {
    offset: Flags.size({ default: 0, summary: 'start of the dump' }),
    size: Flags.size({ summary: 'bytes to dump [default: to the end of the BAR]' }),
    width: Flags.option({
      options: writeWidths,
      default: '4',
      helpValue: 'BYTES',
      summary: 'access width of registers without a suffix: 1, 2, 4 or 8',
    })(),
    raw: Flags.boolean({ summary: 'print the bytes of a dump, not hexadecimal lines' }),
    api: apiFlag,
    'vf-token': tokenFlag,
    'dry-run': Flags.boolean({ summary: 'check the command and open the device, but access nothing' }),
  };
  static override readonly changes = true;

  async run(): Promise<undefined> {
    const { args, flags } = await this.parse(VfioBar);
    const index = barIndex(args.bar);
    const list = (args.register ?? []).map((text) => ({ text, ...parseAccess(text, Number(flags.width)) }));
    const based = list.find(({ base }) => base !== undefined);
    if (based) throw usage(`${based.text}: a BAR has no capabilities`, 'vioctl vfio config');
    if (args.verb === 'dump' ? list.length > 0 : list.length === 0)
      throw usage(`${args.verb}: ${list.length ? 'takes no registers' : 'no registers'}`);
    for (const { text, value } of list)
      if ((value === undefined) !== (args.verb === 'read'))
        throw usage(`${args.verb} ${text}: ${value === undefined ? 'no value' : 'only write takes a value'}`, 'read 4.l, write 4.l=1');
    const census = new Census(this.sysroot);
    const session =
      args.verb === 'write'
        ? openSession(census, args.bdf, flags.api, [], flags['vf-token'])
        : openSpace(census, args.bdf, flags.api, flags['vf-token']);
    this.life.defer(() => session.close());
    if (flags['dry-run']) {
      const would = list.length > 0 ? list.map(({ text }) => `would ${args.verb} ${text}`) : ['would dump'];
      await this.out.document({ bdf: session.bdf, bar: index, verb: args.verb, done: false }, () =>
        would.map((w) => `${w} of BAR ${args.bar}`),
      );
      return undefined;
    }
    session.mapBar(index);
    if (args.verb === 'dump') {
      const bytes = dumpRange(session, index, flags.offset, flags.size);
      if (flags.raw) await this.out.raw(bytes);
      else await this.out.document({ bdf: session.bdf, bar: index, offset: flags.offset, bytes }, () => hexLines(bytes, flags.offset));
      return undefined;
    }
    const registers = list.map((r) => ({
      register: r.text.split('=')[0],
      offset: r.offset,
      width: r.width,
      value: access(session, index, r),
    }));
    await this.out.document({ bdf: session.bdf, bar: index, registers }, (doc) =>
      doc.registers.map((r) => r.value.toString(16).padStart(2 * r.width, '0')),
    );
    return undefined;
  }
}
