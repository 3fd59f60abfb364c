/** The VM lab on each of its kernels, where CI takes those that a file chooses (kernelsFor of test/vm/kernels.ts): `npm run soak -- lab [FILE…]`. */
import { spawnSync } from 'node:child_process';
import { createRequire } from 'node:module';
import path from 'node:path';
import { parseArgs } from 'node:util';

const { positionals } = parseArgs({ allowPositionals: true });
const root = path.resolve(__dirname, '../..');
const jest = createRequire(path.join(root, 'package.json')).resolve('jest/bin/jest.js');
const { status } = spawnSync(process.execPath, [jest, '--config', 'jest.vm.config.cjs', ...positionals], {
  cwd: root,
  env: { ...process.env, VIOCTL_LAB_KERNELS: 'all' },
  stdio: 'inherit',
});
process.exitCode = status ?? 1;
