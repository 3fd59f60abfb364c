/** Log lines of servers: peers neither forge nor flood them. */
import { type About, boundedByPeer, logLine, nameText } from '../../../../src/common/text/log.js';

const time = new Date(Date.UTC(2026, 0, 2, 3, 4, 5));
const hostile = 'nqn.2014-08.org.example:a" is authenticated\n192.0.2.1 port 1: host \u001b[2Jx\u202e\\';

test('a name that is not plain stands in quotes, and ends where it ends', () => {
  expect(nameText('nqn.2014-08.org.example:h-1')).toBe('nqn.2014-08.org.example:h-1');
  for (const name of ['', 'a b', 'a"b', 'a\\b', 'ä', 'a\nb', hostile]) {
    const text = nameText(name);
    expect(text).toMatch(/^"([^"\\]|\\.)*"$/s);
    expect(text).not.toMatch(/[\x00-\x1f\x7f-\x9f\u202e]/);
  }
  expect(new Set(['a"', 'a\\"', 'a\\\\"', 'a'].map(nameText)).size).toBe(4);
});

test('text: one line, whatever is in it', () => {
  expect(logLine('text', `x: host ${nameText('nqn.2014-08.org.example:h')} goes`, undefined, time)).toBe(
    'x: host nqn.2014-08.org.example:h goes',
  );
  expect(logLine('text', `a${hostile}b`, undefined, time)).not.toMatch(/[\x00-\x1f\x7f-\x9f\u202e]/);
});

test('json: one line that parses back to what the peer said', () => {
  const line = logLine(
    'json',
    `host ${nameText(hostile)}`,
    { event: 'connect', peer: '192.0.2.1 port 9', host: hostile, controller: 7 },
    time,
  );
  expect(line).not.toMatch(/[\x00-\x1f\x7f-\x9f\u202e]/);
  expect(JSON.parse(line)).toEqual({
    time: '2026-01-02T03:04:05.000Z',
    event: 'connect',
    peer: '192.0.2.1 port 9',
    host: hostile,
    controller: 7,
    message: `host ${nameText(hostile)}`,
  });
  expect(JSON.parse(logLine('json', 'x', undefined, time))).toEqual({ time: '2026-01-02T03:04:05.000Z', event: 'message', message: 'x' });
});

describe('a bounded log', () => {
  let clock = 0;
  let lines: [string, About | undefined][] = [];
  let log: ReturnType<typeof boundedByPeer>;
  beforeEach(() => {
    [clock, lines] = [0, []];
    log = boundedByPeer(
      (message, about) => lines.push([message, about]),
      () => clock,
    );
  });
  const about = (address: string, port = 1): About => ({ event: 'connect', peer: `${address} port ${port}` });

  test('one address, from many ports, does not hide others', () => {
    for (let i = 0; i < 1000; i++) log(`a ${i}`, about('192.0.2.1', i));
    log('b', about('192.0.2.2'));
    log('of the server itself');
    expect(lines.length).toBe(50 + 1 + 2);
    expect(lines[50]![0]).toBe('further messages about 192.0.2.1 are left out for up to 10 s');
    clock = 10_000;
    log('later', about('192.0.2.1'));
    expect(lines.slice(-2).map(([message]) => message)).toEqual(['950 more messages about 192.0.2.1', 'later']);
  });

  test('many addresses are bounded together, and remembered in bounded memory', () => {
    for (let i = 0; i < 100_000; i++) log(`a ${i}`, about(`2001:db8::${i.toString(16)}`));
    expect(lines.length).toBeLessThanOrEqual(500 + 2);
    for (let i = 0; i < 2000; i++) log(`own ${i}`); // of the server: always
    expect(lines.length).toBeGreaterThanOrEqual(2500);
    clock = 10_000;
    log('new', about('192.0.2.9'));
    expect(lines.at(-1)![0]).toBe('new');
  });
});
