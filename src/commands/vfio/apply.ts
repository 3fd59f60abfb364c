import fs from 'node:fs';
import path from 'node:path';
import { Command, type Example } from '../../cli/command.js';
import { Args, Flags } from '../../cli/flags.js';
import { Exit, wrap } from '../../common/errors.js';
import { appliedLines } from '../../groups/vfio/views.js';
import { apply } from '../../vfio/apply/apply.js';
import { parseDeclaration } from '../../vfio/apply/document.js';
import { batchError, raceWait } from '../../vfio/binding/batch.js';
import { reload, systemHost } from '../../vfio/binding/host.js';
import { systemCensus } from '../../vfio/census/live.js';

/** Bytes of a file that declares devices. */
const mostBytes = 16 << 20;

export default class VfioApply extends Command {
  static override readonly description =
    'Brings devices to the state that a file declares, one by one: driver, owner of the nodes, persistence, virtual functions, power ' +
    'policy. A second run changes nothing, and an interrupted run can be repeated. If an entry fails, the others are still applied.\n\n' +
    'The file is YAML or JSON: a list `devices` of entries with the key `device` (address or selector) and any of `expect` ' +
    '(vendor:device), `function` (number), `driver` (vfio, host or ' +
    'a name), `owner`, `persist`, `allow` (checks to ignore), `vfs`, `vfDriver`, `macs`, `autoprobe`, `power` (on or auto), `d3cold` ' +
    '(whether the device may be powered off while suspended), `resetMethod` (such as flr), `all` (the ' +
    'selector may match several) and `optional` (a missing device is no error). Settings that an entry leaves out stay as they are.';
  static readonly examples: readonly Example[] = [
    ['vioctl vfio apply /etc/vioctl/devices.yaml', 'bring the host to its declared state'],
    ['vioctl vfio apply devices.yaml --check', 'only print the differences (status 4)'],
    ['echo \'{"devices":[{"device":"net:eth0","vfs":4,"vfDriver":"vfio-pci"}]}\' | vioctl vfio apply -', 'from standard input'],
  ];
  static override readonly args = { file: Args.string({ required: true, description: 'declaration, YAML or JSON; - for stdin' }) };
  static override readonly flags = {
    check: Flags.boolean({ summary: 'print the differences and change nothing; status 4 if there are any' }),
    'dry-run': Flags.boolean({ summary: 'like --check, but with status 0' }),
    appear: Flags.duration({ default: 0, summary: 'how long to wait for devices that have not appeared yet' }),
    wait: Flags.duration({ default: raceWait, summary: 'how long to wait for holders and other runs' }),
  };
  static override readonly changes = true;
  static override readonly finishes = true;

  async run(): Promise<number> {
    const { args, flags } = await this.parse(VfioApply);
    const entries = await parseDeclaration(this.#read(args.file), args.file);
    const census = systemCensus(this.sysroot, process.pid);
    const check = flags.check || flags['dry-run'];
    const devices = await apply(systemHost(this.sysroot, process.pid, census.modules), census, entries, {
      check,
      wait: flags.wait,
      appear: flags.appear,
      signal: this.life.signal,
      program: [process.execPath, path.resolve(process.argv[1] ?? '')],
    });
    const persisted = devices.some(
      ({ outcome, differences }) => outcome === 'changed' && differences.some(({ what }) => what === 'persist'),
    );
    if (persisted) for (const failure of await reload(this.sysroot, ['/etc/systemd/system/', '/etc/udev/rules.d/'])) this.warn(failure);
    await this.out.document({ devices }, (doc) => appliedLines(doc.devices));
    const failed = devices.flatMap(({ error }) => error ?? []);
    if (failed.length > 0) throw batchError(failed, devices.length);
    return flags.check && devices.some(({ outcome }) => outcome === 'differs') ? Exit.differs : Exit.ok;
  }

  #read(file: string): string {
    try {
      const text = fs.readFileSync(file === '-' ? 0 : file, 'utf8');
      if (text.length > mostBytes) throw new Error(`larger than ${mostBytes} bytes`);
      return text;
    } catch (err) {
      throw wrap(`read ${file}`, err);
    }
  }
}
