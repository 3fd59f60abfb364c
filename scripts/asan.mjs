// `npm run test:asan [jest arguments]`: builds the addon with AddressSanitizer and UBSan and runs the tests that use it
// (test/native unless told otherwise).
import { spawnSync } from 'node:child_process';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { buildAsan } from './asan-env.mjs';

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
const args = process.argv.length > 2 ? process.argv.slice(2) : ['test/native'];
const env = buildAsan(root);
const jest = path.join(root, 'node_modules', 'jest', 'bin', 'jest.js');
const { status } = spawnSync(process.execPath, [jest, '--runInBand', ...args], { stdio: 'inherit', cwd: root, env });
process.exitCode = status ?? 1;
