import path from 'node:path';
import { Command, type Example } from '../../cli/command.js';
import { Flags } from '../../cli/flags.js';
import { allowFlag, deviceArg, scriptFlag, tokenFlag } from '../../groups/vfio/options.js';
import { sriovResultLines } from '../../groups/vfio/views.js';
import { raceWait } from '../../vfio/binding/batch.js';
import { reload, systemHost } from '../../vfio/binding/host.js';
import { systemCensus } from '../../vfio/census/live.js';
import { findDevice } from '../../vfio/devices/select.js';
import { planSriov, showSriov, sriov, sriovLines } from '../../vfio/sriov/sriov.js';

export default class VfioSriov extends Command {
  static override readonly description =
    'Shows the virtual functions of a physical function, or sets their number, driver and MAC addresses (SR-IOV).\n\n' +
    'The kernel changes the number only from and to 0. Another number therefore replaces all virtual functions, and the command ' +
    'refuses it while one of them is in use. With --driver, no other driver gets the virtual functions first. If a step fails, the ' +
    'earlier number is restored; `vioctl vfio restore` undoes an interrupted run.\n\n' +
    'The physical function may be on VFIO itself, if vfio-pci has the parameter enable_sriov. Then its virtual functions open only with ' +
    'a VF token: the command sets one and prints it, and other vioctl commands of the same user find it.';
  static readonly examples: readonly Example[] = [
    ['vioctl vfio sriov 0000:04:00.0', 'show the virtual functions'],
    ['vioctl vfio sriov net:eth0 --vfs 4 --driver vfio-pci', 'switch four on and bind them to VFIO'],
    ['vioctl vfio sriov 04:00.0 --vfs 2 --mac 52:54:00:00:00:01 --mac 52:54:00:00:00:02', 'with MAC addresses'],
    ['vioctl vfio sriov 04:00.0 --vfs 0', 'switch them off'],
    ['vioctl vfio sriov net:eth0 --vfs 4 --driver vfio-pci --persist', 'at every boot too'],
  ];
  static override readonly args = { bdf: deviceArg };
  static override readonly flags = {
    vfs: Flags.integer({ helpValue: 'NUMBER', min: 0, summary: 'number of virtual functions' }),
    driver: Flags.string({ helpValue: 'DRIVER', summary: 'bind the virtual functions to this driver' }),
    mac: Flags.string({ helpValue: 'ADDRESS', multiple: true, summary: 'MAC address of the next virtual function' }),
    persist: Flags.boolean({ summary: 'also set them at every boot; with --vfs 0, stop doing so' }),
    'no-autoprobe': Flags.boolean({ summary: 'do not offer the virtual functions to drivers' }),
    'vf-token': { ...tokenFlag, summary: 'VF token to set, if the physical function is on VFIO [default: a new one]' },
    allow: allowFlag,
    wait: Flags.duration({ default: raceWait, summary: 'how long to wait for another run that changes the device' }),
    'dry-run': scriptFlag,
  };
  static override readonly changes = true;
  static override readonly finishes = true;

  async run(): Promise<undefined> {
    const { args, flags } = await this.parse(VfioSriov);
    const { bdf, numVfs } = findDevice(this.sysroot, args.bdf);
    const census = systemCensus(this.sysroot, process.pid);
    const show =
      flags.vfs === undefined &&
      flags.driver === undefined &&
      flags.mac === undefined &&
      !flags['no-autoprobe'] &&
      !flags['vf-token'] &&
      !flags.persist;
    const options = {
      vfs: flags.vfs ?? numVfs,
      driver: flags.driver,
      macs: flags.mac,
      autoprobe: flags['no-autoprobe'] ? false : undefined,
      allow: flags.allow,
      token: flags['vf-token'],
      persist: flags.persist ? ([process.execPath, path.resolve(process.argv[1] ?? '')] as const) : undefined,
      wait: flags.wait,
      signal: this.life.signal,
    };
    if (flags['dry-run']) {
      const plan = planSriov(census, bdf, options, { privileged: false });
      await this.out.document(
        { bdf, numVfs: plan.to.numVfs, previousVfs: plan.from.numVfs, script: sriovLines(plan) },
        (doc) => doc.script,
      );
      return undefined;
    }
    const host = systemHost(this.sysroot, process.pid, census.modules);
    const result = show ? await showSriov(host, census, bdf) : await sriov(host, census, bdf, options);
    for (const failure of await reload(this.sysroot, result.files)) this.warn(failure);
    await this.out.document(result, sriovResultLines);
    return undefined;
  }
}
