/** Targets that lie while our hosts authenticate, or before TLS: both hosts end with one clear error, in time. */
import { randomBytes } from 'node:crypto';
import net, { type AddressInfo } from 'node:net';
import { VioError } from '../../src/common/errors.js';
import { groupPrime } from '../../src/nvme/auth/groups.js';
import { tlsPsk } from '../../src/nvme/auth/tls-psk.js';
import { Controller, type ControllerOptions, OpenNamespace } from '../../src/nvme/host/index.js';
import { AuthId } from '../../src/nvme/wire/index.js';
import { type SloppyOptions, sloppyTarget } from '../support/nvme-sloppy.js';

const ends = { hostnqn: 'nqn.2014-08.org.example:host', subnqn: 'nqn.2014-08.org.example:hostile' };
const keys = { host: { hash: 1, bytes: randomBytes(32) }, controller: { hash: 1, bytes: randomBytes(32) } };
const chap = { key: keys.host, controllerKey: keys.controller };
/** What it offers: the target chooses SHA-512 and ffdhe2048 among it. */
const offered = { hashes: [3], groups: [1] };
const valueAt = 16 + 64;

/** The host of commands that look at a target, and the one of those that move data. */
const hosts: [string, (options: ControllerOptions) => Promise<void>][] = [
  ['identify', async (options) => (await Controller.connect(options)).disconnect()],
  ['read', async (options) => (await OpenNamespace.open(options, 1, new AbortController().signal)).close()],
];
async function failure(
  host: (options: ControllerOptions) => Promise<void>,
  port: number,
  more: Partial<ControllerOptions>,
): Promise<VioError> {
  const options = { address: '127.0.0.1', port, timeout: 90_000, ...ends, hostid: Buffer.alloc(16, 3), ...more };
  const err = await host(options).then(
    () => undefined,
    (e: unknown) => e,
  );
  if (!(err instanceof VioError)) throw new Error(`no error of ours: ${err}`);
  return err;
}

const edit =
  (id: number, at: number, ...bytes: number[]): SloppyOptions['spoil'] =>
  (message, now) => {
    if (now === id) message.set(bytes, at);
    return message;
  };
const value = (bytes: (prime: Buffer) => Buffer): SloppyOptions['spoil'] => {
  const own = bytes(groupPrime(1));
  return (message, now) => (now === AuthId.challenge ? Buffer.concat([message.subarray(0, valueAt), own]) : message);
};
const instead =
  (id: number, message: Buffer | undefined): SloppyOptions['spoil'] =>
  (right, now) =>
    now === id ? message : right;
const minusOne = (prime: Buffer): Buffer => Buffer.concat([prime.subarray(0, -1), Buffer.of(prime.at(-1)! - 1)]);
const { challenge, success1 } = AuthId;
const failure1 = (explanation: number): Buffer => Buffer.from([0, 0xf1, 0, 0, 0, 0, 1, explanation]);

const lies: [what: string, spoil: SloppyOptions['spoil'], exit: number][] = [
  [
    'a challenge of another transaction',
    (m, id) => (id === challenge ? Buffer.concat([m.subarray(0, 4), Buffer.of(m[4]! ^ 1), m.subarray(5)]) : m),
    5,
  ],
  ['a hash function that does not exist', edit(challenge, 8, 99), 5],
  ['a hash function that was not offered', edit(challenge, 8, 1), 5],
  ['a group that does not exist', edit(challenge, 9, 99), 5],
  ['no group, although one was offered', edit(challenge, 9, 0), 5],
  ['a challenge with HL 0', edit(challenge, 6, 0), 5],
  ['a challenge with HL 255', edit(challenge, 6, 255), 5],
  ['a challenge with DHVLEN 0', edit(challenge, 10, 0, 0), 5],
  ['a challenge with DHVLEN 65535', edit(challenge, 10, 255, 255), 5],
  ['a DH value of 0', value(() => Buffer.alloc(256)), 5],
  ['a DH value of 1', value(() => Buffer.concat([Buffer.alloc(255), Buffer.of(1)])), 5],
  ['a DH value of p - 1', value(minusOne), 5],
  ['a DH value of p', value((prime) => prime), 5],
  ['a DH value of all ones', value(() => Buffer.alloc(256, 255)), 5],
  ['zeroes instead of a challenge', instead(challenge, Buffer.alloc(400)), 5],
  ['ones instead of a challenge', instead(challenge, Buffer.alloc(4096, 255)), 5],
  ['Success1 at once', edit(challenge, 1, success1), 5],
  ['AUTH_Failure1', instead(challenge, failure1(1)), 6],
  ['AUTH_Failure1 with an unknown reason', instead(challenge, failure1(200)), 6],
  ['AUTH_Failure2, which is the host to say', instead(challenge, Buffer.from([0, 0xf0, 0, 0, 0, 0, 1, 1])), 5],
  ['a challenge instead of Success1', edit(success1, 1, challenge), 5],
  ['Success1 with HL 255', edit(success1, 6, 255), 6],
  ['Success1 without a response', edit(success1, 8, 0), 6],
  ['Success1 with a response of zeroes', (m, id) => (id === success1 ? Buffer.concat([m.subarray(0, 16), Buffer.alloc(64)]) : m), 6],
  ['zeroes instead of Success1', instead(success1, Buffer.alloc(80)), 5],
];

describe.each(hosts)('%s', (_name, host) => {
  test.each(lies)('%s', async (_what, spoil, exit) => {
    const fake = sloppyTarget({ keys, ...(spoil && { spoil }) });
    try {
      const err = await failure(host, await fake.listen(), { chap: { ...chap, ...offered } });
      expect({ exit: err.exit, message: err.message }).toEqual({ exit, message: expect.stringContaining('authentication') });
      expect(fake.faults).toEqual([]);
    } finally {
      fake.close();
    }
  });

  test('messages that are shorter than the room for them are whole', async () => {
    const fake = sloppyTarget({ keys, short: true });
    try {
      await host({ address: '127.0.0.1', port: await fake.listen(), timeout: 90_000, ...ends, hostid: Buffer.alloc(16, 3), chap });
      expect([fake.faults, fake.terminated]).toEqual([[], []]);
    } finally {
      fake.close();
    }
  });
  test.each([1, 8, 15, 16, 47, 100])('a challenge that ends after %d bytes', async (size) => {
    const spoil: SloppyOptions['spoil'] = (message, id) => (id === challenge ? message.subarray(0, size) : message);
    const fake = sloppyTarget({ keys, short: true, spoil });
    try {
      const err = await failure(host, await fake.listen(), { chap: { ...chap, ...offered } });
      expect({ exit: err.exit, message: err.message }).toEqual({ exit: 5, message: expect.stringContaining('authentication') });
    } finally {
      fake.close();
    }
  });

  test('a challenge of no bytes breaks the protocol', async () => {
    const fake = sloppyTarget({ keys, short: true, spoil: instead(challenge, Buffer.alloc(0))! });
    try {
      const err = await failure(host, await fake.listen(), { chap: { ...chap, ...offered } });
      expect({ exit: err.exit, message: err.message }).toEqual({
        exit: 5,
        message: expect.stringMatching(/ the target broke the protocol(: .+)?$/),
      });
    } finally {
      fake.close();
    }
  });

  test.each([
    ['the challenge', challenge],
    ['Success1', success1],
  ])('%s never comes: the time-out holds', async (_what, id) => {
    const fake = sloppyTarget({ keys, spoil: instead(id, undefined)! });
    try {
      const err = await failure(host, await fake.listen(), { chap: { ...chap, ...offered }, timeout: 500 });
      expect([err.code, err.exit]).toEqual(['ETIMEDOUT', 124]);
    } finally {
      fake.close();
    }
  });

  test('a target that asks for a secure channel, and one that asks for nothing although it must prove itself', async () => {
    for (const [authreq, exit] of [
      [4, 7],
      [6, 7],
      [0, 6],
    ] as const) {
      const fake = sloppyTarget({ keys, authreq });
      try {
        expect((await failure(host, await fake.listen(), { chap })).exit).toBe(exit);
      } finally {
        fake.close();
      }
    }
  });

  const tls = tlsPsk({ hash: 1, bytes: randomBytes(32) }, ends.hostnqn, ends.subnqn);
  /** What a server without TLS of its own may say to a ClientHello. */
  const answers: [string, Buffer | 'end' | undefined][] = [
    ['an ICResp in the clear', Buffer.concat([Buffer.from([1, 0, 128, 0, 128, 0, 0, 0]), Buffer.alloc(120)])],
    ['HTTP', Buffer.from('HTTP/1.1 400 Bad Request\r\n\r\n')],
    ['a fatal alert', Buffer.from('15030300020228', 'hex')],
    ['an alert that does not exist', Buffer.from('1503030002ffff', 'hex')],
    ['half a record', Buffer.from('1603030100', 'hex')],
    ['a record of 65,535 bytes', Buffer.concat([Buffer.from('160303ffff', 'hex'), Buffer.alloc(65_535)])],
    ['a ServerHello of nothing', Buffer.from('160303000402000000', 'hex')],
    [
      'a ServerHello of TLS 1.2',
      Buffer.concat([Buffer.from('160303002c020000280303', 'hex'), Buffer.alloc(32, 7), Buffer.from('00c02f000000', 'hex')]),
    ],
    ['1,000 empty records', Buffer.concat(Array.from({ length: 1000 }, () => Buffer.from('1403030000', 'hex')))],
    // no version of TLS, so that nobody waits for the rest of a record
    ['random bytes', Buffer.concat([Buffer.from('ffff', 'hex'), randomBytes(4094)])],
    ['the end', 'end'],
    ['nothing', undefined],
  ];
  test.each(answers)('a ClientHello is answered with %s', async (what, answer) => {
    const sockets = new Set<net.Socket>();
    const server = net.createServer((socket) => {
      sockets.add(socket);
      socket.on('error', () => {}); // the host may reset
      socket.once('data', () => (answer === 'end' ? socket.end() : answer && socket.write(answer)));
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    try {
      const waits = ['half a record', 'nothing'].includes(what);
      const err = await failure(host, (server.address() as AddressInfo).port, { tls: [tls], timeout: waits ? 1000 : 30_000 });
      expect([what, err.exit, err.code]).toEqual([what, waits ? 124 : 6, waits ? 'ETIMEDOUT' : 'EKEYREJECTED']);
    } finally {
      server.close();
      for (const socket of sockets) socket.destroy();
    }
  });
});
