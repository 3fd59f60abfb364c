import { spawn } from 'node:child_process';
import fs from 'node:fs';
import { native } from '../../src/native/index.js';

const { sysfs } = native();

test('device nodes of another process are found with their numbers, other files are not', async () => {
  const child = spawn('sh', ['-c', 'exec 7</dev/zero 8</etc/passwd 9</dev/null; echo ready; read line'], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  try {
    await new Promise<void>((resolve) => child.stdout.once('data', () => resolve()));
    const { found, hidden } = sysfs.descriptors();
    const theirs = found.filter(({ pid }) => pid === child.pid);
    expect(theirs).toContainEqual({ pid: child.pid, fd: 7, path: '/dev/zero', rdev: 'c1:5' });
    expect(theirs).toContainEqual({ pid: child.pid, fd: 9, path: '/dev/null', rdev: 'c1:3' });
    expect(theirs.filter(({ fd }) => fd === 8)).toEqual([]);
    expect(hidden).toBeGreaterThanOrEqual(0);
    expect(new Set(found.map(({ pid, fd }) => `${pid} ${fd}`)).size).toBe(found.length);
  } finally {
    child.stdin.end();
    await new Promise((resolve) => child.once('exit', resolve));
  }
});

test('it leaves no descriptor behind', () => {
  const count = () => fs.readdirSync('/proc/self/fd').length;
  sysfs.descriptors();
  const before = count();
  for (let i = 0; i < 5; i++) sysfs.descriptors();
  expect(count()).toBe(before);
});
