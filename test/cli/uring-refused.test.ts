import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { plainEnv, program } from '../support/cli.js';
import { compileC } from '../support/compile.js';
import { Workspace } from '../support/uring.js';

// What the system refuses or names in bytes: the commands go on where they can, and say why where they cannot.
const work = new Workspace();
afterAll(() => work.end());
const names = ['a', 'b', 'c'].map((name) => work.path(name));
for (const name of names) fs.writeFileSync(name, `data of ${path.basename(name)}\n`);
const sha = (bytes: Buffer | string): string => createHash('sha256').update(bytes).digest('hex');

/** Runs the program as it is, its arguments in bytes. */
const run = (before: string[], args: (string | Buffer)[], more: { input?: Buffer; uid?: number } = {}) => {
  // A shell passes bytes on: Node's own spawn() takes text only.
  const script = args.map((_, i) => `"$(printf '%b.' "$A${i}")"`);
  const env = Object.fromEntries(
    args.map((arg, i) => [`A${i}`, [...Buffer.from(arg)].map((b) => `\\0${b.toString(8).padStart(3, '0')}`).join('')]),
  );
  const words = script.map((word, i) => `w${i}=${word}; w${i}=\${w${i}%.}`).join('; ');
  const shell = `LC_ALL=C; ${words}; exec ${before.map((w) => `'${w}'`).join(' ')} '${process.execPath}' '${program}' uring ${args.map((_, i) => `"$w${i}"`).join(' ')}`;
  const { status, stdout, stderr } = spawnSync('bash', ['--norc', '-c', shell], {
    env: plainEnv(env),
    timeout: 90_000,
    ...(more.input && { input: more.input }),
    ...(more.uid !== undefined && { uid: more.uid, gid: more.uid }),
  });
  return { status, stdout: stdout.toString('latin1'), stderr: stderr.toString('latin1') };
};

describe.each([
  ['io_uring_setup', 425, 1],
  ['io_uring_enter', 426, 1],
  ['io_uring_enter', 426, 38],
  ['io_uring_register', 427, 1],
])('%s (%d) fails with errno %d', (_, nr, errno) => {
  const filter = compileC('test/support/programs/without-uring.c', work.path('filter'));
  const refused = [filter, `${errno}:${nr}`];

  test('probe says so in words and ends with 7, or with what is left', () => {
    const { status, stdout, stderr } = run(refused, ['probe']);
    expect(status).toBe(7);
    expect(stderr).toMatch(/^vioctl: uring probe: io_uring is not available: a seccomp filter/);
    expect(stdout + stderr).not.toContain('    at ');
  });

  test('sum, cat and sync go on with system calls; --engine uring says why it cannot', () => {
    expect(run(refused, ['sum', '--ordered', ...names])).toMatchObject({
      status: 0,
      stdout: names.map((name) => `${sha(fs.readFileSync(name))}  ${name}\n`).join(''),
    });
    expect(run(refused, ['cat', ...names])).toMatchObject({ status: 0, stdout: 'data of a\ndata of b\ndata of c\n' });
    expect(run(refused, ['sync', ...names])).toMatchObject({ status: 0, stdout: '' });
    for (const verb of ['sum', 'cat', 'sync'])
      expect(run(refused, [verb, '--engine', 'uring', ...names])).toMatchObject({
        status: 7,
        stderr: expect.stringMatching(/io_uring is not available: a seccomp filter/),
      });
  });
});

describe.each(['uring', 'sync'])('names that are not UTF-8 as arguments, engine %s', (engine) => {
  const odd = [
    Buffer.from([0x63, 0xe9]),
    Buffer.from([0xff, 0xfe]),
    Buffer.from([0xff, 0xfd]),
    Buffer.from('größe'),
    Buffer.from('cut\xc3', 'latin1'),
    Buffer.from('\ufffd'),
  ];
  const paths = odd.map((name) => Buffer.concat([Buffer.from(`${work.dir}/`), name]));
  beforeAll(() => {
    for (const [i, name] of paths.entries()) fs.writeFileSync(name, `content ${i}`);
  });

  test('sum prints their bytes; cat and sync find them', () => {
    const { status, stdout, stderr } = run([], ['sum', '--ordered', '--engine', engine, ...paths]);
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    expect(stdout).toBe(paths.map((name, i) => `${sha(`content ${i}`)}  ${name.toString('latin1')}\n`).join(''));
    expect(run([], ['cat', '--engine', engine, ...paths])).toMatchObject({
      status: 0,
      stdout: paths.map((_, i) => `content ${i}`).join(''),
    });
    expect(run([], ['sync', '--engine', engine, ...paths])).toMatchObject({ status: 0, stderr: '' });
  });
});

describe.each(['uring', 'sync'])('files that may be written and not read, engine %s', (engine) => {
  const dir = fs.mkdtempSync('/tmp/vioctl-write-only-');
  afterAll(() => fs.rmSync(dir, { recursive: true }));
  const uid = process.getuid?.() === 0 ? 65534 : process.getuid!();

  test('sync makes them durable; what may be neither is EACCES', () => {
    fs.chmodSync(dir, 0o755);
    const [only, none, folder] = ['only', 'none', 'folder'].map((name) => path.join(dir, name));
    for (const [name, mode] of [
      [only!, 0o200],
      [none!, 0],
    ] as const) {
      fs.writeFileSync(name, 'log');
      fs.chownSync(name, uid, uid);
      fs.chmodSync(name, mode);
    }
    fs.mkdirSync(folder!, 0o300);
    fs.chownSync(folder!, uid, uid);
    for (const more of [[], ['--data'], ['--filesystem']])
      expect(run([], ['sync', '--engine', engine, ...more, only!], { uid })).toEqual({ status: 0, stdout: '', stderr: '' });
    const { status, stderr } = run([], ['sync', '--engine', engine, '--ordered', only!, none!, folder!], { uid });
    expect(status).toBe(1);
    expect(stderr.match(/EACCES/g)?.length).toBe(2);
  });
});

test('vioctl-ring.h: pread and pwrite leave the completions of other requests to their owner', () => {
  fs.writeFileSync(work.path('digits'), '0123456789abcdef');
  fs.writeFileSync(work.path('many'), 'B'.repeat(4096));
  const child = compileC('test/support/programs/ring-others.c', work.path('ring-others'));
  const { status, stdout, stderr } = run([], ['register', work.path('digits'), work.path('many'), '--', child]);
  expect({ status, stderr, wrong: stdout.match(/^round.*|^never.*/m)?.[0] }).toEqual({
    status: 0,
    stderr: expect.any(String),
    wrong: undefined,
  });
});
