import { execFileSync } from 'node:child_process';
import { usage } from '../errors.js';
import { printable } from '../escape.js';
import type { Sysroot } from '../sysroot.js';

/** Fields of a line of passwd or group: from the files, else from getent (LDAP, systemd-homed). */
function lookup(root: Sysroot, database: 'passwd' | 'group', name: string): string[] | undefined {
  const key = /^\d+$/.test(name) ? 2 : 0;
  const local = (root.attr(`/etc/${database}`) ?? '').split('\n').map((line) => line.split(':'));
  const found = local.find((fields) => fields[key] === name);
  if (found || root.root !== '/') return found;
  try {
    return execFileSync('getent', [database, name], { encoding: 'utf8', timeout: 5000, stdio: ['ignore', 'pipe', 'ignore'] })
      .trim()
      .split(':');
  } catch {
    return undefined; // getent ends with 2 for a name that nobody knows; a missing getent knows nobody either
  }
}

/** A user by name or number, and the user's own group (0 if unknown). @throws usage error */
export function findUser(root: Sysroot, user: string): { uid: number; gid: number } {
  const found = lookup(root, 'passwd', user);
  const uid = Number(found?.[2] ?? (/^\d{1,9}$/.test(user) ? user : Number.NaN));
  if (Number.isNaN(uid)) throw usage(`no such user: "${printable(user)}"`);
  return { uid, gid: Number(found?.[3] ?? 0) };
}

/** A group by name or number. @throws usage error */
export function findGroup(root: Sysroot, group: string): number {
  const gid = Number(lookup(root, 'group', group)?.[2] ?? (/^\d{1,9}$/.test(group) ? group : Number.NaN));
  if (Number.isNaN(gid)) throw usage(`no such group: "${printable(group)}"`);
  return gid;
}
