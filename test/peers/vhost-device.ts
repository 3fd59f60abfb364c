// vhost-device-vsock, a back-end of rust-vmm: one program that needs libc alone.
import { existsSync } from 'node:fs';
import path from 'node:path';
import { skip } from '../support/skip.js';
import { Suite } from '../vm/apt.js';
import { cached, cacheRoot } from '../vm/cache.js';

const NAME = 'vhost-device';

/** The program's path; fetched on first use (1 MB). */
export async function vhostDevice(): Promise<string> {
  const dir = await cached(NAME, async (part) => {
    const problems: string[] = [];
    for (const suite of ['sid', 'testing']) {
      try {
        await (await Suite.open(suite)).unpack(['vhost-device-vsock'], part, { only: ['./usr/bin/*'] });
        return;
      } catch (e) {
        problems.push(e instanceof Error ? e.message : String(e));
      }
    }
    throw new Error(problems.join('\n'));
  });
  return path.join(dir, 'usr/bin/vhost-device-vsock');
}

/** For a test of `npm test`: undefined, with the reason listed, when it is not in the cache yet. Under VIOCTL_NO_SKIP=1 it is fetched. */
export async function vhostDeviceForTest(what: string): Promise<string | undefined> {
  if (process.env.VIOCTL_NO_SKIP !== '1' && !existsSync(path.join(cacheRoot(), NAME))) {
    skip(what, 'vhost-device-vsock is not in the cache: npx tsx test/vm/prefetch.ts');
    return undefined;
  }
  return vhostDevice();
}
