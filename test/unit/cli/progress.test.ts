import fs from 'node:fs';
import { Progress, progressLine } from '../../../src/cli/output/progress.js';
import type { Lifetime } from '../../../src/cli/signals.js';

const state = (done: number, rate: number | undefined, elapsed = 3000) => ({ done, rate, elapsed });
const bytes = { label: 'read', total: 4096, unit: 'bytes' } as const;

test('a line has the part done, the amounts, the rate and the time that is left', () => {
  expect(progressLine(bytes, state(1024, 512), 120)).toBe('read  [######..................]   25%  1K/4K  512/s  ETA 0:06');
  expect(progressLine(bytes, state(1024, undefined), 120)).toBe('read  [######..................]   25%  1K/4K');
  expect(progressLine({ ...bytes, total: 0 }, state(1 << 20, 2048, 3_725_000), 80)).toBe('read  1M  2K/s  1:02:05');
  expect(progressLine({ label: 'sync', total: 10, unit: 'items' }, state(4, 2), 40)).toBe('sync   40%  4/10  2/s  ETA 0:03');
  expect(progressLine({ label: 'measure', total: 5000, unit: 'time' }, state(2500, 1000), 40)).toBe('measure   50%  ETA 0:03');
});

test('more than all is all, and the last moment has no time left', () => {
  expect(progressLine(bytes, state(9000, 100), 40)).toBe('read  100%  4K/4K  100/s');
});

test.each([40, 41, 60, 80, 200])('a line leaves the last of %d columns free', (width) => {
  for (const total of [0, 1, 4096, 2 ** 50])
    for (const done of [0, 1, 2 ** 49]) {
      const line = progressLine({ label: 'extract', total, unit: 'bytes' }, state(done, 123456789, 1e9), width);
      expect(line.length).toBeLessThan(width);
    }
});

describe('what is drawn', () => {
  const drawn: string[] = [];
  const words: unknown[] = [];
  const undone: (() => void)[] = [];
  const life = { release: (undo: () => void) => undone.push(undo), lastWords: (said: unknown) => words.push(said) } as unknown as Lifetime;
  const env = { COLUMNS: '60', TERM: 'xterm' };
  let clock: jest.SpyInstance;
  let write: jest.SpyInstance;
  const at = (ms: number) => clock.mockReturnValue(BigInt(ms) * 1_000_000n);
  beforeEach(() => {
    drawn.length = words.length = undone.length = 0;
    write = jest
      .spyOn(fs, 'writeSync')
      .mockImplementation(((_fd: number, data: Buffer) => drawn.push(String(data)) && data.length) as never);
    clock = jest.spyOn(process.hrtime, 'bigint');
    at(0);
  });
  afterEach(() => {
    for (const undo of undone) undo();
    write.mockRestore();
    clock.mockRestore();
  });
  const progress = (more: Partial<ConstructorParameters<typeof Progress>[0]> = {}) =>
    new Progress({ label: 'read', total: 4096, unit: 'bytes', hidden: false, life, env, ...more });

  test('nothing within the first second, nothing if it is hidden', () => {
    const [shown, hidden] = [progress(), progress({ hidden: true })];
    at(999);
    for (const one of [shown, hidden]) one.add(1024);
    expect(drawn).toEqual([]);
    at(2000);
    for (const one of [shown, hidden]) one.add(1024);
    expect(drawn).toEqual(['\rread   50%  2K/4K  1K/s  ETA 0:02']);
    shown.end();
    hidden.end();
    expect(drawn.at(-1)).toMatch(/^\r +\r$/);
    // A signal takes the line away while it is there, and only then.
    expect(words).toEqual([{ text: '\r\x1b[K' }, { text: '' }]);
  });

  test('positions never go back, and phases add up', () => {
    const shown = progress();
    at(2000);
    shown.to(1024);
    at(3000);
    shown.to(512);
    shown.phase(2048);
    at(4000);
    shown.to(1024);
    const percents = drawn.map((line) => /(\d+)%/.exec(line)![1]);
    expect(percents).toEqual(['25', '25', '75']);
  });

  test('what is followed counts on from what was done before', () => {
    const shown = progress();
    let read = 0;
    shown.follow(() => read);
    read = 1024;
    shown.follow(() => 1024);
    at(2000);
    shown.to(0);
    expect(drawn[0]).toContain('50%');
  });

  test('a shorter line leaves nothing of the longer one before', () => {
    const shown = progress({ total: 0 });
    at(2000);
    shown.add(1000);
    at(5000);
    shown.add(24);
    const [first, second] = drawn.map((line) => line.slice(1)) as [string, string];
    expect(second.length).toBeGreaterThanOrEqual(first.length);
    expect(second.trimEnd().length).toBeLessThan(first.length);
  });
});
