import { spawnSync } from 'node:child_process';
import path from 'node:path';
import { plainEnv, program } from '../support/cli.js';

test('npm start serves, finds, writes and reads back a disk, and ends with 0', () => {
  const script = path.resolve(program, '..', '..', 'scripts', 'start.mjs');
  const { status, stdout, stderr } = spawnSync(process.execPath, [script], { encoding: 'utf8', env: plainEnv(), timeout: 120000 });
  expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
  const digests = stdout.match(/(written|read back|disk image) .* {2}([0-9a-f]{32})…/g)?.map((line) => line.slice(-33));
  expect(digests).toHaveLength(3);
  expect(new Set(digests).size).toBe(1);
  expect(stdout).toContain('current discovery subsystem');
});
