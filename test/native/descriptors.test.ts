import { spawn } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import { createInterface } from 'node:readline';
import { native } from '../../src/native/index.js';

const { sysfs } = native();

test('device nodes of another process are found with their numbers, other files and memory devices are not', async () => {
  // A terminal is the device node that every machine has.
  const script = `import os, sys
master, slave = os.openpty()
os.open("/dev/null", os.O_RDONLY), os.open("/dev/zero", os.O_RDONLY), os.open("/etc/passwd", os.O_RDONLY)
number = os.stat(slave).st_rdev
print(slave, os.ttyname(slave), f"c{os.major(number)}:{os.minor(number)}", flush=True)
sys.stdin.readline()`;
  const child = spawn('python3', ['-c', script], { stdio: ['pipe', 'pipe', 'inherit'] });
  try {
    const [line] = (await once(createInterface({ input: child.stdout }), 'line')) as [string];
    const [fd, file, rdev] = line.split(' ');
    const { found, hidden } = sysfs.descriptors();
    const theirs = found.filter(({ pid }) => pid === child.pid);
    expect(theirs).toContainEqual({ pid: child.pid, fd: Number(fd), path: file, rdev });
    expect(theirs.filter(({ path }) => /null|zero|passwd/.test(path))).toEqual([]);
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
  expect(count()).toBeLessThanOrEqual(before);
});
