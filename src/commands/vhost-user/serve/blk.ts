import { Command } from '../../../cli/command.js';
import { Args, engineFlag, Flags } from '../../../cli/flags.js';
import { notify } from '../../../cli/systemd.js';
import { usage } from '../../../common/errors.js';
import { printable } from '../../../common/escape.js';
import { formatSize } from '../../../common/units.js';
import { sourceHelp, stateDirFlag, stateDirOf } from '../../../groups/sources.js';
import { parseSourceText, type SourceOptions } from '../../../storage/source.js';
import { requireRings } from '../../../uring/host/unavailable.js';
import { type BlkReady, blkCapabilities, type DiskOptions, serveBlk } from '../../../vhost-user/blk/serving.js';
import { virtioBlk } from '../../../vhost-user/wire/devices.js';

/** The disks of a command line: one of --file, or several SOCKET=SOURCE. @throws usage */
function disksOf(
  words: readonly string[],
  flags: { file: string | undefined; 'socket-path': string | undefined; fd: number | undefined },
  sourceOf: (text: string) => SourceOptions,
): DiskOptions[] {
  if (flags.file === undefined && flags.fd === undefined && words.length > 0 && words.every((word) => /^[^=]+=./s.test(word))) {
    const sockets = words.map((word) => word.slice(0, word.indexOf('=')));
    if (new Set(sockets).size < sockets.length) throw usage('a socket is given twice');
    return words.map((word, i) => ({ socket: sockets[i]!, fd: undefined, source: sourceOf(word.slice(word.indexOf('=') + 1)) }));
  }
  const socket = words[0] ?? flags['socket-path'];
  if (words.length > 1) throw usage('several disks are written SOCKET=SOURCE each');
  if ((socket === undefined) === (flags.fd === undefined)) throw usage('one of SOCKET, --socket-path and --fd is needed');
  if (flags.file === undefined) throw usage('--file is needed, or SOCKET=SOURCE');
  return [{ socket, fd: flags.fd, source: sourceOf(flags.file) }];
}

export default class ServeBlk extends Command {
  static override readonly description = `
Serves a disk image or a block device to virtual machines as a vhost-user-blk back-end. Each queue has a thread of its own that
moves data between the guest's memory and the file with io_uring. If io_uring is not available, the log says why once, and threads
with plain system calls take over whatever may wait. A slow disk delays its own guest alone. One VMM is served at a time; the next
one waits until it has gone.

${sourceHelp()}

A disk is locked while a VM uses it, and from the start of the server until its first VM has gone: then another server can have it,
and this one waits for its turn. A ring that starts while somebody else uses the disk is refused, and the log says who it is. The
destination of a live migration starts with --incoming while the source still runs, and locks the disk when its guest starts.

The VMM must share its memory (memory-backend-memfd or -file with share=on).`;
  static readonly examples = [
    [
      'vioctl vhost-user serve blk /run/b.sock --file disk.img',
      'with QEMU: -chardev socket,id=c,path=/run/b.sock -device vhost-user-blk-pci,chardev=c',
    ],
    ['vioctl vhost-user serve blk /run/b.sock --file /dev/vg/disk --read-only', 'a volume, for reading'],
    ['vioctl vhost-user serve blk /run/root.sock=root.img /run/iso.sock=install.iso,ro', 'several disks in one process'],
  ] as const;
  static override readonly args = {
    disk: Args.string({ multiple: true, description: 'socket for the VMM, or SOCKET=SOURCE for each of several disks' }),
  };
  static override readonly flags = {
    file: Flags.string({ char: 'f', aliases: ['blk-file'], helpValue: 'FILE', summary: 'image or block device' }),
    'read-only': Flags.boolean({ summary: 'serve it for reading' }),
    force: Flags.boolean({ summary: 'serve a file that is in use or no raw disk' }),
    control: Flags.string({ helpValue: 'SOCK', summary: 'control socket for vhost-user ctl' }),
    incoming: Flags.boolean({ summary: 'let others use the disks until the guest starts (live migration)' }),
    queues: Flags.integer({ min: 1, max: 64, default: 64, summary: 'virtqueues at most; each that a VMM uses has a thread' }),
    'block-size': Flags.integer({ helpValue: 'BYTES', summary: 'logical block [default: of the device, 512 for a file]' }),
    'state-dir': stateDirFlag,
    serial: Flags.string({ summary: `serial number, up to ${virtioBlk.idSize} bytes [default: made from FILE]` }),
    engine: engineFlag('uring, sync (preadv, pwritev), or auto: uring if it works'),
    'socket-path': Flags.string({ helpValue: 'PATH', summary: 'the same as SOCKET, as the vhost-user conventions spell it' }),
    fd: Flags.integer({ min: 3, helpValue: 'FD', summary: 'use the connected socket FD instead of listening' }),
    'print-capabilities': Flags.boolean({ summary: 'print what the back-end can, as JSON, and end' }),
  };
  static override readonly server = true;

  async run(): Promise<number> {
    const { args, flags } = await this.parse(ServeBlk);
    if (flags['print-capabilities']) {
      await this.out.raw(`${JSON.stringify(blkCapabilities)}\n`);
      return 0;
    }
    const defaults = {
      ...(flags['block-size'] !== undefined && { blockSize: flags['block-size'] }),
      ...(flags['read-only'] && { readonly: true }),
      ...(flags.force && { force: true }),
      ...(flags.incoming && { later: true }),
    };
    const disks = disksOf(args.disk ?? [], flags, (text) => parseSourceText(text, defaults));
    if (Buffer.byteLength(flags.serial ?? '') > virtioBlk.idSize) throw usage(`--serial: more than ${virtioBlk.idSize} bytes`);
    if (flags.serial !== undefined && disks.length > 1) throw usage('--serial: there are several disks');
    if (flags.engine === 'uring') requireRings(this.sysroot);
    this.life.signal.addEventListener('abort', () => notify(this.env, 'STOPPING=1'), { once: true });
    const line = (r: BlkReady): string => `serving ${printable(r.file)} (${formatSize(r.size)}) at ${r.socket ?? `fd ${flags.fd}`}`;
    const shown = (ready: BlkReady[]) => this.out.document(ready.length > 1 ? { disks: ready } : ready[0]!, () => ready.map(line));
    const totals = await serveBlk(
      {
        disks,
        queues: flags.queues,
        control: flags.control,
        stateDir: stateDirOf(flags['state-dir'], this.env),
        serial: flags.serial,
        engine: flags.engine,
        onReady: (ready) => shown(ready).then(() => notify(this.env, 'READY=1')),
        onLog: (text) => this.info(text),
      },
      this.life.signal,
    );
    this.info(`${totals.reads} reads, ${totals.writes} writes, ${totals.flushes} flushes, ${totals.errors} errors`);
    return 0;
  }
}
