import type { ChalkInstance } from 'chalk';
import { Command } from '../../cli/command.js';
import { Args, Flags } from '../../cli/flags.js';
import { usage } from '../../common/errors.js';
import { printable } from '../../common/escape.js';
import { hex64 } from '../../common/units.js';
import { FrontEnd } from '../../vhost-user/frontend/frontend.js';
import { handOver } from '../../vhost-user/tools/handover.js';
import { explained } from '../../vhost-user/tools/identify.js';
import { listSockets } from '../../vhost-user/tools/list.js';
import { endsOnDisconnect, type ProbeResult, probe } from '../../vhost-user/tools/probe.js';
import { deviceByName, deviceTypes } from '../../vhost-user/wire/devices.js';
import { receive, visit } from '../../vhost-user/wire/meeting.js';
import { kernelSockets } from '../../vhost-user/wire/sockets.js';

function view(r: ProbeResult, chalk: ChalkInstance): string[] {
  const line = (name: string, value: string): string => `${chalk.bold(`${name}:`.padEnd(18))}${value}`;
  const fields = Object.entries(r.config?.fields ?? {}).map(([k, v]) =>
    line(`  ${k}`, printable(v instanceof Uint8Array ? Buffer.from(v).toString('hex') : String(v))),
  );
  return [
    line('socket', printable(r.socket)),
    line('peer', `${printable(r.peer.exe ?? '?')} pid ${r.peer.pid} uid ${r.peer.uid}`),
    line('device', r.device ? `${r.device.name}${r.device.guess ? ' (a guess)' : ''}` : 'unknown'),
    line('features', `${hex64(r.features.raw)} ${r.features.names.join(' ')}`),
    line('protocol', r.protocol ? `${hex64(r.protocol.raw)} ${r.protocol.names.join(' ')}` : 'none'),
    line('queues', String(r.queues ?? '-')),
    line('memory slots', String(r.maxMemSlots ?? '-')),
    line('config', r.config ? `${r.config.size} bytes ${r.config.hex}` : '-'),
    ...fields,
    line('shared memory', r.shmem ? r.shmem.regions.map((s) => `${s.id}=${hex64(s.size)}`).join(' ') || 'no regions' : '-'),
    ...r.warnings.map((w) => line('warning', printable(w))),
  ];
}

export default class Probe extends Command {
  static override readonly description = `
Connects to a back-end as a front-end would and asks for everything that can be asked without starting it: feature words,
protocol features, queues, memory slots, configuration space, shared memory regions.

Some programs, such as virtiofsd, exit when their client disconnects. For those use --hand-over: it keeps the connection and
serves it to the VMM at another path.`;
  static readonly examples = [
    ['vioctl vhost-user probe /run/blk.sock', 'what the back-end offers'],
    ['vioctl vhost-user probe --json /run/blk.sock | jq .config.fields.capacity', 'one field of its configuration space'],
    ['vioctl vhost-user probe --listen /run/vm.sock', 'wait for a back-end that connects, as to QEMU with server=on'],
    ['vioctl vhost-user probe --hand-over /run/vm-fs.sock /run/fs.sock', 'look at virtiofsd, then serve its connection to QEMU'],
  ] as const;
  static override readonly args = {
    socket: Args.string({ required: true, description: 'socket that the back-end serves, or with --listen connects to' }),
  };
  static override readonly flags = {
    listen: Flags.boolean({ char: 'l', summary: 'listen at SOCKET and wait for a back-end that connects' }),
    'hand-over': Flags.string({ helpValue: 'PATH', summary: 'afterwards serve the connection to one VMM at PATH, until it ends' }),
    device: Flags.string({ helpValue: 'TYPE', summary: 'device type to decode the configuration space as: blk, net, fs, …' }),
    timeout: Flags.duration({
      summary: 'how long to wait for an answer [default: 5s], and with --listen for the back-end [default: no limit]',
    }),
  };

  async run(): Promise<number> {
    const { args, flags } = await this.parse(Probe);
    if (flags.device !== undefined && !deviceByName(flags.device))
      throw usage(`no such device type: "${flags.device}"`, deviceTypes.map((d) => d.name).join(', '));
    const rows = listSockets(this.sysroot, kernelSockets(this.sysroot), true);
    const server = rows.find((r) => r.socket === args.socket)?.servers[0];
    if (server?.exe && endsOnDisconnect(server.exe) && flags['hand-over'] === undefined)
      this.warn(`${server.exe} ends when this probe disconnects; --hand-over PATH keeps the connection for a VMM`);
    const { signal } = this.life;
    const meeting = flags.listen ? receive(args.socket) : visit(args.socket);
    this.life.defer(() => meeting.close());
    if (flags.listen) this.info(`waiting for a back-end at ${args.socket}`);
    const front = new FrontEnd(await meeting.next(flags.timeout, signal), { timeout: flags.timeout ?? 5000, signal });
    this.life.defer(() => front.close());
    const result = await probe(front, args.socket, this.sysroot, flags.device).catch((err) => {
      throw explained(err, server);
    });
    await this.out.document(result, view);
    if (flags['hand-over'] !== undefined) {
      this.info(`serving the connection at ${flags['hand-over']}`);
      await handOver(front, flags['hand-over'], this.life.signal);
    }
    return 0;
  }
}
