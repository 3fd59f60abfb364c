import path from 'node:path';
import { Command } from '../../../cli/command.js';
import { Args, Flags } from '../../../cli/flags.js';
import { Exit } from '../../../common/errors.js';
import { printable } from '../../../common/escape.js';
import { hex64 } from '../../../common/units.js';
import { ShmemControl } from '../../../vhost-user/shmem/control.js';
import { openForMap, parseMap } from '../../../vhost-user/shmem/file.js';

export default class ShmemMap extends Command {
  static override readonly description = `
Maps a file into a region that "shmem serve" serves. The file is opened here, with the permissions of the user of this command,
and passed to the server. If the guest has not started the device yet, the server queues the mapping and sends it at that time.

The exit status is 0 if the file is mapped or queued, and 1 if the front-end refused it.`;
  static readonly examples = [
    ['vioctl vhost-user shmem map /run/w.sock.ctl 0:16M=model.bin:ro', 'a private copy of a file, 16 MiB into region 0'],
  ] as const;
  static override readonly args = {
    control: Args.string({ required: true, description: 'control socket of "shmem serve"' }),
    mapping: Args.string({ required: true, description: 'ID:OFF=FILE[:rw|:ro]' }),
  };
  static override readonly flags = {
    wait: Flags.duration({ summary: "how long to wait for the front-end's answer [default: 5s]" }),
    'dry-run': Flags.boolean({ summary: 'make all checks and print what would be mapped, but map nothing' }),
  };
  static override readonly changes = true;

  async run(): Promise<number> {
    const { args, flags } = await this.parse(ShmemMap);
    const spec = parseMap(args.mapping);
    const client = await ShmemControl.connect(args.control);
    this.life.defer(() => client.close());
    const there = (await client.list()).mappings.find(
      (m) => m.shmid === spec.shmid && m.offset === spec.offset && m.file === path.resolve(spec.file),
    );
    const file = openForMap(spec);
    const order = { ...spec, file: path.resolve(spec.file), wait: flags.wait ?? 5000 };
    if (flags['dry-run'] || there) {
      if (there) file.close();
      else await client.tryMap(order, file);
      const what = there ? { ...there, already: true } : { shmid: spec.shmid, offset: spec.offset, file: spec.file, state: 'planned' };
      await this.out.document(
        what,
        (w) => `${printable(w.file)} at ${w.shmid}:${hex64(w.offset)}: ${there ? 'already there' : 'would be mapped'}`,
      );
      return Exit.ok;
    }
    const { warnings, ...result } = await client.map(order, file);
    for (const warning of warnings) this.warn(warning);
    await this.out.document(
      result,
      (r) => `${printable(r.file)} at ${r.shmid}:${hex64(r.offset)}: ${r.state}${r.error ? ` (${r.error})` : ''}, ${r.how}`,
    );
    return result.state === 'failed' ? Exit.failed : Exit.ok;
  }
}
