// The QEMU builds of the lab: 10 from bookworm-backports, unpacked beside the installed 7.2 whose libraries it uses.
import { existsSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { peer } from '../peers/peers.js';
import { skip } from '../support/skip.js';
import { Suite } from './apt.js';
import { cached, cacheRoot, checkoutRoot } from './cache.js';

const INSTALLED = '/usr/bin/qemu-system-x86_64';

/** How to start programs of one QEMU build. */
export interface QemuBuild {
  /** The command line of a program of this build, for example qemu-system-x86_64 or qemu-storage-daemon. */
  argv(program: string, args?: readonly string[]): [string, ...string[]];
  /** Environment additions. */
  env: Record<string, string>;
  /** Where the program sees this machine's root file system. */
  hostRoot: string;
  /** A path whose inode and time change with the build. */
  identity: string;
}

/**
 * The builds by the name tests use. 7.2 is the installed one (its emulation can upset busy guests); 11 runs in the sid
 * peer's root, where it sees /tmp, the cache and the checkout at their own paths.
 */
export type QemuName = '7.2' | '10' | '11';

/** QEMU 10: about 15 MB fetched, 98 MB in the cache. */
async function qemu10(): Promise<QemuBuild> {
  const dir = await cached('qemu-10', async (part) => {
    const suite = await Suite.open('bookworm-backports');
    const names = ['qemu-system-x86', 'qemu-system-common', 'qemu-system-data', 'qemu-utils', 'seabios'];
    await suite.unpack(names, part);
  });
  const firmware = [path.join(dir, 'usr/share/qemu'), path.join(dir, 'usr/share/seabios'), '/usr/share/qemu'];
  return {
    argv: (program, args = []) => [
      path.join(dir, 'usr/bin', program),
      ...(program.startsWith('qemu-system-') ? firmware.flatMap((f) => ['-L', f]) : []),
      ...args,
    ],
    env: { QEMU_MODULE_DIR: path.join(dir, 'usr/lib/x86_64-linux-gnu/qemu') },
    hostRoot: '/',
    identity: dir,
  };
}

/** QEMU 11 of the sid peer. */
async function qemu11(): Promise<QemuBuild> {
  const sid = await peer('sid');
  const share = [cacheRoot(), checkoutRoot(), tmpdir()].filter((d) => d !== '/tmp' && !d.startsWith('/tmp/'));
  return { argv: (program, args = []) => sid.argv([program, ...args], share), env: {}, hostRoot: '/host', identity: sid.dir };
}

/** The build called `name`. Rejects when the packages of .ci/packages that it needs are not installed. */
export async function qemu(name: QemuName = '10'): Promise<QemuBuild> {
  if (name === '11') return qemu11();
  if (!existsSync(INSTALLED)) {
    throw new Error('QEMU is not installed; the lab needs the packages that .ci/packages names');
  }
  if (name === '10') return qemu10();
  return { argv: (program, args = []) => [path.join('/usr/bin', program), ...args], env: {}, hostRoot: '/', identity: INSTALLED };
}

/**
 * A build for a test of `npm test`: undefined, with the reason listed, when it is not here, because plain tests fetch
 * nothing. Under VIOCTL_NO_SKIP=1 it is made.
 */
export async function qemuForTest(name: QemuName, what: string): Promise<QemuBuild | undefined> {
  const needed = {
    '7.2': INSTALLED,
    '10': path.join(cacheRoot(), 'qemu-10'),
    '11': path.join(cacheRoot(), 'peer-sid'),
  };
  const how = name === '7.2' ? 'install the packages that .ci/packages names' : 'get it with: npx tsx test/vm/prefetch.ts';
  if (process.env.VIOCTL_NO_SKIP !== '1' && !existsSync(needed[name])) {
    skip(what, `QEMU ${name} is not here; ${how}`);
    return undefined;
  }
  return qemu(name);
}
