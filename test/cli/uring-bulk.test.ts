import { spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { blake3 } from '@noble/hashes/blake3.js';
import { native } from '../../src/native/index.js';
import { plainEnv, program, vioctl } from '../support/cli.js';
import { compileC } from '../support/compile.js';
import { skip, which } from '../support/skip.js';
import { Workspace } from '../support/uring.js';

const work = new Workspace();
afterAll(() => work.end());

/** Files of every size that a boundary could be at, and awkward names. */
const sizes = [0, 1, 4096, 65535, 65536, 65537, 131072, 65536 + 262144, 65536 + 262144 + 1, 1_500_000, 3_000_001];
const tree = path.join(work.dir, 'tree');
fs.mkdirSync(tree);
const contents = new Map<string, Buffer>();
for (const size of sizes) contents.set(`size-${size}`, Buffer.alloc(size, `${size} bytes: `));
for (const name of ['new\nline', 'back\\slash', 'carriage\rreturn', ' spaces ', 'ünïcödé']) contents.set(name, Buffer.from(name));
for (const [name, bytes] of contents) fs.writeFileSync(path.join(tree, name), bytes);
const nul = Buffer.from(`${[...contents.keys()].join('\0')}\0`);
const sha256 = (bytes: Buffer): string => createHash('sha256').update(bytes).digest('hex');
const run = (args: string[], input?: Buffer | string) => vioctl(['uring', ...args], { cwd: tree, ...(input !== undefined && { input }) });

describe.each(['uring', 'sync'] as const)('engine %s', (engine) => {
  test('sum: sha256sum -c reads the lines, whatever the names', () => {
    const { status, stdout, stderr } = run(['sum', '-0', '--engine', engine], nul);
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    const check = spawnSync('sha256sum', ['-c', '--strict', '--quiet'], { cwd: tree, input: stdout, encoding: 'utf8' });
    expect({ status: check.status, stdout: check.stdout, stderr: check.stderr }).toEqual({ status: 0, stdout: '', stderr: '' });
    expect(stdout.split('\n').length).toBe(contents.size + 1);
  });

  test('sum --ordered --ndjson: one object per file, in order, with size and digest', () => {
    const { stdout } = run(['sum', '-0', '--engine', engine, '--ordered', '--ndjson'], nul);
    const rows = stdout
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line));
    expect(rows).toEqual(
      [...contents].map(([name, bytes]) => ({ path: name, algorithm: 'sha256', digest: sha256(bytes), size: bytes.length })),
    );
  });

  test('sum: every file that fails is reported, the others go on, exit 1', () => {
    fs.symlinkSync('loop', path.join(tree, 'loop'));
    const names = ['size-1', 'missing', 'size-4096', '.', 'loop', 'x'.repeat(5000), 'x'.repeat(256), 'size-0'];
    const { status, stdout, stderr } = run(['sum', '--engine', engine, '--ordered', ...names]);
    fs.unlinkSync(path.join(tree, 'loop'));
    expect(status).toBe(1);
    expect(
      stdout
        .trimEnd()
        .split('\n')
        .map((line) => line.slice(66)),
    ).toEqual(['size-1', 'size-4096', 'size-0']);
    const lines = stderr.trimEnd().split('\n');
    expect(lines.map((line) => /: (E[A-Z]+) /.exec(line)?.[1])).toEqual([
      'ENOENT',
      'EISDIR',
      'ELOOP',
      'ENAMETOOLONG',
      'ENAMETOOLONG',
      undefined,
    ]);
    expect(lines[5]).toBe('vioctl: uring sum: 5 of 8 files failed');
    const json = run(['sum', '--engine', engine, '--json', 'missing', 'size-1']);
    expect(json.status).toBe(1);
    expect(JSON.parse(json.stdout).files).toHaveLength(2);
    expect(JSON.parse(json.stderr)).toMatchObject({ error: { code: 'FILES_FAILED', details: { failed: 1, files: 2 } } });
  });

  test.each([
    ['b3sum', [], 'blake3'],
    ['xxhsum', ['-H0'], 'xxh32'],
    ['xxhsum', ['-H1'], 'xxh64'],
    ['xxhsum', ['-H2'], 'xxh128'],
  ])('sum: %s %p -c reads the lines of %s', (tool, more, algorithm) => {
    if (!which(tool)) return skip('sums that other programs check', `${tool} is not installed`);
    const { status, stdout } = run(['sum', '-a', algorithm, '--engine', engine, ...sizes.map((size) => `size-${size}`)]);
    expect(status).toBe(0);
    const check = spawnSync(tool, [...more, '-c'], { cwd: tree, input: stdout, encoding: 'utf8' });
    expect([check.status, check.stdout.match(/: OK$/gm)?.length]).toEqual([0, sizes.length]);
  });

  test('sum of other algorithms, tags, NUL lines', () => {
    const one = Buffer.from(blake3(Buffer.from('1'))).toString('hex'); // the program streams or takes it whole: the same
    const md5 = spawnSync('md5sum', ['size-65537'], { cwd: tree, encoding: 'utf8' }).stdout;
    expect(run(['sum', '--engine', engine, '-a', 'md5', 'size-65537']).stdout).toBe(md5);
    const tagged = spawnSync('sha512sum', ['--tag', 'new\nline'], { cwd: tree, encoding: 'utf8' }).stdout;
    expect(run(['sum', '--engine', engine, '-a', 'sha512', '--tag', 'new\nline']).stdout).toBe(tagged);
    const zero = spawnSync('sha256sum', ['-z', 'new\nline'], { cwd: tree, encoding: 'utf8' }).stdout;
    expect(run(['sum', '--engine', engine, '-z', 'new\nline']).stdout).toBe(zero);
    expect(run(['sum', '--engine', engine, '-a', 'blake3', '--tag', 'size-0', 'size-1']).stdout.split('\n').sort()).toEqual([
      '',
      'BLAKE3 (size-0) = af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262',
      `BLAKE3 (size-1) = ${one}`,
    ]);
    const crc = native().common.crc32c(contents.get('size-3000001')!).toString(16).padStart(8, '0');
    expect(run(['sum', '--engine', engine, '-a', 'crc32c', 'size-3000001']).stdout).toBe(`${crc}  size-3000001\n`);
  });

  test('cat is cat, in order, also of pipes and of files in /proc', () => {
    const args = ['uring', 'cat', '--engine', engine];
    const { stdout, status } = spawnSync(process.execPath, [program, ...args, '-0'], {
      cwd: tree,
      input: nul,
      env: plainEnv(),
      maxBuffer: 1 << 28,
    });
    expect(status).toBe(0);
    expect(stdout.equals(Buffer.concat([...contents.values()]))).toBe(true);
    const pipe = spawnSync(
      'sh',
      ['-c', `cat size-3000001 | "${process.execPath}" "${program}" ${args.join(' ')} /dev/stdin | cmp - size-3000001`],
      { cwd: tree },
    );
    expect(pipe.status).toBe(0);
    expect(run([...args.slice(1), '/proc/version']).stdout).toBe(fs.readFileSync('/proc/version', 'utf8'));
  });

  test('cat: what fails is reported, the rest comes in order, exit 1; --no-ordered loses and mixes nothing', () => {
    const { status, stdout, stderr } = run(['cat', '--engine', engine, 'size-1', 'missing', 'ünïcödé']);
    expect([status, stdout]).toEqual([1, '1ünïcödé']);
    expect(stderr).toContain('missing: ENOENT');
    const files = Array.from({ length: 300 }, (_, i) => `n${i}`);
    for (const name of files) fs.writeFileSync(path.join(work.dir, name), `${name} `.repeat(1000));
    const any = vioctl(['uring', 'cat', '--engine', engine, '--no-ordered'], { cwd: work.dir, input: files.join('\n') });
    const runs = any.stdout.trimEnd().split(' ');
    expect(runs.length).toBe(300_000);
    expect(runs.filter((name, i) => name !== runs[i - 1]).length).toBe(300);
  });

  test('sync: nothing to say for files that went well, per-file results as JSON', () => {
    expect(run(['sync', '-0', '--engine', engine], nul)).toMatchObject({ status: 0, stdout: '', stderr: '' });
    for (const more of [['--data'], ['--filesystem'], []]) {
      const { status, stdout } = run(['sync', '--engine', engine, '--ordered', '--ndjson', ...more, 'size-1', 'missing', '.']);
      expect(status).toBe(1);
      expect(
        stdout
          .trimEnd()
          .split('\n')
          .map((line) => JSON.parse(line)),
      ).toEqual([
        { path: 'size-1' },
        { path: 'missing', error: { code: 'ENOENT', message: 'ENOENT (No such file or directory)' } },
        { path: '.' },
      ]);
    }
  });

  test('cat: a file that shrinks while it is read is reported, the next one goes out, exit 1', () => {
    const file = path.join(work.dir, 'shrinks');
    fs.writeFileSync(file, '');
    fs.truncateSync(file, 1 << 30);
    // Data behind the first pieces is written once the file's size has been looked at; then it is cut.
    const script = `("${process.execPath}" "${program}" uring cat --engine ${engine} "${file}" size-1; echo "$?" >&2) |
      (head -c 2000000 >/dev/null; truncate -s 1M "${file}"; tail -c 1)`;
    const { stdout, stderr } = spawnSync('sh', ['-c', script], { cwd: tree, encoding: 'utf8', env: plainEnv() });
    expect(stdout).toBe('1');
    expect(stderr).toMatch(/shrinks: TRUNCATED \(it shrank while it was read\)\nvioctl: uring cat: 1 of 2 files failed\n1\n$/);
    fs.writeFileSync(file, '');
  });

  test('--stats: what it took, as prose or JSON on stderr, also where files fail', () => {
    const rings = engine === 'uring' ? 'io_uring: \\d+ calls, 0 with overflowed completions' : 'plain system calls';
    const text = run(['sum', '--engine', engine, '--stats', 'size-1', 'size-4096', 'missing']);
    expect(text.status).toBe(1);
    expect(text.stderr).toMatch(new RegExp(`^vioctl: uring sum: 3 files \\(1 failed\\), 4097 bytes read, [\\d.]+ s; ${rings}$`, 'm'));
    for (const [verb, bytes] of [
      ['sync', 0],
      ['cat', 4097],
    ] as const) {
      const { stderr } = run([verb, '--engine', engine, '--stats', ...(verb === 'sync' ? ['--json'] : []), 'size-1', 'size-4096']);
      if (verb === 'cat') expect(stderr).toMatch(/uring cat: 2 files \(0 failed\), 4097 bytes read/);
      else expect(JSON.parse(stderr).stats).toMatchObject({ files: 2, failed: 0, bytes, engine, seconds: expect.any(Number) });
    }
    expect(run(['sum', '--engine', engine, 'size-1']).stderr).toBe('');
  });

  test('a list that is empty', () => {
    for (const verb of ['sum', 'cat', 'sync'])
      expect(run([verb, '--engine', engine], '')).toMatchObject({ status: 0, stdout: '', stderr: '' });
  });

  test('names that are not UTF-8 stay what they are', () => {
    const name = Buffer.from([0x66, 0xff, 0xfe, 0x2e]);
    const file = Buffer.concat([Buffer.from(`${tree}/`), name]);
    fs.writeFileSync(file, 'odd');
    const { stdout } = spawnSync(process.execPath, [program, 'uring', 'sum', '--engine', engine], {
      cwd: tree,
      input: name,
      env: plainEnv(),
    });
    expect(stdout.subarray(66, 70)).toEqual(name);
    expect(JSON.parse(run(['sum', '--engine', engine, '--ndjson'], name).stdout)).toMatchObject({
      path: 'f\ufffd\ufffd.',
      pathHex: '66fffe2e',
      size: 3,
    });
    fs.unlinkSync(file);
  });
});

test('a closed pipe ends sum and cat with 141 and in silence', () => {
  for (const verb of ['sum', 'cat']) {
    const script = `yes size-3000001 | head -2000 | "${process.execPath}" "${program}" uring ${verb} | head -c 100 >/dev/null; echo "\${PIPESTATUS[2]}"`;
    const { stdout, stderr } = spawnSync('bash', ['-c', script], { cwd: tree, encoding: 'utf8', env: plainEnv(), timeout: 90_000 });
    expect([stdout, stderr]).toEqual(['141\n', '']);
  }
});

test.each(['sum', 'sum -a blake3', 'sum --engine sync', 'cat', 'cat --engine sync'])(
  'SIGINT in the middle of %s: 130, and nothing is left waiting',
  async (words) => {
    const fifo = path.join(work.dir, 'fifo'); // nobody writes to it: opening it waits
    if (!fs.existsSync(fifo)) spawnSync('mkfifo', [fifo]);
    const args = [program, 'uring', ...words.split(' '), path.join(tree, 'size-1'), fifo];
    const child = spawn(process.execPath, args, { env: plainEnv() });
    const ended = new Promise((resolve) => child.on('exit', (code, signal) => resolve([code, signal])));
    try {
      await new Promise((resolve) => child.stdout.once('data', resolve));
      child.kill('SIGINT');
      expect(await ended).toEqual([130, null]);
    } finally {
      child.kill('SIGKILL');
    }
  },
);

describe('without io_uring', () => {
  const filter = compileC('test/support/programs/without-uring.c', path.join(work.dir, 'without-uring'));
  const blocked = (errno: number, args: string[]) =>
    spawnSync(filter, [String(errno), process.execPath, program, 'uring', ...args], { cwd: tree, encoding: 'utf8', env: plainEnv() });

  test.each([
    [1, /seccomp filter blocks it \(container/],
    [38, /seccomp filter hides it \(kernel .* is new enough\)/],
  ])('errno %i: auto falls back and says why, uring is 7 with the reason', (errno, why) => {
    const auto = blocked(errno, ['sum', 'size-1']);
    expect(auto).toMatchObject({ status: 0, stdout: `${sha256(contents.get('size-1')!)}  size-1\n` });
    expect(auto.stderr).toMatch(why);
    expect(blocked(errno, ['sum', '--quiet', 'size-1']).stderr).toBe('');
    const forced = blocked(errno, ['sum', '--engine', 'uring', 'size-1']);
    expect([forced.status, forced.stdout]).toEqual([7, '']);
    expect(forced.stderr).toMatch(why);
    expect(forced.stderr).toContain('hint: allow io_uring_setup');
  });
});

describe('limits, and an io_uring_enter that fails', () => {
  const list = path.join(work.dir, 'entered');
  const names = Array.from({ length: 400 }, (_, i) => `n${i}`);
  const plain = new Map<string, string>();
  beforeAll(() => {
    for (const name of names) fs.writeFileSync(path.join(work.dir, name), `${name} `.repeat(50));
    fs.writeFileSync(list, `${names.join('\0')}\0`);
    for (const verb of ['sum', 'cat', 'sync']) plain.set(verb, output(verb, '--engine sync'));
  });
  const output = (verb: string, words: string, before = ''): string => {
    const order = verb === 'sum' ? '--ordered' : '';
    const script = `${before} "${process.execPath}" "${program}" uring ${verb} -0 ${order} ${words} <"${list}"`;
    const { stdout, stderr, status } = spawnSync('sh', ['-c', script], {
      cwd: work.dir,
      encoding: 'utf8',
      env: plainEnv(),
      timeout: 90_000,
    });
    return `${status} ${stdout}${stderr}`;
  };
  const inject = (what: string) => `strace -f -qq -o /dev/null -e trace=io_uring_enter -e inject=io_uring_enter:${what}`;

  test.each(['sum', 'cat', 'sync'])(
    '%s: 400 files where 40 or 26 may be open: direct descriptors, a table that fits, few threads',
    (verb) => {
      for (const engine of ['uring', 'sync'])
        for (const most of [40, 26]) expect(output(verb, `--engine ${engine}`, `ulimit -n ${most};`)).toBe(plain.get(verb));
    },
  );

  test.each(['sum', 'cat', 'sync'])('%s: EAGAIN, EBUSY and EINTR of every third call are tried again, nothing is lost', (verb) => {
    if (!which('strace')) return skip('failing system calls', 'strace is not installed');
    for (const errno of ['EAGAIN', 'EBUSY', 'EINTR'])
      expect(output(verb, '--engine uring', inject(`error=${errno}:when=2+3`))).toBe(plain.get(verb));
  });

  test.each(['sum', 'cat', 'sync'])('%s: EPERM (a filter that allows to open rings only) is 7 and said', (verb) => {
    if (!which('strace')) return skip('failing system calls', 'strace is not installed');
    expect(output(verb, '--engine uring', inject('error=EPERM'))).toMatch(
      /^7 vioctl: uring \w+: io_uring is not available: a security module or policy refuses it\n$/,
    );
  });
});

describe('a limit of threads', () => {
  const shm = fs.mkdtempSync('/dev/shm/vioctl-'); // where files are on tmpfs the kernel needs threads of its own for them
  afterAll(() => fs.rmSync(shm, { recursive: true }));
  const names = Array.from({ length: 300 }, (_, i) =>
    i % 10 === 7 ? work.path(`missing${i}`) : path.join(i % 3 ? work.dir : shm, `t${i}`),
  );
  const input = Buffer.from(`${names.join('\0')}\0`);
  // RLIMIT_NPROC counts the threads of a user, and does not bind root: each program runs as a user that nobody else is.
  let uid = 40000 + (process.pid % 1000) * 1000;
  const user = (...command: string[]): string[] => ['--reuid', `${++uid}`, '--regid', `${uid}`, '--clear-groups', ...command];
  const environment = { env: plainEnv({ HOME: '/nonexistent' }), cwd: '/' };
  let least: number; // Node's own threads, and the four of libuv
  let impossible: string | undefined;
  beforeAll(() => {
    fs.chmodSync(work.dir, 0o755);
    fs.chmodSync(shm, 0o755);
    for (const [i, name] of names.entries()) if (i % 10 !== 7) fs.writeFileSync(name, `${i} `.repeat(i % 50 === 0 ? 100_000 : 100));
    if (process.getuid?.() !== 0) impossible = 'only root may become another user';
    else if (!which('setpriv') || !which('prlimit')) impossible = 'setpriv and prlimit are not installed';
    if (impossible) return;
    const run = (...words: string[]) => spawnSync('setpriv', user(process.execPath, ...words), { ...environment, encoding: 'utf8' });
    least = Number(run('-p', 'require("fs").readdirSync("/proc/self/task").length').stdout) + 4;
    const tried = run(program, '--version');
    if (tried.status !== 0) impossible = `the checkout is private: ${tried.stderr}`;
  });
  /** Command line with `spare` threads beyond those that Node cannot do without. */
  const limited = (spare: number, words: string): string[] =>
    user('prlimit', `--nproc=${least + spare}`, process.execPath, program, 'uring', ...words.split(' '));
  const output = (spare: number, words: string) => {
    const options = { ...environment, input, timeout: 90_000, maxBuffer: 1 << 28, encoding: 'utf8' } as const;
    const { status, stdout, stderr } = spawnSync('setpriv', limited(spare, words), options);
    return { status, stdout, stderr };
  };

  test.each([
    'sync -0 --ordered --ndjson --engine sync',
    'sync -0 --ordered --ndjson --engine uring',
    'sum -0 --ordered --ndjson --engine uring',
    'sum -0 --ordered --ndjson --engine sync',
    'sum -0 --ordered --ndjson --engine uring -a blake3',
    'cat -0 --engine uring',
  ])('%s: 1, 2, 3 or 10 more do what any number does', (words) => {
    if (impossible) return skip('a limit of threads', impossible);
    const all = output(500, words);
    expect(all.status).toBe(1); // what is missing
    expect(all.stdout.length).toBeGreaterThan(300 * 20);
    for (const spare of [1, 2, 3, 10]) expect(output(spare, words)).toEqual(all);
  });

  test('sync without a ring goes on with the threads that it got', async () => {
    if (impossible) return skip('a limit of threads', impossible);
    const child = spawn('setpriv', limited(10, 'sync -0 --engine sync'), environment);
    const ended = new Promise((resolve) => child.on('exit', (code, signal) => resolve([code, signal])));
    try {
      const threads = (): number => {
        const tasks = `/proc/${child.pid}/task`;
        return fs.readdirSync(tasks).filter((tid) => fs.readFileSync(`${tasks}/${tid}/comm`, 'utf8') === 'plain-bulk\n').length;
      };
      while (threads() < 10) await new Promise((resolve) => setTimeout(resolve, 5));
      let stderr = '';
      child.stderr.on('data', (chunk) => {
        stderr += chunk;
      });
      child.stdin.end(input);
      expect(await ended).toEqual([1, null]);
      expect(stderr).toMatch(/30 of 300 files failed\n$/);
    } finally {
      child.kill('SIGKILL');
    }
  });

  test('not even one: sync says what the limit is, sum needs none without a ring', () => {
    if (impossible) return skip('a limit of threads', impossible);
    const [why, hint] = ['no thread can be started: a limit of processes is reached', 'hint: ulimit -u, or pids.max of its cgroup'];
    expect(output(0, 'sync -0 --engine sync')).toEqual({ status: 1, stdout: '', stderr: `vioctl: uring sync: ${why}\n${hint}\n` });
    const ring = output(0, 'sum -0 --engine uring');
    expect(ring).toEqual({ status: 1, stdout: '', stderr: `vioctl: uring sum: io_uring is not available: ${why}\n${hint}\n` });
    const any = output(0, 'sum -0 --ordered');
    expect(any.stdout).toBe(output(500, 'sum -0 --ordered').stdout);
    expect(any.stderr).toContain(`warning: io_uring is not available (${why}): plain system calls are used\n`);
  });
});

test('files on tmpfs: a warning with the remedy', () => {
  if (fs.statfsSync('/dev/shm').type !== 0x01021994) return;
  const file = path.join('/dev/shm', `vioctl-${process.pid}`);
  fs.writeFileSync(file, 'x');
  const { status, stderr } = run(['sum', file]);
  fs.unlinkSync(file);
  expect(status).toBe(0);
  expect(stderr).toMatch(/warning: files are on tmpfs.*--engine sync/);
});

test('find -print0 | uring sum -0 --ndjson | jq: 300,000 names in constant memory, none lost', () => {
  if (!which('jq')) return skip('the pipeline into jq', 'jq is not installed');
  const many = path.join(work.dir, 'many');
  fs.mkdirSync(many);
  for (let i = 0; i < 500; i++) fs.writeFileSync(path.join(many, `file ${i}`), `${i}`);
  fs.writeFileSync(work.path('peak.cjs'), 'process.on("exit", () => console.error("peak", process.resourceUsage().maxRSS));');
  // find's list again and again: what is measured is names, not inodes
  const peak = (times: number): { count: number; kib: number } => {
    const script = `find "${many}" -type f -print0 >list; for i in $(seq ${times}); do cat list; done |
      "${process.execPath}" --require "${work.path('peak.cjs')}" "${program}" uring sum -0 --ndjson | jq -r 'select(.size < 4 and .digest).path' | wc -l`;
    const options = { cwd: work.dir, encoding: 'utf8', env: plainEnv() } as const;
    const { stdout, stderr, status } = spawnSync('bash', ['-o', 'pipefail', '-c', script], options);
    expect(status).toBe(0);
    return { count: Number(stdout), kib: Number(/peak (\d+)/.exec(stderr)![1]) };
  };
  const few = peak(100);
  const lots = peak(600);
  expect([few.count, lots.count]).toEqual([50_000, 300_000]);
  expect(lots.kib - few.kib).toBeLessThan(48 * 1024); // the heap's own breathing: 250,000 results kept would be above 60 MiB
});
