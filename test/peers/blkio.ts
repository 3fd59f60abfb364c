// libblkio's front-end (virtio-blk-vhost-user) for the qemu-img and qemu-io of QEMU 11: Debian's module and its library, without all
// that the other modules of its package need.
import { existsSync } from 'node:fs';
import path from 'node:path';
import { skip } from '../support/skip.js';
import { Suite } from '../vm/apt.js';
import { cached, cacheRoot } from '../vm/cache.js';

const LIBRARIES = 'usr/lib/x86_64-linux-gnu';
const NAME = 'blkio';

/** The folder of the module; fetched on first use. It has to come from the suite of the QEMU that loads it. */
export const blkio = (): Promise<string> =>
  cached(NAME, async (part) => {
    const problems: string[] = [];
    for (const suite of ['sid', 'testing']) {
      try {
        const only = [`./${LIBRARIES}/qemu/block-blkio.so`, `./${LIBRARIES}/libblkio.so*`];
        const source = await Suite.open(suite);
        // tar fails for a package that has none of the files
        await source.unpack(['qemu-block-extra'], part, { only: only.slice(0, 1) });
        await source.unpack(['libblkio1'], part, { only: only.slice(1) });
        return;
      } catch (e) {
        problems.push(e instanceof Error ? e.message : String(e));
      }
    }
    throw new Error(problems.join('\n'));
  });

/** Variables with which QEMU 11 finds the module in `dir`, where that folder is visible under its own path. */
export const blkioEnv = (dir: string): Record<string, string> => ({
  QEMU_MODULE_DIR: path.join(dir, LIBRARIES, 'qemu'),
  LD_LIBRARY_PATH: path.join(dir, LIBRARIES),
});

/** For a test of `npm test`: undefined, with the reason listed, when it is not in the cache yet. Under VIOCTL_NO_SKIP=1 it is fetched. */
export async function blkioForTest(what: string): Promise<string | undefined> {
  if (process.env.VIOCTL_NO_SKIP !== '1' && !existsSync(path.join(cacheRoot(), NAME))) {
    skip(what, 'libblkio is not in the cache: npx tsx test/vm/prefetch.ts');
    return undefined;
  }
  return blkio();
}
