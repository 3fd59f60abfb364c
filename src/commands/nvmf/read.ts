import { Command } from '../../cli/command.js';
import { Flags } from '../../cli/flags.js';
import { byteSink } from '../../cli/streams/bytes.js';
import { connect, endpointFlags, namespaceFlags, pickNamespace, queueFlags, rangeFlags, subsystemFlags } from '../../groups/nvmf/host.js';
import { readRange, wantedRange } from '../../nvme/host/index.js';

export default class NvmfRead extends Command {
  static override readonly description =
    'Reads a namespace, or a part of it, to stdout or a file. Offsets and counts need not be whole blocks. Exactly the bytes asked for are written; ' +
    'when the target fails in the middle, what was read before that is out and the status is not 0.';
  static readonly examples = [
    ['vioctl nvmf read -a 192.0.2.1 -n nqn.2014-08.org.example:disk | sha256sum', 'the checksum of a remote disk'],
    ['vioctl nvmf read -n nqn.2014-08.org.example:disk --count 1M -g -G -d boot.img', 'its first MiB, with digests, to a file'],
  ] as const;
  static override readonly flags = {
    ...endpointFlags,
    ...subsystemFlags,
    ...namespaceFlags,
    ...queueFlags,
    ...rangeFlags,
    data: Flags.string({ char: 'd', default: '-', helpValue: 'FILE', summary: 'file to write to; - is stdout' }),
  };
  static override readonly formats = [];

  async run(): Promise<number> {
    const { flags } = await this.parse(NvmfRead);
    const controller = await connect(this.life, flags, true);
    const ns = await pickNamespace(controller, flags);
    const range = wantedRange(ns, flags);
    const progress = this.progress('read', Number(range.length), { streams: flags.data === '-' });
    const sink = await byteSink(flags.data, this.life);
    for await (const data of readRange(ns, range, { depth: flags.iodepth, chunk: flags.chunk })) {
      await sink.write(data);
      progress.add(data.length);
    }
    await sink.end();
    return 0;
  }
}
