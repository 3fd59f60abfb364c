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

/** Whether this Node runs on musl, as on Alpine: its loader has a name of its own. */
const onMusl = (): boolean => fs.readdirSync('/lib').some((name) => name.startsWith('ld-musl-')) && !reportsGlibc();

/** Node says which glibc it runs on; on musl it says nothing. */
function reportsGlibc(): boolean {
  const { header } = process.report.getReport() as { header?: { glibcVersionRuntime?: string } };
  return header?.glibcVersionRuntime !== undefined;
}

/** Why an addon that is there does not load. */
function broken(file: string, err: unknown): VioError {
  const common = { code: 'ADDON_BROKEN', exit: Exit.unsupported, cause: err };
  if (onMusl())
    return new VioError('this system has musl as its C library, and the packaged addon needs glibc 2.34 or newer', {
      ...common,
      hint: 'use an image with glibc, such as node:22-slim, or build from the sources: npm run build:native',
    });
  return new VioError(`the native addon ${file} does not load: ${(err as Error).message.split('\n')[0]}`, {
    ...common,
    hint: 'the packaged addon needs glibc 2.34 or newer; in a checkout: npm run build:native',
  });
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
      throw broken(file, err);
    }
  }
  throw new VioError(`no native addon for linux-${process.arch}`, {
    code: 'ADDON_MISSING',
    exit: Exit.unsupported,
    hint: `looked for ${tried.join(' and ')}; in a checkout: npm run build:native`,
  });
}
