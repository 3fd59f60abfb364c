/** The host commands against `nvmf serve`: streams, sizes, errors, exit statuses, bench. */
import { spawn, spawnSync } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { plainEnv, program } from '../support/cli.js';
import { nvmf, type ServedTarget, serveTarget, withFolder } from '../support/nvme-target.js';

let target: ServedTarget;
const size = 32 << 20;
beforeAll(async () => {
  target = await serveTarget([`ram:${size}`]);
});
afterAll(() => target?.stop());

const host = (verb: string, ...args: string[]) => [verb, '-s', String(target.port), '-n', target.nqn, ...args];
const sha = (data: Buffer) => createHash('sha256').update(data).digest('hex');

test('write and read in every unit, cut inside of blocks, with and without digests', async () => {
  const model = Buffer.alloc(size);
  const cases: [number, number, string[]][] = [
    [0, size, ['-i', '3']],
    [1, 1, ['-g']],
    [511, 2, ['-G']],
    [512, 16384, ['-g', '-G']],
    [12345, 1 << 20, ['-g', '-G', '-i', '2', '--chunk', '3K']],
    [size - 1, 1, []],
    [4096, 0, []],
  ];
  for (const [offset, length, args] of cases) {
    const data = randomBytes(length);
    data.copy(model, offset);
    const where = ['--offset', String(offset), ...args];
    const written = await nvmf(host('write', ...where, '--json'), { input: data });
    expect({ args: where, status: written.status, stderr: written.stderr }).toEqual({ args: where, status: 0, stderr: '' });
    expect(JSON.parse(written.stdout.toString())).toMatchObject({ bytes: length, flushed: true });
    const read = await nvmf(host('read', ...where, '--count', String(length)));
    expect(read).toMatchObject({ status: 0, stderr: '' });
    expect(sha(read.stdout)).toBe(sha(data));
  }
  expect(sha((await nvmf(host('read', '--iodepth', '1'))).stdout)).toBe(sha(model));
  const blocks = await nvmf(host('read', '--start-block', '24', '--blocks', '3'));
  expect(blocks.stdout.equals(model.subarray(24 * 512, 27 * 512))).toBe(true);
});

test('input that is too long or too short is written as far as it goes, and said', async () => {
  const data = randomBytes(2048);
  const long = await nvmf(host('write', '--offset', String(size - 1024)), { input: data });
  expect(long).toMatchObject({ status: 1, stderr: expect.stringContaining('longer than the 1024 bytes') });
  expect((await nvmf(host('read', '--offset', String(size - 1024)))).stdout.equals(data.subarray(0, 1024))).toBe(true);
  const short = await nvmf(host('write', '--count', '4K'), { input: data });
  expect(short).toMatchObject({ status: 1, stderr: expect.stringContaining('ended after 2048 of 4096 bytes') });
  expect(await nvmf(host('write', '--dry-run'), { input: data })).toMatchObject({
    status: 0,
    stderr: 'would write the input, whose size is not known\n',
  });
  const part = path.join(os.tmpdir(), `vioctl-part-${process.pid}`);
  fs.writeFileSync(part, data);
  const args = [process.execPath, program, ...['nvmf', ...host('write', '--dry-run', '--json')]].join(' ');
  // what was read of stdin before does not count
  const rest = spawnSync('sh', ['-c', `{ dd bs=512 count=1 of=/dev/null 2>&-; ${args}; } < ${part}`], {
    encoding: 'utf8',
    env: plainEnv(),
  });
  expect(JSON.parse(rest.stdout)).toMatchObject({ bytes: 1536, flushed: false });
  expect(JSON.parse((await nvmf(host('write', '--dry-run', '--json', '-d', part))).stdout.toString())).toMatchObject({ bytes: 2048 });
  fs.rmSync(part);
  const json = await nvmf(host('write', '--offset', '1T', '--json'), { input: data });
  expect({ status: json.status, out: json.stdout.length }).toEqual({ status: 1, out: 0 });
  expect(JSON.parse(json.stderr)).toMatchObject({ error: { code: 'ERANGE' } });
});

test('files: -d FILE both ways, a missing one, a full device', () =>
  withFolder(async (dir) => {
    const [from, to] = [path.join(dir, 'from'), path.join(dir, 'to')];
    fs.writeFileSync(from, randomBytes(100_000));
    expect(await nvmf(host('write', '-d', from))).toMatchObject({ status: 0 });
    expect(await nvmf(host('read', '-d', to, '--count', '100000'))).toMatchObject({ status: 0, stderr: '' });
    expect(fs.readFileSync(to).equals(fs.readFileSync(from))).toBe(true);
    expect(await nvmf(host('write', '-d', path.join(dir, 'none')))).toMatchObject({ status: 1, stderr: expect.stringContaining('ENOENT') });
    expect(await nvmf(host('read', '-d', '/dev/full'))).toMatchObject({ status: 1, stderr: expect.stringContaining('ENOSPC') });
  }));

test('a reader that closes the pipe, and one that sleeps longer than the keep-alive time-out', async () => {
  const command = (tail: string, ...args: string[]) =>
    `"${process.execPath}" "${program}" nvmf ${host('read', ...args).join(' ')} | ${tail}`;
  const head = spawnSync('bash', ['-c', `set -o pipefail; ${command('head -c 1000 | wc -c')}; echo $?`], {
    encoding: 'utf8',
    env: plainEnv(),
  });
  expect(head.stdout.trim().split('\n')).toEqual(['1000', '141']);
  expect(head.stderr).toBe('');
  const slow = spawnSync('bash', ['-c', `set -o pipefail; ${command('(sleep 4; wc -c)', '-k', '1')}`], {
    encoding: 'utf8',
    env: plainEnv(),
  });
  expect({ stdout: slow.stdout.trim(), stderr: slow.stderr, status: slow.status }).toEqual({ stdout: String(size), stderr: '', status: 0 });
});

test('errors name what failed, why, and what helps', async () => {
  const port = String(target.port);
  expect(await nvmf(['identify', '-s', '1', '-n', 'x'])).toMatchObject({
    status: 1,
    stderr: expect.stringContaining('ECONNREFUSED (Connection refused)'),
  });
  const wrong = await nvmf(['identify', '-s', port, '-n', 'nqn.2014-08.org.example:none']);
  expect(wrong.status).toBeGreaterThan(0);
  expect(wrong.stderr).toContain('hint: ');
  expect(await nvmf(host('read', '--namespace-id', '9'))).toMatchObject({ status: 1, stderr: expect.stringContaining('namespace 9') });
  expect(await nvmf(['identify', '-s', port])).toMatchObject({ status: 2 });
  expect(await nvmf(host('identify', '-q', 'x'.repeat(224)))).toMatchObject({ status: 2 });
  expect(await nvmf(host('identify', '-I', '00000000-0000-0000-0000-000000000000'))).toMatchObject({ status: 2 });
  expect(await nvmf(host('read', '--offset', '1', '--start-block', '1'))).toMatchObject({ status: 2 });
});

test('a target that never answers ends at --timeout with status 124', async () => {
  const server = spawn(process.execPath, [
    '-e',
    "require('net').createServer(() => {}).listen(0, '127.0.0.1', function () { console.log(this.address().port) })",
  ]);
  const port = await new Promise<string>((resolve) => server.stdout.once('data', (data: Buffer) => resolve(data.toString().trim())));
  const started = performance.now();
  const { status, stderr } = await nvmf(['identify', '-s', port, '-n', 'x', '--timeout', '500ms']);
  server.kill();
  expect({ status, stderr: stderr.includes('no answer within 0.5 s') }).toEqual({ status: 124, stderr: true });
  expect(performance.now() - started).toBeLessThan(10000);
});

test('ping and bench: JSON and text', async () => {
  const ping = await nvmf(host('ping', '--count', '3', '--interval', '1ms', '--ndjson'));
  expect(
    ping.stdout
      .toString()
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line).seq),
  ).toEqual([1, 2, 3]);
  for (const rw of ['randread', 'randwrite', 'rw']) {
    const { status, stdout } = await nvmf(
      host('bench', '--rw', rw, '--runtime', '200ms', '--json', '-g', '-G', '-i', '2', '--threads', '2', '--bs', '8K'),
    );
    const report = JSON.parse(stdout.toString());
    expect({ status, report }).toMatchObject({ status: 0, report: { rw, errors: 0, queues: 2, bs: 8192 } });
    expect(report.iops).toBeGreaterThan(100);
    const { min, p50, p99, max } = report.latency;
    expect([min, p50, p99, max]).toEqual([min, p50, p99, max].sort((a, b) => a - b));
    expect(report.reads === 0).toBe(rw === 'randwrite');
    expect(report.writes === 0).toBe(rw === 'randread');
  }
  const large = await nvmf(host('bench', '--rw', 'write', '--bs', '256K', '--iodepth', '4', '--runtime', '200ms', '-G'));
  expect(large).toMatchObject({ status: 0, stderr: '' });
  expect(large.stdout.toString()).toMatch(/^write 256K, 1 queue\(s\) of depth 4, .*\nIOPS +\d+ \(0 reads, \d+ writes, 0 errors\)/);
  // A histogram: each line has a range, a count and a bar; ranges follow each other, and all commands are counted.
  const [, , , , ...picture] = large.stdout.toString().trimEnd().split('\n');
  const rows = picture.map((line) => /^ *([\d.]+)-([\d.]+) us +(\d+)(?: +(█+|#+))?$/.exec(line)?.slice(1) ?? [line]);
  expect(rows.slice(1).map(([from]) => from)).toEqual(rows.slice(0, -1).map(([, to]) => to));
  expect(rows.filter(([, , count, bar]) => (count === '0') !== (bar === undefined))).toEqual([]);
  const [, writes] = /(\d+) writes/.exec(large.stdout.toString())!;
  expect(rows.reduce((sum, [, , count]) => sum + Number(count), 0)).toBe(Number(writes));
  expect(await nvmf(host('bench', '--bs', '1000'))).toMatchObject({ status: 2 });
  expect(await nvmf(host('bench', '--size', '1T'))).toMatchObject({ status: 2 });
});

test('what bench wrote is there: sequential writes leave no block of zeroes', async () => {
  const wide = await serveTarget(['ram:4M']);
  const at = ['-s', String(wide.port), '-n', wide.nqn];
  await nvmf(['bench', ...at, '--rw', 'write', '--bs', '64K', '--runtime', '500ms']);
  const { stdout } = await nvmf(['read', ...at]);
  await wide.stop();
  expect(stdout.length).toBe(4 << 20);
  for (let i = 0; i < stdout.length; i += 65536) expect(stdout.subarray(i, i + 65536).equals(stdout.subarray(0, 65536))).toBe(true);
  expect(stdout.subarray(0, 65536).equals(Buffer.alloc(65536))).toBe(false);
});
