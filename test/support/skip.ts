import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';

/**
 * A test that needs something this machine lacks calls this and returns: the reason is listed at the end of `npm test`.
 * With VIOCTL_NO_SKIP=1 (.ci/run) a missing thing is a failure instead.
 */
export function skip(what: string, reason: string): void {
  if (process.env.VIOCTL_NO_SKIP === '1') throw new Error(`${what}: ${reason} (and VIOCTL_NO_SKIP=1 allows no skipping)`);
  fs.appendFileSync(process.env.VIOCTL_SKIP_LOG ?? path.join(os.tmpdir(), 'vioctl-skipped.txt'), `${what}: ${reason}\n`);
}

/** The first of the programs that is on PATH, or undefined. */
export function which(...names: string[]): string | undefined {
  for (const name of names) {
    for (const dir of (process.env.PATH ?? '').split(':')) {
      const file = path.join(dir, name);
      if (fs.existsSync(file)) return file;
    }
  }
  return undefined;
}
