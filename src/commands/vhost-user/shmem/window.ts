import { Command } from '../../../cli/command.js';
import { Args, Flags } from '../../../cli/flags.js';
import { toJson } from '../../../common/json.js';
import { hex64 } from '../../../common/units.js';
import { supervise } from '../../../launch/supervise.js';
import { holdWindow, type WindowRecord } from '../../../vhost-user/frontend/holding.js';

const text = (r: WindowRecord): string => {
  if (r.event === 'started')
    return `started: ${r.regions.map((s) => `region ${s.id} ${hex64(s.size)}`).join(', ') || 'no regions'}, ${r.queues} queues`;
  if (r.event === 'ended') return `ended${r.status === undefined ? '' : ` with status ${r.status}`}`;
  return `${r.event} ${r.shmid}:${hex64(r.offset)} ${hex64(r.len)}${r.errno ? `: refused: ${r.errno}` : ''}${r.fd ? ` ${r.fd.kind}:${r.fd.name}` : ''}`;
};

export default class ShmemWindow extends Command {
  static override readonly description = `
Acts as the front-end of a back-end that maps shared memory: it starts the device without a VM, holds the regions, and prints each
mapping and unmapping. Mappings are checked as strictly as the specification allows, and a refusal says why.

With -- CMD it waits for the first mapping and runs CMD; the mapped files are its descriptors from 3 on, and
VIOCTL_SHMEM describes them as JSON.`;
  static readonly examples = [
    ['vioctl vhost-user shmem window /run/media.sock --timeout 10s', 'what a back-end maps in ten seconds'],
    ["vioctl vhost-user shmem window /run/media.sock -- sh -c 'hexdump -C /proc/self/fd/3 | head'", 'look into the first mapping'],
  ] as const;
  static override readonly args = { socket: Args.string({ required: true, description: 'socket that the back-end serves' }) };
  static override readonly flags = {
    timeout: Flags.duration({ summary: 'end after this time; with CMD: give up waiting for a mapping (status 124)' }),
    queues: Flags.integer({ min: 1, max: 64, default: 1, summary: 'virtqueues to start' }),
  };
  static override readonly formats = ['ndjson'] as const;
  static override readonly server = true;
  static override readonly passthrough = true;

  async run(): Promise<number> {
    const { args, flags } = await this.parse(ShmemWindow);
    return holdWindow({
      socket: args.socket,
      queues: flags.queues,
      timeout: flags.timeout,
      command: this.rest,
      env: this.env,
      run: supervise,
      toJson,
      signal: this.life.signal,
      onRecord: async (record) => {
        await this.out.record(record, text);
        await this.out.flush();
      },
      onLog: (line) => this.info(line),
    });
  }
}
