import path from 'node:path';
import { Command, type Example } from '../../cli/command.js';
import { Flags, nullFlag } from '../../cli/flags.js';
import { allFlag, allowFlag, deviceList, devicesArg, scriptFlag } from '../../groups/vfio/options.js';
import { boundLines, failureLines } from '../../groups/vfio/views.js';
import { batchError, oneByOne, raceWait } from '../../vfio/binding/batch.js';
import { type BindOptions, bind, planBind } from '../../vfio/binding/bind.js';
import { reload, systemHost } from '../../vfio/binding/host.js';
import { parseOwner } from '../../vfio/binding/owner.js';
import { bindScript, shellScript } from '../../vfio/binding/script.js';
import type { Census } from '../../vfio/census/census.js';
import { systemCensus } from '../../vfio/census/live.js';
import { checks } from '../../vfio/checks/finding.js';
import { identityKinds } from '../../vfio/devices/identity.js';

export default class VfioBind extends Command {
  static override readonly description =
    'Binds devices to vfio-pci, or to the VFIO variant driver that suits them best, as one transaction: a journal on disk, safety ' +
    'checks, module, driver_override, unbind, bind, verification, owner. If any step fails, the devices return to their earlier ' +
    'drivers; an interrupted run is undone by `vioctl vfio restore`. Devices with the same id are never touched.\n\n' +
    `Checks that --allow can lift, one by one: ${Object.entries(checks)
      .map(([name, what]) => `${name} (${what})`)
      .join('; ')}.`;
  static readonly examples: readonly Example[] = [
    ['vioctl vfio bind 0000:01:00.0', 'bind one device'],
    ['vioctl vfio bind 05:02.0 --group --owner qemu', 'bind all endpoints of its IOMMU group, for user qemu'],
    ['vioctl vfio bind 01:00.0 --persist --owner spdk', 'now and at every boot, wherever it is plugged in then'],
    ['vioctl vfio bind 01:00.0 --dry-run > change.sh', 'the writes, as a shell script'],
    ['vioctl vfio bind 03:00.0 --allow route', 'although the default route leads out of it'],
  ];
  static override readonly args = {
    bdf: devicesArg,
  };
  static override readonly flags = {
    group: Flags.boolean({ summary: 'bind all endpoints of the IOMMU groups, or none' }),
    driver: Flags.string({ summary: 'this driver: a VFIO driver, or one that lists the id of the device', helpValue: 'DRIVER' }),
    owner: Flags.string({ summary: 'give the nodes in /dev/vfio to this user', helpValue: 'USER[:GROUP]' }),
    allow: allowFlag,
    expect: Flags.string({ summary: 'refuse when another device is at the address', helpValue: 'VENDOR:DEVICE' }),
    persist: Flags.boolean({ summary: 'also bind at every boot (udev rule, systemd unit, initramfs hook)' }),
    identity: Flags.option({
      options: identityKinds,
      helpValue: 'KIND',
      summary: 'with --persist: recognise it by serial, mac, slot or address [default: the first it has]',
    })(),
    all: allFlag,
    wait: Flags.duration({ default: raceWait, summary: 'how long to wait for another run that changes a device' }),
    null: nullFlag,
    'dry-run': scriptFlag,
  };
  static override readonly changes = true;
  static override readonly finishes = true;

  async run(): Promise<undefined> {
    const { args, flags } = await this.parse(VfioBind);
    const options: BindOptions = {
      bdfs: await deviceList(this.sysroot, args.bdf, flags),
      group: flags.group,
      driver: flags.driver,
      allow: flags.allow,
      owner: flags.owner === undefined ? undefined : parseOwner(this.sysroot, flags.owner),
      expect: flags.expect,
      identity: flags.identity,
      persist: flags.persist ? [process.execPath, path.resolve(process.argv[1] ?? '')] : undefined,
    };
    const census = systemCensus(this.sysroot, process.pid);
    if (flags['dry-run']) {
      await this.out.document(bindScript(this.sysroot, planBind(census, options, { privileged: false })), shellScript);
      return undefined;
    }
    const host = systemHost(this.sysroot, process.pid, census.modules);
    const run = (bdfs: readonly string[], seen: Census) =>
      bind(host, seen, { ...options, bdfs, wait: flags.wait, signal: this.life.signal });
    if (!flags.all) {
      const { devices, files } = await run(options.bdfs, census);
      for (const failure of await reload(this.sysroot, files)) this.warn(failure);
      await this.out.document({ devices, files }, () => [...boundLines(devices), ...files.map((file) => `wrote ${file}`)]);
      return undefined;
    }
    // a batch takes time: each device is judged by what uses it when its turn comes
    const { done, failed } = await oneByOne(options.bdfs, this.life.signal, (bdf) => run([bdf], census.fresh()));
    const files = [...new Set(done.flatMap((binding) => binding.files))];
    const devices = done.flatMap((binding) => binding.devices);
    for (const failure of await reload(this.sysroot, files)) this.warn(failure);
    const lines = () => [...boundLines(devices), ...failureLines(failed), ...files.map((file) => `wrote ${file}`)];
    await this.out.document({ devices, failed, files }, lines);
    if (failed.length > 0) throw batchError(failed, options.bdfs.length);
    return undefined;
  }
}
