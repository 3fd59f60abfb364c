import { Command, type Example } from '../../cli/command.js';
import { Flags } from '../../cli/flags.js';
import { apiFlag, deviceArg, tokenFlag } from '../../groups/vfio/options.js';
import { Census } from '../../vfio/census/census.js';
import { openSession } from '../../vfio/session/open.js';
import { byMethod, planReset, resetDevice } from '../../vfio/session/reset.js';

export default class VfioReset extends Command {
  static override readonly description =
    'Resets a device that is bound to VFIO and that no program has open: by its function-level reset, or by another method that the ' +
    'kernel chooses. --hot resets its slot or bus, with every device on it. All of these devices must be bound to VFIO and unused; ' +
    'otherwise the command names the ones that are not, and resets nothing.';
  static readonly examples: readonly Example[] = [
    ['vioctl vfio reset 0000:01:00.0', 'reset this device alone'],
    ['vioctl vfio reset 01:00.0 --hot --dry-run', 'list the devices that a reset of the slot would affect'],
  ];
  static override readonly args = {
    bdf: deviceArg,
  };
  static override readonly flags = {
    hot: Flags.boolean({ summary: 'reset the slot or bus, with all of its devices' }),
    method: Flags.string({ helpValue: 'METHOD', exclusive: ['hot'], summary: 'use only this reset method: flr, pm, bus, …' }),
    api: apiFlag,
    'vf-token': tokenFlag,
    'dry-run': Flags.boolean({ summary: 'print what would be reset, and reset nothing' }),
  };
  static override readonly changes = true;

  async run(): Promise<undefined> {
    const { args, flags } = await this.parse(VfioReset);
    const session = openSession(new Census(this.sysroot), args.bdf, flags.api, [], flags['vf-token']);
    this.life.defer(() => session.close());
    const plan = planReset(session, flags.hot);
    const reset = () => {
      if (!flags['dry-run']) resetDevice(session, plan);
    };
    if (flags.method === undefined) reset();
    else byMethod(this.sysroot, plan.bdf, flags.method, reset);
    await this.out.document(
      { ...plan, done: !flags['dry-run'] },
      ({ method, devices, done }) => `${done ? 'reset' : 'would reset'} (${method}): ${devices.join(', ')}`,
    );
    return undefined;
  }
}
