import { Command, type Example } from '../../cli/command.js';
import { Args, Flags } from '../../cli/flags.js';
import { usage } from '../../common/errors.js';
import { connect, endpointFlags, namespaceFlags, subsystemFlags } from '../../groups/nvmf/host.js';
import { describeLog, type LogName, logNames, readLog } from '../../nvme/host/index.js';

export default class NvmfLogs extends Command {
  static override readonly description =
    'Prints a log page of a controller: smart (health and counters), error, fw (firmware slots), effects (commands supported), ana (asymmetric access), ' +
    'changed-ns (namespaces that changed), discovery. The JSON has the keys of nvme-cli.';
  static readonly examples: readonly Example[] = [
    ['vioctl nvmf logs smart -a 192.0.2.1 -n nqn.2014-08.org.example:disk', 'print health and counters'],
    ["vioctl nvmf logs error -n nqn.2014-08.org.example:disk --json | jq '.errors | length'", 'count the logged errors'],
  ];
  static override readonly args = {
    log: Args.string({
      required: true,
      options: [...logNames],
      description: 'smart, error, fw, effects, ana, changed-ns, discovery',
    }),
  };
  static override readonly flags = {
    ...endpointFlags,
    ...subsystemFlags,
    ...namespaceFlags,
    raw: Flags.boolean({ summary: 'print the bytes as the target sent them', exclusive: ['json'] }),
  };

  async run(): Promise<number> {
    const { args, flags } = await this.parse(NvmfLogs);
    if (flags['namespace-id'] !== undefined && args.log !== 'smart') throw usage('--namespace-id is for the smart log');
    const controller = await connect(this.life, flags, false);
    const page = await readLog(controller, args.log as LogName, flags['namespace-id']);
    if (flags.raw) await this.out.raw(page.raw);
    else await this.out.document(page.json, () => describeLog(page));
    return 0;
  }
}
