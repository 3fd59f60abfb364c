import { Command, type Example } from '../../cli/command.js';
import { Flags } from '../../cli/flags.js';
import { wrapText } from '../../cli/help/wrap.js';
import { type Ability, notAvailable, probe, requireAll } from '../../uring/host/probe.js';

/** Names of a list in lines of 100 columns, those that are missing with the kernel that has them. */
function named(list: Ability[], supported: boolean): string[] {
  const names = list.filter((a) => a.supported === supported).map((a) => (supported ? a.name : `${a.name} (${a.since})`));
  const lines = wrapText(names.join(' ') || 'none', supported ? 98 : 89);
  return lines.map((line, i) => (supported ? `  ${line}` : `  ${i === 0 ? 'missing: ' : '         '}${line}`));
}

export default class Probe extends Command {
  static override readonly description =
    'Shows what io_uring supports on the running kernel: request and register opcodes, set-up flags, features, limits, and typical ' +
    'uses of registered files. It tries each of them. If io_uring is not available, the command says why (a sysctl, a seccomp ' +
    'filter, the kernel, or the limit of locked memory) and exits with 7. Brackets name the kernel version that added a feature.\n\n' +
    '--require checks for the named features and prints only those. If one is missing, the command exits with 7 and says why.';
  static readonly examples: readonly Example[] = [
    ['vioctl uring probe', 'show what this kernel supports'],
    ['vioctl uring probe --require openat_direct,msg_ring_fd && ./deploy.sh', 'run a program only if both are supported'],
    ["vioctl uring probe --json | jq -r '.setupFlags[] | select(.supported).name'", 'print the set-up flags, one on each line'],
  ];
  static override readonly flags = {
    require: Flags.string({ multiple: true, helpValue: 'FEATURE,...', summary: 'exit with 7 unless all of these are supported' }),
  };
  static override readonly formats = ['json'] as const;

  async run(): Promise<undefined> {
    const { flags } = await this.parse(Probe);
    const report = await probe(this.sysroot);
    const names = (flags.require ?? []).flatMap((list) => list.split(',')).filter((name) => name !== '');
    if (names.length > 0) {
      requireAll(report, names);
      if (this.out.format === 'text') {
        await this.out.raw(names.map((name) => `${name}: supported\n`).join(''));
        return;
      }
    }
    await this.out.document(report, ({ available, cause, kernel, limits, ...lists }, chalk) => [
      `io_uring: ${available ? chalk.green('available') : chalk.red(`not available: ${cause!.why}`)} (kernel ${kernel})`,
      `limits: ${limits.entries} entries, ${limits.files} registered files, locked memory ${limits.lockedMemory === Number.POSITIVE_INFINITY ? 'unlimited' : `${limits.lockedMemory ?? '?'} bytes`}`,
      ...(available
        ? (
            [
              ['registered files', lists.abilities],
              ['request opcodes', lists.requestOps],
              [`register opcodes (${lists.registerOpsFrom === 'query' ? 'asked' : 'concluded'})`, lists.registerOps],
              ['set-up flags', lists.setupFlags],
              ['features', lists.features],
            ] as const
          ).flatMap(([title, list]) => ['', chalk.bold(`${title}:`), ...named(list, true), ...named(list, false)])
        : []),
    ]);
    if (!report.available) throw notAvailable(report);
  }
}
