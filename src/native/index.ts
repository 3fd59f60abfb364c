import fs from 'node:fs';
import path from 'node:path';
import { Exit, VioError } from '../common/errors.js';
import type { CommonNative } from './common.js';
import type { IovaNative } from './iova.js';
import type { MigrationNative } from './migration.js';
import type { NvmeNative } from './nvme.js';
import type { NvmeHostNative } from './nvme-host.js';
import type { StorageNative } from './storage.js';
import type { SysfsNative } from './sysfs.js';
import type { UringNative } from './uring.js';
import type { VfioNative } from './vfio.js';
import type { VhostUserNative } from './vhost-user.js';

/** All that the addon exports, one object per domain. Each domain's interface is in its file beside this one. */
export interface Native {
  common: CommonNative;
  migration: MigrationNative;
  sysfs: SysfsNative;
  uring: UringNative;
  storage: StorageNative;
  nvme: NvmeNative;
  nvmeHost: NvmeHostNative;
  vhostUser: VhostUserNative;
  iova: IovaNative;
  vfio: VfioNative;
}

let loaded: Native | undefined;

/**
 * Where an addon can be, in order: VIOCTL_ADDON (tests with the sanitised build), a checkout's build, the package's
 * prebuilt file for this machine. Paths are relative to the folder above dist/ or src/.
 */
function* candidates(root: string): Generator<string> {
  if (process.env.VIOCTL_ADDON) {
    yield path.resolve(process.env.VIOCTL_ADDON);
    return;
  }
  yield `${root}/build/native/release/vioctl.node`;
  yield `${root}/prebuilds/linux-${process.arch}.node`;
}

/** The root of the package: dist/ and src/native/ lie at different depths below it. */
export function packageRoot(): string {
  const here = import.meta.dirname;
  return path.basename(here) === 'dist' ? path.dirname(here) : path.resolve(here, '..', '..');
}

/**
 * The addon, loaded at the first call: commands that need no native code never pay for it.
 * @throws VioError (7, ADDON_MISSING or ADDON_BROKEN) naming the places looked at
 */
export function native(): Native {
  if (loaded) return loaded;
  const tried: string[] = [];
  for (const file of candidates(packageRoot())) {
    tried.push(file);
    if (!fs.existsSync(file)) continue;
    try {
      // What require() does in the end, without its search for packages and links on the way.
      const addon = { exports: {} as Native };
      process.dlopen(addon, file);
      loaded = addon.exports;
      return loaded;
    } catch (err) {
      throw new VioError(`the native addon ${file} does not load: ${(err as Error).message.split('\n')[0]}`, {
        code: 'ADDON_BROKEN',
        exit: Exit.unsupported,
        hint: 'the packaged addon needs glibc 2.34 or newer; in a checkout: npm run build:native',
        cause: err,
      });
    }
  }
  throw new VioError(`no native addon for linux-${process.arch}`, {
    code: 'ADDON_MISSING',
    exit: Exit.unsupported,
    hint: `looked for ${tried.join(' and ')}; in a checkout: npm run build:native`,
  });
}
