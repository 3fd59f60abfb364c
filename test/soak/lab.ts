/**
 * The VM lab on each of its kernels and with loops of full length: `npm run soak -- lab [FILE…]`. CI takes the kernels that a file
 * chooses (kernelsFor of test/vm/kernels.ts).
 */
import { spawnSync } from 'node:child_process';
import { createRequire } from 'node:module';
import path from 'node:path';
import { parseArgs } from 'node:util';

const { positionals } = parseArgs({ allowPositionals: true });
const root = path.resolve(__dirname, '../..');
const jest = createRequire(path.join(root, 'package.json')).resolve('jest/bin/jest.js');
const { status } = spawnSync(process.execPath, [jest, '--config', 'jest.vm.config.cjs', ...positionals], {
  cwd: root,
  env: { ...process.env, VIOCTL_LAB_KERNELS: 'all', VIOCTL_WHOLE: '1' },
  stdio: 'inherit',
});
process.exitCode = status ?? 1;
