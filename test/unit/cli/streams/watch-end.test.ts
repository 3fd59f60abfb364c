import { spawn, spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { bundleFixture } from '../../../support/fixture.js';
import { skip, which } from '../../../support/skip.js';

// the bundle is not where the addon is looked for
const addon = process.env.VIOCTL_ADDON ?? path.resolve(__dirname, '..', '..', '..', '..', 'build', 'native', 'release', 'vioctl.node');
const env = { ...process.env, VIOCTL_ADDON: addon };
let fixture: ReturnType<typeof bundleFixture>;
beforeAll(() => {
  fixture = bundleFixture('watch-end');
});
afterAll(() => fixture.done());

test.each([
  ['a pipe that ends', 'echo ignored | "$@"'],
  ['a file', '"$@" < /etc/passwd'],
])('%s', (_name, script) => {
  const { status, stdout } = spawnSync('sh', ['-c', script, 'sh', process.execPath, fixture.file], {
    encoding: 'utf8',
    timeout: 90_000,
    env,
  });
  expect({ status, stdout }).toEqual({ status: 0, stdout: 'watching\nended\n' });
});

test('a socket that is closed; /dev/null never ends', async () => {
  const child = spawn(process.execPath, [fixture.file], { stdio: ['pipe', 'pipe', 'inherit'], env });
  const ended = new Promise((resolve) => child.once('exit', resolve));
  await new Promise((resolve) => child.stdout.once('data', resolve));
  child.stdin.write('ignored');
  child.stdin.end();
  expect(await ended).toBe(0);
  const { status, signal } = spawnSync(process.execPath, [fixture.file], { stdio: ['ignore', 'ignore', 'inherit'], timeout: 1500, env });
  expect({ status, signal }).toEqual({ status: null, signal: 'SIGTERM' });
});

/** A terminal whose session has one foreground job; a program there, in the foreground or in the background. */
const TERMINAL = `import fcntl, os, pty, signal, sys, termios, time
place, argv = sys.argv[1], sys.argv[2:]
main, side = pty.openpty()
out = os.open(argv.pop(0), os.O_RDWR)
leader = os.fork()
if leader == 0:
    os.setsid()
    fcntl.ioctl(side, termios.TIOCSCTTY, 0)
    job = os.fork()
    if job == 0:
        if place == 'background': os.setpgid(0, 0)
        os.dup2(side, 0); os.dup2(out, 1)
        os.execv(argv[0], argv)
    os.write(out, b'job %d\\n' % job)
    _, status = os.waitpid(job, os.WUNTRACED)
    os.write(out, b'stopped\\n' if os.WIFSTOPPED(status) else b'status %d\\n' % status)
    os._exit(0)
def text(): return os.pread(out, 10000, 0).decode()
def wait(word):
    end = time.time() + 20
    while word not in text() and time.time() < end: time.sleep(0.05)
wait('watching')
os.write(main, b'typed\\n')
time.sleep(0.7)
if place == 'foreground': os.write(main, b'\\x04')
else: os.kill(int(text().split('job ')[1].split()[0]), signal.SIGTERM)
os.waitpid(leader, 0)
sys.stdout.write(''.join(line + '\\n' for line in text().splitlines() if not line.startswith('job')))`;

test.each([
  ['foreground', 'watching\nended\nstatus 0\n'],
  ['background', 'watching\nstatus 15\n'],
])('a terminal, in the %s', (place, expected) => {
  const python = which('python3');
  if (!python) return skip('the end of a terminal', 'python3 is missing');
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-terminal-'));
  try {
    const file = path.join(dir, 'out');
    fs.writeFileSync(file, '');
    const words = ['-c', TERMINAL, place, file, process.execPath, fixture.file];
    const { stdout, stderr } = spawnSync(python, words, { encoding: 'utf8', timeout: 30_000, env });
    expect({ stdout, stderr }).toEqual({ stdout: expected, stderr: '' });
  } finally {
    fs.rmSync(dir, { recursive: true });
  }
});
