import fs from 'node:fs';
import path from 'node:path';
import type { Sysroot } from '../../common/sysroot.js';
import type { UnixSocket } from '../../native/vhost-user.js';
import { stateConnected, typeStream } from '../wire/sockets.js';
import { claimsOf, controlIn, ownServer } from './claims.js';

/** A process that has something to do with a vhost-user socket. */
export interface Holder {
  pid: number;
  command: string;
  exe: string | null;
}

/** A socket that is, or may be, spoken vhost-user on. */
export interface SocketRow {
  /** path of the socket */
  socket: string;
  /** what shows that it speaks vhost-user: the command line of the server or of a user, or none */
  evidence: 'server' | 'user' | 'none';
  /** Device type that a command line names. */
  device: string | null;
  /** processes that listen on it */
  servers: Holder[];
  /** processes that are connected to it */
  users: Holder[];
  /** open connections */
  connections: number;
}

interface Row extends Omit<SocketRow, 'servers' | 'users'> {
  servers: Process[];
  users: Process[];
}

/** A back-end program that is installed and describes itself (vhost-user.json, docs/interop/vhost-user.json). */
export interface Installed {
  /** file of the description */
  file: string;
  /** device type, such as fs or gpu */
  type: string;
  /** path of the program */
  binary: string;
  /** what the program says of itself */
  description: string;
}

const configDirs = ['/etc/qemu/vhost-user', '/usr/share/qemu/vhost-user', '/usr/local/share/qemu/vhost-user'];

/** A holder with the words of its command line. */
interface Process extends Holder {
  argv: string[];
}

function holderOf(sys: Sysroot, pid: number): Process {
  const argv = (sys.attr(`/proc/${pid}/cmdline`) ?? '').replace(/\0+$/, '').split('\0');
  return { pid, argv, command: argv.join(' '), exe: sys.readlink(`/proc/${pid}/exe`) ?? null };
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
  const known = new Map<number, Process>();
  const holdersOf = (inode: number): Process[] =>
    (pids.get(inode) ?? []).map((pid) => {
      const holder = known.get(pid) ?? holderOf(sys, pid);
      known.set(pid, holder);
      return holder;
    });
  const rows = new Map<string, Row>();
  for (const socket of sockets) {
    if (socket.type !== typeStream || socket.name === '') continue;
    const row = rows.get(socket.name) ?? {
      socket: socket.name,
      evidence: 'none',
      device: null,
      servers: [],
      users: [],
      connections: 0,
    };
    rows.set(socket.name, row);
    const add = (list: Process[], inode: number): void => {
      for (const holder of holdersOf(inode)) if (!list.some((h) => h.pid === holder.pid)) list.push(holder);
    };
    add(row.servers, socket.inode);
    if (socket.state === stateConnected) {
      row.connections++;
      if (byInode.has(socket.peer)) add(row.users, socket.peer);
    }
  }
  for (const row of rows.values()) judge(row, sys);
  const plain = ({ pid, command, exe }: Process): Holder => ({ pid, command, exe });
  return [...rows.values()]
    .filter((row) => all || row.evidence !== 'none')
    .sort((a, b) => a.socket.localeCompare(b.socket))
    .map((row) => ({ ...row, servers: row.servers.map(plain), users: row.users.map(plain) }));
}

/** Whether a command line's path is this socket: one of the two may be relative to a directory that is not known. */
function sameSocket(socket: string, path: string): boolean {
  const base = (name: string): string => name.slice(name.lastIndexOf('/') + 1);
  if (socket === path) return true;
  return (!path.startsWith('/') || !socket.startsWith('/')) && base(path) === base(socket);
}

/** Whether a socket is that of a disk of ours: any of the server's sockets but the one for control. */
function servesDisk({ pid, argv }: Process, socket: string, sys: Sysroot): boolean {
  const own = ownServer(argv);
  if (!own) return false;
  let { control } = own;
  if (own.config !== undefined && control === undefined) {
    const file = path.resolve(sys.readlink(`/proc/${pid}/cwd`) ?? '/', own.config);
    const text = sys.attr(file);
    if (text === undefined) return false; // then one of the sockets is for control, and nobody knows which
    control = controlIn(text);
  }
  return control === undefined || !sameSocket(socket, control);
}

/** A socket counts where a command line names it as vhost-user's. Which side listens does not matter. */
function judge(row: Row, sys: Sysroot): void {
  const claims = [...row.servers, ...row.users]
    .flatMap(({ argv, exe }) => claimsOf(argv, exe))
    .filter((c) => sameSocket(row.socket, c.path));
  const server = claims.find((c) => c.role === 'server');
  row.evidence = server ? 'server' : claims.length > 0 ? 'user' : 'none';
  row.device = claims.find((c) => c.device !== null)?.device ?? null;
  if (row.evidence !== 'none' || !row.servers.some((holder) => servesDisk(holder, row.socket, sys))) return;
  row.evidence = 'server';
  row.device = 'blk';
}

/** Back-end programs that packages have described for VMMs and managers. Damaged files are left out. */
export function listInstalled(sys: Sysroot): Installed[] {
  return configDirs.flatMap((dir) =>
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
