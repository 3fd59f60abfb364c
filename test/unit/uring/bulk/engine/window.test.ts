import fc from 'fast-check';
import { overWindow } from '../../../../../src/uring/bulk/engine/window.js';

async function* batches(sizes: number[]): AsyncGenerator<number[]> {
  let next = 0;
  for (const size of sizes) yield Array.from({ length: size }, () => next++);
}

test('every item once, in order where asked, never more than the limits under way or held back', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.integer({ min: 0, max: 30 }), { maxLength: 6 }),
      fc.integer({ min: 1, max: 8 }),
      fc.boolean(),
      fc.infiniteStream(fc.integer({ min: 0, max: 3 })),
      async (sizes, limit, ordered, delays) => {
        let active = 0;
        let most = 0;
        let held = 0;
        let mostHeld = 0;
        const out: number[] = [];
        const backlog = limit * 4;
        const window = overWindow<number, number>({
          source: batches(sizes),
          limit,
          backlog,
          ordered,
          start: (item, done) => {
            active++;
            mostHeld = Math.max(mostHeld, ++held);
            most = Math.max(most, active);
            const end = (): void => {
              active--;
              done(item);
            };
            const delay = delays.next().value as number;
            if (delay === 0) end();
            else if (delay === 1) queueMicrotask(end);
            else setImmediate(end);
          },
        });
        for await (const results of window) {
          held -= results.length;
          out.push(...results);
        }
        const all = Array.from({ length: sizes.reduce((a, b) => a + b, 0) }, (_, i) => i);
        expect(ordered ? out : [...out].sort((a, b) => a - b)).toEqual(all);
        expect(most).toBeLessThanOrEqual(limit);
        expect(mostHeld).toBeLessThanOrEqual(2 * backlog); // those held back, and the batch in the consumer's hands
      },
    ),
    { numRuns: 60 },
  );
});

test('a source that fails, a start that throws, a signal: the error comes out', async () => {
  const run = async (options: Partial<Parameters<typeof overWindow<number, number>>[0]>): Promise<void> => {
    const window = overWindow<number, number>({
      source: batches([5]),
      limit: 2,
      backlog: 4,
      ordered: true,
      start: (i, done) => done(i),
      ...options,
    });
    for await (const _ of window);
  };
  const broken = (async function* (): AsyncGenerator<number[]> {
    yield [1];
    throw new Error('source');
  })();
  await expect(run({ source: broken })).rejects.toThrow('source');
  const start = (): void => {
    throw new Error('start');
  };
  await expect(run({ start })).rejects.toThrow('start');
  const control = new AbortController();
  setTimeout(() => control.abort(new Error('SIGINT')), 5);
  await expect(run({ start: () => {}, signal: control.signal })).rejects.toThrow('SIGINT');
  await expect(run({ signal: AbortSignal.abort(new Error('early')) })).rejects.toThrow('early');
});
