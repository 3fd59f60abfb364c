import { Command } from '../../cli/command.js';
import { Flags } from '../../cli/flags.js';
import { histogram, histogramLines } from '../../cli/output/bars.js';
import { connect, endpointFlags, subsystemFlags } from '../../groups/nvmf/host.js';
import { pingSummary, pings } from '../../nvme/host/index.js';

export default class NvmfPing extends Command {
  static override readonly description =
    'Connects to a controller, sends Keep Alive commands, and prints the time of each round trip and a histogram at the end. ' +
    'Controllers without keep-alive get Property Get commands instead.';
  static readonly examples = [
    ['vioctl nvmf ping -a 192.0.2.1 -n nqn.2014-08.org.example:disk', 'five round trips'],
    ['vioctl nvmf ping -n nqn.2014-08.org.example:disk --count 0 --ndjson', 'for ever, one JSON object each'],
  ] as const;
  static override readonly flags = {
    ...endpointFlags,
    ...subsystemFlags,
    count: Flags.integer({ char: 'c', default: 5, min: 0, helpValue: 'N', summary: 'round trips; 0 is without end' }),
    interval: Flags.duration({ default: 1000, summary: 'time between them' }),
  };
  static override readonly formats = ['json', 'ndjson'] as const;

  async run(): Promise<number> {
    const { flags } = await this.parse(NvmfPing);
    const controller = await connect(this.life, flags, false);
    const times: number[] = [];
    for await (const ping of pings(controller, flags.count, flags.interval, this.life.signal)) {
      times.push(ping.microseconds);
      if (this.out.format === 'json') continue;
      await this.out.record(ping, (p) => `${p.command}: seq=${p.seq} time=${p.microseconds} us`);
      await this.out.flush();
    }
    const summary = pingSummary(times);
    if (this.out.format === 'json') await this.out.document({ ...summary, microseconds: times }, () => '');
    else {
      if (this.out.format === 'text' && times.length > 1)
        await this.out.document(histogram(times), (b, _, room) => ['', ...histogramLines(b, 'us', room)]);
      this.info(`${summary.count} round trips, min/avg/max = ${summary.min}/${summary.avg}/${summary.max} us`);
    }
    return 0;
  }
}
