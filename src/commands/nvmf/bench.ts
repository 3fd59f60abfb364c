import { Command, type Example } from '../../cli/command.js';
import { Flags } from '../../cli/flags.js';
import { histogram, histogramLines } from '../../cli/output/bars.js';
import { now } from '../../common/clock.js';
import { Exit, usage } from '../../common/errors.js';
import { formatSize } from '../../common/units.js';
import { controllerOptions, endpointFlags, namespaceFlags, queueFlags, subsystemFlags } from '../../groups/nvmf/host.js';
import { type BenchReport, bench, patterns } from '../../nvme/host/index.js';

/** The latencies as a histogram with round borders: a bucket of the measurement counts where its middle is. */
function latencyLines({ histogram: all, latency }: BenchReport, room: number): string[] {
  const middles = all.map(({ from, to }) => Math.max(latency.min, Math.min(latency.max, (from + to) / 2)));
  const counts = all.map(({ count }) => count);
  return histogramLines(histogram(middles, counts), 'us', room);
}

const lines = (r: BenchReport, room: number): string[] => [
  `${r.rw} ${formatSize(r.bs)}, ${r.queues} queue(s) of depth ${r.iodepth}, ${r.seconds.toFixed(2)} s`,
  `IOPS       ${r.iops} (${r.reads} reads, ${r.writes} writes, ${r.errors} errors)`,
  `bandwidth  ${formatSize(r.bandwidth)}/s`,
  `latency us min ${r.latency.min}, mean ${r.latency.mean}, p50 ${r.latency.p50}, p90 ${r.latency.p90}, p95 ${r.latency.p95}, p99 ${r.latency.p99}, p99.9 ${r.latency.p999}, p99.99 ${r.latency.p9999}, max ${r.latency.max}`,
  ...(r.ios > 0 ? latencyLines(r, room) : []),
];

/** Bytes of the smallest block of a namespace (NVM Command Set 1.0, LBADS). */
const leastBlock = 512;

export default class NvmfBench extends Command {
  static override readonly description =
    'Measures a namespace: IOPS, bandwidth and latency percentiles, with I/O queues in native threads. The patterns are those of ' +
    'fio. Patterns that write destroy the data of the namespace.';
  static readonly examples: readonly Example[] = [
    ['vioctl nvmf bench -a 192.0.2.1 -n nqn.2014-08.org.example:disk', '4 KiB random reads at depth 32 for five seconds'],
    [
      'vioctl nvmf bench -n nqn.2014-08.org.example:scratch --rw randwrite --bs 128K --iodepth 8 -i 4 --runtime 30s --json',
      'large random writes over four queues',
    ],
  ];
  static override readonly changes = true;
  static override readonly flags = {
    ...endpointFlags,
    ...subsystemFlags,
    ...namespaceFlags,
    ...queueFlags,
    rw: Flags.option({
      options: patterns,
      default: 'randread',
      helpValue: 'PATTERN',
      summary: 'randread, randwrite, randrw, read, write or rw',
    })(),
    rwmixread: Flags.integer({ default: 50, min: 0, max: 100, helpValue: 'PERCENT', summary: 'reads in randrw and rw' }),
    bs: Flags.size({ default: 4096, summary: 'bytes of one command' }),
    iodepth: Flags.integer({ default: 32, min: 1, max: 65535, helpValue: 'N', summary: 'commands outstanding on each queue' }),
    threads: Flags.integer({ default: 1, min: 1, max: 256, helpValue: 'N', summary: 'threads that the queues are spread over' }),
    runtime: Flags.duration({ default: 5000, summary: 'time to measure' }),
    size: Flags.sizeBig({ summary: 'use only this much of the namespace, from its start' }),
    spin: Flags.integer({
      default: 100,
      min: 0,
      max: 1_000_000,
      helpValue: 'US',
      summary: 'busy-poll time before sleeping, in µs',
    }),
    'dry-run': Flags.boolean({ summary: 'print the plan without connecting' }),
  };

  async run(): Promise<number> {
    const { flags } = await this.parse(NvmfBench);
    if (flags.bs % leastBlock !== 0)
      throw usage(`--bs: not a multiple of ${leastBlock} bytes: ${flags.bs}`, 'blocks of a namespace have 512 bytes or more');
    if (flags['dry-run']) {
      const { rw, bs, iodepth, runtime } = flags;
      await this.out.document(
        { rw, bs, iodepth, runtime },
        (d) => `would run ${d.rw} of ${d.bs} bytes at depth ${d.iodepth} for ${d.runtime} ms`,
      );
      return 0;
    }
    const queueSize = Math.max(flags['queue-size'], Math.min(flags.iodepth + 1, 65536));
    const options = { ...controllerOptions(flags, flags.nqn, true), queueSize };
    const progress = this.progress('measure', flags.runtime, { unit: 'time' });
    const started = now();
    progress.follow(() => now() - started);
    const report = await bench(options, { ...flags, nsid: flags['namespace-id'] }, this.life.signal);
    progress.end();
    await this.out.document(report, (doc, _chalk, room) => lines(doc, room));
    return report.errors > 0 ? Exit.failed : Exit.ok;
  }
}
