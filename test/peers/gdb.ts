// gdb for all architectures: Debian's gdb-multiarch, which uses the data of the installed gdb.
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import path from 'node:path';
import { skip, which } from '../support/skip.js';
import { Suite } from '../vm/apt.js';
import { cached, cacheRoot } from '../vm/cache.js';

const KEY = 'gdb-multiarch';

/** The program: about 4 MB fetched, 13 MB in the cache. */
export async function gdbMultiarch(): Promise<string> {
  const dir = await cached(KEY, async (part) => {
    await (await Suite.open('bookworm')).unpack([KEY], part);
  });
  return path.join(dir, 'usr/bin', KEY);
}

/** As gdbMultiarch, for a test of `npm test`: undefined, with the reason listed, when it is not here. */
export async function gdbForTest(what: string): Promise<string | undefined> {
  const missing = !which('gdb')
    ? 'gdb is not installed'
    : process.env.VIOCTL_NO_SKIP === '1' || existsSync(path.join(cacheRoot(), KEY))
      ? undefined
      : 'gdb-multiarch is not here; get it with: npx tsx test/vm/prefetch.ts';
  if (missing) skip(what, missing);
  return missing ? undefined : gdbMultiarch();
}

/** Runs commands; what gdb says on stdout and stderr. */
export function gdb(program: string, commands: readonly string[]): { stdout: string; stderr: string } {
  const args = ['-nx', '-batch', ...commands.flatMap((c) => ['-ex', c])];
  const { stdout, stderr } = spawnSync(program, args, { encoding: 'utf8', timeout: 60_000 });
  return { stdout, stderr };
}
