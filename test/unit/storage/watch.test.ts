import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { native } from '../../../src/native/index.js';
import { openSource, type Source } from '../../../src/storage/open.js';
import { SourceWatch } from '../../../src/storage/watch.js';

let dir: string;
let source: Source;
let log: string[];
let resized: number[];
let watch: SourceWatch;
/** What the addon says of the source, as it fails. */
let failures = { count: 0, error: '' };
let syncError: string | undefined;
beforeEach(() => {
  dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-watch-'));
  fs.writeFileSync(path.join(dir, 'img'), Buffer.alloc(4096));
  source = openSource({ source: path.join(dir, 'img') });
  [failures, syncError, log, resized] = [{ count: 0, error: '' }, undefined, [], []];
  jest.spyOn(native().storage, 'failures').mockImplementation(() => failures);
  jest.spyOn(native().storage, 'syncError').mockImplementation(() => syncError);
  watch = new SourceWatch(source, {
    log: (text) => log.push(text.replace(`${source.name}`, 'img')),
    resized: (bytes) => {
      resized.push(bytes);
      return bytes;
    },
    otherwise: '',
  });
});
afterEach(() => {
  jest.restoreAllMocks();
  native().storage.close(source.store);
  fs.rmSync(dir, { recursive: true });
});
/** One failure that is told, and two that are held back. */
const fail = (): void => {
  failures = { count: 1, error: 'EIO' };
  watch.look();
  failures = { count: 3, error: 'EIO' };
  watch.look();
  expect(log.splice(0)).toEqual(['img: a request has failed: EIO']);
};

test('what was held back is told at the end, once', () => {
  fail();
  watch.close();
  watch.close();
  expect(log).toEqual(['img: 2 requests have failed: EIO']);
});

test('what was held back is told before the source is opened anew, and the next loss is told again', async () => {
  fail();
  syncError = 'EIO';
  const reopen = jest.spyOn(native().storage, 'reopen').mockImplementation(async () => {
    log.push('(open)');
    syncError = undefined;
  });
  await watch.reopen();
  expect(reopen).toHaveBeenCalledTimes(1);
  // no tick between the two losses
  syncError = 'EIO';
  watch.look();
  expect(log).toEqual([
    expect.stringContaining('data may be lost (EIO'),
    'img: 2 requests have failed: EIO',
    '(open)',
    'img was opened anew',
    expect.stringContaining('data may be lost (EIO'),
  ]);
});

test('opening anew takes a new size over', async () => {
  fs.truncateSync(source.name, 8192);
  await watch.reopen();
  expect([resized, log, watch.size]).toEqual([[8192], ['img was opened anew', 'img has 8192 bytes now'], 8192]);
});

test('a source that hangs is asked once more for however many ask, and each gets an answer as new as its question', async () => {
  const answers: ((bytes: number) => void)[] = [];
  const measure = jest.spyOn(native().storage, 'measure').mockImplementation(() => new Promise((resolve) => answers.push(resolve)));
  for (let i = 0; i < 5; i++) watch.tick();
  const first = [watch.ask(), watch.ask(), watch.ask()];
  expect(measure).toHaveBeenCalledTimes(1); // by the tick
  answers[0]!(8192);
  for (let i = 0; i < 50 && answers.length < 2; i++) await Promise.resolve();
  const second = watch.ask(); // the question of the others is under way: too old for this one
  answers[1]!(12288);
  expect(await Promise.all(first)).toEqual([12288, 12288, 12288]);
  for (let i = 0; i < 50 && answers.length < 3; i++) await Promise.resolve();
  answers[2]!(16384);
  expect(await second).toBe(16384);
  expect(measure).toHaveBeenCalledTimes(3);
  expect(resized).toEqual([8192]); // those who ask take it over themselves
});

test('a size that cannot be read is told once by the watch, and thrown to those who ask', async () => {
  const gone = Object.assign(new Error('gone'), { code: 'ENODEV' });
  jest.spyOn(native().storage, 'measure').mockRejectedValue(gone);
  await expect(Promise.all([watch.ask(), watch.ask()])).rejects.toMatchObject({
    code: 'ENODEV',
    message: expect.stringContaining(source.name),
    cause: gone,
  });
  await watch.measure();
  jest.spyOn(native().storage, 'measure').mockImplementation(() => {
    throw gone; // as for a store that is closed
  });
  await expect(Promise.all([watch.ask(), watch.ask()])).rejects.toMatchObject({ cause: gone });
  await watch.measure();
  expect(log).toEqual([expect.stringMatching(/^img: its size cannot be read: ENODEV/)]);
  jest.mocked(native().storage.measure).mockResolvedValue(8192);
  expect(await watch.ask()).toBe(8192);
});
