// `npm test`: the whole suite that needs no VM, then one line for each thing that was skipped and why.
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';

const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-test-'));
const log = path.join(dir, 'skipped');
const jest = path.join('node_modules', 'jest', 'bin', 'jest.js');
const { status } = spawnSync(process.execPath, [jest, ...process.argv.slice(2)], {
  stdio: 'inherit',
  env: { ...process.env, VIOCTL_SKIP_LOG: log },
});
console.log('skipped: the VM lab (real kernels under QEMU); get it with: npm run test:vm (Debian packages: .ci/packages)');
if (fs.existsSync(log)) for (const line of new Set(fs.readFileSync(log, 'utf8').trim().split('\n'))) console.log(`skipped: ${line}`);
fs.rmSync(dir, { recursive: true });
process.exitCode = status ?? 1;
