import path from 'node:path';
import { usage } from '../../common/errors.js';
import { printable } from '../../common/escape.js';
import { findGroup, findUser } from '../../common/host/ids.js';
import type { Sysroot } from '../../common/sysroot.js';
import type { Activated } from '../../launch/activation.js';
import type { SourceOptions } from '../../storage/source.js';
import type { SocketAccess } from '../wire/listener.js';
import type { DiskOptions } from './model.js';
import { checkSerial, isDiskWord, parseDisk, parseDiskSource, parseMode } from './words.js';

/** Options of `vhost-user serve blk` by their names. */
export interface ServeFlags {
  file?: string | undefined;
  'socket-path'?: string | undefined;
  fd?: number | undefined;
  serial?: string | undefined;
  control?: string | undefined;
  'block-size'?: number | undefined;
  'read-only'?: boolean | undefined;
  force?: boolean | undefined;
  incoming?: boolean | undefined;
  'socket-mode'?: string | undefined;
  'socket-owner'?: string | undefined;
  'socket-group'?: string | undefined;
}

/** Mode, owner and group of the sockets. @throws usage error */
export function accessOf(flags: ServeFlags, root: Sysroot): SocketAccess {
  const { 'socket-mode': mode, 'socket-owner': owner, 'socket-group': group } = flags;
  return {
    ...(mode !== undefined && { mode: parseMode(mode) }),
    ...(owner !== undefined && { uid: findUser(root, owner).uid }),
    ...(group !== undefined && { gid: findGroup(root, group) }),
  };
}

/**
 * The disks of a command line: one of --file, several SOCKET=SOURCE, or none where ctl can add them.
 * @param sockets that the service manager has opened: each is used for the disk with its path
 * @throws usage error
 */
export function commandLineDisks(words: readonly string[], flags: ServeFlags, sockets: readonly Activated[]): DiskOptions[] {
  return adopt(named(words, flags, sockets.length === 1 ? sockets[0]!.path : undefined), sockets);
}

function named(words: readonly string[], flags: ServeFlags, activated: string | undefined): DiskOptions[] {
  const { file, fd, serial } = flags;
  const common = serial === undefined ? {} : { serial: checkSerial(serial) };
  const defaults: Partial<SourceOptions> = {
    ...(flags['block-size'] !== undefined && { blockSize: flags['block-size'] }),
    ...(flags['read-only'] && { readonly: true }),
    ...(flags.force && { force: true }),
    ...(flags.incoming && { later: true }),
  };
  if (file === undefined && fd === undefined && words.length > 0 && words.every(isDiskWord)) {
    const disks = words.map((word) => parseDisk(word, defaults));
    if (new Set(disks.map((disk) => path.resolve(disk.socket))).size < disks.length) throw usage('a socket is given twice');
    if (serial !== undefined && disks.length > 1) throw usage('--serial: there are several disks; append ,serial= to a source');
    return disks.map((disk) => ({ ...common, ...disk }));
  }
  const socket = words[0] ?? flags['socket-path'] ?? (fd === undefined && file !== undefined ? activated : undefined);
  if (words.length > 1) throw usage('several disks are written SOCKET=SOURCE each');
  if (flags.control !== undefined && socket === undefined && fd === undefined && file === undefined) return [];
  if ((socket === undefined) === (fd === undefined)) throw usage('one of SOCKET, --socket-path and --fd is needed');
  if (file === undefined) throw usage('--file is needed, or SOCKET=SOURCE');
  return [{ socket, fd, ...common, ...parseDiskSource(file, defaults) }];
}

/** Gives each disk the socket that the service manager has opened for it. @throws usage error for one that no disk is served at */
export function adopt(disks: readonly DiskOptions[], sockets: readonly Activated[]): DiskOptions[] {
  const all = [...disks];
  for (const { fd, path: at } of sockets) {
    const index = all.findIndex(({ socket }) => socket !== undefined && path.resolve(socket) === path.resolve(at));
    if (index < 0) throw usage(`the service manager passes ${printable(at)}, but no disk is served there`);
    all[index] = { ...all[index]!, listener: fd };
  }
  return all;
}
