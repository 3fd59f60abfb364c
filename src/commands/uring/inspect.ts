import { Command, type Example } from '../../cli/command.js';
import { Args } from '../../cli/flags.js';
import { usage } from '../../common/errors.js';
import { printable } from '../../common/escape.js';
import { formatSize, hex64 } from '../../common/units.js';
import { requestOps } from '../../uring/abi.js';
import { type ProcessRing, ringsOf } from '../../uring/host/processes.js';

export default class Inspect extends Command {
  static override readonly description =
    'Shows every io_uring of one process: registered files with their slots and paths, registered buffers, pending and polled ' +
    'requests, overflowed completions, and how busy the thread of an SQPOLL ring is (Linux 6.9). Before Linux 6.4, files have a name ' +
    'but no path.';
  static readonly examples: readonly Example[] = [
    ['vioctl uring inspect 1234', 'show files and buffers of process 1234'],
    ["vioctl uring inspect 1234 --json | jq -r '.rings[].files[].path'", 'print the paths of its registered files'],
  ];
  static override readonly args = {
    pid: Args.custom<number>({ parse: async (text) => parsePid(text) })({ required: true, description: 'process ID' }),
  };
  static override readonly formats = ['json'] as const;

  async run(): Promise<undefined> {
    const { args } = await this.parse(Inspect);
    const rings = ringsOf(this.sysroot, args.pid);
    await this.out.document({ pid: args.pid, rings }, (doc, chalk) =>
      doc.rings.length === 0
        ? [`process ${doc.pid} has no io_uring`]
        : doc.rings.flatMap((r) => [
            chalk.bold(`process ${r.pid} (${printable(r.command)}), descriptor ${r.fd}`),
            `  queues: ${r.sqEntries} submissions (${r.sqPending} pending), ${r.cqEntries} completions (${r.cqPending} not reaped)`,
            ...(r.sqThread === undefined ? [] : [`  SQPOLL thread ${r.sqThread} on CPU ${r.sqThreadCpu ?? '?'}${busy(r)}`]),
            `  files: ${r.files.length} in ${r.tableSize} slots`,
            ...r.files.map((f) => `    ${String(f.index).padStart(6)}: ${printable(f.path)}`),
            `  buffers: ${r.buffers.length}`,
            ...r.buffers.map((b) => `    ${String(b.index).padStart(6)}: ${hex64(b.address)} ${formatSize(b.size)}`),
            ...r.polled.map((p) => `  waits in poll: ${requestOps[p.opcode]?.name ?? `opcode ${p.opcode}`}`),
            ...(r.overflow.length > 0 ? [`  overflow: ${r.overflow.length} completions did not fit`] : []),
          ]),
    );
  }
}

/** How much of its time awake the thread of SQPOLL had requests. */
function busy({ sqTotalTime: total, sqWorkTime: work }: ProcessRing): string {
  if (!total || work === undefined) return '';
  const seconds = (us: number): string => (us / 1e6).toFixed(us < 1e7 ? 2 : 0);
  return `: busy ${Math.round((work / total) * 100)} % (${seconds(work)} of ${seconds(total)} s awake)`;
}

function parsePid(text: string): number {
  if (!/^[1-9]\d{0,9}$/.test(text)) throw usage(`not a process id: "${printable(text)}"`);
  return Number(text);
}
