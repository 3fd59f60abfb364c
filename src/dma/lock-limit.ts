import { Exit, VioError } from '../common/errors.js';
import { exact, formatSize } from '../common/units.js';
import { native } from '../native/index.js';

/** RLIMIT_MEMLOCK and whether it binds us (CAP_IPC_LOCK, capability 14, lifts it). */
export interface LockLimit {
  bytes: number;
  exempt: boolean;
}

/** What raises the limit. */
export const lockHint = 'ulimit -l, LimitMEMLOCK= of a systemd unit; each mapping counts in full, hugepages too';
export const lockText = (bytes: number): string => (Number.isFinite(bytes) ? formatSize(bytes) : 'unlimited');

/** @param wanted bytes that will be locked in all @throws VioError MEMLOCK (6) */
export function requireLockable(wanted: bigint, limit: LockLimit): void {
  if (limit.exempt || wanted <= limit.bytes) return;
  throw new VioError(`${formatSize(wanted)} would be locked, the limit is ${lockText(limit.bytes)}`, {
    code: 'MEMLOCK',
    exit: Exit.permission,
    hint: lockHint,
    details: { wanted: exact(wanted), limit: limit.bytes },
  });
}

/** The limit of this process. @param status text of /proc/self/status */
export function lockLimit(status: string): LockLimit {
  const caps = /^CapEff:\s*([0-9a-f]+)$/m.exec(status)?.[1];
  return { bytes: native().vfio.memlock().soft, exempt: caps !== undefined && (BigInt(`0x${caps}`) >> 14n) % 2n === 1n };
}
