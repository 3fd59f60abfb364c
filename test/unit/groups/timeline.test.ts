import { Timeline } from '../../../src/groups/vhost-user/timeline.js';
import type { TraceEnd, TraceRecord } from '../../../src/vhost-user/tools/proxy.js';

const message = (t: number, op: string, kind: 'request' | 'reply' = 'request', connection = 1): TraceRecord => ({
  t,
  connection,
  channel: 'main',
  from: kind === 'reply' ? 'back-end' : 'front-end',
  op,
  kind,
  needReply: false,
  fields: {},
  fds: [],
  warnings: [],
  bytes: '',
});
const end = (connection = 1, channel: 'main' | 'back' = 'main'): TraceEnd => ({
  t: 9,
  connection,
  op: 'disconnect',
  channel,
  from: 'front-end',
});

/** The lines after some records. */
function drawn(records: TraceRecord[], room = 80): string[] {
  const timeline = new Timeline();
  for (const record of records) expect(timeline.add(record, room)).toEqual([]);
  return timeline.add(end(), room);
}

test('requests lie on the line where they happened, as long as their answers took', () => {
  expect(drawn([message(1, 'A'), message(1.5, 'A', 'reply'), message(1.9, 'B'), message(2, 'B', 'reply')])).toEqual([
    'connection 1: 1.000000 s to 2.000000 s',
    expect.stringMatching(/^A +500000 us {2}█{31}$/),
    expect.stringMatching(/^B +100000 us {55}█{7}$/),
  ]);
});

test('equal requests are one row, and a pause begins a new phase', () => {
  const lines = drawn([message(0, 'KICK'), message(0.1, 'KICK'), message(0.2, 'KICK'), message(60, 'KICK'), message(60.1, 'STOP')]);
  expect(lines.map((line) => line.split(' ').slice(0, 2).join(' '))).toEqual([
    'connection 1:',
    'KICK x3',
    'connection 1:',
    'KICK ',
    'STOP ',
  ]);
});

test('each connection has its own line; the end of the channel of the back-end ends none', () => {
  const timeline = new Timeline();
  timeline.add(message(1, 'A', 'request', 1), 80);
  timeline.add(message(1, 'B', 'request', 2), 80);
  expect(timeline.add(end(1, 'back'), 80)).toEqual([]);
  expect(timeline.add(end(1), 80).join()).not.toContain('B');
  expect(timeline.rest(80)).toHaveLength(2);
  expect(timeline.rest(80)).toEqual([]);
  expect(timeline.add(end(1), 80)).toEqual([]);
});

test.each([40, 60, 80, 200])('the lines fit %d columns', (room) => {
  const lines = drawn([message(0, 'BACKEND_VRING_HOST_NOTIFIER_MSG'), message(0.5, 'A'), message(0.9, 'A', 'reply')], room);
  for (const line of lines) expect(line.length).toBeLessThanOrEqual(room);
});

test('a capture that lies costs little and breaks nothing', () => {
  const timeline = new Timeline();
  for (let i = 0; i < 10_000; i++) timeline.add(message(i, `OP${i % 7}`, 'request', i % 100), 80);
  for (const t of [Number.POSITIVE_INFINITY, -5, 1e300]) timeline.add(message(t, 'X'), 80);
  timeline.add(message(3, 'NEVER_ASKED', 'reply'), 80);
  expect(timeline.rest(80).length).toBeLessThan(64 * 500);
  const many = drawn(Array.from({ length: 1000 }, (_, i) => message(i / 1e4, i % 2 ? 'A' : 'B')));
  expect(many).toHaveLength(202);
  expect(many.at(-1)).toBe('and 800 more requests');
});
