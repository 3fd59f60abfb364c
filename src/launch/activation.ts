import fs from 'node:fs';
import { usage } from '../common/errors.js';
import { printable } from '../common/escape.js';
import { native } from '../native/index.js';
import { OwnedFd } from '../native/owned-fd.js';
import { firstFd } from './handover.js';

/** A listening UNIX socket that the service manager has opened. */
export interface Activated {
  fd: OwnedFd;
  /** Where it listens. */
  path: string;
}

/** Sockets that one process gets at most. */
const maxSockets = 1024;

/**
 * Takes the listening UNIX sockets of LISTEN_FDS (sd_listen_fds(3)), if they are for this process, and the variables with them.
 * They are non-blocking and close-on-exec from now on. @throws usage error for another kind of descriptor
 */
export function activatedSockets(env: NodeJS.ProcessEnv): Activated[] {
  const { LISTEN_PID, LISTEN_FDS } = env;
  if (LISTEN_PID !== String(process.pid) || LISTEN_FDS === undefined) return [];
  for (const name of ['LISTEN_PID', 'LISTEN_FDS', 'LISTEN_FDNAMES']) delete env[name]; // not for what is started from here
  const count = /^\d{1,4}$/.test(LISTEN_FDS) ? Number(LISTEN_FDS) : Number.NaN;
  if (!(count <= maxSockets)) throw usage(`LISTEN_FDS=${printable(LISTEN_FDS)}: must be a number up to ${maxSockets}`);
  const { vhostUser, migration } = native();
  return Array.from({ length: count }, (_, i) => {
    const given = firstFd + i;
    const path = vhostUser.listenerPath(given);
    if (path === undefined || path === '') throw usage(`descriptor ${given} of LISTEN_FDS is no UNIX socket that listens at a path`);
    const fd = new OwnedFd(vhostUser.dup(given));
    fs.closeSync(given);
    migration.setNonblocking(fd.fd);
    return { fd, path };
  });
}
