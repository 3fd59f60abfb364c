import { Command } from '../../../cli/command.js';
import { Args } from '../../../cli/flags.js';
import { formatSize, hex64 } from '../../../common/units.js';
import { ShmemControl } from '../../../vhost-user/shmem/control.js';
import type { EntryView } from '../../../vhost-user/shmem/server.js';

export default class ShmemList extends Command {
  static override readonly description = `
Lists the mappings of a running "shmem serve" and their states: queued (the guest has not started the device), mapped (the
front-end has acknowledged the mapping), kept (the device has stopped, and the mapping remains), failed (the front-end refused
it). --json also has the regions, and whether a front-end is connected and its device is running.`;
  static readonly examples = [['vioctl vhost-user shmem list /run/w.sock.ctl', 'what is mapped where']] as const;
  static override readonly args = { control: Args.string({ required: true, description: 'control socket of "shmem serve"' }) };
  static override readonly formats = ['json', 'ndjson'] as const;

  async run(): Promise<number> {
    const { args } = await this.parse(ShmemList);
    const client = await ShmemControl.connect(args.control);
    this.life.defer(() => client.close());
    const state = await client.list();
    if (this.out.format === 'json') {
      await this.out.document(state, () => []);
      return 0;
    }
    await this.out.list<EntryView>(
      state.mappings,
      [
        { title: 'REGION', value: (e) => e.shmid, align: 'right' },
        { title: 'OFFSET', value: (e) => hex64(e.offset), align: 'right' },
        { title: 'SIZE', value: (e) => formatSize(e.len), align: 'right' },
        { title: 'STATE', value: (e) => (e.error ? `${e.state}: ${e.error}` : e.state) },
        { title: 'HOW', value: (e) => e.how },
        { title: 'FILE', value: (e) => e.file },
      ],
      'mappings',
    );
    return 0;
  }
}
