/** A running server as a configuration: what `vhost-user ctl save` writes, and what one that is loaded may change. */

import path from 'node:path';
import { defaultSpin } from '../../../common/engines.js';
import { Exit, VioError } from '../../../common/errors.js';
import { native } from '../../../native/index.js';
import { sourceEntry } from '../../../storage/config/checks.js';
import { checkPatterns } from '../../../storage/config/sources.js';
import { withoutOff } from '../../../storage/source.js';
import type { BlkConfig, BlkServing, ControlledDisk } from '../model.js';
import type { BlkConfigFile, DiskEntry } from './description.js';

/** What a server was started with, and its patterns of sources as they are now. */
type Settings = Pick<BlkServing, 'control' | 'stateDir' | 'engine' | 'spinMicroseconds' | 'sources'>;

/** Keys that a running server cannot change. */
export const lasting = ['control', 'stateDir', 'engine', 'spinMicroseconds'] as const;

export const needsRestart = (key: string): VioError =>
  new VioError(`another ${key} needs a restart`, { code: 'RESTART', exit: Exit.refused });

function diskEntry({ options, source: { store } }: ControlledDisk, socket: string): DiskEntry {
  const { serial, queues, mode, uid, gid, source } = options;
  const { iops, bps } = native().storage.limits(store);
  return {
    socket: path.resolve(socket),
    ...sourceEntry({ ...withoutOff(source), iops, bps }),
    ...(serial !== undefined && { serial }),
    ...(queues !== undefined && { queues }),
    ...(mode !== undefined && { socketMode: mode.toString(8).padStart(4, '0') }),
    ...(uid !== undefined && { socketOwner: String(uid) }),
    ...(gid !== undefined && { socketGroup: String(gid) }),
  };
}

/** What is served now, as a file that --config reads. An inherited connection can be in no file. */
export function fileOf(
  disks: readonly ControlledDisk[],
  { control, stateDir, engine, spinMicroseconds, sources }: Settings,
): BlkConfigFile {
  return {
    ...(control !== undefined && { control: path.resolve(control) }),
    ...(stateDir !== undefined && { stateDir: path.resolve(stateDir) }),
    ...(engine !== 'auto' && { engine }),
    ...(spinMicroseconds !== defaultSpin && { spinMicroseconds }),
    ...(sources && { sources: [...sources] }),
    disks: disks.flatMap((disk) => (disk.socket === undefined ? [] : [diskEntry(disk, disk.socket)])),
  };
}

/**
 * A configuration that comes over the control socket may leave out what cannot change, but not say otherwise.
 * @throws VioError (3)
 */
export function checkForeign(wanted: BlkConfig, settings: Settings): void {
  const { control, stateDir, sources } = fileOf([], settings);
  const { engine, spinMicroseconds } = settings;
  const now = { control, stateDir, engine, spinMicroseconds };
  const other = lasting.find((key) => wanted[key] !== undefined && wanted[key] !== now[key]);
  if (other) throw needsRestart(other);
  if (wanted.sources !== undefined) checkPatterns(sources, wanted.sources);
}
