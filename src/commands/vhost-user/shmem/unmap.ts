import { Command } from '../../../cli/command.js';
import { Args, Flags } from '../../../cli/flags.js';
import { printable } from '../../../common/escape.js';
import { hex64 } from '../../../common/units.js';
import { ShmemControl } from '../../../vhost-user/shmem/control.js';
import { parsePlace } from '../../../vhost-user/shmem/file.js';

export default class ShmemUnmap extends Command {
  static override readonly description = `
Removes a mapping from a region, in the guest first. Afterwards the guest reads undefined data at that place. The place must be
the start of a mapping. If nothing is mapped there, the command succeeds.`;
  static readonly examples = [['vioctl vhost-user shmem unmap /run/w.sock.ctl 0:16M', 'the mapping that starts at 16 MiB']] as const;
  static override readonly args = {
    control: Args.string({ required: true, description: 'control socket of "shmem serve"' }),
    place: Args.string({ required: true, description: 'start of the mapping, ID:OFF: region and offset' }),
  };
  static override readonly flags = { 'dry-run': Flags.boolean({ summary: 'print what would be unmapped, and unmap nothing' }) };
  static override readonly changes = true;

  async run(): Promise<number> {
    const { args, flags } = await this.parse(ShmemUnmap);
    const { shmid, offset } = parsePlace(args.place);
    const client = await ShmemControl.connect(args.control);
    this.life.defer(() => client.close());
    const there = (await client.list()).mappings.find((m) => m.shmid === shmid && m.offset === offset);
    const what = { shmid, offset, file: there?.file ?? null, state: there ? 'unmapped' : 'absent' };
    if (there && flags['dry-run']) what.state = 'planned';
    else if (there) await client.unmap(shmid, offset);
    const said: Record<string, string> = { unmapped: 'unmapped', absent: 'nothing is mapped there', planned: 'would be unmapped' };
    await this.out.document(what, (w) => `${w.shmid}:${hex64(w.offset)}${w.file ? ` ${printable(w.file)}` : ''}: ${said[w.state]}`);
    return 0;
  }
}
