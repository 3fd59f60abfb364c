import { Command } from '../../cli/command.js';
import { Flags } from '../../cli/flags.js';
import { controllerOptions, endpointFlags } from '../../groups/nvmf/host.js';
import { discover } from '../../nvme/host/index.js';
import { discoveryNqn, discoveryPort } from '../../nvme/wire/index.js';

export default class NvmfDiscover extends Command {
  static override readonly description =
    'Asks the discovery service of a target what it offers, and prints one record for each subsystem and address. Needs no ' +
    'kernel module and no root. The JSON has the keys of `nvme discover -o json`.';
  static readonly examples = [
    ['vioctl nvmf discover -a 192.0.2.1', 'ask the discovery service, on port 8009'],
    ['vioctl nvmf discover -a 192.0.2.1 -s 4420', 'ask on the port of the subsystems instead; not every target answers there'],
    ["vioctl nvmf discover --json | jq -r '.records[].subnqn'", 'print only the NQNs'],
  ] as const;
  static override readonly flags = {
    ...endpointFlags,
    trsvcid: Flags.integer({ char: 's', default: discoveryPort, min: 1, max: 65535, helpValue: 'PORT', summary: 'port of the target' }),
    nqn: Flags.string({ char: 'n', default: discoveryNqn, helpValue: 'NQN', summary: 'NQN of the discovery service' }),
  };
  static override readonly formats = ['json', 'ndjson'] as const;
  static override readonly list = true;

  async run(): Promise<number> {
    const { flags } = await this.parse(NvmfDiscover);
    const { genctr, records } = await discover(controllerOptions(flags, flags.nqn, false));
    if (this.out.format === 'json') {
      await this.out.document({ genctr, records }, () => '');
      return 0;
    }
    await this.out.list(
      records,
      [
        { title: 'TRTYPE', priority: 3, value: (r) => r.trtype },
        { title: 'ADRFAM', priority: 2, value: (r) => r.adrfam },
        { title: 'TRADDR', priority: 8, min: 15, value: (r) => r.traddr },
        { title: 'TRSVCID', priority: 7, value: (r) => r.trsvcid },
        { title: 'PORTID', priority: 1, value: (r) => r.portid, align: 'right' },
        { title: 'SUBNQN', priority: 9, min: 12, value: (r) => r.subnqn },
        { title: 'SUBTYPE', priority: 5, value: (r) => r.subtype },
      ],
      'records',
    );
    return 0;
  }
}
