import { constants } from 'node:os';
import { Exit, VioError } from '../../common/errors.js';

/** Linux errnos that Node has no name for (asm-generic/errno.h). */
const more: Record<number, string> = {
  15: 'ENOTBLK',
  77: 'EBADFD',
  108: 'ESHUTDOWN',
  121: 'EREMOTEIO',
  123: 'ENOMEDIUM',
  133: 'EHWPOISON',
};
const names = new Map<number, string>([
  ...Object.entries(more).map(([value, name]) => [Number(value), name] as const),
  ...Object.entries(constants.errno).map(([name, value]) => [value, name] as const),
  [11, 'EAGAIN'], // EWOULDBLOCK and ENOTSUP are second names of the same numbers
  [95, 'EOPNOTSUPP'],
]);

/** `EBADF` for the result -9 (or 9); `E200` for a number without a name. */
export const errnoName = (result: number): string => names.get(Math.abs(result)) ?? `E${Math.abs(result)}`;

/** The errno of a negative result as an error like Node's own: `ENOENT`, errno, syscall. */
export function errnoError(result: number, call: string): NodeJS.ErrnoException {
  const code = errnoName(result);
  return Object.assign(new Error(`${code}: ${call}`), { code, errno: result, syscall: call });
}

/** A ring that the kernel does not let in, or that takes no more. A seccomp filter may allow to open rings and forbid this. */
export class EnterError extends VioError {
  /** @param code errno name @param why in words, if it is not the kernel's refusal */
  constructor(code: string, why = 'io_uring_enter') {
    const denied = ['EPERM', 'EACCES', 'ENOSYS'].includes(code);
    super(`${why}: ${code}`, {
      code,
      exit: denied ? Exit.unsupported : Exit.failed,
      ...(denied && { hint: 'does a seccomp filter allow io_uring_setup and not io_uring_enter? --engine sync does without' }),
    });
  }
}
