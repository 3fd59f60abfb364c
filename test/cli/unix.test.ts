import { execFileSync, spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { wantsColor } from '../../src/cli/output/color.js';
import { exitOfErrno } from '../../src/common/errors.js';
import { formatDuration } from '../../src/common/units.js';
import { plainEnv, program, vioctl } from '../support/cli.js';
import { skip, which } from '../support/skip.js';

/** What Unix users expect of every program, tried on real commands; the CLI core's own part is in stdio.test.ts. */
const sh = (script: string, env: Record<string, string> = {}) =>
  spawnSync('bash', ['-c', script], { encoding: 'utf8', env: plainEnv({ V: `${process.execPath} ${program}`, ...env }), timeout: 90_000 });

test('errno to exit status: privilege, support, all else', () => {
  expect(['EPERM', 'EACCES'].map(exitOfErrno)).toEqual([6, 6]);
  expect(['ENOSYS', 'EOPNOTSUPP', 'EAFNOSUPPORT', 'EPROTONOSUPPORT'].map(exitOfErrno)).toEqual([7, 7, 7, 7]);
  expect(['ENOENT', 'EBUSY', 'ETIMEDOUT', undefined].map(exitOfErrno)).toEqual([1, 1, 1, 1]);
});

test('colours: the flag, NO_COLOR, FORCE_COLOR, CLICOLOR_FORCE, CLICOLOR, TERM, terminal, in this order', () => {
  const on = (env: Record<string, string>, tty = true, choice: 'auto' | 'always' | 'never' = 'auto') => wantsColor(1, choice, env, tty);
  expect(on({ NO_COLOR: '1', TERM: 'dumb' }, false, 'always')).toBe(true);
  expect(on({ FORCE_COLOR: '1' }, true, 'never')).toBe(false);
  expect(on({ NO_COLOR: '1', FORCE_COLOR: '1' })).toBe(false);
  expect(on({ NO_COLOR: '', TERM: 'xterm' })).toBe(true);
  expect(on({ FORCE_COLOR: '1', CLICOLOR: '0', TERM: 'dumb' }, false)).toBe(true);
  expect(on({ FORCE_COLOR: '0', CLICOLOR_FORCE: '1' })).toBe(false);
  expect(on({ CLICOLOR_FORCE: '1', CLICOLOR: '0' }, false)).toBe(true);
  expect(on({ CLICOLOR: '0' })).toBe(false);
  expect([on({ TERM: 'dumb' }), on({}, false), on({ TERM: 'xterm' })]).toEqual([false, false, true]);
});

test('durations are shown as they are typed', () => {
  expect([500, 1000, 90_000, 120_000, 3_600_000, 1500].map(formatDuration)).toEqual(['500ms', '1s', '90s', '2m', '1h', '1500ms']);
});

test('JSON is one document that ends with a newline, without colours on a terminal too', () => {
  const text = sh('script -qec "$V dma plan --reserved /dev/null a=4K --json --color=always" /dev/null </dev/null', {
    TERM: 'xterm',
  }).stdout;
  expect(text).not.toContain('\x1b');
  expect(text.endsWith('}\r\n')).toBe(true);
  expect(JSON.parse(text)).toMatchObject({ entries: 1 });
});

test('help takes the width of the terminal or of COLUMNS, 80 in a pipe; help of any kind is on stdout', () => {
  const widest = (env: Record<string, string>) =>
    Math.max(
      ...sh('$V vfio bind --help', env)
        .stdout.split('\n')
        .filter((line) => !/^( {2}|vioctl|Usage)/.test(line))
        .map((line) => line.length),
    );
  expect(widest({ COLUMNS: '' })).toBeLessThanOrEqual(80);
  expect(widest({ COLUMNS: '60' })).toBeLessThanOrEqual(60);
  expect(widest({ COLUMNS: '100' })).toBeGreaterThan(80);
  const [whole, ...same] = ['$V uring sum --help', '$V uring sum -h', '$V help uring sum', '$V uring sum --bogus x -h'].map((line) =>
    sh(line),
  );
  expect(whole).toMatchObject({ status: 0, stderr: '' });
  for (const { status, stdout } of same) expect({ status, stdout }).toEqual({ status: 0, stdout: whole!.stdout });
});

test('neither commands nor flags are abbreviated, and there is no second spelling', () => {
  for (const args of [['vfio', 'lis'], ['vf', 'list'], ['vfio:list'], ['vfio', 'list', '--unus'], ['vfio list']])
    expect({ args, ...vioctl(args) }).toMatchObject({ args, status: 2, stdout: '' });
});

test('closed or odd surroundings change nothing', () => {
  const commands = [
    'dma plan --reserved /dev/null a=4K --json',
    'uring probe',
    'vfio restore',
    'vhost-user list --installed',
    'vfio doctor',
  ];
  for (const command of commands) {
    const plain = sh(`$V ${command} </dev/null`);
    const same = { command, status: plain.status, stdout: plain.stdout };
    for (const odd of [
      `$V ${command} <&-`,
      `LANG=C LC_ALL=C $V ${command} </dev/null`,
      `env -u HOME -u XDG_CACHE_HOME $V ${command} </dev/null`,
      `HOME=/proc/none $V ${command} </dev/null`,
      `d=$(mktemp -d); cd "$d"; rmdir "$d"; $V ${command} </dev/null`,
    ]) {
      const { status, stdout } = sh(odd);
      expect({ command, status, stdout }).toEqual(same);
    }
    expect({ command, ...sh(`$V ${command} >/dev/full </dev/null`) }).toMatchObject({
      command,
      status: 1,
      stderr: expect.stringContaining('write error: ENOSPC'),
    });
  }
});

test('a command that needs no network opens no socket but UNIX and netlink ones', () => {
  if (!which('strace')) return skip('network of plain commands', 'strace is missing');
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-net-'));
  try {
    for (const command of [
      '--help',
      '--version',
      'uring probe',
      'vfio list',
      'vfio doctor',
      'vhost-user list',
      'dma plan --reserved /dev/null a=4K',
    ]) {
      const log = path.join(dir, 'log');
      spawnSync('strace', ['-f', '-e', 'trace=socket,connect', '-o', log, process.execPath, program, ...command.split(' ')], {
        env: plainEnv(),
      });
      const inet = fs.readFileSync(log, 'utf8').match(/socket\(AF_INET6?[^\n]*|connect\([^\n]*AF_INET[^\n]*/g) ?? [];
      expect({ command, inet }).toEqual({ command, inet: [] });
    }
  } finally {
    fs.rmSync(dir, { recursive: true });
  }
});

test('the units for systemd are well-formed', () => {
  if (!which('systemd-analyze')) return skip('systemd units', 'systemd-analyze is missing');
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-units-'));
  try {
    const units = path.resolve(program, '../../systemd');
    for (const name of fs.readdirSync(units).filter((name) => name.endsWith('.service'))) {
      // The program need not be installed where the unit looks for it.
      const text = fs.readFileSync(path.join(units, name), 'utf8').replace(/^(Exec\w+=-?)\S+/gm, '$1/bin/true');
      const instance = path.join(dir, name.replace('@.', '@x.'));
      fs.writeFileSync(instance, text);
      const { status, stderr } = spawnSync('systemd-analyze', ['verify', '--man=no', instance], { encoding: 'utf8' });
      expect({ name, status, said: stderr.split('\n').filter((line) => line.includes(path.basename(instance))) }).toEqual({
        name,
        status: 0,
        said: [],
      });
    }
  } finally {
    fs.rmSync(dir, { recursive: true });
  }
});

test('what is piped through jq, awk and xargs works as the examples say', () => {
  if (!which('jq')) return skip('examples with jq', 'jq is missing');
  const json = execFileSync(process.execPath, [program, 'uring', 'probe', '--json'], { env: plainEnv() });
  const flags = spawnSync('jq', ['-r', '.setupFlags[] | select(.supported).name'], { input: json, encoding: 'utf8' });
  expect(flags).toMatchObject({ status: 0, stderr: '' });
  expect(sh('$V dma plan --reserved /dev/null a=4K b=8K --json | jq -r \'.maps[] | .name + " " + .iova\'').stdout).toMatch(
    /^a 0x\w+\nb 0x\w+\n$/,
  );
});
