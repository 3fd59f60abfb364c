/**
 * The tests of test/peers that have long tables, with each of their rows: `npm run soak -- peers [PATTERN…]`. Patterns name
 * other files. Without them it takes about ten minutes.
 */
import { spawnSync } from 'node:child_process';
import path from 'node:path';

const jest = path.resolve(__dirname, '..', '..', 'node_modules', 'jest', 'bin', 'jest.js');
const named = process.argv.slice(1);
const files = named.length > 0 ? named : ['test/peers/migration'];
const env = { ...process.env, VIOCTL_EVERY_ROW: '1' };
process.exitCode = spawnSync(process.execPath, [jest, '--runInBand', ...files], { stdio: 'inherit', env }).status ?? 1;
