import { Command } from '../../cli/command.js';
import { Flags } from '../../cli/flags.js';
import { byteSource } from '../../cli/streams/bytes.js';
import { formatSize } from '../../common/units.js';
import { connect, endpointFlags, namespaceFlags, pickNamespace, queueFlags, rangeFlags, subsystemFlags } from '../../groups/nvmf/host.js';
import { wantedRange, writeRange } from '../../nvme/host/index.js';

export default class NvmfWrite extends Command {
  static override readonly description =
    'Writes stdin or a file to a namespace and flushes it: status 0 means that all is on the medium. Input that does not fill its last block keeps the ' +
    'rest of that block. Input that is longer than the namespace, or shorter than --count, is written as far as it goes and reported with status 1.';
  static readonly examples = [
    ['vioctl nvmf write -a 192.0.2.1 -n nqn.2014-08.org.example:disk < disk.img', 'copy an image to a remote disk'],
    [
      'zstdcat disk.img.zst | vioctl nvmf write -n nqn.2014-08.org.example:disk --offset 1G -i 4',
      'from a pipe, at an offset, over four connections',
    ],
  ] as const;
  static override readonly changes = true;
  static override readonly flags = {
    ...endpointFlags,
    ...subsystemFlags,
    ...namespaceFlags,
    ...queueFlags,
    ...rangeFlags,
    data: Flags.string({ char: 'd', default: '-', helpValue: 'FILE', summary: 'file to read from; - is stdin' }),
    fua: Flags.boolean({ summary: 'every write bypasses the volatile cache (Force Unit Access)' }),
    'dry-run': Flags.boolean({ summary: 'connect and check sizes, write nothing' }),
  };

  async run(): Promise<number> {
    const { flags } = await this.parse(NvmfWrite);
    const controller = await connect(this.life, flags, true);
    const ns = await pickNamespace(controller, flags);
    const range = wantedRange(ns, flags);
    const source = byteSource(flags.data, this.life);
    const counted = flags.count !== undefined || flags.blocks !== undefined;
    const progress = this.progress('write', source.size ?? (counted ? Number(range.length) : 0));
    const result = await writeRange(ns, source.bytes, range, {
      depth: flags.iodepth,
      chunk: flags.chunk,
      fua: flags.fua,
      dryRun: flags['dry-run'],
      exact: counted,
      size: source.size,
      report: (bytes) => progress.add(bytes),
    });
    progress.end();
    if (this.out.format === 'json') await this.out.document(result, () => '');
    else if (result.bytes === null) this.info('would write the input, whose size is not known');
    else {
      const size = `${formatSize(result.bytes)} (${result.bytes} bytes)`;
      this.info(flags['dry-run'] ? `would write ${size}` : `wrote ${size} in ${result.seconds.toFixed(2)} s`);
    }
    return 0;
  }
}
