/**
 * Dry runs beside the runs themselves: a dry run leaves everything as it is, says that something would change exactly if the run
 * changes something, and refuses what the run refuses, in the same words. The commands of vfio that change drivers do it in the lab
 * (test/vm/vfio/cases.ts).
 */
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { Background } from '../support/background.js';
import { vioctl } from '../support/cli.js';
import { type ServedTarget, serveTarget } from '../support/nvme-target.js';

const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-dry-'));
const at = (name: string): string => path.join(dir, name);
afterAll(() => fs.rmSync(dir, { recursive: true }));

const run = (...words: string[]) => {
  const { status, stdout, stderr } = vioctl(words);
  return { status, stdout, stderr };
};
const json = (...words: string[]) => {
  const { status, stdout, stderr } = run(...words, '--json');
  expect({ words, status, stderr }).toEqual({ words, status: 0, stderr: '' });
  return JSON.parse(stdout);
};

/** Refused command lines do the same with --dry-run, to the last word, and leave everything as it is. */
function refusedAlike(state: () => unknown, cases: readonly (readonly [message: RegExp, words: readonly string[]])[]): void {
  const before = state();
  for (const [message, words] of cases) {
    const real = run(...words);
    expect({ words, dry: run(...words, '--dry-run') }).toEqual({ words, dry: real });
    expect({ words, refused: real.status !== 0, stderr: real.stderr }).toEqual({
      words,
      refused: true,
      stderr: expect.stringMatching(message),
    });
  }
  expect(state()).toEqual(before);
}

/** Changes one after the other: dry, real, and dry once more, which then has nothing to do. */
function changesAlike(state: () => unknown, changes: readonly (readonly string[])[]): void {
  let before = state();
  for (const words of changes) {
    const dry = json(...words, '--dry-run');
    expect({ words, dry }).toMatchObject({ words, dry: { changed: false, would: [expect.any(String)] } });
    expect({ words, state: state() }).toEqual({ words, state: before });
    expect({ words, real: json(...words) }).toMatchObject({ words, real: { changed: true } });
    expect({ words, again: json(...words, '--dry-run').would ?? [] }).toEqual({ words, again: [] });
    const after = state();
    expect({ words, state: after }).not.toEqual({ words, state: before });
    before = after;
  }
}

describe('nvmf', () => {
  let target: ServedTarget;
  const control = at('nvmf.ctl');
  const host = 'nqn.2014-08.org.example:guest';
  beforeAll(async () => {
    fs.writeFileSync(at('disk'), Buffer.alloc(1 << 20, 7));
    fs.writeFileSync(at('other'), Buffer.alloc(1 << 20));
    target = await serveTarget([at('disk'), '--control', control, '--discovery-port', 'none', '--nqn', 'nqn.2014-08.org.example:dry']);
  });
  afterAll(() => target.stop());
  const ctl = (...words: string[]): string[] => ['nvmf', 'ctl', control, ...words];
  const state = () => json(...ctl('save'));

  test('write', () => {
    const write = ['nvmf', 'write', '-a', '127.0.0.1', '-s', String(target.port), '-n', target.nqn];
    const bytes = () => fs.readFileSync(at('disk'));
    const before = bytes();
    fs.writeFileSync(at('data'), Buffer.alloc(700, 9));
    const words = [...write, '--offset', '100', '-d', at('data')];
    const parts = ({ nsid, offset, bytes: count, mergedBlocks }: Record<string, unknown>) => ({ nsid, offset, count, mergedBlocks });
    const dry = json(...words, '--dry-run');
    expect(bytes().equals(before)).toBe(true);
    expect(parts(json(...words))).toEqual(parts(dry));
    expect(bytes().subarray(100, 800)).toEqual(Buffer.alloc(700, 9));
    refusedAlike(bytes, [
      [/ERANGE|end|bytes/, [...write, '--offset', '1T', '-d', at('data')]],
      [/namespace/, [...write, '--namespace-id', '9', '-d', at('data')]],
      [/ENOENT/, [...write, '-d', at('missing')]],
    ]);
  }, 300_000);

  test('ctl changes what its dry run says', () => {
    changesAlike(state, [
      ctl('add', `${at('other')},nsid=5,uuid=8d3b24a2-1c4e-4f0c-9d5e-0f4b0d8a1c11`),
      ctl('mask', '5', host),
      ctl('limits', '5', 'iops=100'),
      ctl('host', 'any', 'off'),
      ctl('ana', '1', 'non-optimized'),
      ctl('remove', '5'),
    ]);
  }, 300_000);

  test('ctl refuses what its dry run refuses', () => {
    refusedAlike(state, [
      [/ENOENT/, ctl('add', at('missing'))],
      [/in use|serve/, ctl('add', at('disk'), '--nqn', 'nqn.2014-08.org.example:second')],
      [/namespace/, ctl('resize', '77')],
      [/NQN/, ctl('host', 'add', 'frob')],
      [/TLS/, ctl('listener', 'add', '127.0.0.1:0', '--tls', 'require')],
      [/ANA group/, ctl('ana', '77', 'optimized')],
    ]);
  }, 300_000);
});

describe('vhost-user', () => {
  let server: Background;
  afterEach(() => server.stop());

  test('ctl of serve blk', async () => {
    for (const name of ['a', 'b']) fs.writeFileSync(at(name), Buffer.alloc(1 << 20));
    server = Background.vioctl(['vhost-user', 'serve', 'blk', `${at('a.sock')}=${at('a')}`, '--control', at('blk.ctl')]);
    await server.sees(/^serving /m);
    const ctl = (...words: string[]): string[] => ['vhost-user', 'ctl', at('blk.ctl'), ...words];
    const state = () => json(...ctl('list'));
    changesAlike(state, [ctl('add', `${at('b.sock')}=${at('b')}`), ctl('throttle', at('b.sock'), 'iops=5')]);
    refusedAlike(state, [
      [/ENOENT/, ctl('add', `${at('c.sock')}=${at('missing')}`)],
      [/in use/, ctl('add', `${at('c.sock')}=${at('a')}`)],
      [/disk/, ctl('throttle', at('c.sock'), 'iops=5')],
    ]);
    changesAlike(state, [ctl('remove', at('b.sock'))]);
  }, 300_000);

  test('shmem map and unmap', async () => {
    fs.writeFileSync(at('page'), Buffer.alloc(8192, 'A'));
    fs.writeFileSync(at('odd'), 'five!');
    const sockets = ['--region', '0=16M', '--map', `0:0=${at('page')}:rw`];
    server = Background.vioctl(['vhost-user', 'shmem', 'serve', at('s'), ...sockets]);
    await server.sees(/^serving /m);
    const state = () => json('vhost-user', 'shmem', 'list', at('s.ctl'));
    const map = (what: string): string[] => ['vhost-user', 'shmem', 'map', at('s.ctl'), what];
    refusedAlike(state, [
      [/is mapped there/, map(`0:4K=${at('odd')}:ro`)],
      [/no multiple of the page size/, map(`0:2M=${at('odd')}:rw`)],
      [/no region 5/, map(`5:0=${at('odd')}:ro`)],
      [/its lock is held/, map(`0:2M=${at('page')}:rw`)],
    ]);
    const before = state();
    const place = { shmid: 0, offset: '0x200000' };
    expect(json(...map(`0:2M=${at('odd')}:ro`), '--dry-run')).toMatchObject({ ...place, state: 'planned' });
    expect(state()).toEqual(before);
    expect(json(...map(`0:2M=${at('odd')}:ro`), '--wait', '10ms')).toMatchObject({ ...place, state: 'queued' });
    expect(json(...map(`0:2M=${at('odd')}:ro`), '--dry-run')).toMatchObject({ ...place, already: true });
    const mapped = state();
    const unmap = ['vhost-user', 'shmem', 'unmap', at('s.ctl'), '0:2M'];
    expect(json(...unmap, '--dry-run')).toMatchObject({ ...place, file: at('odd'), state: 'planned' });
    expect(state()).toEqual(mapped);
    expect(json(...unmap)).toMatchObject({ ...place, file: at('odd'), state: 'unmapped' });
    expect(state()).toEqual(before);
    expect(json(...unmap, '--dry-run')).toMatchObject({ ...place, state: 'absent' });
  }, 300_000);
});
