import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import http from 'node:http';
import net from 'node:net';
import path from 'node:path';
import { Op, Ring } from '../../src/uring/index.js';
import { plainEnv } from '../support/cli.js';
import { skip } from '../support/skip.js';
import { offers, Workspace } from '../support/uring.js';

// The programs of docs/examples as a user runs them.
const root = path.resolve(__dirname, '..', '..');
const work = new Workspace();
afterAll(() => work.end());
const argv = (name: string, ...args: string[]): string[] => [
  path.join(root, 'node_modules/tsx/dist/cli.mjs'),
  path.join(root, 'docs/examples', `${name}.ts`),
  ...args,
];
const run = (name: string, ...args: string[]) =>
  spawnSync(process.execPath, argv(name, ...args), { cwd: work.dir, encoding: 'utf8', env: plainEnv(), timeout: 100_000 });

describe('static-server', () => {
  let server: ChildProcess | undefined;
  let url = '';
  beforeAll(async () => {
    const probe = new Ring({ entries: 2 });
    const able = offers(probe, Op.fixedFdInstall);
    probe.close();
    if (!able) return;
    fs.mkdirSync(work.path('www/sub'), { recursive: true });
    fs.writeFileSync(work.path('www/index.html'), '<p>start</p>\n');
    fs.writeFileSync(work.path('www/sub/größe.txt'), 'size\n');
    fs.writeFileSync(work.path('www/large'), Buffer.alloc(3_000_000, 'large '));
    fs.writeFileSync(work.path('secret'), 'secret\n');
    fs.symlinkSync('../secret', work.path('www/link'));
    server = spawn(process.execPath, argv('static-server', work.path('www'), '0'), {
      env: plainEnv(),
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const [line] = (await once(server.stdout!, 'data')) as [Buffer];
    url = String(line).trim();
  });
  afterAll(async () => {
    if (!server) return;
    const ended = once(server, 'exit');
    server.kill('SIGTERM');
    expect((await ended)[0]).toBe(0);
  });
  const get = async (target: string, init?: RequestInit): Promise<[number, string | undefined, string]> => {
    const answer = await fetch(url + target, init);
    return [answer.status, answer.headers.get('content-type') ?? undefined, await answer.text()];
  };
  /** Bytes as they are, and what comes back until the end. */
  const raw = async (text: string): Promise<string> => {
    const socket = net.connect(Number(new URL(url).port), '127.0.0.1');
    socket.end(text);
    let answer = '';
    for await (const chunk of socket) answer += chunk;
    return answer;
  };

  test('files with their types, whole and long; what is not there, outside, or no file', async () => {
    if (!server) return skip('the static server', 'this kernel cannot install slots (6.8)');
    expect(await get('')).toEqual([200, 'text/html; charset=utf-8', '<p>start</p>\n']);
    expect(await get(`sub/${encodeURIComponent('größe.txt')}?query`)).toEqual([200, 'text/plain; charset=utf-8', 'size\n']);
    const [status, , body] = await get('large');
    expect([status, body.length, body === Buffer.alloc(3_000_000, 'large ').toString()]).toEqual([200, 3_000_000, true]);
    expect(await get('large', { method: 'HEAD' })).toEqual([200, 'application/octet-stream', '']);
    for (const target of ['none', 'sub', 'sub/', 'link', '%2e%2e/secret', '..%2fsecret', 'a%00b']) expect((await get(target))[0]).toBe(404);
    expect((await get('%ff%'))[0]).toBe(400);
    expect((await get('', { method: 'POST', body: '' }))[0]).toBe(405);
    expect(await raw('GET /../secret HTTP/1.1\r\n\r\n')).toMatch(/^HTTP\/1\.1 404 /);
  });

  test('connections: kept, closed, requests in pieces and in one, heads that are too long, bodies', async () => {
    if (!server) return skip('the static server', 'this kernel cannot install slots (6.8)');
    const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
    const sockets = new Set<unknown>();
    for (let i = 0; i < 3; i++)
      await new Promise<void>((resolve, reject) => {
        http
          .get(url, { agent }, (answer) => answer.resume().on('end', resolve))
          .on('error', reject)
          .on('socket', (socket) => sockets.add(socket));
      });
    agent.destroy();
    expect(sockets.size).toBe(1);
    expect((await raw('GET / HTTP/1.1\r\n\r\nGET /none HTTP/1.1\r\n\r\n')).match(/^HTTP\/1\.1 \d+/gm)).toEqual([
      'HTTP/1.1 200',
      'HTTP/1.1 404',
    ]);
    expect(await raw('GET / HTTP/1.0\r\n\r\nGET / HTTP/1.0\r\n\r\n')).toMatch(/^HTTP\/1\.1 200 .*close.*<p>start<\/p>\n$/s);
    expect(await raw(`GET /${'x'.repeat(9000)}`)).toMatch(/^HTTP\/1\.1 431 /);
    for (const bad of ['nonsense\r\n\r\n', 'GET http://else/ HTTP/1.1\r\n\r\n', 'GET / HTTP/1.1\r\nContent-Length: 5\r\n\r\nGET /'])
      expect(await raw(bad)).toMatch(/^HTTP\/1\.1 400 /);
    expect(await Promise.all(Array.from({ length: 50 }, () => get('').then(([status]) => status)))).toEqual(
      Array.from({ length: 50 }, () => 200),
    );
  });
});

test('verify: what differs, is gone, is a folder, is no line; large files and small ones', () => {
  const files = Array.from({ length: 300 }, (_, i) => `v${i}`);
  for (const [i, name] of files.entries()) fs.writeFileSync(work.path(name), Buffer.alloc(i % 100 === 0 ? 1_000_000 : i, `${i} `));
  const list = spawnSync('sha256sum', files, { cwd: work.dir, encoding: 'utf8' }).stdout;
  fs.writeFileSync(work.path('list'), list);
  expect(run('verify', 'list')).toMatchObject({ status: 0, stdout: '', stderr: '300 files, 0 wrong\n' });
  fs.appendFileSync(work.path('v100'), '!');
  fs.writeFileSync(work.path('v7'), 'changed');
  fs.rmSync(work.path('v9'));
  fs.writeFileSync(work.path('list'), `${list}${'0'.repeat(64)}  .\nnonsense\n`);
  const { status, stdout, stderr } = run('verify', 'list');
  expect([status, stderr]).toEqual([1, '301 files, 5 wrong\n']);
  expect(stdout.trim().split('\n').sort()).toEqual([
    '.: FAILED open or read: EISDIR', 'nonsense: not a line of sha256sum', 'v100: FAILED', 'v7: FAILED', 'v9: FAILED open or read: ENOENT',
  ]); // biome-ignore format: a list
  expect(run('verify', 'none').status).toBe(1);
});

test('ship-logs: lines of all files, then what is appended, rotated and cut', async () => {
  const socket = work.path('sink');
  let got = '';
  const server = net.createServer((peer) => {
    peer.setEncoding('latin1').on('data', (text: string) => {
      got += text;
    });
  });
  await new Promise<void>((resolve) => server.listen(socket, resolve));
  const logs = Array.from({ length: 40 }, (_, i) => `log${i}`);
  for (const name of logs) fs.writeFileSync(work.path(name), `first of ${name}\nsecond\nnot yet comp`);
  fs.writeFileSync(work.path('log3'), `${'long '.repeat(20_000)}\n`);
  const child = spawn(process.execPath, argv('ship-logs', socket, ...logs, 'later'), {
    cwd: work.dir,
    env: plainEnv(),
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  const ended = once(child, 'exit');
  const until = async (wanted: string): Promise<void> => {
    for (const end = Date.now() + 60_000; !got.includes(wanted) && Date.now() < end; )
      await new Promise((resolve) => setTimeout(resolve, 20));
    expect(got.includes(wanted)).toBe(true);
  };
  await until('log39\tsecond\n');
  await until(`log3\t${'long '.repeat(10)}`);
  expect(got).not.toContain('not yet');
  fs.appendFileSync(work.path('log5'), 'lete\n');
  await until('log5\tnot yet complete\n');
  fs.renameSync(work.path('log6'), work.path('log6.1'));
  fs.writeFileSync(work.path('log6'), 'after the rotation\n');
  await until('log6\tafter the rotation\n');
  fs.writeFileSync(work.path('later'), 'a file that appears\n');
  await until('later\ta file that appears\n');
  fs.truncateSync(work.path('log7'));
  await new Promise((resolve) => setTimeout(resolve, 500));
  fs.appendFileSync(work.path('log7'), 'after the cut\n');
  await until('log7\tafter the cut\n');
  child.kill('SIGTERM');
  expect((await ended)[0]).toBe(0);
  expect(run('ship-logs', '--once', socket, 'log5')).toMatchObject({ status: 0, stderr: expect.stringMatching(/^\d+ bytes\n$/) });
  expect(run('ship-logs', '--once', work.path('nobody'), 'log5').status).toBe(1);
  await new Promise((resolve) => server.close(resolve));
});
