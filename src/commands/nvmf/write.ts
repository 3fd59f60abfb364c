import { Command } from '../../cli/command.js';
import { mayBlock } from '../../cli/exit.js';
import { Flags } from '../../cli/flags.js';
import { byteInput } from '../../cli/streams/bytes.js';
import { now } from '../../common/clock.js';
import { Exit, VioError } from '../../common/errors.js';
import { printable } from '../../common/escape.js';
import { formatSize } from '../../common/units.js';
import { endpointFlags, namespaceFlags, openNamespace, queueFlags, rangeFlags, subsystemFlags } from '../../groups/nvmf/host.js';
import type { CopyOptions, CopyResult } from '../../native/nvme-host.js';
import { type OpenNamespace, type WriteSummary, wantedRange, writeFailure } from '../../nvme/host/index.js';

/** What is copied, and whether the input has to fill it. */
interface Wanted extends Omit<CopyOptions, 'write' | 'depth' | 'deallocate' | 'fua'> {
  fua: boolean | undefined;
  iodepth: number;
  sparse: boolean | undefined;
  exact: boolean;
  size: number | undefined;
  data: string;
}

/** Blocks of which a write changes a part. */
function partialBlocks(offset: bigint, bytes: number, block: number): number {
  const begin = Number(offset % BigInt(block));
  const end = begin + bytes;
  if (bytes === 0) return 0;
  return Math.ceil(end / block) === 1 ? Number(bytes < block) : Number(begin > 0) + Number(end % block > 0);
}

export default class NvmfWrite extends Command {
  static override readonly description =
    'Writes stdin or a file to a namespace and flushes it. Exit status 0 means that all data is durable. If the input ends within a ' +
    'block, the rest of that block keeps its data. If the input is longer than the namespace or shorter than --count, the command ' +
    'writes what fits and exits with 1. Blocks of zeroes are sent as Write Zeroes commands if the controller supports them. If the ' +
    'target fails, the error says how many bytes are durable.';
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
    sparse: Flags.boolean({ summary: 'free the space of blocks of zeroes (Deallocate)' }),
    fua: Flags.boolean({ summary: 'every write bypasses the volatile cache (Force Unit Access)' }),
    'dry-run': Flags.boolean({ summary: 'connect and check sizes, write nothing' }),
  };

  async run(): Promise<number> {
    const { flags } = await this.parse(NvmfWrite);
    const ns = await openNamespace(this.life, flags);
    const range = wantedRange(ns.facts, flags);
    const input = byteInput(flags.data, this.life);
    const { nsid, readonly } = ns.facts;
    if (readonly) throw new VioError(`namespace ${nsid} is write protected`, { code: 'EROFS', exit: Exit.refused });
    const dryRun = flags['dry-run'];
    const exact = flags.count !== undefined || flags.blocks !== undefined;
    const started = now();
    if (dryRun && input.size !== undefined && BigInt(input.size) > range.length)
      throw new VioError(`the input has ${input.size} bytes, there is room for ${range.length}`, { code: 'ENOSPC', exit: Exit.refused });
    const done = dryRun ? undefined : await this.#copy(ns, { ...flags, ...range, fd: input.fd, size: input.size, exact });
    const summary: WriteSummary = {
      nsid,
      offset: range.offset,
      bytes: done ? Number(done.bytes) : (input.size ?? null),
      mergedBlocks: done?.mergedBlocks ?? partialBlocks(range.offset, input.size ?? 0, ns.facts.blockSize),
      flushed: done !== undefined,
      seconds: (now() - started) / 1000,
    };
    if (this.out.format === 'json') await this.out.document(summary, () => '');
    else if (summary.bytes === null) this.info('would write the input, whose size is not known');
    else {
      const size = `${formatSize(summary.bytes)} (${summary.bytes} bytes)`;
      this.info(dryRun ? `would write ${size}` : `wrote ${size} in ${summary.seconds.toFixed(2)} s`);
    }
    return 0;
  }

  /** @throws VioError if not all of it could be written: it says how far it came */
  async #copy(ns: OpenNamespace, wanted: Wanted): Promise<CopyResult> {
    const { fd, offset, length, chunk, iodepth: depth, fua, sparse: deallocate, exact, size, data } = wanted;
    const progress = this.progress('write', size ?? (exact ? Number(length) : 0));
    const copy = ns.copy({ fd, write: true, offset, length, chunk, depth, fua: fua === true, deallocate: deallocate === true });
    this.life.signal.addEventListener('abort', copy.stop, { once: true });
    progress.follow(copy.progress);
    const result = await mayBlock(copy.done);
    progress.end();
    this.life.signal.throwIfAborted();
    const failure = writeFailure(ns, result, { offset, length }, exact, data === '-' ? 'stdin' : printable(data));
    if (failure) throw failure;
    return result;
  }
}
