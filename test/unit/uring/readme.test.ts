import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { plainEnv } from '../../support/cli.js';

const root = path.resolve(__dirname, '..', '..', '..');

test('the example of the README runs as it stands', () => {
  const source = /```js\n(import fs[\s\S]*?)```/.exec(fs.readFileSync(path.join(root, 'README.md'), 'utf8'))![1]!;
  expect(source).toContain("from 'vioctl/uring'");
  // Inside the package its own name resolves through its exports, as it does where it is installed.
  const dir = fs.mkdtempSync(path.join(root, 'build', 'readme-'));
  try {
    fs.writeFileSync(path.join(dir, 'example.mjs'), source);
    fs.writeFileSync(path.join(dir, 'data'), Buffer.alloc(50_000, 'data'));
    const run = spawnSync(process.execPath, [path.join(dir, 'example.mjs'), path.join(dir, 'data')], { encoding: 'utf8', env: plainEnv() });
    expect(run).toMatchObject({ status: 0, stdout: '50000 bytes\nEBADF\n', stderr: '' });
  } finally {
    fs.rmSync(dir, { recursive: true });
  }
});
