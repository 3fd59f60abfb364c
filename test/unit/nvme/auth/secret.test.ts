import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { Exit, VioError } from '../../../../src/common/errors.js';
import { maxSecretBytes, readSecret, wipe } from '../../../../src/nvme/auth/secret.js';

const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-secret-'));
afterAll(() => fs.rmSync(dir, { recursive: true }));

const file = (content: string, mode = 0o600) => {
  const name = path.join(dir, String(Math.random()));
  fs.writeFileSync(name, content);
  fs.chmodSync(name, mode);
  return name;
};
const caught = (from: string): VioError => {
  try {
    readSecret(from, 'key');
  } catch (err) {
    if (err instanceof VioError) return err;
    throw err;
  }
  throw new Error('taken');
};

test.each(['secret', 'secret\n', '  secret\r\n\n'])('a file: %j', (content) => {
  expect(readSecret(file(content), 'key').toString()).toBe('secret');
});

test.each([0o640, 0o604, 0o644, 0o660, 0o620, 0o610, 0o601, 0o777])('mode %o is refused', (mode) => {
  const name = file('secret', mode);
  const { exit, code, hint, message } = caught(name);
  expect([exit, code]).toEqual([Exit.permission, 'KEY_READABLE']);
  expect(message).not.toContain('secret ');
  execFileSync('sh', ['-c', hint!]); // what the hint says helps
  expect(readSecret(name, 'key').toString()).toBe('secret');
});

test('through a symbolic link, the file counts', () => {
  const link = path.join(dir, 'link');
  fs.symlinkSync(file('secret', 0o644), link);
  expect(caught(link).code).toBe('KEY_READABLE');
});

test('an environment variable is taken away from children', () => {
  process.env.VIOCTL_TEST_SECRET = 'secret';
  expect(readSecret('env:VIOCTL_TEST_SECRET', 'key').toString()).toBe('secret');
  expect(process.env.VIOCTL_TEST_SECRET).toBeUndefined();
  expect(caught('env:VIOCTL_TEST_SECRET').exit).toBe(Exit.usage);
});

test('a descriptor', () => {
  const fd = fs.openSync(file('secret', 0o644), 'r'); // whoever opened it has decided
  expect(readSecret(`fd:${fd}`, 'key').toString()).toBe('secret');
  fs.closeSync(fd);
  expect(caught(`fd:${fd}`).code).toBe('EBADF');
});

test('empty, too long, missing, a folder', () => {
  expect(caught(file(' \n')).code).toBe('BAD_KEY');
  expect(caught(file('x'.repeat(maxSecretBytes + 1))).code).toBe('BAD_KEY');
  expect(caught(path.join(dir, 'missing')).code).toBe('ENOENT');
  expect(caught(dir).code).toBe('EISDIR');
});

test('wiped', () => {
  const secret = readSecret(file('secret'), 'key');
  wipe(secret, undefined);
  expect(secret).toEqual(Buffer.alloc(6));
});

test.each(['DHHC-1:00:c2VjcmV0:', 'NVMeTLSkey-1:01:c2VjcmV0:', '/etc/vioctl/DHHC-1:00:c2VjcmV0:'])(
  'a key in place of a file, %s, is not repeated',
  (text) => {
    const { message, hint, exit } = caught(text);
    expect({ message, exit }).toEqual({
      message: 'key: this is a key, which every process can read; put it into a file',
      exit: Exit.usage,
    });
    expect(`${message}${hint}`).not.toContain('c2VjcmV0');
  },
);
