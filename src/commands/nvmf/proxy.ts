import { Command, type Example } from '../../cli/command.js';
import { Flags } from '../../cli/flags.js';
import { parseEndpoint } from '../../groups/nvmf/host.js';
import { Capture } from '../../nvme/proxy/pcapng.js';
import { NvmeProxy, parseFault } from '../../nvme/proxy/proxy.js';
import { describeRecord } from '../../nvme/proxy/text.js';

export default class NvmfProxy extends Command {
  static override readonly description =
    'Stands between hosts and a target, decodes every PDU of both directions as one line, and passes it on. With --fault it delays or drops PDUs, spoils ' +
    'digests, or replaces the status of a completion.\n\nA fault is ACTION[,KEY=VALUE]…; actions: delay:TIME, drop, hdgst, ddgst (spoil a digest), ' +
    'status:[SCT/]SC (hexadecimal). Keys choose the PDUs: dir=h2c|c2h, type=R2T, command=read, qid=N, after=N (pass over the first N), every=N, count=N.\n\nA --pcap file holds the connections of the hosts as they were passed on. The proxy sees no packets, so it makes their headers; ' +
    'the port of the target is always 4420, which Wireshark takes for NVMe/TCP.';
  static readonly examples: readonly Example[] = [
    ['vioctl nvmf proxy --listen 127.0.0.1:4430 --to 192.0.2.1:4420 --ndjson > trace.ndjson', 'record everything'],
    ['vioctl nvmf proxy --listen :4430 --to :4420 --pcap trace.pcapng', 'for Wireshark'],
    [
      "vioctl nvmf proxy --listen :4430 --to :4420 --fault 'status:6,command=write,every=100'",
      'every hundredth write fails with Internal Error',
    ],
    [
      "vioctl nvmf proxy --listen :4430 --to :4420 --fault ddgst,type=C2HData,count=1 --fault 'delay:50ms,command=flush'",
      'one spoiled digest, slow flushes',
    ],
  ];
  static override readonly server = true;
  static override readonly flags = {
    listen: Flags.string({ required: true, helpValue: 'ADDRESS:PORT', summary: 'where hosts connect to; port 0 is a free one' }),
    to: Flags.string({ required: true, helpValue: 'ADDRESS:PORT', summary: 'the target' }),
    pcap: Flags.string({ helpValue: 'FILE', summary: 'also write the traffic to FILE (pcapng), for Wireshark' }),
    fault: Flags.string({ multiple: true, helpValue: 'RULE', summary: 'inject a fault' }),
  };
  static override readonly formats = ['ndjson'] as const;

  async run(): Promise<number> {
    const { flags } = await this.parse(NvmfProxy);
    const listen = parseEndpoint(flags.listen);
    const capture = flags.pcap === undefined ? undefined : await Capture.create(flags.pcap);
    if (capture) this.life.defer(() => capture.close());
    const proxy = await NvmeProxy.start({
      listen,
      to: parseEndpoint(flags.to),
      capture,
      faults: (flags.fault ?? []).map(parseFault),
      tell: (record) => this.out.record(record, describeRecord),
    });
    this.life.defer(() => proxy.close());
    const ready = { event: 'listening', address: listen.address, port: proxy.port };
    await this.out.record(ready, (r) => `listening on ${r.address} port ${r.port}`);
    await this.out.flush();
    const failure = await Promise.race([this.life.ended(), proxy.failed, ...(capture ? [capture.failed] : [])]);
    if (failure !== undefined) throw failure;
    return 0;
  }
}
