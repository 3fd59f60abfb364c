import { Turns } from '../../../../src/nvme/auth/dh.js';

/** Waits, and notes who has had a turn, or none. */
function crowd(turns: Turns) {
  const log: string[] = [];
  const wait = (peer: string, name = peer) =>
    turns.wait(peer).then(
      () => void log.push(name),
      (err: { code?: string }) => void log.push(`${name}: ${err.code}`),
    );
  const settle = () => new Promise<void>((resolve) => setImmediate(resolve));
  return { log, wait, settle };
}

test('peers take turns, whoever came first', async () => {
  const turns = new Turns(1, 10);
  const { log, wait, settle } = crowd(turns);
  for (const peer of ['x', 'a1', 'a2', 'a3', 'b1', 'c1', 'b2']) void wait(peer[0]!, peer);
  for (let i = 0; i < 7; i++) {
    await settle();
    turns.next();
  }
  expect(log).toEqual(['x', 'a1', 'b1', 'c1', 'a2', 'b2', 'a3']);
});

test('as many as allowed run at once, and a place is free again', async () => {
  const turns = new Turns(2, 10);
  const { log, wait, settle } = crowd(turns);
  for (let i = 0; i < 3; i++) void wait('a', `a${i}`);
  await settle();
  expect(log).toEqual(['a0', 'a1']);
  for (let i = 0; i < 3; i++) turns.next();
  await settle();
  void wait('b');
  void wait('c');
  await settle();
  expect(log).toEqual(['a0', 'a1', 'a2', 'b', 'c']);
});

test('a flood of one peer keeps no other out, and not itself beyond the limit', async () => {
  const turns = new Turns(1, 4);
  const { log, wait, settle } = crowd(turns);
  void wait('running');
  for (let i = 0; i < 6; i++) void wait('a', `a${i}`);
  await settle();
  expect(log).toEqual(['running', 'a4: EBUSY', 'a5: EBUSY']);
  void wait('b', 'b0'); // takes the place of a3
  void wait('b', 'b1'); // of a2
  void wait('b', 'b2'); // has no more than a any longer
  await settle();
  expect(log.slice(3).sort()).toEqual(['a2: EBUSY', 'a3: EBUSY', 'b2: EBUSY']);
  for (let i = 0; i < 5; i++) {
    turns.next();
    await settle();
  }
  expect(log.filter((one) => !one.includes(':')).slice(1)).toEqual(['a0', 'b0', 'a1', 'b1']);
});
