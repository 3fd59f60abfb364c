import { Command, type Example } from '../../cli/command.js';
import { Args, engineFlag, Flags, logFormatFlag, spinFlag } from '../../cli/flags.js';
import { ServiceManager } from '../../cli/systemd.js';
import { boundedByPeer, logTo } from '../../common/text/log.js';
import { keyFlags } from '../../groups/nvmf/keys.js';
import { limitFlags } from '../../groups/nvmf/limits.js';
import { reload } from '../../groups/nvmf/reload.js';
import { sourceHelp, stateDirFlag, stateDirOf } from '../../groups/sources.js';
import { activatedListeners } from '../../launch/activation.js';
import { native } from '../../native/index.js';
import { commandLineConfig, commandLineOptions } from '../../nvme/target/serve/command-line.js';
import { givenSockets, keptSockets, statusLine } from '../../nvme/target/serve/manager.js';
import { readyLine, report } from '../../nvme/target/serve/report.js';
import { serve } from '../../nvme/target/serve/serve.js';
import { requireRings } from '../../uring/host/unavailable.js';

export default class NvmfServe extends Command {
  static override readonly description =
    'Serves files, block devices and memory to NVMe/TCP hosts, without kernel modules and without root. The sources of the command ' +
    'line become the namespaces of one subsystem; --config FILE describes several: see vioctl-nvmf(5). Every listener answers discovery ' +
    'too. Discovery also listens on port 8009 of the same addresses, unless it is in use or you asked for port 0.\n\n' +
    `${sourceHelp('nsid=7; group=2 (ANA group); uuid=UUID and nguid=HEX (identifiers)')}\n\n` +
    '--metrics ADDR serves metrics for Prometheus (OpenMetrics) at /metrics, on loopback unless ADDR names another address. There is ' +
    'no authentication.\n\n' +
    'The server logs who connects, is refused, or breaks the protocol. Host names with unusual characters are quoted. With ' +
    '--log-format json each message is an object with "time", "event" and "message", and, if known, "peer", "host", "subsystem" and ' +
    '"controller". At most 50 messages in 10 s are logged for one address.\n\n' +
    'Flush and FUA writes are on stable storage before they are answered. When everything is ready, one line is printed; SIGTERM ' +
    'and SIGINT end all connections, flush, and exit with 0.';
  static readonly examples: readonly Example[] = [
    ['vioctl nvmf serve disk.img', 'serve one file on 127.0.0.1 port 4420'],
    [
      'vioctl nvmf serve /dev/vg0/data ram:1G,bs=4096 --listen 0.0.0.0 --allow-host $(cat /etc/nvme/hostnqn)',
      'serve two namespaces to one host',
    ],
    ["vioctl nvmf serve disk.img --listen :0 --json | jq '.listen[0].port'", 'listen on a free port'],
    ['vioctl nvmf serve --config /etc/vioctl/nvmf.json', 'serve what a file describes, like the systemd unit'],
  ];
  static override readonly args = {
    source: Args.string({ multiple: true, description: 'file, block device, or ram:SIZE' }),
  };
  static override readonly flags = {
    listen: Flags.string({
      multiple: true,
      helpValue: 'ADDRESS[:PORT][,advertise=ADDRESS:PORT][,tls=MODE]',
      summary: 'address to listen on [default: 127.0.0.1:4420]; port 0: a free port',
    }),
    'discovery-port': Flags.string({
      helpValue: 'PORT',
      summary: 'discovery port [default: 8009 if free; "none" disables it]',
    }),
    'discovery-nqn': Flags.string({ helpValue: 'NQN', summary: 'name of the discovery service besides the well-known one' }),
    nqn: Flags.string({ helpValue: 'NQN', summary: 'name of the subsystem [default: made from the machine and the sources]' }),
    'allow-host': Flags.string({ multiple: true, helpValue: 'NQN', summary: 'allow this host to connect, and no others' }),
    ...keyFlags,
    config: Flags.string({ helpValue: 'FILE', summary: 'read the configuration from a JSON or YAML file (- is stdin)' }),
    control: Flags.string({ helpValue: 'SOCK', summary: 'control socket for nvmf ctl' }),
    metrics: Flags.string({
      helpValue: 'ADDR',
      summary: 'serve metrics at [ADDRESS:]PORT or the path of a UNIX socket',
    }),
    'log-format': logFormatFlag,
    'state-dir': stateDirFlag,
    serial: Flags.string({ helpValue: 'TEXT', summary: 'serial number of the subsystem' }),
    'cntlid-range': Flags.string({
      helpValue: 'MIN-MAX',
      summary: 'controller IDs to give out [default: 1-65519]',
    }),
    model: Flags.string({ helpValue: 'TEXT', summary: 'model of the subsystem' }),
    'block-size': Flags.integer({ helpValue: 'BYTES', summary: 'block size of all sources [default: of the device, 512 for a file]' }),
    'read-only': Flags.boolean({ summary: 'all sources are read-only' }),
    force: Flags.boolean({ summary: 'serve sources that are in use or no raw disks' }),
    ...limitFlags,
    threads: Flags.integer({ min: 1, max: 64, helpValue: 'N', summary: 'threads for connections (1)' }),
    engine: engineFlag('I/O that waits for a device: uring, sync (threads), or auto: uring if it works'),
    spin: spinFlag,
  };
  static override readonly formats = ['json', 'ndjson'] as const;
  static override readonly server = true;

  async run(): Promise<undefined> {
    const { args, flags } = await this.parse(NvmfServe);
    const log = boundedByPeer(logTo(flags['log-format'], (line) => this.info(line)));
    const read = () => commandLineConfig(flags, args.source, this.sysroot);
    const config = await read();
    if (config.engine === 'uring') requireRings(this.sysroot);
    const stateDir = config.stateDir ?? stateDirOf(undefined, this.env);
    const manager = new ServiceManager(this.env);
    const given = givenSockets(activatedListeners(this.env));
    const had = given.filter(({ kept }) => kept).map(({ name }) => name);
    const running = await serve(native().nvme, { ...config, ...(stateDir !== undefined && { stateDir }) }, log, {
      given,
      options: commandLineOptions(flags),
    });
    this.life.defer(() => running.stop());
    await this.out.document(report(running.target, running.metrics?.place), readyLine);
    manager.ready(
      () => statusLine(running.target),
      () => keptSockets(running.target),
      had,
    );
    this.life.onHangup(() => void reload(running, flags.config, read, manager, log));
    await this.life.ended();
    manager.stopping();
    return undefined;
  }
}
