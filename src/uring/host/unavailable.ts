import os from 'node:os';
import { errnoError } from '../../common/errno.js';
import { codeOf, Exit, VioError } from '../../common/errors.js';
import { Sysroot } from '../../common/sysroot.js';
import { native } from '../../native/index.js';

/** Why io_uring cannot be used here, in one sentence, and what would help. */
export interface Cause {
  /** SYSCTL, SECCOMP, KERNEL, MEMLOCK, NOFILE, NPROC or the errno name. */
  kind: string;
  why: string;
  hint: string | undefined;
}

/** `5.15.0-…` as [5, 15]; [0, 0] where it does not start with a version. */
export function kernelVersion(release: string): [number, number] {
  const match = /^(\d+)\.(\d+)/.exec(release);
  return match ? [Number(match[1]), Number(match[2])] : [0, 0];
}

/** Whether a release is of this version of the kernel, or of a later one. */
export function kernelAtLeast(release: string, major: number, minor: number): boolean {
  const [ours, behind] = kernelVersion(release);
  return ours > major || (ours === major && behind >= minor);
}

/** Soft and hard limit of a line of /proc/self/limits (`Max locked memory`), in its unit; Infinity for unlimited. */
export function limitOf(sysroot: Sysroot, name: string): { soft: number; hard: number } | undefined {
  const line = sysroot
    .attr('/proc/self/limits')
    ?.split('\n')
    .find((l) => l.startsWith(`${name} `));
  const words = line?.slice(name.length).trim().split(/\s+/);
  if (!words || words.length < 2) return undefined;
  const value = (word: string): number => (word === 'unlimited' ? Number.POSITIVE_INFINITY : Number(word));
  return { soft: value(words[0]!), hard: value(words[1]!) };
}

/**
 * Explains an errno of io_uring_setup(2) or io_uring_enter(2): sysctl, seccomp, a kernel without io_uring, or a limit.
 * @param code errno name, as `code` of the error; undefined if there is none
 * @param sysroot where /proc is read; this machine's unless given
 * @param release kernel release, as uname prints it
 */
export function explain(code?: string, sysroot: Sysroot = new Sysroot(), release: string = os.release()): Cause {
  const disabled = sysroot.attr('/proc/sys/kernel/io_uring_disabled');
  const filtered = /^Seccomp:\s*2/m.test(sysroot.attr('/proc/self/status') ?? '');
  switch (code) {
    case 'EPERM':
    case 'EACCES': {
      if (disabled === '2')
        return {
          kind: 'SYSCTL',
          why: 'the sysctl kernel.io_uring_disabled is 2: off for every process',
          hint: 'sysctl -w kernel.io_uring_disabled=0',
        };
      if (disabled === '1') {
        const group = sysroot.attr('/proc/sys/kernel/io_uring_group') ?? '-1';
        return {
          kind: 'SYSCTL',
          why: `the sysctl kernel.io_uring_disabled is 1: only for CAP_SYS_ADMIN and the group kernel.io_uring_group (${group === '-1' ? 'none' : `gid ${group}`})`,
          hint: group === '-1' ? 'sysctl -w kernel.io_uring_group=GID, or kernel.io_uring_disabled=0' : `run with group ${group}`,
        };
      }
      return filtered
        ? {
            kind: 'SECCOMP',
            why: 'a seccomp filter blocks it (container engines do by default)',
            hint: 'allow io_uring_setup, io_uring_enter and io_uring_register in the seccomp profile of the container',
          }
        : { kind: code, why: 'a security module or policy refuses it', hint: undefined };
    }
    case 'ENOSYS': {
      if (!kernelAtLeast(release, 5, 1))
        return { kind: 'KERNEL', why: `kernel ${release} is older than io_uring (5.1)`, hint: 'a newer kernel' };
      return filtered
        ? {
            kind: 'SECCOMP',
            why: `a seccomp filter hides it (kernel ${release} is new enough)`,
            hint: 'allow io_uring_setup, io_uring_enter and io_uring_register in the seccomp profile of the container',
          }
        : { kind: 'KERNEL', why: `kernel ${release} was built without CONFIG_IO_URING`, hint: undefined };
    }
    case 'ENOMEM': {
      const limit = limitOf(sysroot, 'Max locked memory');
      return {
        kind: 'MEMLOCK',
        why: `locked memory is used up${limit ? ` (limit ${limit.soft} bytes)` : ''}`,
        hint: 'raise it: ulimit -l, or LimitMEMLOCK= of the service',
      };
    }
    case 'EMFILE':
      return { kind: 'NOFILE', why: 'no free file descriptor', hint: 'ulimit -n' };
    case 'EAGAIN':
      return {
        kind: 'NPROC',
        why: 'no thread can be started: a limit of processes is reached',
        hint: 'ulimit -u, or pids.max of its cgroup',
      };
    default:
      return { kind: code ?? 'UNKNOWN', why: code ?? 'unknown error', hint: undefined };
  }
}

/** Looks whether a ring opens, for a command that was told to use io_uring. @throws the error of unavailable() */
export function requireRings(sysroot: Sysroot): void {
  const result = native().uring.setup(1, 0, 0);
  if (result < 0) throw unavailable(errnoError(result, 'io_uring_setup'), sysroot);
}

/** The error of a command that cannot do without io_uring: exit 7 (1 for limits). */
export function unavailable(err: unknown, sysroot: Sysroot): VioError {
  const code = codeOf(err);
  const { kind, why, hint } = explain(code, sysroot);
  return new VioError(`io_uring is not available: ${why}`, {
    code: code ?? 'UNAVAILABLE',
    exit: ['MEMLOCK', 'NOFILE', 'NPROC'].includes(kind) ? Exit.failed : Exit.unsupported,
    hint,
    details: { kind },
    cause: err,
  });
}
