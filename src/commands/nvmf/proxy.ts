import { Command, type Example } from '../../cli/command.js';
import { Flags } from '../../cli/flags.js';
import { ClosedPipe } from '../../cli/output/stdio.js';
import { Recorder } from '../../cli/streams/recorder.js';
import { codeOf, Exit, usage } from '../../common/errors.js';
import { parseEndpoint } from '../../groups/nvmf/host.js';
import { Capture } from '../../nvme/proxy/pcapng.js';
import { NvmeProxy, type ProxyRecord, parseFault } from '../../nvme/proxy/proxy.js';
import { describeRecord } from '../../nvme/proxy/text.js';

export default class NvmfProxy extends Command {
  static override readonly description =
    'Stands between hosts and a target, prints each PDU of both directions on one line, and forwards it. With --fault it ' +
    'delays or drops PDUs, corrupts digests, or replaces the status of a completion.\n\nA fault is ACTION[,KEY=VALUE]…. ACTION ' +
    'is delay:TIME, drop, hdgst (corrupt the header digest), ddgst (corrupt the data digest), or status:[SCT/]SC (status code ' +
    'type and status code in hexadecimal). The keys choose the PDUs: dir=h2c (from the host) or c2h (from the target), ' +
    'type=R2T, command=read, qid=N, after=N (skip the first N), every=N, count=N.\n\nThe proxy sees no packets, so it makes up ' +
    'the packet headers of a --pcap file. Their target port is always 4420, by which Wireshark recognizes NVMe/TCP.';
  static readonly examples: readonly Example[] = [
    ['vioctl nvmf proxy --listen 127.0.0.1:4430 --to 192.0.2.1:4420 --ndjson > trace.ndjson', 'record everything as JSON'],
    ['vioctl nvmf proxy --listen :4430 --to :4420 --pcap trace.pcapng', 'record everything for Wireshark'],
    [
      "vioctl nvmf proxy --listen :4430 --to :4420 --fault 'status:6,command=write,every=100'",
      'fail every hundredth write with Internal Error',
    ],
    [
      "vioctl nvmf proxy --listen :4430 --to :4420 --fault ddgst,type=C2HData,count=1 --fault 'delay:50ms,command=flush'",
      'corrupt one digest and delay flushes',
    ],
  ];
  static override readonly server = true;
  static override readonly flags = {
    listen: Flags.string({ required: true, helpValue: 'ADDRESS:PORT', summary: 'address where hosts connect; port 0 picks a free one' }),
    to: Flags.string({ required: true, helpValue: 'ADDRESS:PORT', summary: 'address of the target' }),
    pcap: Flags.string({ helpValue: 'FILE', summary: 'also write the traffic to FILE (pcapng), for Wireshark' }),
    fault: Flags.string({ multiple: true, helpValue: 'RULE', summary: 'inject faults by this rule' }),
  };
  static override readonly formats = ['ndjson'] as const;

  async run(): Promise<number> {
    const { flags } = await this.parse(NvmfProxy);
    if (flags.pcap === '-') throw usage('--pcap writes a file: the records are on standard output');
    const { pcap } = flags;
    const listen = parseEndpoint(flags.listen);
    const to = parseEndpoint(flags.to);
    if (to.port === 0) throw usage('--to: port 0 is no port of a target');
    const recorder = new Recorder<ProxyRecord>(
      [{ name: 'stdout', write: (record) => this.out.recordOrAbandon(record, describeRecord) }],
      (text) => this.warn(text),
    );
    let capture: Capture | undefined;
    this.life.defer(() => capture?.close());
    const openCapture = async (file: string): Promise<Capture> => {
      capture = await Capture.create(file, (err) =>
        this.warn(`${(err as Error).message}; traffic still passes, but the capture ends here`),
      );
      return capture;
    };
    const proxy = await NvmeProxy.start({
      listen,
      to,
      faults: (flags.fault ?? []).map(parseFault),
      ...(pcap !== undefined && { capture: () => openCapture(pcap) }),
      tell: (record) => recorder.record(record),
    });
    this.life.defer(() => proxy.close());
    const ready = { event: 'listening', address: listen.address, port: proxy.port };
    await this.out.record(ready, (r) => `listening on ${r.address} port ${r.port}`);
    await this.out.flush();
    await this.life.ended();
    const failures = [...recorder.failures, ...(capture?.failure ? [capture.failure] : [])];
    return recorder.lost === 0 && failures.every((err) => err instanceof ClosedPipe || codeOf(err) === 'EPIPE') ? Exit.ok : Exit.failed;
  }
}
