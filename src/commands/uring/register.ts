import { argumentBytes } from '../../cli/arguments/argv.js';
import { Command, type Example } from '../../cli/command.js';
import { Args, Flags, nullFlag } from '../../cli/flags.js';
import { nameBatches } from '../../cli/streams/input.js';
import { usage, VioError } from '../../common/errors.js';
import { nameJson, nameText } from '../../groups/uring/files.js';
import { firstFd, listenEnvironment } from '../../launch/handover.js';
import { supervise } from '../../launch/supervise.js';
import { childEnvironment, type Entry, parseUpdate, registerFiles, type Wanted } from '../../uring/register.js';

export default class Register extends Command {
  static override readonly description =
    'Registers files in the file table of an io_uring, reads from each slot, and prints index, path and result. The kernel ' +
    'itself never tells which entry of a table it refused. The slots are the FILE arguments (- leaves a hole), then the names ' +
    'on standard input (with -0), then --fd. The table ends with the command, unless --hold keeps it.\n\nWith -- CMD, vioctl ' +
    'runs CMD if every entry is registered. CMD inherits the ring as descriptor 3; %r in its words stands for this number. ' +
    'VIOCTL_RING_FD, VIOCTL_RING_PARAMS (struct io_uring_params in hexadecimal) and VIOCTL_RING_FILES describe the ring. A C ' +
    'program reads them with include/vioctl-ring.h of the package. Signals go to CMD, and its exit status is the exit status ' +
    'of vioctl (126 or 127 if it could not run).';
  static readonly examples: readonly Example[] = [
    ['vioctl uring register disk0.img disk1.img', 'test whether these files can be registered'],
    [
      "find imgs -name '*.qcow2' -print0 | vioctl uring register -0 --ndjson | jq -r 'select(.errno).path'",
      'list the images that cannot be registered',
    ],
    ['vioctl uring register --fd 3 --fd 4 3<a.img 4<>b.img', 'register descriptors that the shell opened'],
    ['vioctl uring register --sparse 1024 --update 0=a.img --update 7=b.img', 'make a large table with two files'],
    ['vioctl uring register --write a.img -- my-engine --ring-fd %r', 'run a program on the registered files'],
  ];
  static override readonly byteNames = true;
  static override readonly args = { file: Args.string({ multiple: true, description: 'files; - leaves a slot empty' }) };
  static override readonly flags = {
    null: nullFlag,
    fd: Flags.integer({ multiple: true, min: 0, max: 0x7fff_ffff, helpValue: 'N', summary: 'also register this inherited descriptor' }),
    sparse: Flags.integer({ min: 1, max: 1 << 20, helpValue: 'N', summary: 'make a table of at least N slots' }),
    update: Flags.string({ multiple: true, helpValue: 'I=FILE', summary: 'then put FILE into slot I; - empties the slot' }),
    write: Flags.boolean({ char: 'w', summary: 'open files for reading and writing' }),
    hold: Flags.boolean({ summary: 'keep the table until SIGINT or SIGTERM' }),
  };
  static override readonly formats = ['json', 'ndjson'] as const;
  static override readonly list = true;
  static override readonly passthrough = true;

  async run(): Promise<number | undefined> {
    const { args, flags } = await this.parse(Register);
    if (this.rest?.length === 0) throw usage('the program to run goes behind --', 'vioctl uring register FILE… -- CMD');
    const paths = argumentBytes(args.file ?? []).map((path): Wanted => (path === '-' ? { hole: true } : { path }));
    const fromStdin = flags.null || (paths.length === 0 && !flags.fd && !flags.update && flags.sparse === undefined);
    const listed: Wanted[] = [];
    if (fromStdin) for await (const names of nameBatches([], flags.null)) listed.push(...names.map((path) => ({ path })));
    const entries = [...paths, ...listed, ...(flags.fd ?? []).map((fd): Wanted => ({ fd }))];
    const updates = (flags.update ?? []).map(parseUpdate);
    const size = Math.max(entries.length, flags.sparse ?? 0);
    const files = registerFiles({ entries, size, updates, write: flags.write ?? false }, this.sysroot);
    this.life.release(() => files.close());
    const shown = files.entries.filter((e) => e.result !== 'hole');
    const failed = shown.filter((e) => e.result === 'failed').length;
    if (this.rest === undefined || failed > 0) {
      await this.out.list(
        shown,
        [
          { title: 'INDEX', value: (e: Entry) => e.index, align: 'right' },
          { title: 'FD', value: (e) => e.fd, align: 'right' },
          { title: 'TYPE', value: (e) => e.type },
          { title: 'RESULT', value: (e) => e.message ?? e.result },
          { title: 'PATH', value: (e) => e.path && nameText(e.path) },
        ],
        'entries',
        ({ path, ...rest }) => ({ ...rest, ...(path !== undefined && nameJson(path)) }),
      );
      this.info(
        `${files.entries.length} slots: ${shown.length - failed} registered, ${failed} failed, ${files.entries.length - shown.length} holes`,
      );
    }
    if (failed > 0)
      throw new VioError(`${failed} of ${shown.length} entries failed`, {
        code: 'ENTRIES_FAILED',
        details: { failed, entries: shown.length },
      });
    if (this.rest === undefined) return flags.hold ? this.life.ended().then(() => undefined) : undefined;
    const words = this.rest.map((word) => word.replaceAll('%r', '3'));
    const env = { ...this.env, ...childEnvironment(files, firstFd), ...listenEnvironment(['io_uring']) };
    return supervise({ argv: words, fds: [files.ring.fd], env });
  }
}
