import { codeOf } from '../../common/errors.js';
import type { Sysroot } from '../../common/sysroot.js';
import { native } from '../../native/index.js';
import type { UnixSocket } from '../../native/vhost-user.js';

/** Values of UnixSocket's `state` and `type`. */
export const stateListening = 10;
export const stateConnected = 1;
export const typeStream = 1;

/** /proc/net/unix: what there is without sock_diag; it does not tell peers. */
export function parseProcNetUnix(text: string): UnixSocket[] {
  return text
    .split('\n')
    .slice(1)
    .flatMap((line) => {
      const match = /^[0-9a-f]+: [0-9A-F]+ [0-9A-F]+ ([0-9A-F]+) (\d+) (\d+)\s+(\d+)(?: (.*))?$/.exec(line);
      if (!match) return [];
      const listening = (Number.parseInt(match[1]!, 16) & 0x10000) !== 0;
      return [
        {
          inode: Number(match[4]),
          peer: 0,
          fileInode: 0,
          type: Number(match[2]),
          state: listening ? stateListening : match[3] === '03' ? stateConnected : 7,
          name: match[5] ?? '',
        },
      ];
    });
}

/** The kernel's UNIX sockets: from sock_diag, which tells peers; from /proc/net/unix where it is not there. */
export function kernelSockets(sys: Sysroot): UnixSocket[] {
  if (sys.root === '/') {
    try {
      return native().vhostUser.unixSockets();
    } catch (err) {
      // ENOENT: the module unix_diag cannot be loaded; the others: a sandbox without NETLINK_SOCK_DIAG
      if (!['ENOENT', 'EPERM', 'EACCES', 'EPROTONOSUPPORT', 'EAFNOSUPPORT', 'EOPNOTSUPP', 'EINVAL'].includes(codeOf(err) ?? '')) throw err;
    }
  }
  return parseProcNetUnix(sys.attr('/proc/net/unix') ?? '');
}
