// The addon and the bundle: what `npm test`, `npm start` and a packed release run.
import { spawnSync } from 'node:child_process';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const here = path.dirname(fileURLToPath(import.meta.url));
for (const script of ['native.mjs', 'bundle.mjs']) {
  const { status } = spawnSync(process.execPath, [path.join(here, script)], { stdio: 'inherit' });
  if (status !== 0) process.exit(status ?? 1);
}
