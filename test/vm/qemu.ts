// The QEMU builds of the lab: 10 from bookworm-backports, unpacked beside the installed 7.2 whose libraries it uses.
import { existsSync } from 'node:fs';
import path from 'node:path';
import { Suite } from './apt.js';
import { cached } from './cache.js';

/** How to start programs of one QEMU build. */
export interface QemuBuild {
  /** Full path of a program of this build, for example qemu-system-x86_64 or qemu-storage-daemon. */
  program(name: string): string;
  /** Arguments for qemu-system-*: where its firmware lies. */
  args: string[];
  /** Environment additions. */
  env: Record<string, string>;
}

/** The builds by the name tests use. 7.2 is the installed one: its TCG panics busy guests, so no guest of ours runs on it by default. */
export type QemuName = '10' | '7.2';

/** QEMU 10: about 15 MB fetched, 98 MB in the cache. */
async function qemu10(): Promise<QemuBuild> {
  const dir = await cached('qemu-10', async (part) => {
    const suite = await Suite.open('bookworm-backports');
    const names = ['qemu-system-x86', 'qemu-system-common', 'qemu-system-data', 'qemu-utils', 'seabios'];
    await suite.unpack(names, part);
  });
  const firmware = [path.join(dir, 'usr/share/qemu'), path.join(dir, 'usr/share/seabios'), '/usr/share/qemu'];
  return {
    program: (name) => path.join(dir, 'usr/bin', name),
    args: firmware.flatMap((f) => ['-L', f]),
    env: { QEMU_MODULE_DIR: path.join(dir, 'usr/lib/x86_64-linux-gnu/qemu') },
  };
}

/** The build called `name`. Rejects when the packages of .ci/packages that it needs are not installed. */
export async function qemu(name: QemuName = '10'): Promise<QemuBuild> {
  if (!existsSync('/usr/bin/qemu-system-x86_64')) {
    throw new Error('QEMU is not installed; the lab needs the packages that .ci/packages names');
  }
  if (name === '10') return qemu10();
  return { program: (p) => path.join('/usr/bin', p), args: [], env: {} };
}
