import { Command, type Example } from '../../cli/command.js';
import { Flags } from '../../cli/flags.js';
import { scriptFlag } from '../../groups/vfio/options.js';
import { restoredLines } from '../../groups/vfio/views.js';
import { systemHost } from '../../vfio/binding/host.js';
import { restorationError, restore } from '../../vfio/binding/restore.js';
import { restoreScript, shellScript } from '../../vfio/binding/script.js';
import { Census } from '../../vfio/census/census.js';

export default class VfioRestore extends Command {
  static override readonly description =
    'Rolls back interrupted runs of bind, unbind and exec. Their journals in /run/vioctl name each device with its earlier ' +
    'driver and override. The command ignores runs that are still active. If a device cannot be restored, it names the ' +
    'device, keeps its journal, and exits with 8.';
  static readonly examples: readonly Example[] = [
    ['vioctl vfio restore', 'clean up after a crash of vioctl'],
    ['vioctl vfio restore --all', 'also return every device that vioctl bound to its driver'],
  ];
  static override readonly flags = {
    all: Flags.boolean({ summary: 'also return the devices of completed binds' }),
    wait: Flags.duration({ default: 10_000, summary: 'with --all: time to wait for programs that use a device' }),
    'dry-run': scriptFlag,
  };
  static override readonly changes = true;
  static override readonly finishes = true;

  async run(): Promise<undefined> {
    const { flags } = await this.parse(VfioRestore);
    const census = new Census(this.sysroot);
    const host = systemHost(this.sysroot, process.pid, census.modules);
    if (flags['dry-run']) {
      await this.out.document(restoreScript(host, census, flags.all), shellScript);
      return undefined;
    }
    const result = await restore(host, census, { all: flags.all, wait: flags.wait, signal: this.life.signal });
    const { devices, left, failed } = result;
    await this.out.document({ devices, left, failed }, () => restoredLines(devices));
    const error = restorationError(result);
    if (error) throw error;
    return undefined;
  }
}
