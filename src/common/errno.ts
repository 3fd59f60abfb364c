/** Names, numbers and texts of Linux errnos. */
import { constants } from 'node:os';

const texts: Readonly<Record<string, string>> = {
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

/** What an errno means, in the words of strerror(3); undefined for names that are not in the table. */
export const errnoText = (name: string): string | undefined => (Object.hasOwn(texts, name) ? texts[name] : undefined);

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

/** The number of an errno by its name; undefined for a name that is none. */
export const errnoNumber = (name: string): number | undefined =>
  Object.hasOwn(constants.errno, name) ? constants.errno[name as keyof typeof constants.errno] : undefined;
