import { Exit, VioError } from '../../common/errors.js';

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
