import { Command, type Example } from '../../cli/command.js';
import { Args, Flags } from '../../cli/flags.js';
import { apiFlag, deviceArg, tokenFlag } from '../../groups/vfio/options.js';
import { configLines, hexLines } from '../../groups/vfio/session-views.js';
import { Census } from '../../vfio/census/census.js';
import { access, parseAccess, readConfigSpace, resolveAccess } from '../../vfio/session/config.js';
import { openSession } from '../../vfio/session/open.js';
import { configRegion } from '../../vfio/session/session.js';
import { openSpace } from '../../vfio/session/space.js';

export default class VfioConfig extends Command {
  static override readonly description =
    'Reads the configuration space of a device, and writes it if the device is bound to VFIO. VFIO virtualizes some registers, and ' +
    'ignores writes that would disturb the host. Other devices are read through sysfs. Without a register the whole space is ' +
    'decoded. Registers are spelled as ' +
    'for setpci: OFFSET[.b|.w|.l][=VALUE] in hexadecimal, or the name of a header register. They are accessed in order, and the ' +
    'command prints the value that each register holds afterwards.';
  static readonly examples: readonly Example[] = [
    ['vioctl vfio config 0000:01:00.0', 'header, capabilities and bytes'],
    ['vioctl vfio config 01:00.0 COMMAND 04.w=6', 'read the command register, then enable memory and bus mastering'],
    ['vioctl vfio config 01:00.0 --raw | xxd', 'the bytes'],
  ];
  static override readonly args = {
    bdf: deviceArg,
    register: Args.string({ multiple: true, description: '[CAP_PM+]OFFSET[.b|.w|.l][=VALUE] or NAME[=VALUE], in order' }),
  };
  static override readonly flags = {
    raw: Flags.boolean({ summary: 'print the bytes of the whole space as they are' }),
    api: apiFlag,
    'vf-token': tokenFlag,
    'dry-run': Flags.boolean({ summary: 'write nothing, only read' }),
  };
  static override readonly changes = true;

  async run(): Promise<undefined> {
    const { args, flags } = await this.parse(VfioConfig);
    const list = (args.register ?? []).map((text) => ({ text, ...parseAccess(text, 4) }));
    const writes = !flags['dry-run'] && list.some(({ value }) => value !== undefined);
    const census = new Census(this.sysroot);
    const session = writes
      ? openSession(census, args.bdf, flags.api, [], flags['vf-token'])
      : openSpace(census, args.bdf, flags.api, flags['vf-token']);
    this.life.defer(() => session.close());
    if (list.length > 0) {
      const registers = list
        .map((one) => ({ ...resolveAccess(session, one), text: one.text }))
        .map(({ text, offset, width, value }) => ({
          register: text.split('=')[0],
          offset,
          width,
          value: access(session, configRegion, { offset, width, value: flags['dry-run'] ? undefined : value }),
        }));
      await this.out.document({ bdf: session.bdf, registers }, (doc) =>
        doc.registers.map((r) => r.value.toString(16).padStart(2 * r.width, '0')),
      );
      return undefined;
    }
    const space = readConfigSpace(session);
    if (flags.raw) await this.out.raw(space.bytes);
    else await this.out.document({ bdf: session.bdf, ...space }, (doc, chalk) => [...configLines(doc, chalk), '', ...hexLines(doc.bytes)]);
    return undefined;
  }
}
