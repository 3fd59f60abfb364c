import { bounded } from '../../../../src/vhost-user/backend/serving.js';

test('a front-end that causes message after message fills no log', () => {
  const lines: string[] = [];
  let time = 0;
  const log = bounded(
    (text) => lines.push(text),
    () => time,
  );
  for (let i = 0; i < 1000; i++) log(`ring broke ${i}`);
  expect(lines).toHaveLength(51);
  expect(lines[49]).toBe('ring broke 49');
  time = 20000;
  log('later');
  expect(lines.slice(51)).toEqual(['950 more messages', 'later']);
});
