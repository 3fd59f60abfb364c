import { native } from '../native/index.js';

/** Sends a state to the service manager (sd_notify(3)): `READY=1`, `STATUS=…`, `STOPPING=1`. Nothing where none listens. */
export function notify(env: NodeJS.ProcessEnv, ...lines: string[]): void {
  const socket = env.NOTIFY_SOCKET;
  if (socket) native().common.sdNotify(socket, lines.join('\n'));
}
