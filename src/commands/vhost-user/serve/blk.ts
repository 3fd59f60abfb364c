import { Command } from '../../../cli/command.js';
import { Args, engineFlag, Flags, logFormatFlag, spinFlag } from '../../../cli/flags.js';
import { notify } from '../../../cli/systemd.js';
import { printable } from '../../../common/escape.js';
import { type Log, logTo } from '../../../common/text/log.js';
import { formatSize } from '../../../common/units.js';
import { sourceHelp, stateDirFlag, stateDirOf } from '../../../groups/sources.js';
import { activatedSockets } from '../../../launch/activation.js';
import { requireRings } from '../../../uring/host/unavailable.js';
import { commandLine, reloader } from '../../../vhost-user/blk/command-line.js';
import type { BlkReady } from '../../../vhost-user/blk/model.js';
import { blkCapabilities, serveBlk } from '../../../vhost-user/blk/serving.js';
import { maxQueues } from '../../../vhost-user/blk/words.js';
import { virtioBlk } from '../../../vhost-user/wire/devices.js';

export default class ServeBlk extends Command {
  static override readonly description = `
Serves a disk image or a block device to virtual machines as a vhost-user-blk back-end. Each queue has a thread of its own that
moves data between the guest's memory and the file with io_uring. If io_uring is not available, the log says why once, and threads
with plain system calls do the I/O. A slow disk delays only its own guest. Each socket serves one VMM at a time; the next one
waits.

${sourceHelp()}

The server locks a disk when it starts, and releases it when the first VM disconnects. After that, it locks the disk only while a
VM uses it, so that another server can take over. If somebody else uses the disk when a VM connects, the server refuses to start
its rings, and the log names the user. For a live migration, start the server of the destination with --incoming: it locks the disk
only when its guest starts.

The source of a disk also accepts the options serial=TEXT and queues=N. With --control, vhost-user ctl SOCK add and remove change the disks
at run time, and the server can start without a disk.

--config FILE describes the disks: see vioctl-vhost-user(5). SIGHUP reads the file again.

The mode, owner and group of a socket are set before anybody can connect. If systemd passes a socket (LISTEN_FDS), the server uses
it for the disk with the same path, and keeps the socket file. With --log-format json each message has "time", "event" and "message", and "socket" if it is about a disk.`;
  static readonly examples = [
    [
      'vioctl vhost-user serve blk /run/b.sock --file disk.img',
      'with QEMU: -chardev socket,id=c,path=/run/b.sock -device vhost-user-blk-pci,chardev=c',
    ],
    ['vioctl vhost-user serve blk /run/b.sock --file /dev/vg/disk --read-only', 'serve a volume read-only'],
    ['vioctl vhost-user serve blk /run/root.sock=root.img /run/iso.sock=install.iso,ro', 'serve several disks in one process'],
    ['vioctl vhost-user serve blk /run/b.sock=disk.img --socket-mode 0660 --socket-group kvm', 'let VMMs of the group kvm connect'],
    ['vioctl vhost-user serve blk --config /etc/vioctl/vhost-user/vm1.json', 'serve what a file describes, like the systemd unit does'],
  ] as const;
  static override readonly args = {
    disk: Args.string({ multiple: true, description: 'socket for the VMM, or SOCKET=SOURCE for each of several disks' }),
  };
  static override readonly flags = {
    config: Flags.string({ helpValue: 'FILE', summary: 'take the disks from a JSON or YAML file (- is stdin)' }),
    file: Flags.string({ char: 'f', aliases: ['blk-file'], helpValue: 'FILE', summary: 'image or block device' }),
    'read-only': Flags.boolean({ summary: 'reject writes' }),
    force: Flags.boolean({ summary: 'serve a file that is in use or no raw disk' }),
    'allow-source': Flags.string({ multiple: true, helpValue: 'PATTERN', summary: 'limit ctl add to sources that match this pattern' }),
    control: Flags.string({ helpValue: 'SOCK', summary: 'control socket for vhost-user ctl' }),
    'log-format': logFormatFlag,
    incoming: Flags.boolean({ summary: 'lock each disk only when its guest starts (destination of a live migration)' }),
    queues: Flags.integer({ min: 1, max: maxQueues, summary: 'virtqueues at most [default: 64, or the number of CPUs here]' }),
    'block-size': Flags.integer({ helpValue: 'BYTES', summary: 'logical block [default: of the device, 512 for a file]' }),
    'state-dir': stateDirFlag,
    serial: Flags.string({ summary: `serial number, up to ${virtioBlk.idSize} bytes [default: made from FILE]` }),
    engine: engineFlag('uring, sync (preadv, pwritev), or auto: uring if it works'),
    spin: spinFlag,
    'socket-path': Flags.string({ helpValue: 'PATH', summary: 'the same as SOCKET, as the vhost-user conventions spell it' }),
    'socket-mode': Flags.string({ helpValue: 'MODE', summary: 'permissions of the sockets, octal [default: 0600]' }),
    'socket-owner': Flags.string({ helpValue: 'USER', summary: 'owner of the sockets [default: the user of the server]' }),
    'socket-group': Flags.string({ helpValue: 'GROUP', summary: 'group of the sockets' }),
    fd: Flags.integer({ min: 3, helpValue: 'FD', summary: 'use the connected socket FD instead of listening' }),
    'print-capabilities': Flags.boolean({ summary: 'print the capabilities of the back-end as JSON, and exit' }),
  };
  static override readonly server = true;

  async run(): Promise<number> {
    const { args, flags } = await this.parse(ServeBlk);
    if (flags['print-capabilities']) {
      await this.out.raw(`${JSON.stringify(blkCapabilities)}\n`);
      return 0;
    }
    const sockets = activatedSockets(this.env);
    const log = logTo(flags['log-format'], (line) => this.info(line));
    const given = await commandLine(args.disk ?? [], flags, sockets, this.sysroot);
    if (given.engine === 'uring') requireRings(this.sysroot);
    this.life.signal.addEventListener('abort', () => notify(this.env, 'STOPPING=1'), { once: true });
    const line = (r: BlkReady): string =>
      `serving ${printable(r.file)} (${formatSize(r.size)}) at ${r.socket === undefined ? `fd ${flags.fd}` : printable(r.socket)}`;
    const shown = (ready: BlkReady[]) =>
      this.out.document(ready.length === 1 ? ready[0]! : { disks: ready }, () => (ready[0] ? ready.map(line) : ['serving no disk yet']));
    const totals = await serveBlk(
      {
        ...given,
        stateDir: stateDirOf(given.stateDir, this.env),
        onReload: (reload) => this.#reloadAt(flags.config, reload, log),
        onReady: (ready) => shown(ready).then(() => notify(this.env, 'READY=1')),
        onLog: log,
      },
      this.life.signal,
    );
    log(`${totals.reads} reads, ${totals.writes} writes, ${totals.flushes} flushes, ${totals.errors} errors`, { event: 'totals' });
    return 0;
  }

  /** With --config, SIGHUP reads the file again. */
  async #reloadAt(file: string | undefined, reload: Parameters<typeof reloader>[1], log: Log): Promise<void> {
    if (file === undefined) return;
    const again = await reloader(file, reload, { log, state: (text: string) => notify(this.env, text) });
    this.life.onHangup(() => void again());
  }
}
