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

/** A listening TCP socket that the service manager has opened, or has kept from an earlier run. */
export interface ActivatedListener {
  fd: OwnedFd;
  /** FileDescriptorName= of its socket unit, or its name in the manager's store. */
  name: string;
  /** Numeric, with its scope. */
  address: string;
  port: number;
}

/**
 * How many descriptors came for this process, and their names. The variables are gone afterwards: they are not for what is started
 * from here. @throws usage error
 */
function takeVariables(env: NodeJS.ProcessEnv): { count: number; names: string[] } {
  const { LISTEN_PID, LISTEN_FDS, LISTEN_FDNAMES = '' } = env;
  if (LISTEN_PID !== String(process.pid) || LISTEN_FDS === undefined) return { count: 0, names: [] };
  for (const name of ['LISTEN_PID', 'LISTEN_FDS', 'LISTEN_FDNAMES']) delete env[name];
  const count = /^\d{1,4}$/.test(LISTEN_FDS) ? Number(LISTEN_FDS) : Number.NaN;
  if (!(count <= maxSockets)) throw usage(`LISTEN_FDS=${printable(LISTEN_FDS)}: must be a number up to ${maxSockets}`);
  return { count, names: LISTEN_FDNAMES.split(':') };
}

/**
 * Takes the listening TCP sockets of LISTEN_FDS, if they are for this process, and the variables with them. They are non-blocking and
 * close-on-exec from now on. @throws usage error for another kind of descriptor
 */
export function activatedListeners(env: NodeJS.ProcessEnv): ActivatedListener[] {
  const { count, names } = takeVariables(env);
  return Array.from({ length: count }, (_, i) => {
    const given = firstFd + i;
    const place = native().common.tcpListener(given);
    if (!place) throw usage(`descriptor ${given} of LISTEN_FDS is no TCP socket that listens`);
    return { fd: new OwnedFd(given), name: names[i] || 'unknown', address: place.address, port: place.port };
  });
}

/**
 * Takes the listening UNIX sockets of LISTEN_FDS (sd_listen_fds(3)), if they are for this process, and the variables with them.
 * They are non-blocking and close-on-exec from now on. @throws usage error for another kind of descriptor
 */
export function activatedSockets(env: NodeJS.ProcessEnv): Activated[] {
  const { count } = takeVariables(env);
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
