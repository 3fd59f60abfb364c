import { errnoText } from './errno.js';

/** Exit statuses of every command, with their meaning: EXIT STATUS of vioctl(1) and the table of the README are made from it. */
const statuses = {
  ok: [0, 'success, including a change that was already made'],
  failed: [1, 'the operation failed'],
  usage: [2, 'wrong usage'],
  refused: [3, 'refused by a safety check or a policy; nothing was changed'],
  differs: [4, 'a comparison or verification found differences'],
  damaged: [5, 'the input is damaged or the peer broke the protocol; partial output was given where possible'],
  permission: [6, 'permission or privilege is missing'],
  unsupported: [7, 'this kernel, device or peer does not support it'],
  notRestored: [8, 'failed, and the earlier state could not be fully restored; stderr names what is left'],
  timeout: [124, 'a --timeout ran out'],
  notExecutable: [126, 'the given program cannot be run'],
  notFound: [127, 'the given program was not found'],
} as const;
/** The exit statuses by name. */
export const Exit = Object.fromEntries(Object.entries(statuses).map(([name, [status]]) => [name, status])) as {
  readonly [Name in keyof typeof statuses]: (typeof statuses)[Name][0];
};
export type ExitStatus = (typeof Exit)[keyof typeof Exit];

/** All statuses that a user can meet, those of programs that are run and of signals too. */
export const exitStatuses: readonly (readonly [status: number, text: string])[] = [
  ...Object.values(statuses),
  [130, 'interrupted (SIGINT)'],
  [141, 'the reader of stdout closed the pipe'],
  [143, 'terminated (SIGTERM); servers shut down cleanly and exit 0 instead'],
];

export interface VioErrorOptions {
  /** Upper-case identifier for scripts: an errno name (`EBUSY`) or one of ours (`MOUNTED`). */
  code?: string;
  exit?: ExitStatus;
  /** The command or setting that helps. */
  hint?: string | undefined;
  /** Machine-readable context, printed under --json. */
  details?: Record<string, unknown> | undefined;
  cause?: unknown;
}

/** An error with everything a user needs: what failed and why (message), a hint, and the exit status it leads to. */
export class VioError extends Error {
  readonly code: string;
  readonly exit: ExitStatus;
  readonly hint: string | undefined;
  readonly details: Record<string, unknown> | undefined;

  constructor(message: string, options: VioErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = 'VioError';
    this.code = options.code ?? codeOf(options.cause) ?? 'FAILED';
    this.exit = options.exit ?? (options.cause === undefined ? Exit.failed : exitOfErrno(codeOf(options.cause)));
    this.hint = options.hint;
    this.details = options.details;
  }
}

/** The reason of every abort of a command's life: the signal's name, or `stopped`. */
export class Interrupted extends Error {
  constructor(by: string) {
    super(by);
    this.name = 'Interrupted';
  }
}

/** Wrong usage: exit 2. */
export const usage = (message: string, hint?: string): VioError => new VioError(message, { code: 'USAGE', exit: Exit.usage, hint });

/** The `code` of a Node or addon error (`ENOENT`), if it has one. */
export function codeOf(err: unknown): string | undefined {
  const code = (err as { code?: unknown } | null | undefined)?.code;
  return typeof code === 'string' ? code : undefined;
}

/** Errno name to exit status: privilege, support and time have their own, all else is a failed operation. */
export function exitOfErrno(code: string | undefined): ExitStatus {
  switch (code) {
    case 'EPERM':
    case 'EACCES':
      return Exit.permission;
    case 'ENOSYS':
    case 'EOPNOTSUPP':
    case 'ENOTSUP':
    case 'EAFNOSUPPORT':
    case 'EPROTONOSUPPORT':
      return Exit.unsupported;
    case 'ETIMEDOUT':
      return Exit.failed;
    default:
      return Exit.failed;
  }
}

/** Codes of getaddrinfo(3) as Node names them. */
const lookupReasons: Readonly<Record<string, string>> = {
  ENOTFOUND: 'no such host',
  EAI_NONAME: 'no such host',
  EAI_NODATA: 'the host has no address',
  EAI_AGAIN: 'the resolver does not answer',
  EAI_FAIL: 'the resolver failed',
};

/** `EBUSY (Device or resource busy)`: errno name and text of a Node or addon error, words for a failed lookup, else its message. */
export function reason(err: unknown): string {
  const code = codeOf(err);
  if (code !== undefined && Object.hasOwn(lookupReasons, code)) return lookupReasons[code]!;
  const text = code === undefined ? undefined : errnoText(code);
  if (text !== undefined) return `${code} (${text})`;
  return err instanceof Error ? err.message : String(err);
}

/** Wraps a system error: `what: ENOENT (No such file or directory)`, exit status from the errno unless given. */
export function wrap(what: string, err: unknown, options: Omit<VioErrorOptions, 'cause'> = {}): VioError {
  if (err instanceof VioError) return err;
  return new VioError(`${what}: ${reason(err)}`, { ...options, cause: err });
}

/**
 * States an invariant at the border of an allocator or a state machine. What breaks it is a defect of this program: the error
 * says which one, and ends the command as an internal error.
 */
export function assert(condition: boolean, invariant: string): asserts condition {
  if (!condition) throw new Error(`broken invariant: ${invariant}`);
}
