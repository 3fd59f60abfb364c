import { usage } from '../common/errors.js';
import { Sysroot } from '../common/sysroot.js';
import { isTerminal } from '../common/terminal.js';
import { argumentTexts, requireText } from './arguments/argv.js';
import { setAside } from './arguments/positionals.js';
import { splitWords } from './arguments/words.js';
import { Flags } from './flags.js';
import { type ArgInput, type FlagInput, parse } from './oclif.js';
import { type ColorChoice, wantsColor } from './output/color.js';
import { type Format, Output, type TableOptions } from './output/output.js';
import { Progress, type Unit } from './output/progress.js';
import { ClosedPipe, FdWriter, stderr } from './output/stdio.js';
import { Lifetime } from './signals.js';

/** An example of a command's help and man page: the command line and what it does. */
export type Example = readonly [line: string, what: string];

/** What every command class carries; the runner, help, man pages, completions and the conventions test read it. */
export interface CommandClass {
  new (context: Context): Command;
  /** Paragraphs below the summary, which stands in the group's table. */
  readonly description: string;
  readonly examples: readonly Example[];
  readonly args: ArgInput;
  readonly flags: FlagInput;
  /** Machine formats that the command offers. */
  readonly formats: readonly Exclude<Format, 'text'>[];
  /** The command prints rows: columns can be chosen and sorted. */
  readonly list: boolean;
  /** The command changes the system: it must offer --dry-run. */
  readonly changes: boolean;
  /** Runs until it is told to stop: SIGTERM and SIGINT end it cleanly with status 0. */
  readonly server: boolean;
  /** The first signal waits for run(), which ends soon by itself and undoes what it has begun: a transaction. */
  readonly finishes: boolean;
  /** The command takes names of files with argumentBytes(), as bytes where they are not UTF-8. Others get text of names.ts. */
  readonly byteNames: boolean;
  /** Takes `-- CMD…`: the words behind the first `--` are in `this.rest`. */
  readonly passthrough: boolean | 'required';
}

/** What a command gets from the runner. */
export interface Context {
  /** `vfio bind` */
  id: string;
  argv: string[];
  env: NodeJS.ProcessEnv;
}

/** Flags of every command; those of the machine formats are added where the command offers them. */
export const globalFlags = {
  help: Flags.boolean({ char: 'h', summary: 'print this help' }),
  quiet: Flags.boolean({ summary: 'print only errors on stderr: no messages, no progress' }),
  color: Flags.option({
    options: ['auto', 'always', 'never'] as const,
    default: 'auto',
    helpValue: 'WHEN',
    summary: 'colours: auto, always or never',
  })(),
};
export const formatFlags = {
  json: Flags.boolean({ summary: 'print one JSON document' }),
  ndjson: Flags.boolean({ summary: 'print one JSON object per line', exclusive: ['json'] }),
};
export const tableFlags = {
  'no-headings': Flags.boolean({ summary: 'omit the heading line' }),
};
/** Flags of commands that print a list (static `list`). */
export const listFlags = {
  columns: Flags.string({ helpValue: 'NAME,…', summary: 'print these columns of the table, in this order' }),
  sort: Flags.string({ helpValue: '[-]NAME', summary: 'sort by this column; -NAME sorts in descending order' }),
  'no-truncate': Flags.boolean({ summary: 'print all columns in full, even if lines exceed the terminal' }),
};

/** `--watch[=TIME]` of commands that show counters: see Command.watch(). */
export const watchFlag = {
  watch: Flags.duration({ summary: 'repeat at this interval until a signal comes; --watch alone: 2s' }),
};
/** The interval of --watch alone. */
const usualWatch = '2s';
/** Milliseconds; less would only keep the machine busy. */
const leastWatch = 100;

/** All flags of a command class, its own last. */
export function allFlags(command: Pick<CommandClass, 'flags' | 'formats' | 'list'>): FlagInput {
  return {
    ...command.flags,
    ...Object.fromEntries(command.formats.map((name) => [name, formatFlags[name]])),
    ...(command.formats.length > 0 && tableFlags),
    ...(command.list && listFlags),
    ...globalFlags,
  };
}

type Values = Record<string, unknown>;

/** Base of all commands: parsed input, output, messages, signals and clean-up. */
export abstract class Command {
  static readonly description: string = '';
  static readonly args: ArgInput = {};
  static readonly flags: FlagInput = {};
  static readonly formats: readonly Exclude<Format, 'text'>[] = ['json'];
  static readonly list: boolean = false;
  static readonly changes: boolean = false;
  static readonly server: boolean = false;
  static readonly finishes: boolean = false;
  static readonly byteNames: boolean = false;
  static readonly passthrough: boolean | 'required' = false;

  /** Output of the command; set by parse(). */
  protected out!: Output;
  /** The words behind `--` (passthrough commands). */
  protected rest: string[] | undefined;
  protected readonly env: NodeJS.ProcessEnv;
  /** /, or VIOCTL_SYSROOT in tests. */
  protected readonly sysroot: Sysroot;
  /** Signals and what must be undone at the end, whatever way the end comes. */
  readonly life: Lifetime;
  readonly #context: Context;
  #quiet = false;

  constructor(context: Context) {
    this.#context = context;
    this.env = context.env;
    this.sysroot = new Sysroot(context.env.VIOCTL_SYSROOT || '/');
    this.life = new Lifetime((this.constructor as unknown as CommandClass).server);
  }

  /** Does the work. A returned number is the exit status; nothing means 0. */
  abstract run(): Promise<number | undefined> | Promise<void>;

  /** Parses the command line against the class's flags and arguments and prepares the output. @throws usage errors */
  protected async parse<F extends Values, A extends Values>(spec: {
    flags: FlagInput<F>;
    args: ArgInput<A>;
  }): Promise<{ flags: F; args: A }> {
    const command = this.constructor as unknown as CommandClass;
    let { argv } = this.#context;
    if (command.passthrough) ({ own: argv, rest: this.rest } = splitWords(argv));
    if (command.passthrough === 'required' && !this.rest?.length)
      throw usage('the program to run goes behind --', `vioctl ${this.#context.id} … -- CMD`);
    if (!command.byteNames) argv = argumentTexts(argv);
    requireText(this.rest ?? []);
    const flags = allFlags(command);
    if ('watch' in flags) argv = argv.map((word) => (word === '--watch' ? `--watch=${usualWatch}` : word));
    const many = setAside(argv, flags, spec.args as ArgInput);
    const parsed = await parse(many.argv, { flags, args: spec.args as ArgInput }, many);
    const common = parsed.flags as unknown as { json?: boolean; ndjson?: boolean; quiet?: boolean; color: ColorChoice } & TableOptions;
    this.#quiet = common.quiet ?? false;
    this.out = new Output({
      writer: new FdWriter(1),
      format: common.ndjson ? 'ndjson' : common.json ? 'json' : 'text',
      tables: common,
      server: command.server,
      colored: wantsColor(1, common.color, this.env),
      env: this.env,
    });
    return { flags: parsed.flags, args: parsed.args } as never;
  }

  /** --quiet was given. */
  protected get quiet(): boolean {
    return this.#quiet;
  }

  /**
   * Shows something once, or with --watch again and again until a signal comes: on a cleared screen, one below the other in a pipe.
   * @param interval milliseconds
   */
  protected async watch(interval: number | undefined, show: () => Promise<void>): Promise<void> {
    if (interval === undefined) return show();
    if (interval < leastWatch) throw usage(`--watch: at least ${leastWatch}ms`);
    if (this.out.format === 'json') throw usage('--watch prints many documents, --json one: use --ndjson');
    const { signal } = this.life;
    for (let turn = 0; !signal.aborted; turn++) {
      if (this.out.format === 'text' && this.out.tty) await this.out.raw('\x1b[H\x1b[2J');
      else if (this.out.format === 'text' && turn > 0) await this.out.raw('\n');
      await show();
      await this.out.flush();
      await new Promise<void>((resolve) => {
        const timer = setTimeout(done, interval);
        function done(): void {
          clearTimeout(timer);
          signal.removeEventListener('abort', done);
          resolve();
        }
        signal.addEventListener('abort', done, { once: true });
      });
    }
  }

  /** Prose on stderr; --quiet silences it. */
  protected info(message: string): void {
    if (!this.#quiet) stderr(`${message}\n`);
  }

  /** A warning on stderr; --quiet silences it. */
  protected warn(message: string): void {
    if (!this.#quiet) stderr(`vioctl: ${this.#context.id}: warning: ${message}\n`);
  }

  /**
   * Progress on stderr: on a terminal only, after one second, and neither with --quiet nor with a machine format.
   * @param total 0 if the end is unknown
   * @param options.streams data leaves on stdout meanwhile: no progress if that is a terminal too
   */
  protected progress(label: string, total: number, options: { unit?: Unit; streams?: boolean } = {}): Progress {
    const { unit = 'bytes', streams = false } = options;
    const hidden = this.#quiet || this.out.format !== 'text' || (streams && this.out.tty) || !isTerminal(2);
    return new Progress({ label, total, unit, hidden, life: this.life, env: this.env });
  }

  /** Lets everything out; the runner calls it after run(). */
  async finish(): Promise<void> {
    try {
      await this.out?.flush();
    } catch (err) {
      const { server } = this.constructor as unknown as CommandClass;
      if (!server || !(err instanceof ClosedPipe)) throw err;
    }
  }
}
