import { Command, type Example } from '../../cli/command.js';
import { Args, Flags } from '../../cli/flags.js';
import { watchEnd } from '../../cli/streams/input.js';
import { notify } from '../../cli/systemd.js';
import { Exit, usage } from '../../common/errors.js';
import { describeFault, watchFaults } from '../../dma/faults.js';
import { requireFeasible } from '../../dma/forecast.js';
import { describeMaps, Holder } from '../../dma/holder.js';
import { plan } from '../../dma/layout.js';
import { lockLimit } from '../../dma/lock-limit.js';
import { parseSpecs } from '../../dma/spec.js';
import { specWords } from '../../groups/dma/specs.js';
import { holderLines } from '../../groups/dma/views.js';
import { apiFlag, deviceArg, tokenFlag } from '../../groups/vfio/options.js';
import { Census } from '../../vfio/census/census.js';
import { Hold } from '../../vfio/session/hold.js';
import { Irq } from '../../vfio/session/session.js';

export default class DmaMap extends Command {
  static override readonly description =
    'Maps memory for a device and holds it in the foreground. It prints one document when everything is mapped. It unmaps at ' +
    'the end of standard input (unless that is /dev/null), on SIGTERM or SIGINT, when the kernel asks for the device (`vfio ' +
    'unbind --ask`), or after --timeout (status 124).\n\nWith --listen, other programs can use the mappings: see `dma attach`, ' +
    '`dma list` and `dma unmap`. If the IOMMU blocks an access of the device and the kernel log is readable, a message names ' +
    'the mapping.';
  static readonly examples: readonly Example[] = [
    ['vioctl dma map 0000:01:00.0 ring=64M,huge=2M fw=./fw.bin,ro', 'hold two mappings until ^D'],
    ['vioctl dma map 01:00.0 buf=1G --listen /run/buf.sock --json > map.json &', 'hold a mapping for other programs'],
  ];
  static override readonly args = {
    bdf: deviceArg,
    map: Args.string({
      required: true,
      multiple: true,
      description: 'NAME=SIZE|FILE[,ro][,huge=2M][,align=2M][,iova=0x…][,below4g][,temp]…, or @FILE with one on each line',
    }),
  };
  static override readonly flags = {
    listen: Flags.string({ helpValue: 'SOCK', summary: 'serve the mappings at this socket (mode 0600)' }),
    notify: Flags.boolean({ summary: 'tell systemd when everything is mapped (NOTIFY_SOCKET)' }),
    timeout: Flags.duration({ summary: 'unmap and exit after this time' }),
    api: apiFlag,
    'vf-token': tokenFlag,
    'dry-run': Flags.boolean({ summary: 'open the device, print the layout, and map nothing' }),
  };
  static override readonly changes = true;
  static override readonly server = true;

  async run(): Promise<number> {
    const { args, flags } = await this.parse(DmaMap);
    const specs = parseSpecs(await specWords(args.map as unknown as string[]));
    if (flags.notify && !this.env.NOTIFY_SOCKET) throw usage('--notify: NOTIFY_SOCKET is not set', 'use it in a unit with Type=notify');
    const limit = lockLimit(this.sysroot.attr('/proc/self/status') ?? '');
    const hold = new Hold(new Census(this.sysroot), [args.bdf], flags.api, flags['dry-run'] ? [] : specs, limit, {
      token: flags['vf-token'],
    });
    this.life.defer(() => hold.close());
    const [session] = hold.sessions as [(typeof hold.sessions)[0]];
    const mapper = hold.mapper!;
    if (flags['dry-run']) {
      const planned = plan(session.aperture(), specs);
      requireFeasible(this.sysroot, specs, BigInt(planned.memlock), session.aperture().pages[0]!, limit);
      await this.out.document({ bdf: session.bdf, api: session.api, ...planned }, holderLines);
      return Exit.ok;
    }
    const faults = watchFaults(this.sysroot, new Set([session.bdf]), (fault) =>
      this.warn(describeFault(fault, mapper.nameOf(fault.address))),
    );
    if (faults) this.life.defer(() => faults.close());
    else this.info('the kernel log may not be read: blocked accesses will not be reported');
    if (session.irqs().some((irq) => irq.index === Irq.REQ)) {
      const asked = session.listen(Irq.REQ, 1, () => {
        this.info(`${session.bdf}: the kernel asks for the device: unmapping`);
        this.life.stop();
      });
      this.life.defer(() => asked.close());
    }
    if (flags.listen !== undefined) {
      const holder = new Holder(flags.listen, session, mapper, hold.fds, (name) => this.info(`unmapped ${name}`));
      this.life.defer(() => holder.close());
    }
    await this.out.document(describeMaps(session, mapper), holderLines);
    if (flags.notify) notify(this.env, 'READY=1');
    const status = await new Promise<number>((resolve) => {
      const end = watchEnd(0, () => resolve(Exit.ok));
      this.life.defer(() => end.close());
      this.life.ended().then(() => resolve(Exit.ok));
      if (flags.timeout !== undefined) setTimeout(() => resolve(Exit.timeout), flags.timeout).unref();
    });
    if (flags.notify) notify(this.env, 'STOPPING=1');
    return status;
  }
}
