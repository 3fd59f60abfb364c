import { prepareFile } from '../../../src/vhost-user/shmem/file.js';
import { Channel } from '../../../src/vhost-user/wire/channel.js';
import { effort } from '../../support/effort.js';
import { duplicate, memfd, openFds, pair, resident } from '../../support/vhost-user.js';
import { backEnd, frontService, whole } from '../../support/vhost-user-pair.js';
import { eventually } from '../../support/wait.js';

/** Load and hostility over our own pair: descriptors and memory stay flat, nobody waits for ever. */
const map = (over: Record<string, unknown> = {}) => ({ shmid: 0, fdOffset: 0n, shmOffset: 0n, len: 0x1000n, flags: 1n, ...over });

test('30,000 times MAP and UNMAP', async () => {
  const { raw, regions, events, close } = frontService();
  const file = memfd(0x1000);
  const round = async (count: number): Promise<void> => {
    for (let i = 0; i < count; i++) {
      raw.request('back', 'BACKEND_SHMEM_MAP', map(), [duplicate(file)]);
      raw.request('back', 'BACKEND_SHMEM_UNMAP', map());
      if ((await raw.reaction()) !== 0n || (await raw.reaction()) !== 0n) throw new Error(`refused in round ${i}`);
      events.length = 0; // the test's own record
    }
  };
  await round(2000);
  const [fds, memory] = [openFds(), resident()];
  await round(30_000);
  expect(openFds()).toBeLessThanOrEqual(fds);
  // 800 bytes for each
  expect(resident() - memory).toBeLessThan(24 << 20);
  expect(regions.list()).toEqual([]);
  file.close();
  close();
});

test('thousands of connections', async () => {
  const once = async (): Promise<void> => {
    const { raw, close } = backEnd();
    raw.request('main', 'GET_FEATURES', {}, [], 1);
    if (typeof (await raw.reaction()) !== 'bigint') throw new Error('no answer');
    await close();
  };
  for (let i = 0; i < 500; i++) await once();
  const [fds, memory] = [openFds(), resident()];
  for (let i = 0; i < effort(2000, 4000); i++) await once();
  expect(openFds()).toBeLessThanOrEqual(fds);
  expect(resident() - memory).toBeLessThan(24 << 20); // 6 to 12 KB for each
});

test('a front-end that never reads is cut off, and costs no unbounded memory', async () => {
  const [ours, theirs] = pair();
  const channel = new Channel(ours, { peer: 'front-end', sendTimeout: 300, maxQueued: 1 << 16 });
  let error: Error | undefined;
  channel.start(
    () => {},
    (why) => {
      error = why;
    },
  );
  for (let i = 0; i < 100_000 && !channel.closed; i++) channel.send(Buffer.alloc(512));
  await eventually(() => channel.closed);
  expect(error?.message).toMatch(/not read/);
  theirs.close();
});

test('five MAPs in a row without waiting are answered in order', async () => {
  const { raw, close } = frontService();
  const file = memfd(0x1000);
  for (const shmOffset of [0n, 0x1000n, 0x1000n, 0x2000n, 0x3000n])
    raw.request('back', 'BACKEND_SHMEM_MAP', map({ shmOffset }), [duplicate(file)]);
  const answers = (await raw.answers(5)).map((a) => a === 0n);
  expect(answers).toEqual([true, true, false, true, true]);
  file.close();
  close();
});

test('after a reconnect the mappings that the front-end kept are unmapped first, then mapped anew', async () => {
  const events: string[] = [];
  const { server, session, window, connect } = await whole({
    onEvent: (e) => events.push(`${e.op.slice(14)} ${e.errno ?? 'ok'}`),
  });
  const file = memfd(0x4000);
  const entry = server.add(0, 0n, 'memfd', await prepareFile(duplicate(file), 'memfd', 'rw'));
  await window.start();
  await server.settled(entry, 30_000);
  window.close();
  await session.done;
  expect(entry.state).toBe('queued');
  const again = await connect();
  await again.window.start();
  expect(await server.settled(entry, 30_000)).toMatchObject({ state: 'mapped' });
  expect(events).toEqual(['MAP ok', 'UNMAP ENOENT', 'MAP ok']); // this front-end had dropped it, and that is as good
  again.window.close();
  await again.session.done;
  server.close();
  file.close();
});

test('a stop without a reset: the mapping that still stands is kept', async () => {
  const { server, session, window } = await whole();
  const file = memfd(0x4000);
  const entry = server.add(0, 0n, 'memfd', await prepareFile(duplicate(file), 'memfd', 'rw'));
  await window.start();
  await server.settled(entry, 30_000);
  await window.stop(false);
  expect(entry.state).toBe('queued');
  await window.start();
  expect(await server.settled(entry, 30_000)).toMatchObject({ state: 'kept' });
  expect(window.regions.list()).toHaveLength(1);
  await server.remove(0, 0n);
  expect(window.regions.list()).toEqual([]);
  window.close();
  await session.done;
  server.close();
  file.close();
});

test('memory slots are offered only when asked for', async () => {
  for (const slots of [false, true]) {
    const { server, session, window } = await whole({ slots });
    expect((window.front.protocol >> 15n) & 1n).toBe(slots ? 1n : 0n);
    window.close();
    await session.done;
    server.close();
  }
});

test('the seventh mapping needs memory slots, and says so', async () => {
  const { server, session, window } = await whole();
  const file = memfd(0x1000);
  for (let i = 0; i < 6; i++) server.add(0, BigInt(i * 0x1000), 'memfd', await prepareFile(duplicate(file), 'memfd', 'rw'));
  const seventh = await prepareFile(duplicate(file), 'memfd', 'rw');
  expect(() => server.add(0, 0x6000n, 'memfd', seventh)).toThrow(
    expect.objectContaining({ code: 'ENOSPC', hint: expect.stringContaining('--slots') }),
  );
  window.close();
  await session.done;
  server.close();
  file.close();
});
