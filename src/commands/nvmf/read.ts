import { Command } from '../../cli/command.js';
import { mayBlock } from '../../cli/exit.js';
import { Flags } from '../../cli/flags.js';
import { ClosedPipe } from '../../cli/output/stdio.js';
import { byteOutput } from '../../cli/streams/bytes.js';
import { printable } from '../../common/escape.js';
import { endpointFlags, namespaceFlags, openNamespace, queueFlags, rangeFlags, subsystemFlags } from '../../groups/nvmf/host.js';
import { wantedRange } from '../../nvme/host/index.js';

export default class NvmfRead extends Command {
  static override readonly description =
    'Reads a namespace, or a part of it, to stdout or a file. Offsets and counts need not be whole blocks. If the target fails in ' +
    'the middle, standard output has the data up to there, and a file keeps its earlier content. Blocks of zeroes become holes of a ' +
    'new file.';
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
    const ns = await openNamespace(this.life, flags);
    const range = wantedRange(ns.facts, flags);
    const progress = this.progress('read', Number(range.length), { streams: flags.data === '-' });
    const output = byteOutput(flags.data, this.life);
    const { chunk, iodepth: depth } = flags;
    const copy = ns.copy({ fd: output.fd, write: false, ...range, chunk, depth, fua: false, deallocate: false });
    this.life.signal.addEventListener('abort', copy.stop, { once: true });
    progress.follow(copy.progress);
    const result = await mayBlock(copy.done);
    progress.end();
    this.life.signal.throwIfAborted();
    if (result.where === 'output' && result.error === 'EPIPE') throw new ClosedPipe();
    if (result.error !== '') throw ns.failure(result, flags.data === '-' ? 'stdout' : printable(flags.data));
    output.finish();
    return 0;
  }
}
