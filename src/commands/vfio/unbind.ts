import { Command, type Example } from '../../cli/command.js';
import { Flags, nullFlag } from '../../cli/flags.js';
import { collectList } from '../../cli/input.js';
import { devicesArg, scriptFlag, waitFlag } from '../../groups/vfio/options.js';
import { unboundLines } from '../../groups/vfio/views.js';
import { reload, systemHost } from '../../vfio/binding/host.js';
import { shellScript, unbindScript } from '../../vfio/binding/script.js';
import { planUnbind, unbind, unbindFiles } from '../../vfio/binding/unbind.js';
import { Census } from '../../vfio/census/census.js';
import { describeHolder } from '../../vfio/census/holders.js';

export default class VfioUnbind extends Command {
  static override readonly description =
    'Gives devices back to the drivers they had before `vioctl vfio bind`, or, for devices that something else bound to VFIO, to ' +
    'the driver whose id table claims them. Never hangs: while a process holds a device, by a descriptor or by a mapped BAR, ' +
    'the command names it, waits, and ends with status 3 and nothing changed. With --ask the unbind begins at once: the ' +
    'kernel asks the holder to let go, which programs such as QEMU do.';
  static readonly examples: readonly Example[] = [
    ['vioctl vfio unbind 0000:01:00.0', 'back to the earlier driver'],
    ['vioctl vfio unbind 01:00.0 --wait 30s --ask', 'ask the program that holds it, and wait 30 seconds'],
    ['vioctl vfio list --driver vfio-pci --json | jq -r ".devices[].bdf" | vioctl vfio unbind -', 'everything'],
  ];
  static override readonly args = {
    bdf: devicesArg,
  };
  static override readonly flags = {
    driver: Flags.string({ summary: 'give it to this driver, which must list the id of the device', helpValue: 'DRIVER' }),
    wait: waitFlag,
    ask: Flags.boolean({ summary: 'let the kernel ask the holder to let go; this cannot be taken back' }),
    persist: Flags.boolean({ summary: 'also end what bind --persist set up' }),
    null: nullFlag,
    'dry-run': scriptFlag,
  };
  static override readonly changes = true;

  async run(): Promise<undefined> {
    const { args, flags } = await this.parse(VfioUnbind);
    const bdfs = await collectList(args.bdf, { null: flags.null, orStdin: false });
    const census = new Census(this.sysroot);
    const options = { bdfs, driver: flags.driver, wait: flags.wait, ask: flags.ask, persist: flags.persist };
    if (flags['dry-run']) {
      await this.out.document(unbindScript(planUnbind(census, options, { privileged: false }), unbindFiles(census, options)), shellScript);
      return undefined;
    }
    const { devices, files } = await unbind(systemHost(this.sysroot, process.pid, census.modules), census, {
      ...options,
      signal: this.life.signal,
      note: (bdf, holders) => this.info(`${bdf}: held by ${holders.map(describeHolder).join(', ')}; waiting ${flags.wait / 1000} s`),
    });
    for (const failure of await reload(this.sysroot, files)) this.warn(failure);
    await this.out.document({ devices, files }, () => [...unboundLines(devices), ...files.map((file) => `removed ${file}`)]);
    return undefined;
  }
}
