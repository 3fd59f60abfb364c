import fs from 'node:fs';
import { native } from '../../../src/native/index.js';

afterEach(() => jest.restoreAllMocks());

test.each([
  ['musl', ['ld-musl-x86_64.so.1', 'libc.so'], {}, /^this system has musl as its C library/, /node:22-slim/],
  ['glibc', ['ld-linux-x86-64.so.2'], { glibcVersionRuntime: '2.31' }, /does not load: /, /glibc 2\.34 or newer/],
  ['glibc with the loader of musl beside it', ['ld-musl-x86_64.so.1'], { glibcVersionRuntime: '2.36' }, /does not load: /, /glibc 2\.34/],
])('an addon that does not load on %s is one line with the cause', (_libc, lib, header, message, hint) => {
  jest.replaceProperty(process, 'env', { ...process.env, VIOCTL_ADDON: __filename });
  jest.spyOn(fs, 'readdirSync').mockReturnValue(lib as never);
  jest.spyOn(process.report, 'getReport').mockReturnValue({ header } as never);
  const failed = expect.objectContaining({
    code: 'ADDON_BROKEN',
    exit: 7,
    message: expect.stringMatching(message),
    hint: expect.stringMatching(hint),
  });
  expect(() => native()).toThrow(failed);
});
