import { spawnSync } from 'node:child_process';
import path from 'node:path';

// A slice; `npm run soak -- uring-misuse --asan` goes on for minutes. In a process of its own, which takes what callbacks throw
// on purpose.
const root = path.resolve(__dirname, '..', '..');
const fuzz = [path.join(root, 'node_modules', 'tsx', 'dist', 'cli.mjs'), path.join(root, 'test', 'soak', 'uring-misuse.ts')];

test('random calls: each accepted request is called back once, nothing around a buffer is written', () => {
  const { status, stdout, stderr } = spawnSync(process.execPath, [...fuzz, '--rounds', '4'], { encoding: 'utf8', timeout: 60_000 });
  expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
  const { rings, accepted, refused, called } = JSON.parse(stdout);
  expect(called).toBe(accepted);
  expect([rings > 20, accepted > 500, refused > 500]).toEqual([true, true, true]);
});
