import { Command } from '../../cli/command.js';
import { Flags } from '../../cli/flags.js';
import { connect, endpointFlags, namespaceFlags, subsystemFlags } from '../../groups/nvmf/host.js';
import { describeIdentify, identifyTarget } from '../../nvme/host/index.js';

export default class NvmfIdentify extends Command {
  static override readonly description =
    'Prints Identify Controller and the namespaces of a subsystem, or with --namespace-id Identify Namespace of one. ' +
    'The JSON has the keys of `nvme id-ctrl` and `nvme id-ns`, and besides them `namespaces`, or `descs`.';
  static readonly examples = [
    ['vioctl nvmf identify -a 192.0.2.1 -n nqn.2014-08.org.example:disk', 'controller and namespaces'],
    ['vioctl nvmf identify -n nqn.2014-08.org.example:disk --namespace-id 1 --json | jq .nsze', 'blocks of namespace 1'],
  ] as const;
  static override readonly flags = {
    ...endpointFlags,
    ...subsystemFlags,
    ...namespaceFlags,
    raw: Flags.boolean({ summary: 'the 4096 bytes as the target sent them', exclusive: ['json'] }),
  };

  async run(): Promise<number> {
    const { flags } = await this.parse(NvmfIdentify);
    const controller = await connect(this.life, flags, false);
    const found = await identifyTarget(controller, flags['namespace-id']);
    if (flags.raw) await this.out.raw(found.raw);
    else await this.out.document(found.json, () => describeIdentify(found));
    return 0;
  }
}
