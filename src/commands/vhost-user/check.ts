import { Command } from '../../cli/command.js';
import { Args, Flags } from '../../cli/flags.js';
import { Exit, usage } from '../../common/errors.js';
import { tapHead } from '../../common/tap.js';
import { checkCases } from '../../vhost-user/check/cases.js';
import { type CheckResult, runChecks, tapLines } from '../../vhost-user/check/run.js';

export default class Check extends Command {
  static override readonly description =
    'Tests whether a back-end follows the specification. Valid requests must succeed. Malformed ones must fail or end the ' +
    'connection. Each case has a connection of its own. Block devices also get requests through a ring: the check judges their ' +
    'answers, reconnections, requests in flight and the dirty log. These requests read the first sector and write nothing.\n\nThe ' +
    'command sends damaged messages, so use a scratch back-end. --respawn starts it again if a case has ended it, or if it ends with ' +
    'its connection.';
  static readonly examples = [
    ['vioctl vhost-user check /run/blk.sock', 'a table of all cases'],
    ["vioctl vhost-user check /run/fs.sock --tap --respawn 'virtiofsd --socket-path=/run/fs.sock --shared-dir=/x'", 'for a test harness'],
  ] as const;
  static override readonly args = {
    socket: Args.string({ required: true, description: 'socket that the back-end serves, or with --listen connects to' }),
  };
  static override readonly flags = {
    listen: Flags.boolean({ char: 'l', summary: 'listen at SOCKET: the back-end connects there, again for every case' }),
    respawn: Flags.string({ helpValue: 'CMD', summary: 'command line that starts the back-end' }),
    tap: Flags.boolean({ summary: 'print the Test Anything Protocol' }),
    only: Flags.string({ helpValue: 'TEXT', summary: 'run only cases whose name contains TEXT' }),
    timeout: Flags.duration({ summary: 'how long an answer may take [default: 2s]' }),
  };
  static override readonly formats = ['json', 'ndjson'] as const;
  static override readonly list = true;
  /** The back-end that --respawn has started ends with the run. */
  static override readonly finishes = true;

  async run(): Promise<number> {
    const { args, flags } = await this.parse(Check);
    const chosen = checkCases.filter(({ name }) => name.includes(flags.only ?? '')).length;
    if (chosen === 0) throw usage(`no case has "${flags.only}" in its name`, 'without --only, all cases run and print their names');
    const count = { ok: 0, 'not ok': 0, skipped: 0 };
    const checks = runChecks({
      socket: args.socket,
      listen: flags.listen,
      respawn: flags.respawn,
      timeout: flags.timeout ?? 2000,
      only: flags.only,
      signal: this.life.signal,
    });
    async function* counted(): AsyncGenerator<CheckResult> {
      for await (const result of checks) {
        count[result.result]++;
        yield result;
      }
    }
    if (flags.tap) {
      await this.out.line(tapHead(chosen));
      let id = 0;
      for await (const result of counted()) await this.out.line(tapLines({ ...result, id: ++id }));
    } else {
      await this.out.list(
        counted(),
        [
          { title: 'NO', priority: 7, value: (r) => r.id, align: 'right' },
          { title: 'RESULT', priority: 9, value: (r) => r.result },
          { title: 'CASE', priority: 8, min: 12, value: (r) => r.name },
          { title: 'EXPECTED', priority: 4, min: 12, value: (r) => (r.result === 'not ok' ? r.expected : '') },
          { title: 'SECTION', priority: 3, min: 12, value: (r) => (r.result === 'not ok' ? r.section : '') },
          { title: 'GOT', priority: 5, min: 12, value: (r) => r.got },
        ],
        'cases',
      );
    }
    this.info(`${chosen} cases: ${count.ok} ok, ${count['not ok']} not ok, ${count.skipped} skipped`);
    return count['not ok'] > 0 ? Exit.differs : Exit.ok;
  }
}
