import { Recorder } from '../../../src/cli/streams/recorder.js';

test('an output that fails is told of once, and the others go on', async () => {
  const said: string[] = [];
  const kept: number[] = [];
  const full = Object.assign(new Error('write'), { code: 'ENOSPC' });
  const recorder = new Recorder<number>(
    [
      {
        name: 'at once',
        write: (n) => {
          if (n > 1) throw full;
        },
      },
      { name: 'later', write: (n) => (n > 2 ? Promise.reject(full) : Promise.resolve()) },
      { name: 'good', write: (n) => void kept.push(n) },
    ],
    (text) => said.push(text),
  );
  for (let n = 1; n <= 5; n++) {
    recorder.record(n);
    await new Promise((resolve) => setImmediate(resolve));
  }
  expect(kept).toEqual([1, 2, 3, 4, 5]);
  expect(said).toEqual([expect.stringMatching(/^write at once: .*ENOSPC/), expect.stringMatching(/^write later: .*ENOSPC/)]);
  expect(recorder.failures).toEqual([full, full]);
  expect(recorder.lost).toBe(0);
});

test('a slow output loses records instead of filling memory', async () => {
  const said: string[] = [];
  let free: () => void = () => {};
  const slow = new Promise<void>((resolve) => {
    free = resolve;
  });
  let written = 0;
  const recorder = new Recorder<number>(
    [
      {
        name: 'slow',
        write: () => {
          written++;
          return slow;
        },
      },
    ],
    (text) => said.push(text),
  );
  for (let n = 0; n < 25_000; n++) recorder.record(n);
  expect(written).toBe(10_000);
  expect(recorder.lost).toBe(15_000);
  expect(said).toEqual([expect.stringMatching(/too slowly/)]);
  free();
  await new Promise((resolve) => setImmediate(resolve));
  recorder.record(1);
  expect(written).toBe(10_001);
});
