import { Command } from '../../cli/command.js';
import { Args, Flags } from '../../cli/flags.js';
import { partFile } from '../../cli/streams/part-file.js';
import { usage } from '../../common/errors.js';
import { formatSize } from '../../common/units.js';
import { inputFlags, inputOptions } from '../../groups/migration/options.js';
import { openInput } from '../../migration/containers/input.js';
import { convert } from '../../migration/export/convert.js';
import { Target } from '../../migration/export/target.js';

export default class MigrationConvert extends Command {
  static override readonly description =
    'Rewrites a stream or save file so that QEMU loads it faster. With --to mapped-ram each page has a fixed place in a sparse file, ' +
    'which QEMU 9.0 and newer can load with several threads (capability mapped-ram, URI file:). The device states are copied ' +
    'unchanged. The input must be complete. OUT appears only when it is complete.\n\n' +
    'The JSON has `to`, `already` (the input was mapped-ram), `size`, `blocks` (name, length, pages, content) and `devices`.';
  static readonly examples = [
    [
      'vioctl migration convert vm.save --to mapped-ram -o vm.mapped',
      'then -incoming defer, capability mapped-ram, migrate-incoming file:vm.mapped',
    ],
  ] as const;
  static override readonly args = { file: Args.string({ required: true, description: 'file, or - for stdin' }) };
  static override readonly flags = {
    ...inputFlags,
    'bitmap-endian': Flags.option({
      options: ['little', 'big'] as const,
      helpValue: 'ORDER',
      summary: 'byte order of the host whose QEMU shall load OUT: little or big (that of a libvirt save, else little)',
    })(),
    output: Flags.string({ char: 'o', required: true, helpValue: 'OUT', summary: 'file to write' }),
    to: Flags.option({ options: ['mapped-ram'] as const, required: true, helpValue: 'FORMAT', summary: 'mapped-ram' })(),
  };

  async run(): Promise<number | undefined> {
    const { args, flags } = await this.parse(MigrationConvert);
    const input = openInput(args.file, inputOptions(flags));
    const file = partFile(flags.output, this.life, { inputs: [args.file], mode: 0o600 });
    if (!file) throw usage('the output must be a regular file: it is not written in order');
    const target = new Target(file.part, args.file);
    this.life.release(() => target.close());
    const progress = this.progress('convert', input.size);
    const done = await convert(input, args.file, target.fd, (position) => progress.to(position));
    progress.end();
    file.finish();
    await this.out.document(
      { file: args.file, output: flags.output, ...done },
      (d) => `${d.output}: ${formatSize(d.size)} ${d.to}, ${d.devices} devices${d.already ? ' (the input was mapped-ram already)' : ''}`,
    );
    return 0;
  }
}
