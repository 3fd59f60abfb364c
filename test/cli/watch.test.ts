// --watch: the same again and again, until a signal comes.
import { spawnSync } from 'node:child_process';
import { Background } from '../support/background.js';
import { plainEnv, program, vioctl } from '../support/cli.js';
import { serveTarget } from '../support/nvme-target.js';

test('in a pipe the tables come one below the other, and SIGINT ends them', async () => {
  const list = Background.vioctl(['uring', 'list', '--watch=100ms']);
  await list.sees(/( *PID +COMMAND[\s\S]*?\n\n){2}/);
  expect(await list.stop('SIGINT')).toBe(130);
  expect(list.stderr).not.toMatch(/error|vioctl: uring list: (?!warning)/);
});

test('on a terminal each begins on a cleared screen', () => {
  const command = `timeout -s INT 3 ${process.execPath} ${program} uring list --watch=300ms`;
  const { stdout } = spawnSync('script', ['-qec', command, '/dev/null'], {
    encoding: 'utf8',
    env: { ...plainEnv(), TERM: 'xterm' },
    input: '',
  });
  expect(stdout.split('\x1b[H\x1b[2J').length).toBeGreaterThan(2);
});

test('counters of a target, a line each time, until the target is gone', async () => {
  const control = `/tmp/vioctl-watch-${process.pid}.sock`;
  const target = await serveTarget(['ram:1M', '--control', control]);
  const stats = Background.vioctl(['nvmf', 'ctl', control, 'stats', '--watch=100ms', '--ndjson']);
  try {
    await stats.sees(/(\{.*\}\n){3}/);
    for (const line of stats.stdout.trim().split('\n').slice(0, 3)) expect(JSON.parse(line)).toMatchObject({ controllers: [] });
  } finally {
    await target.stop();
  }
  expect(await stats.exited).toBe(1);
  expect(JSON.parse(stats.stderr.trim().split('\n').at(-1)!)).toMatchObject({ error: { code: expect.any(String) } });
});

test.each([
  [['uring', 'list', '--watch=1ms'], /--watch: at least 100ms/],
  [['uring', 'list', '--watch=x'], /--watch: not a duration: "x"/],
  [['uring', 'list', '--watch', '--json'], /use --ndjson/],
  [['nvmf', 'ctl', '/nosock', 'kick', '--cntlid', '1', '--watch'], /--watch goes with list and stats/],
])('%j is wrong usage', (args, message) => {
  expect(vioctl(args)).toMatchObject({ status: 2, stdout: '', stderr: expect.stringMatching(message) });
});
