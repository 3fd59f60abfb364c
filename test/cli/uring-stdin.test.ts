import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import { plainEnv, program } from '../support/cli.js';
import { Workspace } from '../support/uring.js';

// `-` among names is the data of standard input, as sha256sum(1) and cat(1) take it; with -0 it is the list.
const work = new Workspace();
afterAll(() => work.end());
const data = Buffer.alloc(700_001, 'data of standard input, ');
beforeAll(() => {
  fs.writeFileSync(work.path('a'), 'first\n');
  fs.writeFileSync(work.path('b c'), 'last\n');
  fs.writeFileSync(work.path('data'), data);
  fs.mkdirSync(work.path('folder'));
});
const bash = (script: string) =>
  spawnSync('bash', ['-c', script], { cwd: work.dir, env: plainEnv({ V: `${process.execPath} ${program} uring` }), maxBuffer: 1 << 26 });
/** What comes of our command and of the peer's: status and output. */
const both = (ours: string, theirs: string) =>
  [ours, theirs].map((script) => {
    const { status, stdout } = bash(script);
    return { status, stdout: stdout.toString('latin1') };
  });

test.each([
  ['a pipe', 'cat data |', ''],
  ['a file', '', '<data'],
  ['a file at an offset', '{ head -c 100 >/dev/null;', '; } <data'],
  ['an end at once', ': |', ''],
  ['a folder', '', '<folder'],
])('sum and cat of standard input that is %s', (_, before, after) => {
  for (const [ours, theirs] of [
    ['sum -', 'sha256sum -'],
    ['sum --ordered a - "b c"', 'sha256sum a - "b c"'],
    ['sum --ordered --tag - - a', 'sha256sum --tag - - a'],
    ['sum -a md5 -r -', 'md5sum -'],
    ['cat a - "b c"', 'cat a - "b c"'],
    ['cat - missing - a', 'cat - missing - a'],
  ]) {
    const [mine, peer] = both(`${before} $V ${ours} ${after}`, `${before} ${theirs} ${after}`);
    expect({ ours, ...mine }).toEqual({ ours, ...peer });
  }
});

test('a socket, which has no name to be opened by', () => {
  const options = { input: data, cwd: work.dir, env: plainEnv(), maxBuffer: 1 << 26 }; // spawn() gives a socket
  const [sum, cat] = ['sum', 'cat'].map((verb) => spawnSync(process.execPath, [program, 'uring', verb, '-'], options));
  const peer = spawnSync('sha256sum', ['-'], options);
  expect([sum!.status, String(sum!.stdout)]).toEqual([0, String(peer.stdout)]);
  expect([cat!.status, cat!.stdout.equals(data)]).toEqual([0, true]);
});

test('standard input that is the output is refused, behind another file as well', () => {
  fs.writeFileSync(work.path('grows'), 'text\n');
  for (const script of ['$V cat - <grows >>grows', '$V cat a - <grows >>grows']) {
    const { status, stderr } = bash(script);
    expect([status, String(stderr)]).toEqual([1, expect.stringContaining('-: input file is output file')]);
  }
  expect(fs.readFileSync(work.path('grows'), 'utf8')).toBe('text\nfirst\n');
});

test('with -0 the list; as JSON', () => {
  const list = bash(`printf 'a\\0b c' | $V cat -0 -`);
  expect([list.status, String(list.stdout)]).toEqual([0, 'first\nlast\n']);
  const { files } = JSON.parse(String(bash('$V sum --json - <data').stdout));
  expect(files).toEqual([{ path: '-', algorithm: 'sha256', digest: expect.stringMatching(/^[0-9a-f]{64}$/), size: data.length }]);
});
