import { Command, type Example } from '../../cli/command.js';
import { Args, Flags } from '../../cli/flags.js';
import { Exit, usage } from '../../common/errors.js';
import { apiFlag, deviceArg, tokenFlag } from '../../groups/vfio/options.js';
import { Census } from '../../vfio/census/census.js';
import { irqType, irqTypes, requireVectors, waitForIrqs } from '../../vfio/session/irq.js';
import { openSession } from '../../vfio/session/open.js';

export default class VfioIrq extends Command {
  static override readonly description =
    'Lists the interrupts of a device that is bound to VFIO, or enables them and prints one line for each that arrives. `wait` ends after --count interrupts, or after --timeout with status 124.';
  static readonly examples: readonly Example[] = [
    ['vioctl vfio irq 0000:01:00.0 list', 'types, vectors, and what they can do'],
    ['vioctl vfio irq 00:04.0 wait --type msi --count 1 --timeout 10s', 'wait for one MSI'],
  ];
  static override readonly args = {
    bdf: deviceArg,
    verb: Args.string({ required: true, options: ['list', 'wait'], description: 'list or wait' }),
  };
  static override readonly flags = {
    type: Flags.option({
      options: irqTypes,
      helpValue: 'TYPE',
      summary: 'intx, msi, msix, err or req [default: the best the device has]',
    })(),
    vectors: Flags.integer({ default: 1, min: 1, helpValue: 'COUNT', summary: 'vectors to enable' }),
    count: Flags.integer({ min: 1, helpValue: 'COUNT', summary: 'end after this many interrupts' }),
    timeout: Flags.duration({ summary: 'end after this time' }),
    api: apiFlag,
    'vf-token': tokenFlag,
  };
  static override readonly formats = ['json', 'ndjson'] as const;
  static override readonly list = true;

  async run(): Promise<number> {
    const { args, flags } = await this.parse(VfioIrq);
    if (args.verb === 'wait' && this.out.format === 'json') throw usage('wait prints a stream', '--ndjson');
    const session = openSession(new Census(this.sysroot), args.bdf, flags.api, [], flags['vf-token']);
    this.life.defer(() => session.close());
    if (args.verb === 'list') {
      const columns = [
        { title: 'TYPE', value: (irq: { name: string }) => irq.name },
        { title: 'VECTORS', value: (irq: { count: number }) => irq.count, align: 'right' as const },
        { title: 'CAN', value: (irq: { flags: string[] }) => irq.flags.join(' ') },
      ];
      await this.out.list(session.irqs(), columns, 'irqs');
      return Exit.ok;
    }
    const type = irqType(session, flags.type);
    requireVectors(session, type, flags.vectors);
    const options = {
      type,
      vectors: flags.vectors,
      count: flags.count,
      timeout: flags.timeout,
      signal: this.life.signal,
    };
    const done = await waitForIrqs(session, options, (event) =>
      this.out.record(
        event,
        (e) => `${e.milliseconds.toFixed(1).padStart(10)} ms  ${e.type} ${e.vector}${e.count > 1 ? ` (${e.count} times)` : ''}`,
      ),
    );
    return done ? Exit.ok : Exit.timeout;
  }
}
