import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { sumLine } from '../../src/uring/bulk/lines.js';
import { plainEnv, program } from '../support/cli.js';
import { skip, which } from '../support/skip.js';
import { Workspace } from '../support/uring.js';

// `uring sum --check` beside the programs whose lists it reads: the same lines, the same zero or non-zero status.
const work = new Workspace();
afterAll(() => work.end());

const names = ['plain', ' blanks ', 'new\nline', 'back\\slash', 'back\\slash\nline', 'return\rhere', 'größe', '-dash', 'a) = b', '*star'];
const dir = work.path('tree');
beforeEach(() => {
  fs.rmSync(dir, { recursive: true, force: true });
  fs.mkdirSync(dir);
  for (const name of names) fs.writeFileSync(path.join(dir, name), `content of ${name}`);
  fs.writeFileSync(path.join(dir, 'large'), Buffer.alloc(3_000_000, 'large'));
});
const run = (command: string, args: string[], input?: string | Buffer) => {
  const { status, stdout, stderr } = spawnSync(command, args, {
    cwd: dir,
    env: plainEnv({ LC_ALL: 'C.UTF-8' }),
    input: input ?? '',
    timeout: 90_000,
  });
  return { status, stdout: stdout.toString('latin1'), stderr: stderr.toString('latin1') };
};
const check = (args: string[], input?: string | Buffer) => run(process.execPath, [program, 'uring', 'sum', '--check', ...args], input);
const files = () => fs.readdirSync(dir).map((name) => `./${name}`);

describe.each([
  ['sha256sum', [], 'sha256'],
  ['sha1sum', ['--tag'], 'sha1'],
  ['md5sum', ['--binary'], 'md5'],
  ['sha512sum', [], 'sha512'],
  ['b2sum', ['--tag'], 'blake2b512'],
  ['b3sum', [], 'blake3'],
  ['xxhsum', ['-H1'], 'xxh64'],
  ['xxhsum', ['-H2', '--tag'], 'xxh128'],
] as const)('%s %j', (tool, how, algorithm) => {
  const odd = tool === 'xxhsum' ? ['plain', 'größe', 'large'] : undefined; // it escapes nothing
  /** A list by the tool, then files that are changed and gone. */
  const list = (): string => {
    const { stdout } = run(tool, [...how, ...(odd ?? files())]);
    fs.appendFileSync(path.join(dir, 'plain'), 'more');
    fs.rmSync(path.join(dir, 'größe'));
    return stdout;
  };
  const verdicts = (text: string): string[] => text.split('\n').filter((line) => / (OK|FAILED)/.test(line));

  test.each(['uring', 'sync'])('the same verdicts as its own -c, engine %s', (engine) => {
    if (!which(tool)) return skip('lists of other programs', `${tool} is not installed`);
    const lines = Buffer.from(list(), 'latin1');
    fs.writeFileSync(path.join(dir, '../list'), lines);
    const theirs = run(tool, [...(tool === 'xxhsum' ? how.filter((o) => o !== '--tag') : []), '-c', '../list']);
    const ours = check(['--engine', engine, '-a', algorithm, '../list']);
    const changed = verdicts(ours.stdout).filter((line) => line.endsWith(': FAILED'));
    expect([changed.length, ours.status, theirs.status === 0]).toEqual([1, 4, false]);
    // b3sum and xxhsum have words of their own for a file that is gone
    const same = (text: string) => verdicts(text).map((line) => line.replace(/: FAILED .*/, ': FAILED open or read'));
    if (tool !== 'xxhsum') expect(same(ours.stdout)).toEqual(same(theirs.stdout));
    expect(verdicts(ours.stdout)).toHaveLength(odd?.length ?? names.length + 1);
  });
});

describe('beside sha256sum -c', () => {
  const lists: [string, (sums: string) => string][] = [
    ['all right', (sums) => sums],
    ['malformed lines, comments, empty lines', (sums) => `# list\n\nbad\n${sums}another bad line\n`],
    ['nothing proper', () => 'bad\nworse\n'],
    ['empty', () => ''],
    ['a file that is gone', (sums) => `${sums}${'0'.repeat(64)}  ./gone\n`],
    ['only files that are gone', () => `${'0'.repeat(64)}  ./gone\n`],
    ['one that differs, one that is a folder', (sums) => `${sums}${'0'.repeat(64)}  ./plain\n${'1'.repeat(64)}  .\n`],
    [
      'no newline at the end, upper case, CRLF',
      (sums) =>
        sums
          .toUpperCase()
          .split('\n')
          .filter((l) => /LARGE$/.test(l))
          .map((l) => l.replace('LARGE', 'large'))
          .join('\r\n'),
    ],
  ];
  const options = [
    [],
    ['--quiet'],
    ['--status'],
    ['--ignore-missing'],
    ['--strict'],
    ['--warn'],
    ['--strict', '--quiet', '--ignore-missing'],
  ];

  test.each(lists)('%s', (_, make) => {
    const sums = run('sha256sum', files()).stdout;
    fs.writeFileSync(path.join(dir, 'list'), make(sums), 'latin1');
    for (const more of options) {
      const theirs = run('sha256sum', ['-c', ...more, 'list']);
      const ours = check([...more, '-a', 'sha256', 'list']);
      const words = (text: string) =>
        text
          .replaceAll('vioctl: uring sum: ', 'sha256sum: ')
          .replace(/: E[A-Z]+ \(([^)]*)\)/g, ': $1')
          .split('\n')
          .sort();
      expect({ more, out: ours.stdout, zero: ours.status === 0, err: words(ours.stderr) }).toEqual({
        more,
        out: theirs.stdout,
        zero: theirs.status === 0,
        err: words(theirs.stderr),
      });
    }
  });
});

test('names in messages are quoted as sha256sum quotes them', () => {
  const odd = Array.from({ length: 126 }, (_, i) => String.fromCharCode(i + 1)).filter((c) => c !== '/');
  const names = [
    ...odd.flatMap((c) => [c, `a${c}b`, `${c}c`]),
    ...["it's", "it's $5", "'", "a\n'b", 'a\n\rb\n', 'größe', 'größe here', 'new\nline\n', '\u2028', '\u0080'],
  ].filter((name) => !['.', '..'].includes(name));
  const bytes = [Buffer.from([0xff]), Buffer.from([0x61, 0xc3, 0x28]), Buffer.from([0xe2, 0x82, 0x62])];
  const all = [...names.map((name) => Buffer.from(name)), ...bytes].map((name) => Buffer.concat([Buffer.from('./none/'), name]));
  const lines = Buffer.concat(
    all.map((name) => Buffer.from(sumLine(name, '0'.repeat(64), { zero: false, tag: false, algorithm: 'sha256' }))),
  );
  const theirs = run('sha256sum', ['-c', '-'], lines)
    .stderr.split('sha256sum: ')
    .filter((m) => m.includes('No such file'));
  const ours = check(['-a', 'sha256', '-'], lines).stderr.replaceAll('ENOENT (No such file or directory)', 'No such file or directory');
  const messages = ours.split('vioctl: uring sum: ').filter((m) => m.includes('No such file'));
  expect(messages).toHaveLength(names.length + bytes.length);
  expect(messages).toEqual(theirs);
});

test('a file that may not be read, by a user without privileges: the same lines and messages as sha256sum -c', () => {
  const user = process.getuid!() === 0 ? ['setpriv', '--reuid', '65534', '--regid', '65534', '--clear-groups'] : ['env'];
  fs.chmodSync(work.dir, 0o755);
  const [command, ...words] = user as [string, ...string[]];
  if (run(command, [...words, process.execPath, program, '--version']).status !== 0)
    return skip('a user without privileges', 'may not run node here');
  fs.writeFileSync(
    path.join(dir, 'list'),
    run(
      'sha256sum',
      ['plain', 'large', '-dash', 'back\\slash'].map((name) => `./${name}`),
    ).stdout,
    'latin1',
  );
  for (const name of ['large', 'back\\slash']) fs.chmodSync(path.join(dir, name), 0);
  const theirs = run(command, [...words, 'sha256sum', '-c', 'list']);
  for (const engine of ['uring', 'sync']) {
    const ours = run(command, [...words, process.execPath, program, 'uring', 'sum', '--engine', engine, '--check', '-a', 'sha256', 'list']);
    const messages = (text: string) =>
      text
        .replaceAll('vioctl: uring sum: ', 'sha256sum: ')
        .replaceAll(': EACCES (Permission denied)', ': Permission denied')
        .split('\n')
        .sort();
    expect([ours.stdout, messages(ours.stderr), ours.status]).toEqual([theirs.stdout, messages(theirs.stderr), theirs.status]);
  }
});

test('exit statuses: 4 for a difference, 1 for what cannot be read, is missing or malformed', () => {
  const sums = run('sha256sum', ['plain', 'large']).stdout;
  expect(check([], sums).status).toBe(0);
  expect(
    check(
      [],
      sums.replace(/^./, (c) => (c === '0' ? '1' : '0')),
    ).status,
  ).toBe(4);
  expect(check([], sums.replace('plain', 'gone')).status).toBe(1);
  expect(check([], `${sums}bad\n`).status).toBe(0);
  expect(check(['--strict'], `${sums}bad\n`).status).toBe(1);
  expect(check([], 'bad\n').status).toBe(1);
  expect(check(['./none']).status).toBe(1);
  expect(check(['--ignore-missing'], `${'0'.repeat(64)}  gone\n`).status).toBe(1);
  expect(run(process.execPath, [program, 'uring', 'sum', '--strict', 'plain']).status).toBe(2);
});

test('lines of several algorithms in one list, and in JSON', () => {
  const sums = ['sha256', 'md5', 'blake3', 'xxh3', 'sha256']
    .map((a) => run(process.execPath, [program, 'uring', 'sum', '--tag', '-a', a, 'plain']).stdout)
    .join('');
  expect(check([], sums)).toEqual({ status: 0, stdout: 'plain: OK\n'.repeat(5), stderr: '' });
  fs.appendFileSync(path.join(dir, 'plain'), '!');
  const { status, stdout, stderr } = check(['--json'], `${sums}${'0'.repeat(64)}  gone\n`);
  const { files: rows } = JSON.parse(stdout);
  expect(status).toBe(4);
  expect(rows.map((row: { algorithm: string; matches: boolean }) => [row.algorithm, row.matches])).toEqual([
    ['sha256', false], ['md5', false], ['blake3', false], ['xxh3', false], ['sha256', false], ['sha256', false],
  ]); // biome-ignore format: a list
  expect(rows[5]).toMatchObject({ path: 'gone', error: { code: 'ENOENT' } });
  expect(JSON.parse(stderr)).toMatchObject({ error: { code: 'DIFFERS', details: { differ: 5, unreadable: 1, files: 6 } } });
});

test('NUL-terminated lines, with names that would be escaped', () => {
  const sums = run(process.execPath, [program, 'uring', 'sum', '-z', ...files()]).stdout;
  expect(sums.split('\0')).toHaveLength(files().length + 1);
  const { status, stdout } = check(['-z', '--quiet'], Buffer.from(sums, 'latin1'));
  expect({ status, stdout }).toEqual({ status: 0, stdout: '' });
});

test('-r sums the files below folders, as find and sha256sum do', () => {
  fs.mkdirSync(path.join(dir, 'sub/deep'), { recursive: true });
  for (const name of ['sub/a', 'sub/deep/b', 'sub/deep/c\nd']) fs.writeFileSync(path.join(dir, name), name);
  fs.symlinkSync('a', path.join(dir, 'sub/link'));
  spawnSync('mkfifo', [path.join(dir, 'sub/fifo')]);
  const theirs = run('bash', ['-c', 'find . -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum']);
  const ours = run(process.execPath, [program, 'uring', 'sum', '-r', '.']);
  expect(ours.status).toBe(0);
  expect(ours.stdout.split('\n').sort()).toEqual(theirs.stdout.split('\n').sort());
  expect(run(process.execPath, [program, 'uring', 'sum', '-r', 'sub/link', 'none']).status).toBe(1);
});
