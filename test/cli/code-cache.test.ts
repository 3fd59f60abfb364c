import fs from 'node:fs';
import module from 'node:module';
import os from 'node:os';
import path from 'node:path';
import { vioctl } from '../support/cli.js';
import { skip } from '../support/skip.js';

/** bin/run.js keeps V8's compiled code between starts; code that somebody else could have put there is never run. */
let home: string;
let dir: string;
beforeEach(() => {
  home = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-code-'));
  dir = path.join(home, 'vioctl', 'code');
});
afterEach(() => fs.rmSync(home, { recursive: true }));

const start = (env: Record<string, string> = { XDG_CACHE_HOME: home }): void => {
  const { status, stdout, stderr } = vioctl(['uring', '--help'], { env });
  expect({ status, stderr, helps: stdout.startsWith('vioctl uring - ') }).toEqual({ status: 0, stderr: '', helps: true });
};
const mode = (name: string): number => fs.statSync(name).mode & 0o777;
/** Node 22.1 and newer keep the files of a directory themselves; 20 leaves that to us. */
const nodeKeepsIt = 'enableCompileCache' in module;

test('the first start makes a private directory, the second one changes nothing in it', () => {
  start();
  expect(mode(dir)).toBe(0o700);
  const seen = (): unknown[] =>
    fs.readdirSync(dir, { recursive: true }).map((name) => [name, fs.statSync(path.join(dir, String(name))).ino]);
  const first = seen();
  expect(first.length).toBeGreaterThan(0);
  start();
  expect(seen()).toEqual(first);
});

test('a directory that others can write is not used, nor a link, nor one of another user', () => {
  fs.mkdirSync(dir, { recursive: true });
  fs.chmodSync(dir, 0o777);
  start();
  expect(fs.readdirSync(dir)).toEqual([]);
  fs.rmdirSync(dir);
  fs.mkdirSync(path.join(home, 'elsewhere'));
  fs.symlinkSync(path.join(home, 'elsewhere'), dir);
  start();
  expect(fs.readdirSync(path.join(home, 'elsewhere'))).toEqual([]);
  if (process.geteuid?.() !== 0) return skip('code cache of another user', 'needs root to make one');
  fs.unlinkSync(dir);
  fs.mkdirSync(dir, { mode: 0o755 });
  fs.chownSync(dir, 65534, 65534);
  start();
  expect(fs.readdirSync(dir)).toEqual([]);
});

test('a cache file that others can write is not run but replaced', () => {
  if (nodeKeepsIt) return skip('code cache file', 'this Node keeps the files itself');
  start();
  const [name] = fs.readdirSync(dir);
  const file = path.join(dir, name!);
  fs.chmodSync(file, 0o666);
  const { ino } = fs.statSync(file);
  start();
  expect({ mode: mode(file), same: fs.statSync(file).ino === ino }).toEqual({ mode: 0o600, same: false });
});

test('a damaged cache is replaced, and old ones go', () => {
  if (nodeKeepsIt) return skip('code cache file', 'this Node keeps the files itself');
  start();
  const [name] = fs.readdirSync(dir);
  fs.writeFileSync(path.join(dir, name!), 'not code');
  for (let i = 0; i < 80; i++) {
    fs.writeFileSync(path.join(dir, `old-${i}.cache`), '');
    fs.utimesSync(path.join(dir, `old-${i}.cache`), i, i);
  }
  start();
  const left = fs.readdirSync(dir);
  expect(left.length).toBe(64);
  expect(left).toContain(name);
  expect(fs.statSync(path.join(dir, name!)).size).toBeGreaterThan(10000);
  expect(left).not.toContain('old-0.cache');
});

test('without a home, or with one that cannot be written, the program works', () => {
  start({ XDG_CACHE_HOME: '', HOME: '' });
  start({ XDG_CACHE_HOME: '/proc/nowhere' });
  start({ XDG_CACHE_HOME: 'relative' });
  expect(fs.readdirSync(home)).toEqual([]);
});

test('each verb with its options has a cache of the code that it runs; their values make no difference', () => {
  if (nodeKeepsIt) return skip('code cache file', 'this Node keeps the files itself');
  const caches = (...args: string[]): number => {
    expect(vioctl(['dma', 'plan', '--reserved', '/dev/null', ...args], { env: { XDG_CACHE_HOME: home } }).status).toBe(0);
    return fs.readdirSync(dir).length;
  };
  expect(caches('a=4K')).toBe(1);
  expect(caches('b=8K', 'c=4K')).toBe(1);
  expect(caches('a=4K', '--json')).toBe(2);
  expect(caches('--json', 'a=4K')).toBe(2);
});
