import fs from 'node:fs';
import type { Sysroot } from '../../common/sysroot.js';
import type { UnixSocket } from '../../native/vhost-user.js';
import { CONNECTED, STREAM } from '../wire/sockets.js';

/** A process that has something to do with a vhost-user socket. */
export interface Holder {
  pid: number;
  command: string;
  exe: string | null;
}

/** A socket that is, or may be, spoken vhost-user on. */
export interface SocketRow {
  socket: string;
  /** Why it is thought to be vhost-user: the server's or a user's command line says so, or it is a known program's. */
  evidence: 'server' | 'user' | 'none';
  /** Device type that a command line names. */
  device: string | null;
  servers: Holder[];
  users: Holder[];
  connections: number;
}

/** A back-end program that is installed and describes itself (vhost-user.json, docs/interop/vhost-user.json). */
export interface Installed {
  file: string;
  type: string;
  binary: string;
  description: string;
}

const CONFIG_DIRS = ['/etc/qemu/vhost-user', '/usr/share/qemu/vhost-user', '/usr/local/share/qemu/vhost-user'];

/** Programs that serve vhost-user and nothing else on their sockets, or say it on their command line. */
const SERVER = /(^|\/)(virtiofsd|vhost-(user|device)-[\w-]+|rust-vhost-[\w-]+)\b|vhost-user-blk|vhost-user[ -]|--vhost-user|dpdkvhostuser/;
/** A VMM that uses one. */
const USER = /vhost-user-|type=vhost-user|vhost_user=on|--(fs|disk|net|generic-vhost-user)\b.*\bsocket=|--vhost-user/;
const DEVICE = /vhost-user-(?:test-device|device|(\w+))|(virtiofsd)|vhost-device-(\w+)/;

function holderOf(sys: Sysroot, pid: number): Holder {
  const command = (sys.attr(`/proc/${pid}/cmdline`) ?? '').replace(/\0+$/, '').replaceAll('\0', ' ');
  return { pid, command, exe: sys.readlink(`/proc/${pid}/exe`) ?? null };
}

/** Who holds which socket: inode to pids. Other users' processes are left out where /proc hides them. */
function socketHolders(sys: Sysroot): Map<number, number[]> {
  const holders = new Map<number, number[]>();
  for (const name of sys.list('/proc')) {
    if (!/^\d+$/.test(name)) continue;
    for (const fd of sys.list(`/proc/${name}/fd`)) {
      const inode = /^socket:\[(\d+)\]$/.exec(sys.readlink(`/proc/${name}/fd/${fd}`) ?? '')?.[1];
      if (inode === undefined) continue;
      const pids = holders.get(Number(inode)) ?? [];
      if (!pids.includes(Number(name))) pids.push(Number(name));
      holders.set(Number(inode), pids);
    }
  }
  return holders;
}

/**
 * Sockets that vhost-user is spoken on. Never connects to one: connecting can end a back-end.
 * @param sockets of sock_diag, or of parseProcNetUnix @param all also those that nothing points to
 */
export function listSockets(sys: Sysroot, sockets: readonly UnixSocket[], all = false): SocketRow[] {
  const pids = socketHolders(sys);
  const byInode = new Map(sockets.map((s) => [s.inode, s]));
  const known = new Map<number, Holder>();
  const holdersOf = (inode: number): Holder[] =>
    (pids.get(inode) ?? []).map((pid) => {
      const holder = known.get(pid) ?? holderOf(sys, pid);
      known.set(pid, holder);
      return holder;
    });
  const rows = new Map<string, SocketRow>();
  for (const socket of sockets) {
    if (socket.type !== STREAM || socket.name === '') continue;
    const row = rows.get(socket.name) ?? {
      socket: socket.name,
      evidence: 'none',
      device: null,
      servers: [],
      users: [],
      connections: 0,
    };
    rows.set(socket.name, row);
    const add = (list: Holder[], inode: number): void => {
      for (const holder of holdersOf(inode)) if (!list.some((h) => h.pid === holder.pid)) list.push(holder);
    };
    add(row.servers, socket.inode);
    if (socket.state === CONNECTED) {
      row.connections++;
      if (byInode.has(socket.peer)) add(row.users, socket.peer);
    }
  }
  for (const row of rows.values()) judge(row);
  return [...rows.values()].filter((row) => all || row.evidence !== 'none').sort((a, b) => a.socket.localeCompare(b.socket));
}

/** A path counts only where the command line that speaks of vhost-user also names it; a VMM has many sockets. */
function judge(row: SocketRow): void {
  const base = row.socket.slice(row.socket.lastIndexOf('/') + 1);
  const server = row.servers.find((h) => SERVER.test(h.command) && !USER.test(h.command.replace(SERVER, '')) && h.command.includes(base));
  const user = [...row.users, ...row.servers].find((h) => USER.test(h.command) && h.command.includes(row.socket));
  const dedicated = row.servers.find((h) => /(^|\/)(virtiofsd|vhost-device-\w+)$/.test(h.exe ?? ''));
  row.evidence = server || dedicated ? 'server' : user ? 'user' : 'none';
  const match = DEVICE.exec((server ?? dedicated ?? user)?.command ?? '');
  if (row.evidence !== 'none' && match) row.device = match[2] !== undefined ? 'fs' : (match[1] ?? match[3] ?? null);
}

/** Back-end programs that packages have described for VMMs and managers. Damaged files are left out. */
export function listInstalled(sys: Sysroot): Installed[] {
  return CONFIG_DIRS.flatMap((dir) =>
    sys
      .list(dir)
      .filter((name) => name.endsWith('.json'))
      .flatMap((name) => {
        try {
          const { type, binary, description } = JSON.parse(fs.readFileSync(sys.path(`${dir}/${name}`), 'utf8')) as Record<string, unknown>;
          return [{ file: `${dir}/${name}`, type: String(type), binary: String(binary), description: String(description ?? '') }];
        } catch {
          return [];
        }
      }),
  );
}
