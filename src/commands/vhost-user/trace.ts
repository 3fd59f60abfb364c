import { Command } from '../../cli/command.js';
import { Args, Flags } from '../../cli/flags.js';
import { ClosedPipe } from '../../cli/output/stdio.js';
import { Recorder } from '../../cli/streams/recorder.js';
import { Exit, usage } from '../../common/errors.js';
import { toJson } from '../../common/json.js';
import { Timeline } from '../../groups/vhost-user/timeline.js';
import type { TraceEnd, TraceRecord } from '../../vhost-user/tools/proxy.js';
import { createCapture, openCapture, readCapture, recordText } from '../../vhost-user/tools/trace.js';
import { traceConnections } from '../../vhost-user/tools/tracing.js';

export default class Trace extends Command {
  static override readonly description = `
Sits between a VMM and a back-end and shows every message of the main channel and of the back-end's own channel: names,
fields, descriptors by kind, size and seals, and how long each answer took. When a connection ends, a time line shows its
requests. Messages are passed on unchanged, and the data path
is not touched: rings and buffers are in memory that both sides share.

--ndjson prints records that hold the raw bytes too; --read decodes such a capture again.`;
  static readonly examples = [
    ['vioctl vhost-user trace --listen /run/t.sock /run/blk.sock', 'let QEMU connect to /run/t.sock'],
    ['vioctl vhost-user trace --listen /run/t.sock /run/blk.sock --ndjson > t.ndjson', 'keep a capture'],
    ['vioctl vhost-user trace --vmm-serves --listen /run/t.sock /run/vm.sock', 'QEMU with server=on; the back-end connects to /run/t.sock'],
    ['vioctl vhost-user trace --read t.ndjson --ndjson | jq -c \'select(.op=="BACKEND_SHMEM_MAP")\'', 'mappings of a capture'],
  ] as const;
  static override readonly args = { socket: Args.string({ description: 'socket that the back-end serves, or with --vmm-serves the VMM' }) };
  static override readonly flags = {
    listen: Flags.string({ char: 'l', helpValue: 'PATH', summary: 'socket for the VMM, or with --vmm-serves for the back-end' }),
    'vmm-serves': Flags.boolean({ summary: 'the VMM serves SOCKET and the back-end connects to --listen' }),
    read: Flags.string({ char: 'r', helpValue: 'FILE', summary: 'decode a capture instead (- is stdin)' }),
    output: Flags.string({ char: 'o', helpValue: 'FILE', summary: 'also write the capture (NDJSON) to FILE' }),
    once: Flags.boolean({ summary: 'end after the first connection' }),
    device: Flags.string({ helpValue: 'TYPE', summary: 'device type whose feature bits are named: blk, net, fs, …' }),
  };
  static override readonly formats = ['ndjson'] as const;
  static override readonly server = true;

  async run(): Promise<number> {
    const { args, flags } = await this.parse(Trace);
    const timeline = new Timeline();
    const text = (record: TraceRecord | TraceEnd) => [recordText(record), ...timeline.add(record, this.out.room)].join('\n');
    if (flags.read !== undefined) {
      if (flags.listen !== undefined || args.socket !== undefined) throw usage('--read takes no socket');
      for await (const record of readCapture(openCapture(flags.read), flags.device)) await this.out.record(record, text);
      if (this.out.format === 'text') await this.out.document(timeline.rest(this.out.room), (lines) => lines);
      return 0;
    }
    if (flags.listen === undefined || args.socket === undefined)
      throw usage('both sockets are needed', 'vioctl vhost-user trace --listen PATH SOCKET');
    const capture = flags.output === undefined ? undefined : createCapture(flags.output);
    if (capture) this.life.defer(() => capture.close());
    const recorder = new Recorder<TraceRecord | TraceEnd>(
      [
        ...(capture ? [{ name: flags.output!, write: (record: unknown) => capture.write(toJson(record)) }] : []),
        { name: 'stdout', write: (record) => this.out.recordOrAbandon(record, text) },
      ],
      (text) => this.warn(text),
    );
    await traceConnections({
      listen: flags.listen,
      socket: args.socket,
      vmmServes: flags['vmm-serves'],
      once: flags.once,
      device: flags.device,
      signal: this.life.signal,
      onListen: () => this.info(`listening at ${flags.listen}`),
      onRefused: (err) => this.warn(err.message),
      onRecord: (record) => recorder.record(record),
    });
    return recorder.lost === 0 && recorder.failures.every((err) => err instanceof ClosedPipe) ? Exit.ok : Exit.failed;
  }
}
