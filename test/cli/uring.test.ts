import { spawn, spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { FileTable, Ring } from '../../src/uring/index.js';
import { plainEnv, program, vioctl } from '../support/cli.js';
import { compileC } from '../support/compile.js';
import { skip } from '../support/skip.js';
import { Workspace } from '../support/uring.js';

const work = new Workspace();
afterAll(() => work.end());
fs.writeFileSync(work.path('a'), 'alpha');
fs.writeFileSync(work.path('b'), 'beta');
const run = (args: string[], options: Parameters<typeof vioctl>[1] = {}) => vioctl(['uring', ...args], { cwd: work.dir, ...options });
const lines = (text: string) =>
  text
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line));

describe('probe', () => {
  test('names every table, agrees with the kernel, and --require ends with 7 or 2', () => {
    const { status, stdout } = run(['probe', '--json']);
    expect(status).toBe(0);
    const report = JSON.parse(stdout);
    expect(report).toMatchObject({ available: true, limits: { entries: expect.any(Number) } });
    const supported = (list: { name: string; supported: boolean }[]) => list.filter((a) => a.supported).map((a) => a.name);
    expect(supported(report.requestOps)).toEqual(expect.arrayContaining(['nop', 'read', 'openat', 'files_update']));
    expect(supported(report.registerOps)).toEqual(expect.arrayContaining(['register_files', 'register_probe']));
    expect(supported(report.abilities)).toEqual(
      expect.arrayContaining(['registered_files', 'openat_direct', 'file_alloc_range', 'msg_ring_fd']),
    );
    expect(supported(report.abilities).includes('fd_install')).toBe(supported(report.requestOps).includes('fixed_fd_install'));
    expect(supported(report.setupFlags)).toEqual(
      expect.arrayContaining(['defer_taskrun', 'cqsize', 'sq_aff', 'attach_wq', 'taskrun_flag']),
    );
    expect(run(['probe', '--require', 'openat_direct,read', '--require', 'defer_taskrun'])).toMatchObject({
      status: 0,
      stdout: 'openat_direct: supported\nread: supported\ndefer_taskrun: supported\n',
    });
    const missing = report.requestOps.find((a: { supported: boolean }) => !a.supported);
    if (missing) {
      const refused = run(['probe', '--require', `read,${missing.name}`]);
      expect([refused.status, refused.stdout]).toEqual([7, '']);
      expect(refused.stderr).toContain(`missing: ${missing.name} (kernel ${missing.since}); this is kernel ${report.kernel}`);
    }
    expect(run(['probe', '--require', 'no_such_thing']).status).toBe(2);
  });

  test.each([
    [1, 'SECCOMP', 'seccomp filter blocks it'],
    [38, 'SECCOMP', 'seccomp filter hides it'],
    [12, 'MEMLOCK', 'locked memory is used up'],
  ])('errno %i of io_uring_setup: %s', (errno, kind, why) => {
    const filter = compileC('test/support/programs/without-uring.c', work.path('without-uring'));
    const { status, stdout, stderr } = spawnSync(filter, [String(errno), process.execPath, program, 'uring', 'probe', '--json'], {
      encoding: 'utf8',
      env: plainEnv(),
    });
    expect(status).toBe(7);
    expect(JSON.parse(stdout)).toMatchObject({ available: false, cause: { kind }, seccomp: true });
    expect(JSON.parse(stderr).error.message).toContain(why);
  });

  test('little locked memory: probe still tries everything, bench says what it needs, sum goes on without a ring', () => {
    const user = process.getuid?.() === 0 ? 'setpriv --reuid 65534 --regid 65534 --clear-groups' : '';
    const poor = (words: string) =>
      spawnSync('sh', ['-c', `ulimit -l 64; exec ${user} "${process.execPath}" "${program}" uring ${words}`], {
        cwd: '/',
        encoding: 'utf8',
        env: plainEnv({ HOME: '/nonexistent' }),
      });
    const probed = poor('probe --json');
    if (/MODULE_NOT_FOUND|EACCES/.test(probed.stderr)) return skip('a user with little locked memory', 'the checkout is private');
    const report = JSON.parse(probed.stdout);
    expect([probed.status, report.available, report.limits.lockedMemory]).toEqual([0, true, 65536]);
    expect(report.abilities.filter((a: { supported: boolean }) => a.supported).length).toBeGreaterThan(5);
    const benched = poor('bench /proc/self/exe --reads 10 --rounds 1 --size 64K');
    expect([benched.status, benched.stderr]).toEqual([
      1,
      expect.stringMatching(/ENOMEM.*\nhint: needs 2097152 bytes of locked memory: ulimit -l/),
    ]);
    const summed = poor('sum --depth 1024 /proc/version');
    expect([summed.status, summed.stdout.slice(64)]).toEqual([0, '  /proc/version\n']);
  });

  test('the sysctl is read from the system root', () => {
    const root = work.path('root');
    fs.mkdirSync(path.join(root, 'proc/sys/kernel'), { recursive: true });
    fs.writeFileSync(path.join(root, 'proc/sys/kernel/io_uring_disabled'), '2\n');
    const { stdout } = run(['probe', '--json'], { env: { VIOCTL_SYSROOT: root } });
    expect(JSON.parse(stdout).sysctl).toMatchObject({ disabled: '2' });
  });
});

describe('register', () => {
  test('files, a hole, descriptors: index, path, type, result; every failure is reported, exit 1', () => {
    const fd = fs.openSync(work.path('b'), 'r');
    const args = [program, 'uring', 'register', '--ndjson', 'a', 'missing', '-', '.', '--fd', '3', '--fd', '200'];
    const { status, stdout, stderr } = spawnSync(process.execPath, args, {
      cwd: work.dir,
      encoding: 'utf8',
      env: plainEnv(),
      stdio: ['ignore', 'pipe', 'pipe', fd],
    });
    fs.closeSync(fd);
    expect(status).toBe(1);
    expect(lines(stdout)).toEqual([
      { index: 0, path: 'a', type: 'file', result: 'ok' },
      { index: 1, path: 'missing', result: 'failed', errno: 'ENOENT', message: 'ENOENT (No such file or directory)' },
      { index: 3, path: '.', type: 'directory', result: 'ok' },
      { index: 4, fd: 3, path: work.path('b'), type: 'file', result: 'ok' },
      { index: 5, fd: 200, result: 'failed', errno: 'EBADF', message: 'descriptor 200 is closed' },
    ]);
    expect(stderr).toContain('2 of 5 entries failed');
  });

  test('what cannot be registered is named: a ring, an O_PATH descriptor', () => {
    const ring = new Ring({ entries: 1 });
    const opath = work.open(work.dir, 0o10000000);
    const args = [program, 'uring', 'register', '--json', '--fd', '3', '--fd', '4'];
    const { stdout } = spawnSync(process.execPath, args, {
      encoding: 'utf8',
      env: plainEnv(),
      stdio: ['ignore', 'pipe', 'pipe', ring.fd, opath],
    });
    ring.close();
    expect(JSON.parse(stdout).entries.map((e: { message: string }) => e.message)).toEqual([
      'descriptor 3 is an io_uring, which cannot be registered',
      'descriptor 4 is an O_PATH descriptor, which cannot be registered',
    ]);
  });

  test('--sparse and --update: replaced one by one, a failing update keeps the slot', () => {
    const { status, stdout, stderr } = run([
      'register',
      '--ndjson',
      'a',
      'b',
      '--sparse',
      '1024',
      '--update',
      '7=a',
      '--update',
      '1=missing',
      '--update',
      '0=-',
    ]);
    expect(status).toBe(1);
    expect(lines(stdout)).toMatchObject([
      { index: 1, path: 'missing', result: 'failed', errno: 'ENOENT', message: expect.stringContaining('the slot keeps what it had') },
      { index: 7, path: 'a', result: 'ok' },
    ]);
    expect(stderr).toContain('1024 slots: 1 registered, 1 failed, 1022 holes');
    expect(run(['register', 'a', '--update', '1=b']).status).toBe(2);
    expect(run(['register', 'a', '--update', 'x']).status).toBe(2);
    expect(run(['register']).status).toBe(2);
  });

  test('a NUL list; more slots than open files are allowed says both numbers', () => {
    const { stdout } = run(['register', '-0', '--ndjson'], { input: 'a\0b\0' });
    expect(lines(stdout).map((e) => e.path)).toEqual(['a', 'b']);
    const script = `ulimit -n 500; exec "${process.execPath}" "${program}" uring register --sparse 501`;
    const small = spawnSync('sh', ['-c', script], { encoding: 'utf8', env: plainEnv() });
    expect([small.status, small.stderr]).toEqual([1, expect.stringContaining('501 slots are more than the limit of open files (500)')]);
  });

  test('a child in C does I/O on the registered files through the inherited ring; its status is ours', () => {
    const child = compileC('test/support/programs/ring-child.c', work.path('ring-child'));
    fs.writeFileSync(work.path('from'), Buffer.alloc(123_457, 'data '));
    fs.writeFileSync(work.path('to'), '');
    const { status, stdout, stderr } = run(['register', '--write', 'from', 'to', '-', '--', child, '%r']);
    expect({ status, stdout, stderr }).toEqual({ status: 7, stdout: 'copied 123457, files 3, hole 9, nops 64 of 64, fd 3\n', stderr: '' });
    expect(fs.readFileSync(work.path('to')).equals(fs.readFileSync(work.path('from')))).toBe(true);
    expect(spawnSync(child, { encoding: 'utf8' }).status).toBe(3);
    expect(run(['register', 'a', 'missing', '--', child])).toMatchObject({ status: 1 });
    expect(run(['register', 'a', '--', work.path('no-such-program')])).toMatchObject({
      status: 127,
      stderr: expect.stringContaining('ENOENT'),
    });
  });

  test.each(['gcc -std=c99', 'g++ -std=c++17'])('the header for children compiles with %s and all warnings', (compiler) => {
    const main = work.path('header.c');
    fs.writeFileSync(main, '#include "vioctl-ring.h"\nint main(void) { struct vioctl_ring r; return vioctl_ring_attach(&r) < 0; }\n');
    const flags = '-pedantic-errors -Wall -Wextra -Wshadow -Wconversion -Werror -fsyntax-only -I include';
    const [program = '', standard = ''] = compiler.split(' ');
    const language = program === 'gcc' ? 'c' : 'c++';
    const { status, stderr } = spawnSync(program, [standard, ...flags.split(' '), '-x', language, main], { encoding: 'utf8' });
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
  });

  test('--hold keeps the table, where list and inspect find it, until SIGTERM', async () => {
    const child = spawn(process.execPath, [program, 'uring', 'register', '--hold', '--ndjson', 'a', '-', 'b'], {
      cwd: work.dir,
      env: plainEnv(),
    });
    const ended = new Promise((resolve) => child.on('exit', (code) => resolve(code)));
    try {
      await new Promise((resolve) => child.stdout.once('data', resolve));
      const ring = { pid: child.pid, sqEntries: 64, cqEntries: 128, tableSize: 3, sqPending: 0, cqPending: 0 };
      const listed = JSON.parse(run(['list', '--json']).stdout).rings.filter((r: { pid: number }) => r.pid === child.pid);
      expect(listed).toMatchObject([ring]);
      const [found] = JSON.parse(run(['inspect', String(child.pid), '--json']).stdout).rings;
      expect(found).toMatchObject({ ...ring, buffers: [] });
      expect(found.files.map((f: { index: number; path: string }) => [f.index, path.basename(f.path)])).toEqual([
        [0, 'a'],
        [2, 'b'],
      ]);
      expect(run(['inspect', String(child.pid)]).stdout).toMatch(/2: .*b$/m);
      expect(lines(run(['list', '--pid', String(child.pid), '--ndjson']).stdout)).toMatchObject([ring]);
    } finally {
      child.kill('SIGTERM');
    }
    expect(await ended).toBe(143);
  });

  test('inspect names a process that is not there, and refuses nonsense', () => {
    expect(run(['inspect', '4194305'])).toMatchObject({ status: 1, stderr: expect.stringContaining('no process 4194305') });
    expect(run(['inspect', 'init']).status).toBe(2);
  });

  test('buffers and polled requests are shown as well', () => {
    const ring = new Ring({ entries: 4 });
    new FileTable(ring).register([-1]);
    ring.registerBuffers([Buffer.alloc(8192)]);
    const { rings } = JSON.parse(run(['list', '--pid', String(process.pid), '--json']).stdout);
    const mine = rings.find((r: { fd: number }) => r.fd === ring.fd);
    expect(mine).toMatchObject({ buffers: [{ index: 0, address: expect.stringMatching(/^0x/), size: 8192 }], files: [], tableSize: 1 });
    ring.close();
  });
});

describe('bench', () => {
  test('one line per way, ratios against pread', () => {
    fs.writeFileSync(work.path('big'), Buffer.alloc(1 << 20));
    const { status, stdout } = run(['bench', 'big', '--reads', '200', '--rounds', '3', '--json']);
    expect(status).toBe(0);
    const { ways } = JSON.parse(stdout);
    expect(ways.map((w: { name: string }) => w.name)).toEqual(['pread', 'ring', 'one-thread', 'fixed-file', 'ring-fd', 'fixed-buffer']);
    expect(ways[0]).toMatchObject({ ratio: 1, ratioMin: 1, ratioMax: 1 });
    for (const way of ways) expect(way.cpuMin <= way.cpu && way.cpu <= way.cpuMax && way.wall > 0).toBe(true);
  });

  test('a file on tmpfs: a warning, since its figures mislead', () => {
    if (fs.statfsSync('/dev/shm').type !== 0x01021994) return skip('a file on tmpfs', '/dev/shm is none');
    const file = path.join('/dev/shm', `vioctl-bench-${process.pid}`);
    fs.writeFileSync(file, Buffer.alloc(1 << 16));
    const { status, stderr } = run(['bench', file, '--reads', '20', '--rounds', '1']);
    fs.unlinkSync(file);
    expect([status, stderr]).toEqual([0, expect.stringMatching(/^vioctl: .*warning: the file is on tmpfs/)]);
  });

  test('a file that is missing or too small', () => {
    expect(run(['bench', 'missing'])).toMatchObject({ status: 1, stderr: expect.stringContaining('missing: ENOENT') });
    expect(run(['bench', 'a'])).toMatchObject({ status: 1, stderr: expect.stringContaining('smaller than one read of 4096 bytes') });
  });
});
