import { Command, type Example } from '../../cli/command.js';
import { Flags } from '../../cli/flags.js';
import { shell } from '../../cli/shell.js';
import { Exit } from '../../common/errors.js';
import { tapHead } from '../../common/tap.js';
import { endpointFlags, namespaceFlags, optionsWithDiscovery, subsystemFlags } from '../../groups/nvmf/host.js';
import { type CaseResult, junit, learn, runCases, selectCases, tapLines } from '../../nvme/conform/index.js';

export default class NvmfConform extends Command {
  static override readonly description =
    'Tests whether a target follows the specification: it sends malformed, abusive, and unusual but legal PDUs and commands. Each ' +
    'case prints the answer that the specification expects and the answer of the target. After each case, a new host must be able to ' +
    'connect and identify. The output is TAP (Test Anything Protocol). The exit status is 4 if a case fails.\n\nCases about authentication need the keys of ' +
    'this host, and cases about TLS need its TLS key. Without the keys these cases are skipped.\n\nUse a scratch namespace: its data ' +
    'may be overwritten. Cases that write to its first blocks put the data back, but a faulty target may damage it all the same.';
  static readonly examples: readonly Example[] = [
    ['vioctl nvmf conform -a 192.0.2.1 -n nqn.2014-08.org.example:scratch', 'run all cases'],
    [
      "vioctl nvmf conform -n nqn.2014-08.org.example:scratch --only 'io*' --only h212 --json | jq '.cases[] | " +
        'select(.verdict=="differs")\'',
      'run some cases and print those that differ',
    ],
    [
      'vioctl nvmf conform -n nqn.2014-08.org.example:scratch --dhchap-secret-file host.key --dhchap-ctrl-secret-file ctrl.key',
      'test a target that asks for authentication',
    ],
    ['vioctl nvmf conform -n nqn.2014-08.org.example:scratch --junit > conform.xml', 'write a report for a CI system'],
  ];
  static override readonly changes = true;
  static override readonly flags = {
    ...endpointFlags,
    ...subsystemFlags,
    ...namespaceFlags,
    only: Flags.string({ multiple: true, helpValue: 'GLOB', summary: 'run only cases whose id matches' }),
    junit: Flags.boolean({ summary: 'print JUnit XML', exclusive: ['json', 'ndjson'] }),
    change: Flags.string({
      helpValue: 'COMMAND',
      summary: 'shell command that changes what the discovery log of the target lists, for the case about that (di02)',
    }),
    'change-ana': Flags.string({
      helpValue: 'COMMAND',
      summary: 'shell command that changes an ANA state at this address alone, for the case about that (an05)',
    }),
    'dry-run': Flags.boolean({ summary: 'list the cases without connecting' }),
  };
  static override readonly formats = ['json', 'ndjson'] as const;
  static override readonly list = true;

  async run(): Promise<number> {
    const { flags } = await this.parse(NvmfConform);
    const cases = selectCases(flags.only ?? []);
    const text = this.out.format === 'text' && !flags.junit;
    if (flags['dry-run']) {
      const columns = [
        { title: 'ID', value: (c: (typeof cases)[number]) => c.id },
        { title: 'CASE', value: (c: (typeof cases)[number]) => c.title },
      ];
      await this.out.list(cases, columns, 'cases', ({ id, title, spec, accept }) => ({
        id,
        title,
        spec,
        expected: accept.map((e) => e.text),
      }));
      return 0;
    }
    const { change, 'change-ana': changeAna } = flags;
    const { options, discoveryTls } = optionsWithDiscovery(flags, flags.nqn);
    const facts = {
      ...(await learn(options, flags['namespace-id'], discoveryTls)),
      ...(change !== undefined && { change: () => shell(change, this.life.signal) }),
      ...(changeAna !== undefined && { changeAna: () => shell(changeAna, this.life.signal) }),
    };
    if (text) await this.out.line(tapHead(cases.length));
    const results: CaseResult[] = [];
    for await (const result of runCases(cases, facts, this.life.signal)) {
      results.push(result);
      if (text) await this.out.line(tapLines(result, results.length));
      else if (this.out.format === 'ndjson') await this.out.record(result, () => '');
      await this.out.flush();
    }
    const count = (verdict: CaseResult['verdict']) => results.filter((r) => r.verdict === verdict).length;
    const summary = { ok: count('ok'), differs: count('differs'), skipped: count('skipped') };
    if (flags.junit) await this.out.line(junit(results, flags.nqn));
    else if (this.out.format === 'json') await this.out.document({ target: flags.nqn, ...summary, cases: results }, () => '');
    this.info(`${summary.ok} ok, ${summary.differs} differ, ${summary.skipped} skipped`);
    return summary.differs > 0 ? Exit.differs : Exit.ok;
  }
}
