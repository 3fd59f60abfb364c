import { errnoName, errnoNumber } from '../../common/errno.js';

/** Errno names that handlers answer with. */
export type Errno =
  | 'EPERM'
  | 'ENOENT'
  | 'EIO'
  | 'EBADF'
  | 'EBUSY'
  | 'EAGAIN'
  | 'ENOMEM'
  | 'EACCES'
  | 'EFAULT'
  | 'EEXIST'
  | 'ENODEV'
  | 'EINVAL'
  | 'ERANGE'
  | 'ENXIO'
  | 'EOVERFLOW'
  | 'ENOTSUP'
  | 'ENOSPC';

/** The u64 of an acknowledgement: 0, or the negative errno as rust-vmm sends it (the specification says "non-zero"). */
export const statusOf = (errno: Errno | undefined): bigint =>
  errno === undefined ? 0n : BigInt.asUintN(64, -BigInt(errnoNumber(errno) ?? 1));

/** An acknowledgement for people: `ok`, `EINVAL`, `error 1`. */
export function statusText(status: bigint): string {
  if (status === 0n) return 'ok';
  const negative = BigInt.asIntN(64, status);
  if (negative < 0n && negative >= -4095n) return errnoName(Number(negative));
  return `error ${status}`;
}

/** An errno name of a thrown system error; EIO for anything else. */
export function errnoOf(err: unknown): Errno {
  const code = (err as { code?: unknown } | undefined)?.code;
  return typeof code === 'string' && errnoNumber(code) !== undefined ? (code as Errno) : 'EIO';
}
