import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { Sysroot } from '../../../../src/common/sysroot.js';
import { explain, kernelVersion, limitOf, unavailable } from '../../../../src/uring/host/unavailable.js';

const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-why-'));
afterAll(() => fs.rmSync(dir, { recursive: true }));

function root(files: Record<string, string>): Sysroot {
  const at = fs.mkdtempSync(path.join(dir, 'root-'));
  for (const [name, text] of Object.entries(files)) {
    fs.mkdirSync(path.dirname(path.join(at, name)), { recursive: true });
    fs.writeFileSync(path.join(at, name), text);
  }
  return new Sysroot(at);
}

const disabled = 'proc/sys/kernel/io_uring_disabled';
const group = 'proc/sys/kernel/io_uring_group';
const status = 'proc/self/status';
const limits =
  'Limit                     Soft Limit           Hard Limit           Units     \nMax locked memory         65536                unlimited            bytes     \n';

test.each([
  ['EPERM', { [disabled]: '2\n' }, '6.6.1', 'SYSCTL', /io_uring_disabled is 2/],
  ['EPERM', { [disabled]: '1\n', [group]: '-1\n' }, '6.6.1', 'SYSCTL', /is 1: only for CAP_SYS_ADMIN .*none/],
  ['EPERM', { [disabled]: '1\n', [group]: '27\n' }, '6.6.1', 'SYSCTL', /gid 27/],
  ['EPERM', { [disabled]: '0\n', [status]: 'Seccomp:\t2\n' }, '6.6.1', 'SECCOMP', /blocks it/],
  ['EPERM', { [status]: 'Seccomp:\t0\n' }, '6.1.0', 'EPERM', /security module/],
  ['ENOSYS', { [status]: 'Seccomp:\t2\n' }, '5.15.0-91', 'SECCOMP', /hides it \(kernel 5.15.0-91/],
  ['ENOSYS', { [status]: 'Seccomp:\t2\n' }, '4.19.0', 'KERNEL', /older than io_uring/],
  ['ENOSYS', {}, '6.1.0', 'KERNEL', /without CONFIG_IO_URING/],
  ['ENOMEM', { 'proc/self/limits': limits }, '5.10.0', 'MEMLOCK', /limit 65536 bytes/],
  ['EMFILE', {}, '6.1.0', 'NOFILE', /descriptor/],
  ['EAGAIN', {}, '6.1.0', 'NPROC', /limit of processes/],
  ['EIO', {}, '6.1.0', 'EIO', /EIO/],
] as const)('%s with %j on %s', (code, files, release, kind, why) => {
  const cause = explain(code, root(files), release);
  expect(cause.kind).toBe(kind);
  expect(cause.why).toMatch(why);
});

test.each(['EPERM', 'ENOSYS', 'ENOMEM', undefined])('%s on this machine, without more arguments', (code) => {
  expect(explain(code)).toEqual({ kind: expect.stringMatching(/./), why: expect.stringMatching(/./), hint: explain(code).hint });
});

test('the error is 7, limits are 1', () => {
  const err = (code: string) => Object.assign(new Error(code), { code });
  expect(unavailable(err('ENOSYS'), root({}))).toMatchObject({ exit: 7, code: 'ENOSYS' });
  expect(unavailable(err('ENOMEM'), root({}))).toMatchObject({ exit: 1, hint: expect.stringContaining('ulimit -l') });
});

test('limits and versions', () => {
  const sysroot = root({ 'proc/self/limits': limits });
  expect(limitOf(sysroot, 'Max locked memory')).toEqual({ soft: 65536, hard: Number.POSITIVE_INFINITY });
  expect(limitOf(sysroot, 'Max open files')).toBeUndefined();
  expect(['6.12.95+deb12-amd64', '5.4', 'odd'].map(kernelVersion)).toEqual([
    [6, 12],
    [5, 4],
    [0, 0],
  ]);
});
