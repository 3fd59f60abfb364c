import { Command, type Example, watchFlag } from '../../cli/command.js';
import { Args, Flags } from '../../cli/flags.js';
import { Exit, usage } from '../../common/errors.js';
import type { LoadReport } from '../../control/load-report.js';
import { tlsChoices } from '../../nvme/target/security/tls.js';
import { runControl } from '../../nvme/target/serve/ctl.js';
import { type ControlAction, controlActions } from '../../nvme/target/serve/verbs.js';

export default class NvmfCtl extends Command {
  static override readonly description =
    'Changes a target that runs with --control SOCK. Connected hosts are notified: they see new, removed and resized namespaces and ' +
    'changed ANA states without a rescan.\n\n' +
    'list: print subsystems, namespaces and controllers.\n\n' +
    'add SOURCE: add a namespace, with the source options of nvmf serve. If --nqn is a new name, this creates a subsystem. ' +
    '--allow-host adds a host to the list of hosts that may use the subsystem. If the source is already served with other options, ' +
    'the command fails: change its limits, or remove it and add it again.\n\n' +
    'remove NSID: remove a namespace. remove --nqn NQN without a number removes the subsystem.\n\n' +
    'resize NSID: check the size of the source now. The target checks it every second anyway, and less often with more than 64 ' +
    'namespaces.\n\n' +
    'reopen NSID: open the source again after a failed flush. Check its data first: lost writes stay lost, but flushes can succeed ' +
    'again.\n\n' +
    'mask NSID NQN…: show the namespace only to these hosts. mask NSID any shows it to all hosts of the subsystem, and mask NSID ' +
    'none to no host.\n\n' +
    'host add NQN…, host remove NQN…: change the list of hosts that may use the subsystem. A removed host is disconnected. host any ' +
    'admits every host, and host any off only the hosts of the list.\n\n' +
    'listener add ADDRESS[:PORT]: listen on one more address. --advertise tells hosts another address, --tls sets TLS for this ' +
    'listener only, and --discovery-only serves only discovery there. listener remove ' +
    'ADDRESS[:PORT] ends the associations of hosts that came through it. listener ana ADDRESS[:PORT] STATE sets the ANA state of one ' +
    'path, for --group N or for all groups with namespaces.\n\n' +
    'referral add ADDRESS[:PORT], referral remove ADDRESS[:PORT]: change the list of other discovery services in the discovery log ' +
    '(default port: 8009). --nqn is the NQN of that service.\n\n' +
    'limits NSID iops=RATE[/BURST[/SECONDS]] bps=…: limit the rate of a namespace (see nvmf serve); none removes a limit. limits ' +
    'controllers=N connections=N queues=N: limit the target as a whole; queues count per controller. limits --host NQN connections=N ' +
    'queues=N bytes=SIZE: limit one host, or each host with --host any. bytes limits the data of commands under way.\n\n' +
    'ana GROUP STATE: set the ANA state of a group on all paths: optimized, non-optimized, inaccessible, persistent-loss or change.\n\n' +
    'keys rotate: read the key files of nvmf serve again. Connected hosts stay connected, and the next authentication uses the new ' +
    'keys.\n\n' +
    'kick: end the associations of --host NQN, of --cntlid N, or of --nqn NQN.\n\n' +
    'drain: admit no host and no command, wait for the commands under way (up to --timeout), and flush. Hosts use other paths, or wait ' +
    'for drain off.\n\n' +
    'stats: print the counters of each controller.\n\n' +
    'save: print the current configuration, without keys, for nvmf serve --config (vioctl-nvmf(5)).\n\n' +
    'load FILE: apply a configuration file to the running target, and read its key files again. Parts that stay the same are not ' +
    'disturbed. If a step fails, the target keeps its earlier configuration. --check only prints the changes (status 4 if there are any).\n\n' +
    'Repeating a completed change succeeds without doing anything, and the command says so.';
  static readonly examples: readonly Example[] = [
    ['vioctl nvmf ctl /run/vioctl/nvmf.sock list', 'what is served, and to whom'],
    ['vioctl nvmf ctl /run/vioctl/nvmf.sock add /srv/new.img', 'one more namespace; hosts see it at once'],
    ['truncate -s 20G disk.img; vioctl nvmf ctl nvmf.sock resize 1', 'a larger namespace'],
    ['vioctl nvmf ctl nvmf.sock limits 1 iops=1000/4000 bps=none', 'a namespace of 1,000 operations a second'],
    ['vioctl nvmf ctl nvmf.sock stats --watch=1s', 'what hosts do, second by second'],
    ['vioctl nvmf ctl nvmf.sock listener ana 192.0.2.1:4420 inaccessible', 'hosts use another path'],
    ['vioctl nvmf ctl nvmf.sock mask 2 $(cat /etc/nvme/hostnqn)', 'a namespace for one host'],
    ['vioctl nvmf ctl nvmf.sock limits --host any bytes=8M queues=4', 'no host takes more than that'],
    ['vioctl nvmf ctl nvmf.sock save > nvmf.json', 'what is served now, for the next start'],
    ['vioctl nvmf ctl nvmf.sock load nvmf.json --check', 'what would change'],
    ['vioctl nvmf ctl nvmf.sock drain --timeout 1m', 'idle, before a restart'],
  ];
  static override readonly args = {
    socket: Args.string({ required: true, description: 'control socket of nvmf serve --control' }),
    action: Args.string({
      required: true,
      options: controlActions,
      description: `${controlActions.slice(0, -1).join(', ')} or ${controlActions.at(-1)}`,
    }),
    operand: Args.string({ multiple: true, description: 'arguments of the action: SOURCE, NSID, NSID LIMIT, GROUP STATE, or add ADDRESS' }),
  };
  static override readonly formats = ['json', 'ndjson'] as const;
  static override readonly changes = true;
  static override readonly flags = {
    ...watchFlag,
    nqn: Flags.string({ helpValue: 'NQN', summary: 'subsystem; optional if there is only one' }),
    host: Flags.string({ helpValue: 'NQN', summary: 'kick, limits: this host' }),
    cntlid: Flags.integer({ min: 1, max: 0xffef, helpValue: 'N', summary: 'kick: this controller' }),
    group: Flags.integer({ min: 1, max: 32, helpValue: 'N', summary: 'listener ana: this ANA group' }),
    advertise: Flags.string({ helpValue: 'ADDRESS[:PORT]', summary: 'listener add: address in the discovery log' }),
    tls: Flags.option({ options: tlsChoices, summary: 'listener add: TLS mode of this listener' })(),
    'discovery-only': Flags.boolean({ summary: 'listener add: serve only discovery there' }),
    'allow-host': Flags.string({ multiple: true, helpValue: 'NQN', summary: 'add: let this host use the subsystem too' }),
    'block-size': Flags.integer({ helpValue: 'BYTES', summary: 'add: block size [default: of the device, 512 for a file]' }),
    'read-only': Flags.boolean({ summary: 'add: read-only' }),
    force: Flags.boolean({ summary: 'add: serve a source that is in use or no raw disk' }),
    check: Flags.boolean({ summary: 'load: only print the changes; status 4 if there are any' }),
    'dry-run': Flags.boolean({ summary: 'run all checks and print the change without making it' }),
    timeout: Flags.duration({ default: 10_000, summary: 'give up after this time' }),
  };

  async run(): Promise<number> {
    const { args, flags } = await this.parse(NvmfCtl);
    const action = args.action as ControlAction;
    if (flags.watch !== undefined && action !== 'stats' && action !== 'list') throw usage('--watch goes with list and stats');
    let differs = false;
    await this.watch(flags.watch, async () => {
      const { document, view } = await runControl(args.socket, action, args.operand ?? [], flags);
      await this.out.document(document, view);
      differs = flags.check === true && (document as LoadReport).changes.length > 0;
    });
    return differs ? Exit.differs : Exit.ok;
  }
}
