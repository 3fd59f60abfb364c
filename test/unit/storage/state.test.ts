import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { native } from '../../../src/native/index.js';
import { IdentityState } from '../../../src/storage/state.js';

let dir: string;
let state: IdentityState;
const file = () => path.join(dir, 'state', 'identities.json');
const names = (strong: string[], weak: string[] = []) => ({ identity: strong[0] ?? weak[0]!, strong, weak });
beforeEach(() => {
  dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-state-'));
  state = new IdentityState(path.join(dir, 'state'), () => '2026-11-30');
});
afterEach(() => fs.rmSync(dir, { recursive: true }));

test('a source keeps the name that it was first served under', () => {
  // a kernel that does not tell the UUID of a file system, and one that does
  expect(state.identity(names([], ['fsid 7']))).toBe('fsid 7');
  expect(state.identity(names(['uuid 7'], ['fsid 7']))).toBe('fsid 7');
  expect(state.identity(names(['uuid 7']))).toBe('fsid 7');
  expect(state.identity(names(['serial', 'uuid 7']))).toBe('fsid 7');
  expect(state.identity(names(['serial']))).toBe('fsid 7');
  // one who comes to a name later that may be another's
  expect(state.identity(names(['uuid 8'], ['fsid 7']))).toBe('uuid 8');
  expect(state.identity(names(['uuid 8'], ['fsid 9']))).toBe('uuid 8');
  // and another process reads the same
  expect(new IdentityState(path.join(dir, 'state')).identity(names(['serial']))).toBe('fsid 7');
});

test('sources that are remembered together get the names that they would get one after the other', () => {
  let seed = 1;
  const random = (below: number): number => {
    seed = (seed * 48271) % 0x7fff_ffff;
    return seed % below;
  };
  const some = (kind: string): string[] => Array.from({ length: random(3) }, () => `${kind} ${random(12)}`);
  for (let round = 0; round < 10; round++) {
    const list = Array.from({ length: 12 }, (_, i) => ({
      identity: `source ${round} ${i}`,
      strong: some('uuid'),
      weak: some('fsid'),
    })).filter(({ strong, weak }) => strong.length + weak.length > 0);
    const [one, other] = ['one', 'other'].map(
      (name) => new IdentityState(path.join(dir, `${name} ${Math.floor(round / 5)}`), () => '2026-11-30'),
    ) as [IdentityState, IdentityState];
    expect(one.identities(list)).toEqual(list.map((each) => other.identity(each)));
  }
});

test('what is written is whole, and nothing is written for what is known', () => {
  state.identity(names(['a']));
  const { mtimeNs, ino } = fs.statSync(file(), { bigint: true });
  state.identity(names(['a']));
  expect(fs.statSync(file(), { bigint: true })).toMatchObject({ mtimeNs, ino });
  state.identity(names(['b']));
  expect(fs.statSync(file(), { bigint: true }).ino).not.toBe(ino); // renamed over it
  expect(fs.readdirSync(path.dirname(file())).sort()).toEqual(['identities.json', 'identities.lock']);
  // what a crash has left of a write does not matter
  fs.writeFileSync(`${file()}.new`, '{"version":1,"sou');
  expect(state.identity(names(['b']))).toBe('b');
});

test.each([
  ['no JSON', '{"version":1,"sources":['],
  ['nothing', ''],
  ['another version', '{"version":2,"sources":[]}'],
  ['no list', '{"version":1,"sources":{}}'],
  ['no names', '{"version":1,"sources":[{"identity":"a","strong":["a"],"seen":"x"}]}'],
  ['null', 'null'],
  ['an entry that is null', '{"version":1,"sources":[null]}'],
  ['names that are numbers', '{"version":1,"sources":[{"identity":"a","strong":[1],"weak":[],"seen":"x"}]}'],
])('a damaged file is one error and stays as it is: %s', (_what, text) => {
  fs.mkdirSync(path.dirname(file()));
  fs.writeFileSync(file(), text);
  expect(() => state.identity(names(['a']))).toThrow(
    expect.objectContaining({ code: 'STATE_DAMAGED', exit: 5, message: expect.stringContaining('identities.json is damaged: ') }),
  );
  expect(fs.readFileSync(file(), 'utf8')).toBe(text);
});

test.each(['{"version":1,\n"sources":[}', 'no state', '{'])('what is wrong with JSON is told in our words: %j', (text) => {
  fs.mkdirSync(path.dirname(file()));
  fs.writeFileSync(file(), text);
  // V8 tells the place of some mistakes
  const message = expect.stringMatching(/identities\.json is damaged: not valid JSON( \(line \d\))?$/);
  expect(() => state.identity(names(['a']))).toThrow(expect.objectContaining({ message, hint: expect.stringContaining(`rm ${file()}`) }));
});

test('a folder that cannot be written, and a lock that another process holds for too long', () => {
  fs.writeFileSync(path.join(dir, 'state'), 'no folder');
  expect(() => state.identity(names(['a']))).toThrow(expect.objectContaining({ code: expect.stringMatching(/ENOTDIR|EEXIST/) }));
});

test('processes that start at once write one after the other', () => {
  // whoever comes first names the source that all of them have
  const root = path.resolve(__dirname, '..', '..', '..');
  const run = ['a', 'b', 'c'].map((name) => `npx tsx test/fixtures/identities.ts '${path.dirname(file())}' ${name} &`).join(' ');
  const { stdout, stderr } = spawnSync('sh', ['-c', `${run} wait`], { encoding: 'utf8', cwd: root });
  expect(stderr).toBe('');
  const said = stdout.trim().split('\n');
  expect(said).toHaveLength(3);
  expect(new Set(said).size).toBe(1);
  expect(JSON.parse(fs.readFileSync(file(), 'utf8')).sources).toHaveLength(31);
});

test('the lock is held while a file is read and written', () => {
  fs.mkdirSync(path.dirname(file()));
  const fd = fs.openSync(path.join(path.dirname(file()), 'identities.lock'), 'w');
  try {
    expect(native().vhostUser.lock(fd, true)).toBe(true);
    const start = performance.now();
    expect(() => state.identity(names(['a']))).toThrow(expect.objectContaining({ code: 'EBUSY' }));
    expect(performance.now() - start).toBeGreaterThan(1000);
    expect(fs.existsSync(file())).toBe(false);
  } finally {
    fs.closeSync(fd);
  }
});
