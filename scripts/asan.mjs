// `npm run test:asan [jest arguments]`: builds the addon with AddressSanitizer and UBSan and runs the tests that use it
// (test/native unless told otherwise, without those that compile a sanitised program of their own).
import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { buildAsan } from './asan-env.mjs';

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
const native = path.join(root, 'test', 'native');
const own = (file) => readFileSync(path.join(native, file), 'utf8').includes('compileSanitized');
const all = () => readdirSync(native).filter((file) => file.endsWith('.test.ts') && !own(file));
const given = process.argv.slice(2);
const args = given.some((arg) => !arg.startsWith('-')) ? given : [...all().map((file) => `test/native/${file}`), ...given];
const env = buildAsan(root);
const jest = path.join(root, 'node_modules', 'jest', 'bin', 'jest.js');
const { status } = spawnSync(process.execPath, [jest, ...(args.includes('--runInBand') ? [] : ['--maxWorkers', '2']), ...args], {
  stdio: 'inherit',
  cwd: root,
  env,
});
process.exitCode = status ?? 1;
