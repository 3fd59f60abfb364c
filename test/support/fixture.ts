import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { buildSync } from 'esbuild';

/** Bundles a fixture program as the real program is bundled; returns its path. The folder goes when `done()` is called. */
export function bundleFixture(name: string): { file: string; done: () => void } {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-fixture-'));
  const file = path.join(dir, `${name}.cjs`);
  buildSync({
    entryPoints: [path.join(__dirname, '..', 'fixtures', `${name}.ts`)],
    outfile: file,
    bundle: true,
    platform: 'node',
    target: 'node20',
    format: 'cjs',
    define: { 'import.meta.dirname': '__dirname' },
  });
  return { file, done: () => fs.rmSync(dir, { recursive: true }) };
}
