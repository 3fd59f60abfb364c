import path from 'node:path';
import { defaultSpin, type Engine } from '../../common/engines.js';
import { usage } from '../../common/errors.js';
import { printable } from '../../common/escape.js';
import { findGroup, findUser } from '../../common/host/ids.js';
import type { Sysroot } from '../../common/sysroot.js';
import { readConfigText } from '../../common/text/document.js';
import type { Activated } from '../../launch/activation.js';
import type { SourceOptions } from '../../storage/source.js';
import type { SocketAccess } from '../wire/listener.js';
import { lasting, needsRestart } from './config/live.js';
import { parseBlkConfig } from './config/read.js';
import type { BlkServing, DiskOptions, WantedDisks } from './model.js';
import { checkSerial, defaultQueues, isDiskWord, parseDisk, parseDiskSource, parseMode } from './words.js';

/** Options of `vhost-user serve blk` by their names. */
export interface ServeFlags {
  config?: string | undefined;
  'allow-source'?: string[] | undefined;
  engine: Engine;
  spin?: number | undefined;
  queues?: number | undefined;
  'state-dir'?: string | undefined;
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
function accessOf(flags: ServeFlags, root: Sysroot): SocketAccess {
  const { 'socket-mode': mode, 'socket-owner': owner, 'socket-group': group } = flags;
  return {
    ...(mode !== undefined && { mode: parseMode(mode) }),
    ...(owner !== undefined && { uid: findUser(root, owner).uid }),
    ...(group !== undefined && { gid: findGroup(root, group) }),
  };
}

/** What a command line asks to serve. */
export type CommandLine = Pick<
  BlkServing,
  'disks' | 'queues' | 'access' | 'control' | 'stateDir' | 'engine' | 'spinMicroseconds' | 'sources'
>;

/** Options that say what is served: with --config, the file does. */
const ofDisks = [
  ...['file', 'socket-path', 'fd', 'serial', 'queues', 'block-size', 'read-only', 'force'],
  ...['socket-mode', 'socket-owner', 'socket-group', 'allow-source'],
] as const satisfies (keyof ServeFlags)[] as readonly (keyof ServeFlags)[];

/**
 * What a command line asks to serve, by itself or by its --config.
 * @param sockets that the service manager has opened: each is used for the disk with its path
 * @throws usage error
 */
export async function commandLine(
  words: readonly string[],
  flags: ServeFlags,
  sockets: readonly Activated[],
  root: Sysroot,
): Promise<CommandLine> {
  if (flags.config !== undefined) return configured(flags.config, words, flags, sockets);
  return {
    disks: adopt(named(words, flags, sockets.length === 1 ? sockets[0]!.path : undefined), sockets),
    queues: flags.queues ?? defaultQueues,
    access: accessOf(flags, root),
    control: flags.control,
    stateDir: flags['state-dir'],
    engine: flags.engine,
    spinMicroseconds: flags.spin ?? defaultSpin,
    sources: flags['allow-source'],
  };
}

async function configured(file: string, words: readonly string[], flags: ServeFlags, sockets: readonly Activated[]): Promise<CommandLine> {
  if (words.length > 0) throw usage('disks on the command line and --config exclude each other');
  const lost = ofDisks.find((name) => flags[name] !== undefined);
  if (lost !== undefined) throw usage(`--${lost} and --config exclude each other`, 'the file has a key for it: man 5 vioctl-vhost-user');
  const { disks, ...config } = await parseBlkConfig(readConfigText(file));
  const later = flags.incoming ? { later: true } : {};
  return {
    disks: adopt(
      disks.map((disk) => ({ ...disk, source: { ...disk.source, ...later } })),
      sockets,
    ),
    queues: defaultQueues,
    control: flags.control ?? config.control,
    stateDir: flags['state-dir'] ?? config.stateDir,
    engine: flags.engine === 'auto' ? (config.engine ?? 'auto') : flags.engine,
    spinMicroseconds: flags.spin ?? config.spinMicroseconds ?? defaultSpin,
    sources: config.sources,
  };
}

/**
 * The function that reads a configuration file again and serves what it says now. It never fails: the log is told.
 * @param file of --config @param state of the service manager: RELOADING, then READY
 */
export async function reloader(
  file: string,
  reload: (wanted: WantedDisks) => Promise<string[]>,
  { log, state }: { log: (text: string) => void; state: (text: string) => void },
): Promise<() => Promise<void>> {
  const name = file === '-' ? 'stdin' : printable(file);
  if (file === '-') return async () => log('SIGHUP: stdin cannot be read again');
  const first = await parseBlkConfig(readConfigText(file));
  return async () => {
    state('RELOADING=1');
    try {
      const next = await parseBlkConfig(readConfigText(file));
      const fixed = lasting.find((key) => next[key] !== first[key]);
      if (fixed) throw needsRestart(fixed);
      const done = await reload(next);
      for (const text of done) log(`${name}: ${printable(text)}`);
      if (done.length === 0) log(`${name}: nothing has changed`);
    } catch (err) {
      log(`${name} is not taken over: ${(err as Error).message}`);
    } finally {
      state('READY=1');
    }
  };
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
    const sockets = disks.map((disk) => path.resolve(disk.socket));
    const twice = disks.find((_, i) => sockets.indexOf(sockets[i]!) < i);
    if (twice) throw usage(`socket ${printable(twice.socket)} is given twice`);
    if (serial !== undefined && disks.length > 1) throw usage('--serial: there are several disks; append ,serial= to a source');
    return disks.map((disk) => ({ ...common, ...disk }));
  }
  const socket = words[0] ?? flags['socket-path'] ?? (fd === undefined && file !== undefined ? activated : undefined);
  if (words.length > 1) throw usage('several disks are written SOCKET=SOURCE each');
  if (flags.control !== undefined && socket === undefined && fd === undefined && file === undefined) return [];
  if ((socket === undefined) === (fd === undefined)) throw usage('one of SOCKET, --socket-path and --fd is needed');
  if (file === undefined) throw usage('--file is needed, or SOCKET=SOURCE', 'vioctl vhost-user serve blk SOCKET=disk.img');
  return [{ socket, fd, ...common, ...parseDiskSource(file, defaults) }];
}

/** Gives each disk the socket that the service manager has opened for it. @throws usage error for one that no disk is served at */
function adopt(disks: readonly DiskOptions[], sockets: readonly Activated[]): DiskOptions[] {
  const all = [...disks];
  for (const { fd, path: at } of sockets) {
    const index = all.findIndex(({ socket }) => socket !== undefined && path.resolve(socket) === path.resolve(at));
    if (index < 0) throw usage(`the service manager passes ${printable(at)}, but no disk is served there`);
    all[index] = { ...all[index]!, listener: fd };
  }
  return all;
}
