import { Together } from '../../../src/storage/together.js';

/** Doubles numbers, and fails for odd ones. */
function doubler(most: number): { together: Together<number, number>; groups: number[][] } {
  const groups: number[][] = [];
  const put = async (numbers: number[]) => {
    groups.push(numbers);
    return numbers.map((one) => (one % 2 === 0 ? one * 2 : new Error(`odd: ${one}`)));
  };
  return { together: new Together(put, most), groups };
}

test('what is asked in one turn goes in groups, and each gets its own answer or error', async () => {
  const { together, groups } = doubler(3);
  const answers = await Promise.allSettled([2, 3, 4, 6, 8].map((one) => together.ask(one)));
  expect(groups).toEqual([
    [2, 3, 4],
    [6, 8],
  ]);
  expect(answers.map((one) => (one.status === 'fulfilled' ? one.value : (one.reason as Error).message))).toEqual([4, 'odd: 3', 8, 12, 16]);
});

test('what is asked behind an answer goes in a group of its own', async () => {
  const { together, groups } = doubler(8);
  expect(await together.ask(2)).toBe(4);
  expect(await together.ask(4)).toBe(8);
  expect(groups).toEqual([[2], [4]]);
});

test('a group that cannot be put fails for all who are in it', async () => {
  const together = new Together<number, number>(async () => {
    throw new Error('no thread');
  }, 2);
  for (const one of await Promise.allSettled([together.ask(1), together.ask(2), together.ask(3)]))
    expect(one).toMatchObject({ status: 'rejected', reason: { message: 'no thread' } });
});
