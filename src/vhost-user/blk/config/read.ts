import path from 'node:path';
import { maxSpin } from '../../../common/engines.js';
import { printable } from '../../../common/escape.js';
import { glob } from '../../../common/glob.js';
import { findGroup, findUser } from '../../../common/host/ids.js';
import { Sysroot } from '../../../common/sysroot.js';
import { type Check, checked, distinct, list, number, object, text } from '../../../common/text/checks.js';
import { type ConfigText, parseDocument } from '../../../common/text/document.js';
import { engineCheck, sourceChecks, sourceOf } from '../../../storage/config/checks.js';
import type { SocketAccess } from '../../wire/listener.js';
import type { BlkConfig } from '../model.js';
import { checkSerial, maxQueues, parseMode } from '../words.js';
import type { AccessEntry, BlkConfigFile, DiskEntry } from './description.js';

/** Takes a text whose meaning another function checks, and leaves it as it is. */
const valid = (check: (value: string) => unknown): Check<string> =>
  checked((value) => {
    check(value);
    return value;
  });

const root = new Sysroot();
const accessChecks = {
  socketMode: valid(parseMode),
  socketOwner: valid((name) => findUser(root, name)),
  socketGroup: valid((name) => findGroup(root, name)),
};
const disk = object<DiskEntry>(
  { socket: text, serial: valid(checkSerial), queues: number(1, maxQueues), ...sourceChecks, ...accessChecks },
  ['socket', 'source'],
);
const file = object<BlkConfigFile>(
  {
    $schema: text,
    control: text,
    stateDir: text,
    engine: engineCheck,
    spinMicroseconds: number(0, maxSpin),
    sources: list(valid(glob)),
    queues: number(1, maxQueues),
    ...accessChecks,
    disks: distinct(disk, 'socket', ({ socket }) => path.resolve('/', socket)),
  },
  ['disks'],
);

const accessOf = ({ socketMode, socketOwner, socketGroup }: AccessEntry): SocketAccess => ({
  ...(socketMode !== undefined && { mode: parseMode(socketMode) }),
  ...(socketOwner !== undefined && { uid: findUser(root, socketOwner).uid }),
  ...(socketGroup !== undefined && { gid: findGroup(root, socketGroup) }),
});

/** Reads a configuration, JSON or YAML, and checks all of it. Nothing is opened. @throws VioError (2) naming the wrong key */
export async function parseBlkConfig(config: ConfigText): Promise<BlkConfig> {
  const { value, texts } = await parseDocument(config);
  const { control, stateDir, engine, spinMicroseconds, sources, queues, disks, ...rest } = file(value, { at: config.name, texts });
  const access = accessOf(rest);
  const full = (name: string): string => path.resolve(config.folder, name);
  return {
    ...(control !== undefined && { control: full(control) }),
    ...(stateDir !== undefined && { stateDir: full(stateDir) }),
    ...(engine !== undefined && { engine }),
    ...(spinMicroseconds !== undefined && { spinMicroseconds }),
    ...(sources && { sources }),
    disks: disks.map(({ socket, serial, queues: own = queues, socketMode, socketOwner, socketGroup, ...source }, i) => ({
      socket: full(socket),
      ...(serial !== undefined && { serial }),
      ...(own !== undefined && { queues: own }),
      ...access,
      ...accessOf({ ...(socketMode && { socketMode }), ...(socketOwner && { socketOwner }), ...(socketGroup && { socketGroup }) }),
      source: sourceOf(source, config.folder, `${printable(config.name)}.disks[${i}]`),
    })),
  };
}
