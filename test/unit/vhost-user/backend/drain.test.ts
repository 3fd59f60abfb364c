import type { DeviceModel, RingStart } from '../../../../src/vhost-user/backend/model.js';
import { BackEndSession } from '../../../../src/vhost-user/backend/session.js';
import { Window } from '../../../../src/vhost-user/frontend/window.js';
import { VirtioF } from '../../../../src/vhost-user/wire/features.js';
import { encodeMessage, messageByName } from '../../../../src/vhost-user/wire/messages.js';
import { duplicate, memfd, openFds, pair } from '../../../support/vhost-user.js';
import { eventually } from '../../../support/wait.js';

/** What a session does while its rings finish what they have taken: the ends of the rings are in the test's hand. */
async function slow(queues = 2) {
  const events: string[] = [];
  const ends: (() => void)[] = [];
  const device: DeviceModel = {
    name: 'slow',
    features: VirtioF.version1,
    protocol: 0xffffn & ~(1n << 14n),
    queues,
    regions: new Map(),
    config: () => new Uint8Array(8),
    startRing: ({ index }: RingStart) => {
      events.push(`start ${index}`);
      return {
        remap: () => events.push(`remap ${index}`),
        stop: () => {
          events.push(`stop ${index}`);
          return new Promise((resolve) => {
            ends[index] = () => {
              events.push(`end ${index}`);
              resolve(7 + index);
            };
          });
        },
      };
    },
    settle: async () => {
      events.push('settle');
    },
  };
  const [ours, theirs] = pair();
  let running = false;
  const session = new BackEndSession(ours, device, {
    onRunning: (now) => {
      running = now;
    },
    onClose: () => events.push('closed'),
  });
  const window = await Window.open(theirs, { queues });
  await window.start();
  events.length = 0;
  return { events, ends, session, window, front: window.front, running: () => running };
}
const soon = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 30));

test('drain: all rings are stopped at once, then the device settles, then the connection ends', async () => {
  const { events, ends, session, window, running } = await slow(3);
  const drained = session.drain();
  expect(running()).toBe(false);
  await soon();
  expect(events).toEqual(['stop 0', 'stop 1', 'stop 2']);
  ends[1]!();
  ends[0]!();
  await soon();
  expect(window.front.exchange.channel.closed).toBe(false);
  expect(events).not.toContain('settle');
  ends[2]!();
  await drained;
  expect(events.slice(3)).toEqual(['end 1', 'end 0', 'end 2', 'settle', 'closed']);
  window.close();
});

test('drain while GET_VRING_BASE waits for its ring: it is answered before the hang-up', async () => {
  const { events, ends, session, window, front } = await slow();
  const base = front.request('GET_VRING_BASE', { index: 0, num: 0 });
  await soon();
  const drained = session.drain();
  await soon();
  expect(events).toEqual(['stop 0', 'stop 1']);
  ends[1]!();
  ends[0]!();
  expect((await base)!.payload.readUInt32LE(4)).toBe(7);
  await drained;
  window.close();
});

test('what the front-end asks during a drain is answered, and starts no ring', async () => {
  const { events, ends, session, window, front } = await slow();
  await front.request('SET_VRING_ENABLE', { index: 1, num: 1 });
  const drained = session.drain();
  await soon();
  expect(await front.number('GET_QUEUE_NUM')).toBe(2n);
  const off = front.request('SET_VRING_ENABLE', { index: 0, num: 0 });
  const on = front.request('SET_VRING_ENABLE', { index: 0, num: 1 });
  await soon();
  ends[0]!();
  await off;
  await on;
  ends[1]!();
  await drained;
  expect(events.filter((e) => e.startsWith('start'))).toEqual([]);
  window.close();
});

test.each([
  ['GET_VRING_BASE', { index: 0, num: 0 }, ['stop 0']],
  ['SET_VRING_ENABLE', { index: 0, num: 0 }, ['stop 0']],
  ['RESET_DEVICE', {}, ['stop 0', 'stop 1']],
] as const)(
  '%s is answered when its rings have ended; a front-end that hangs up meanwhile does not end the session early',
  async (name, values, stops) => {
    const { events, ends, session, window, front } = await slow();
    let answered = false;
    const asked = front.request(name, values).then(
      () => {
        answered = true;
      },
      () => {},
    );
    await soon();
    expect(events).toEqual(stops);
    expect(answered).toBe(false);
    if (name === 'RESET_DEVICE') ends[1]!();
    window.close();
    await asked;
    await soon();
    const rest = stops.length === 1 ? ['stop 1'] : ['end 1'];
    expect(events.slice(stops.length)).toEqual(rest); // the session's end stops what still runs, and waits for both
    if (name !== 'RESET_DEVICE') ends[1]!();
    await soon();
    expect(events).not.toContain('closed');
    ends[0]!();
    await session.done;
    expect(events.at(-1)).toBe('closed');
  },
);

test('RESET_OWNER is ignored, as the specification recommends: rings run on', async () => {
  const { events, ends, session, window, front } = await slow(1);
  await front.request('RESET_OWNER');
  expect(events).toEqual([]);
  window.close();
  await soon();
  ends[0]!();
  await session.done;
});

test('a device that cannot settle: the connection ends, and the drain says why', async () => {
  const { ends, session, window } = await slow(1);
  session.device.settle = () => {
    throw new Error('the disk is gone');
  };
  const drained = session.drain();
  await soon();
  ends[0]!();
  await expect(drained).rejects.toThrow('the disk is gone');
  window.close();
});

test.each([
  ['messages', 0],
  ['descriptors', 2],
])('%s that are sent ahead while a request hangs: the connection ends, and nothing stays open', async (_name, fds) => {
  const { events, ends, session, window, front } = await slow(1);
  const asked = front.request('GET_VRING_BASE', { index: 0, num: 0 }).catch(() => {});
  await soon();
  const { channel } = front.exchange;
  const file = memfd(0x1000);
  const before = openFds();
  const { id, request } = messageByName('main', 'SET_VRING_CALL');
  const payload = request!.encode({ value: 0n } as never);
  const count = fds > 0 ? 600 : 1023;
  const ahead = (): void =>
    channel.send(
      encodeMessage(id, 1, payload),
      Array.from({ length: fds }, () => duplicate(file)),
    );
  for (let i = 0; i < count; i++) ahead();
  await soon();
  if (fds === 0) {
    expect(channel.closed).toBe(false); // as many as may wait
    ahead();
  }
  await eventually(() => channel.closed);
  expect(channel.closed).toBe(true);
  expect(openFds()).toBeLessThan(before);
  expect(events).not.toContain('closed');
  ends[0]!(); // the disk answers after all
  await asked;
  await session.done;
  file.close();
  window.close();
});
