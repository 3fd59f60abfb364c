/** The arithmetic of limits, and the order of requests under them (test/support/programs/throttle-answers.cc). */
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { compileSanitized } from '../support/compile.js';

let dir: string;
let program: string;
beforeAll(() => {
  dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-throttle-'));
  program = compileSanitized(
    ['test/support/programs/throttle-answers.cc', 'native/storage/throttle.cc', 'native/common/error.cc', 'native/common/assert.cc'],
    path.join(dir, 'throttle'),
  );
});
afterAll(() => fs.rmSync(dir, { recursive: true, force: true }));

test.each(['arithmetic', 'order'])('%s', (what) => {
  expect(execFileSync(program, [what], { encoding: 'utf8' })).toBe('ok\n');
});
