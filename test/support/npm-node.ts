import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';

const cache = path.join(process.env.VIOCTL_CACHE ?? path.join(os.homedir(), '.cache', 'vioctl'), 'node');

/** Whether Nodes may be fetched: in CI, or where it was done before. */
export const mayFetchNode = Boolean(process.env.CI || process.env.VIOCTL_NO_SKIP || fs.existsSync(cache));

/** A Node of another version or machine from npm's node-linux-* packages, unpacked into the cache. @returns the program's path */
export function npmNode(arch: 'x64' | 'arm64', major: number): string {
  const name = `node-linux-${arch}@${major}`;
  const at = path.join(cache, name);
  if (!fs.existsSync(at)) {
    fs.mkdirSync(cache, { recursive: true });
    const tmp = fs.mkdtempSync(path.join(cache, '.new-'));
    try {
      const tarball = execFileSync('npm', ['pack', '--silent', name], { cwd: tmp, encoding: 'utf8' }).trim().split('\n').at(-1)!;
      execFileSync('tar', ['-xf', tarball], { cwd: tmp });
      fs.renameSync(path.join(tmp, 'package'), at);
    } catch (err) {
      if (!fs.existsSync(at)) throw err; // another test was faster
    } finally {
      fs.rmSync(tmp, { recursive: true });
    }
  }
  return path.join(at, 'bin', 'node');
}
