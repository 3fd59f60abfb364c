import { spawnSync } from 'node:child_process';
import { constants } from 'node:os';
import { errnoError, errnoName, errnoNumber, errnoText } from '../../../src/common/errno.js';

test('texts are those of strerror(3), numbers those of the kernel', () => {
  const names = Object.keys(constants.errno).filter((name) => errnoText(name) !== undefined);
  expect(names.length).toBeGreaterThan(40);
  const script = `import os, errno; print("\\n".join(os.strerror(getattr(errno, n)) for n in ${JSON.stringify(names)}))`;
  const { stdout } = spawnSync('python3', ['-c', script], { encoding: 'utf8', env: { ...process.env, LC_ALL: 'C' } });
  expect(names.map((name) => [name, errnoText(name)])).toEqual(
    stdout
      .trimEnd()
      .split('\n')
      .map((text, i) => [names[i], text]),
  );
  expect([errnoNumber('EBUSY'), errnoNumber('EREMOTEIO'), errnoNumber('toString'), errnoText('toString')]).toEqual([
    16,
    undefined,
    undefined,
    undefined,
  ]);
});

test('names of results, of either sign, and of numbers without one', () => {
  expect([-9, 9, -11, -95, -121, -200].map(errnoName)).toEqual(['EBADF', 'EBADF', 'EAGAIN', 'EOPNOTSUPP', 'EREMOTEIO', 'E200']);
  expect(errnoError(-2, 'openat')).toMatchObject({ code: 'ENOENT', errno: -2, syscall: 'openat' });
});
