import { Command, type Example, watchFlag } from '../../cli/command.js';
import { Args, Flags } from '../../cli/flags.js';
import { Exit, usage } from '../../common/errors.js';
import type { LoadReport } from '../../control/load-report.js';
import { type BlkAction, blkActions, blkRequest, runBlkControl } from '../../vhost-user/blk/control.js';

export default class VhostUserCtl extends Command {
  static override readonly description = `
Shows and changes the disks of a "vhost-user serve blk" that runs with --control SOCK.

list: print the disks, their users and limits, and whether a flush has failed.

stats: print requests, bytes and errors of each disk.

add SOCKET=SOURCE: serve one more disk, with options behind the source as in vhost-user serve blk.

remove DISK: finish the requests under way, flush, end the connection, and remove the socket. A guest that still uses the disk loses it.

throttle [DISK] iops=RATE[/BURST[/SECONDS]] bps=…: limit the rate of a disk (see vhost-user serve blk). The value none removes a limit.

resize [DISK]: check the size of the source now. The server checks it every second anyway.

reopen [DISK]: open the source again after a failed flush. Check its data first: lost writes stay lost, but flushes can succeed again.

save: print the current configuration for vhost-user serve blk --config (vioctl-vhost-user(5)).

load FILE: apply a configuration file to the running server. Disks that stay the same are not disturbed. The server checks
everything that it can before it changes anything. If a later step fails, the other steps are still made, and the exit status is
8. --check only prints the changes (status 4 if there are any).

DISK is the socket or the source of a disk. With one disk, it can be left out. Repeating a completed change succeeds.`;
  static readonly examples: readonly Example[] = [
    ['vioctl vhost-user ctl /run/blk.ctl list', 'what is served, and to whom'],
    ['vioctl vhost-user ctl /run/blk.ctl throttle /run/root.sock iops=1000/4000 bps=100M', 'limit one of several disks'],
    ['vioctl vhost-user ctl /run/blk.ctl throttle bps=none', 'lift a limit'],
    ['vioctl vhost-user ctl /run/blk.ctl add /run/data.sock=data.img,iops=1000', 'one more disk'],
    ['vioctl vhost-user ctl /run/blk.ctl remove /run/data.sock', 'one less'],
    ['vioctl vhost-user ctl /run/blk.ctl stats --watch=5s', 'counters every five seconds'],
    ['vioctl vhost-user ctl /run/blk.ctl save > disks.json', 'what is served now, for the next start'],
    ['vioctl vhost-user ctl /run/blk.ctl load disks.json --check', 'what would change'],
    ['truncate -s 20G disk.img; vioctl vhost-user ctl /run/blk.ctl resize', 'a larger disk'],
  ];
  static override readonly args = {
    socket: Args.string({ required: true, description: 'control socket of vhost-user serve blk --control' }),
    action: Args.string({
      required: true,
      options: [...blkActions],
      description: `${blkActions.slice(0, -1).join(', ')} or ${blkActions.at(-1)}`,
    }),
    operand: Args.string({ multiple: true, description: 'DISK, and limits; SOCKET=SOURCE for add; FILE for load' }),
  };
  static override readonly changes = true;
  static override readonly formats = ['json', 'ndjson'] as const;
  static override readonly flags = {
    ...watchFlag,
    check: Flags.boolean({ summary: 'load: only print the changes; status 4 if there are any' }),
    'dry-run': Flags.boolean({ summary: 'run all checks and print the change without making it' }),
    timeout: Flags.duration({ default: 10_000, summary: 'give up after this time' }),
  };

  async run(): Promise<number> {
    const { args, flags } = await this.parse(VhostUserCtl);
    if (flags.watch !== undefined && args.action !== 'stats' && args.action !== 'list') throw usage('--watch goes with list and stats');
    const { check = false, 'dry-run': dryRun = false } = flags;
    if (check && args.action !== 'load') throw usage('--check goes with load');
    const request = blkRequest(args.action as BlkAction, args.operand ?? [], dryRun || check);
    let differs = false;
    await this.watch(flags.watch, async () => {
      const { document, view } = await runBlkControl(args.socket, request, flags.timeout);
      await this.out.document(document, view);
      differs = check && (document as LoadReport).changes.length > 0;
    });
    return differs ? Exit.differs : Exit.ok;
  }
}
