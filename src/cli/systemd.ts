import { native } from '../native/index.js';

/** Sends a state to the service manager (sd_notify(3)): `READY=1`, `STATUS=…`, `STOPPING=1`. Nothing where none listens. */
export function notify(env: NodeJS.ProcessEnv, ...lines: string[]): void {
  const socket = env.NOTIFY_SOCKET;
  if (socket) native().common.sdNotify(socket, lines.join('\n'));
}

/** A descriptor handed over by socket activation or by a parent: its number and its name. */
export interface PassedFd {
  fd: number;
  name: string;
}

/** The descriptors of LISTEN_FDS / LISTEN_FDNAMES (sd_listen_fds(3)), if they are meant for this process. */
export function listenFds(env: NodeJS.ProcessEnv, pid: number): PassedFd[] {
  if (env.LISTEN_PID !== String(pid)) return [];
  const count = Number(env.LISTEN_FDS);
  if (!Number.isInteger(count) || count < 0 || count > 1024) return [];
  const names = (env.LISTEN_FDNAMES ?? '').split(':');
  return Array.from({ length: count }, (_, i) => ({ fd: 3 + i, name: names[i] || 'unknown' }));
}
