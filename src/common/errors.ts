/** Exit statuses of every command (the contract's table, in vioctl(1) as EXIT STATUS). */
export const Exit = {
  ok: 0,
  failed: 1,
  usage: 2,
  refused: 3,
  differs: 4,
  damaged: 5,
  permission: 6,
  unsupported: 7,
  notRestored: 8,
  timeout: 124,
} as const;
export type ExitStatus = (typeof Exit)[keyof typeof Exit];

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

const errnoTexts: Record<string, string> = {
  EPERM: 'Operation not permitted',
  ENOENT: 'No such file or directory',
  EIO: 'Input/output error',
  EBADF: 'Bad file descriptor',
  EAGAIN: 'Resource temporarily unavailable',
  ENOMEM: 'Cannot allocate memory',
  EACCES: 'Permission denied',
  EFAULT: 'Bad address',
  EBUSY: 'Device or resource busy',
  EEXIST: 'File exists',
  ENODEV: 'No such device',
  ENOTDIR: 'Not a directory',
  EISDIR: 'Is a directory',
  EINVAL: 'Invalid argument',
  EMFILE: 'Too many open files',
  ENFILE: 'Too many open files in system',
  ENOTTY: 'Inappropriate ioctl for device',
  ENOSPC: 'No space left on device',
  EROFS: 'Read-only file system',
  EPIPE: 'Broken pipe',
  ENOSYS: 'Function not implemented',
  EOPNOTSUPP: 'Operation not supported',
  EADDRINUSE: 'Address already in use',
  EADDRNOTAVAIL: 'Cannot assign requested address',
  ECONNREFUSED: 'Connection refused',
  ECONNRESET: 'Connection reset by peer',
  ETIMEDOUT: 'Connection timed out',
  ENXIO: 'No such device or address',
  ELOOP: 'Too many levels of symbolic links',
  ENAMETOOLONG: 'File name too long',
  EFBIG: 'File too large',
  EDQUOT: 'Disk quota exceeded',
  ESTALE: 'Stale file handle',
  ECANCELED: 'Operation canceled',
  EINTR: 'Interrupted system call',
  EBADMSG: 'Bad message',
  EILSEQ: 'Invalid or incomplete multibyte or wide character',
  ETXTBSY: 'Text file busy',
  EOVERFLOW: 'Value too large for defined data type',
  ERANGE: 'Numerical result out of range',
  ESRCH: 'No such process',
  ENOTSOCK: 'Socket operation on non-socket',
  ENOTCONN: 'Transport endpoint is not connected',
  EHOSTUNREACH: 'No route to host',
  ENETUNREACH: 'Network is unreachable',
  EPROTO: 'Protocol error',
  EXDEV: 'Invalid cross-device link',
  E2BIG: 'Argument list too long',
  ENOEXEC: 'Exec format error',
  ENOTEMPTY: 'Directory not empty',
};

/** `EBUSY (Device or resource busy)`: errno name and text of a Node or addon error, else its message. */
export function reason(err: unknown): string {
  const code = codeOf(err);
  if (code !== undefined && errnoTexts[code] !== undefined) return `${code} (${errnoTexts[code]})`;
  return err instanceof Error ? err.message : String(err);
}

/** Wraps a system error: `what: ENOENT (No such file or directory)`, exit status from the errno unless given. */
export function wrap(what: string, err: unknown, options: Omit<VioErrorOptions, 'cause'> = {}): VioError {
  if (err instanceof VioError) return err;
  return new VioError(`${what}: ${reason(err)}`, { ...options, cause: err });
}
