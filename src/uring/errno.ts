import { constants } from 'node:os';

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
