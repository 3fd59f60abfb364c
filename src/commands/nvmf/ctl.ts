import { Command, type Example, watchFlag } from '../../cli/command.js';
import { Args, Flags } from '../../cli/flags.js';
import { Exit, usage } from '../../common/errors.js';
import type { LoadReport } from '../../control/load-report.js';
import { tlsChoices } from '../../nvme/target/security/tls.js';
import { runControl } from '../../nvme/target/serve/ctl.js';
import { type ControlAction, controlActions } from '../../nvme/target/serve/verbs.js';

export default class NvmfCtl extends Command {
  static override readonly description =
    'Changes a target that runs with --control SOCK. Hosts that are connected are told: new, removed and resized namespaces and ' +
    'changed ANA states appear there without a rescan.\n\n' +
    'list: subsystems, namespaces, controllers.\n\n' +
    'add SOURCE: a namespace (options as in nvmf serve); with --nqn of a new name, a subsystem. --allow-host adds hosts to the list of those that may ' +
    'use the subsystem, and becomes the list of a new one. A source that is served with other options is rejected: change its limits, ' +
    'or remove it and add it again.\n\n' +
    'remove NSID: a namespace; remove without a number and with --nqn, the subsystem.\n\n' +
    'resize NSID: look at the size of the file again at once (it is looked at every second anyway, less often with more than 64 namespaces).\n\n' +
    'reopen NSID: open the source again after a failed flush. Check its data first: what was lost is lost, but flushes can succeed again.\n\n' +
    'mask NSID NQN…: only these hosts see the namespace; mask NSID any shows it to all hosts of the subsystem, mask NSID none to no host.\n\n' +
    'host add NQN…, host remove NQN…: the list of hosts that may use the subsystem. A host that is removed is disconnected. host any lets every ' +
    'host in, whatever the list says; host any off lets in the hosts of the list alone.\n\n' +
    'listener add ADDRESS[:PORT]: one more path. --advertise tells hosts another address, --tls sets TLS of this path alone, and --discovery-only serves no subsystem there. listener remove ' +
    'ADDRESS[:PORT] ends the associations of hosts that came through it. listener ana ADDRESS[:PORT] STATE sets the ANA state ' +
    'of one path: of --group N, or of all groups with namespaces.\n\n' +
    'referral add ADDRESS[:PORT], referral remove ADDRESS[:PORT]: other discovery services that hosts are told about (port 8009); --nqn names the one there.\n\n' +
    'limits NSID iops=RATE[/BURST[/SECONDS]] bps=…: how fast a namespace may be used (see nvmf serve); none lifts a limit. limits ' +
    'controllers=N connections=N queues=N: what the target admits, with queues counted per controller. limits --host NQN ' +
    'connections=N queues=N bytes=SIZE: the same for one host, or for each host with --host any; bytes limits the data of commands under way.\n\n' +
    'ana GROUP STATE: optimized, non-optimized, inaccessible, persistent-loss or change, on all paths.\n\n' +
    'keys rotate: read the key files of nvmf serve again. Hosts that are connected stay; the next authentication uses the new keys.\n\n' +
    'kick: end the associations of --host NQN, of --cntlid N, or of --nqn NQN.\n\n' +
    'drain: admit no host and no command, wait for the commands under way (up to --timeout), and flush. Hosts use other paths, or wait ' +
    'for drain off.\n\n' +
    'stats: counters of every controller.\n\n' +
    'save: the configuration as it is now, in the form that nvmf serve --config reads (vioctl-nvmf(5)); without keys.\n\n' +
    'load FILE: change the target to what a configuration says. Hosts notice nothing of what stays the same. If a step fails, the target ' +
    'keeps the configuration that it had. --check only tells the changes (status 4 if there are any).\n\n' +
    'Repeating a completed change succeeds: nothing is done, and the command says so.';
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
    operand: Args.string({ multiple: true, description: 'what the action needs: SOURCE, NSID, NSID LIMIT, GROUP STATE, or add ADDRESS' }),
  };
  static override readonly formats = ['json', 'ndjson'] as const;
  static override readonly changes = true;
  static override readonly flags = {
    ...watchFlag,
    nqn: Flags.string({ helpValue: 'NQN', summary: 'which subsystem, where there are several' }),
    host: Flags.string({ helpValue: 'NQN', summary: 'kick, limits: this host' }),
    cntlid: Flags.integer({ min: 1, max: 0xffef, helpValue: 'N', summary: 'kick: this controller' }),
    group: Flags.integer({ min: 1, max: 32, helpValue: 'N', summary: 'listener ana: this ANA group' }),
    advertise: Flags.string({ helpValue: 'ADDRESS[:PORT]', summary: 'listener add: address that hosts are told' }),
    tls: Flags.option({ options: tlsChoices, summary: 'listener add: TLS of hosts there' })(),
    'discovery-only': Flags.boolean({ summary: 'listener add: answer discovery alone' }),
    'allow-host': Flags.string({ multiple: true, helpValue: 'NQN', summary: 'add: let this host use the subsystem too' }),
    'block-size': Flags.integer({ helpValue: 'BYTES', summary: 'add: block size [default: of the device, 512 for a file]' }),
    'read-only': Flags.boolean({ summary: 'add: read-only' }),
    force: Flags.boolean({ summary: 'add: serve a source that is in use or no raw disk' }),
    check: Flags.boolean({ summary: 'load: only tell the changes; status 4 if there are any' }),
    'dry-run': Flags.boolean({ summary: 'all checks, then what would be done; nothing is changed' }),
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
