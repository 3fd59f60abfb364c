import { spawnSync } from 'node:child_process';
import { constants } from 'node:os';
import { allErrnos, errnoError, errnoName, errnoNumber, errnoText } from '../../../src/common/errno.js';

test('numbers, names and texts are those of the C library', () => {
  const script = `import os, errno, json
print(json.dumps({"names": {n: getattr(errno, n) for n in dir(errno) if n[0] == "E"}, "texts": [os.strerror(i) for i in range(134)]}))`;
  const { stdout } = spawnSync('python3', ['-c', script], { encoding: 'utf8', env: { ...process.env, LC_ALL: 'C' } });
  const theirs = JSON.parse(stdout) as { names: Record<string, number>; texts: string[] };
  for (const [name, number] of Object.entries(theirs.names).filter(([, number]) => number < 134)) {
    expect([name, errnoNumber(name)]).toEqual([name, number]);
    expect([name, errnoText(name)]).toEqual([name, theirs.texts[number]]);
    expect([name, errnoNumber(errnoName(number))]).toEqual([name, number]);
  }
  for (const [name, number] of Object.entries(constants.errno)) expect([name, errnoNumber(name)]).toEqual([name, number]);
  expect(allErrnos().length).toBeGreaterThan(125);
  expect([errnoNumber('toString'), errnoText('toString'), errnoText('ENONE')]).toEqual([undefined, undefined, undefined]);
});

test('names of results, of either sign, and of numbers without one', () => {
  expect([-9, 9, -11, -95, -121, -200].map(errnoName)).toEqual(['EBADF', 'EBADF', 'EAGAIN', 'EOPNOTSUPP', 'EREMOTEIO', 'E200']);
  expect(errnoError(-2, 'openat')).toMatchObject({ code: 'ENOENT', errno: -2, syscall: 'openat' });
});
