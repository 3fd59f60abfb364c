// `npm run soak -- NAME [--asan] [options]`: a test of test/soak, which takes minutes to hours. Without a name: their list.
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { buildAsan } from './asan-env.mjs';

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
const [name, ...rest] = process.argv.slice(2);
const file = path.join(root, 'test', 'soak', `${name}.ts`);
if (!name || !fs.existsSync(file)) {
  const names = fs.readdirSync(path.join(root, 'test', 'soak')).map((one) => path.basename(one, '.ts'));
  console.error(`usage: npm run soak -- NAME [--asan] [options]\nnames: ${names.join(', ')}`);
  process.exit(2);
}
const env = rest.includes('--asan') ? buildAsan(root) : process.env;
// As jest does, so that test/support is the same code for both: TypeScript as CommonJS.
const load = `require('tsx/cjs'); require(${JSON.stringify(file)})`;
const args = ['-e', load, '--', ...rest.filter((arg) => arg !== '--asan')];
process.exitCode = spawnSync(process.execPath, args, { stdio: 'inherit', cwd: root, env }).status ?? 1;
