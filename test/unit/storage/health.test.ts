import { native } from '../../../src/native/index.js';
import { Health } from '../../../src/storage/health.js';
import type { Source } from '../../../src/storage/open.js';

/** What the addon says of a source, as it fails. */
let failures = { count: 0, error: '' };
let syncError: string | undefined;
beforeEach(() => {
  [failures, syncError] = [{ count: 0, error: '' }, undefined];
  jest.spyOn(native().storage, 'failures').mockImplementation(() => failures);
  jest.spyOn(native().storage, 'syncError').mockImplementation(() => syncError);
});
afterEach(() => jest.restoreAllMocks());
function health() {
  const log: string[] = [];
  let clock = 0;
  const watch = new Health(
    { name: '/d\x1b' } as unknown as Source,
    (text) => log.push(text),
    () => clock,
  );
  return { log, watch, at: (ms: number) => (clock = ms) };
}

test('failed requests are told at once, then in sums once a minute, and at the end', () => {
  const { log, watch, at } = health();
  watch.look();
  expect(log).toEqual([]);
  failures = { count: 1, error: 'EIO' };
  watch.look();
  for (let second = 1; second < 60; second++) {
    at(second * 1000);
    failures = { count: 1 + second, error: 'ENOSPC' };
    watch.look();
  }
  expect(log.splice(0)).toEqual([String.raw`/d\x1b: a request has failed: EIO`]);
  at(60_000);
  watch.look();
  watch.look();
  expect(log.splice(0)).toEqual([String.raw`/d\x1b: 59 requests have failed: ENOSPC`]);
  failures = { count: 62, error: 'EIO' };
  watch.look();
  expect(log).toEqual([]);
  watch.look(true);
  watch.look(true);
  expect(log).toEqual([String.raw`/d\x1b: 2 requests have failed: EIO`]);
});

test('a failed sync is told once, and again if the next one fails after the source was opened anew', () => {
  const { log, watch } = health();
  syncError = 'EIO';
  watch.look();
  watch.look();
  syncError = undefined;
  watch.look();
  syncError = 'ENOSPC';
  watch.look();
  expect(log).toEqual([expect.stringContaining('data may be lost (EIO'), expect.stringContaining('data may be lost (ENOSPC')]);
});
