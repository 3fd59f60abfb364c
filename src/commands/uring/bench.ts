import { Command, type Example } from '../../cli/command.js';
import { Args, Flags } from '../../cli/flags.js';
import { usage } from '../../common/errors.js';
import { bench } from '../../uring/bench.js';
import { onTmpfs } from '../../uring/bulk/engine/engine.js';

/** CPU time of this process so far, microseconds. */
const cpuTime = (): number => {
  const { user, system } = process.cpuUsage();
  return user + system;
};
const us = (value: number): string => value.toFixed(2);

export default class Bench extends Command {
  static override readonly description =
    'Measures how much CPU time a registered file, registered buffers and the registered ring descriptor save for reads of FILE from ' +
    'the page cache of this machine. Each is compared with pread(2) in the same round. A ratio below 1 is a gain; a difference ' +
    'within the spread of the rounds is noise. The first 64 MiB of FILE are read.';
  static readonly examples: readonly Example[] = [
    ['vioctl uring bench disk.img', 'the gain of each step at 32 reads at once'],
    ['vioctl uring bench --depth 1 --size 512 disk.img', 'one small read at a time'],
  ];
  static override readonly args = { file: Args.string({ required: true, description: 'file to read' }) };
  static override readonly flags = {
    size: Flags.size({ default: 4096, summary: 'bytes of each read' }),
    depth: Flags.integer({ char: 'q', min: 1, max: 1024, default: 32, helpValue: 'N', summary: 'reads under way at once' }),
    reads: Flags.integer({ min: 1, max: 1000000, default: 20000, helpValue: 'N', summary: 'reads of each kind in each round' }),
    rounds: Flags.integer({ min: 1, max: 1000, default: 7, helpValue: 'N', summary: 'rounds' }),
  };
  static override readonly formats = ['json', 'ndjson'] as const;
  static override readonly list = true;

  async run(): Promise<undefined> {
    const { args, flags } = await this.parse(Bench);
    const { size, depth, reads, rounds } = flags;
    if (size === 0) throw usage('--size 0: nothing would be read');
    if (onTmpfs(args.file)) this.warn('the file is on tmpfs, where io_uring hands reads to kernel threads: other file systems gain more');
    const { sysroot } = this;
    const { signal } = this.life;
    const progress = this.progress('bench', rounds, { unit: 'items' });
    const results = await bench({ path: args.file, size, depth, reads, rounds, sysroot, signal, cpuTime, progress: () => progress.add(1) });
    await this.out.list(
      results,
      [
        { title: 'WAY', priority: 9, value: (r) => r.name },
        { title: 'CPU-US', priority: 8, value: (r) => us(r.cpu), align: 'right' },
        { title: 'MIN', priority: 2, value: (r) => us(r.cpuMin), align: 'right' },
        { title: 'MAX', priority: 2, value: (r) => us(r.cpuMax), align: 'right' },
        { title: 'WALL-US', priority: 6, value: (r) => us(r.wall), align: 'right' },
        { title: 'RATIO', priority: 7, value: (r) => us(r.ratio), align: 'right' },
        { title: 'RATIO-SPREAD', priority: 3, value: (r) => `${us(r.ratioMin)}-${us(r.ratioMax)}` },
        { title: 'WHAT', priority: 1, value: (r) => r.what },
      ],
      'ways',
    );
  }
}
