import { Command, type Example } from '../../cli/command.js';
import { Flags, nullFlag } from '../../cli/flags.js';
import { allFlag, deviceList, devicesArg, scriptFlag, waitFlag } from '../../groups/vfio/options.js';
import { failureLines, unboundLines } from '../../groups/vfio/views.js';
import { batchError, oneByOne } from '../../vfio/binding/batch.js';
import { reload, systemHost } from '../../vfio/binding/host.js';
import { shellScript, unbindScript } from '../../vfio/binding/script.js';
import { isGoneSelector, planUnbind, unbind, unbindFiles } from '../../vfio/binding/unbind.js';
import { boundElsewhere } from '../../vfio/census/boot-rules.js';
import { Census } from '../../vfio/census/census.js';
import { describeHolder } from '../../vfio/census/holders.js';
import { readDevices } from '../../vfio/devices/pci.js';

export default class VfioUnbind extends Command {
  static override readonly description =
    'Gives devices back to the drivers they had before `vioctl vfio bind`, or, for devices that something else bound to VFIO, to ' +
    'the driver whose id table claims them. The command never hangs: if a process holds a device by a descriptor or a mapped BAR, it ' +
    'names the process, waits for --wait, and exits with 3 without any change. With --ask the unbind starts at once: the kernel asks ' +
    'the holder to release the device, and programs such as QEMU do.';
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
    ask: Flags.boolean({ summary: 'let the kernel ask the holder to release the device; this cannot be undone' }),
    persist: Flags.boolean({ summary: 'also remove what bind --persist set up' }),
    all: allFlag,
    null: nullFlag,
    'dry-run': scriptFlag,
  };
  static override readonly changes = true;
  static override readonly finishes = true;

  async run(): Promise<undefined> {
    const { args, flags } = await this.parse(VfioUnbind);
    const gone = flags.persist ? args.bdf.filter((word) => isGoneSelector(this.sysroot, word)) : [];
    const bdfs = await deviceList(
      this.sysroot,
      args.bdf.filter((word) => !gone.includes(word)),
      flags,
    );
    const census = new Census(this.sysroot);
    const options = { bdfs, driver: flags.driver, wait: flags.wait, ask: flags.ask, persist: flags.persist, gone };
    if (flags.persist) this.#elsewhere(bdfs);
    if (flags['dry-run']) {
      await this.out.document(unbindScript(planUnbind(census, options, { privileged: false }), unbindFiles(census, options)), shellScript);
      return undefined;
    }
    const host = systemHost(this.sysroot, process.pid, census.modules);
    const run = (bdfs: readonly string[]) =>
      unbind(host, census, {
        ...options,
        bdfs,
        signal: this.life.signal,
        note: (bdf, holders) => this.info(`${bdf}: held by ${holders.map(describeHolder).join(', ')}; waiting ${flags.wait / 1000} s`),
      });
    if (!flags.all) {
      const { devices, files } = await run(bdfs);
      for (const failure of await reload(this.sysroot, files)) this.warn(failure);
      await this.out.document({ devices, files }, () => [...unboundLines(devices), ...files.map((file) => `removed ${file}`)]);
      return undefined;
    }
    const { done, failed } = await oneByOne(bdfs, this.life.signal, (bdf) => run([bdf]));
    const devices = done.flatMap((result) => result.devices);
    const files = done.flatMap((result) => result.files);
    for (const failure of await reload(this.sysroot, files)) this.warn(failure);
    const lines = () => [...unboundLines(devices), ...failureLines(failed), ...files.map((file) => `removed ${file}`)];
    await this.out.document({ devices, failed, files }, lines);
    if (failed.length > 0) throw batchError(failed, bdfs.length);
    return undefined;
  }

  /** Says what else binds the devices at the next boot. */
  #elsewhere(bdfs: readonly string[]): void {
    for (const device of readDevices(this.sysroot, bdfs))
      for (const { by, where, fix } of boundElsewhere(this.sysroot, device))
        this.warn(`${device.bdf}: ${by} (${where}) binds it to VFIO at the next boot: ${fix}`);
  }
}
