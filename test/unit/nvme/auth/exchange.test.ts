import { checkPrimeSync, createDiffieHellman, randomBytes, randomInt } from 'node:crypto';
import { VioError } from '../../../../src/common/errors.js';
import { type ChapKeys, type ChapPolicy, ControllerExchange } from '../../../../src/nvme/auth/controller.js';
import { makePair, power, sharedSecret, validValue } from '../../../../src/nvme/auth/dh.js';
import { groupNames, groupPrime } from '../../../../src/nvme/auth/groups.js';
import { authenticate, HostExchange, type HostExchangeOptions, mustAuthenticate } from '../../../../src/nvme/auth/host.js';
import { hashes, type Key } from '../../../../src/nvme/auth/keys.js';

const ends = { hostnqn: 'nqn.2014-08.org.example:host', subnqn: 'nqn.2014-08.org.example:disk' };
const key = (hash = 1, size = 32): Key => ({ hash, bytes: randomBytes(size) });
const keys = (controller = true): ChapKeys => ({ host: key(), controller: controller ? key(2, 48) : undefined });

/** A controller, and what it told. */
function controller(known: ChapKeys | undefined, policy?: ChapPolicy) {
  const told = { succeeded: 0, failed: [] as string[] };
  const exchange = new ControllerExchange({
    ...ends,
    policy: () => policy,
    keys: () => known,
    power,
    succeeded: () => void told.succeeded++,
    failed: (why) => void told.failed.push(why),
  });
  return { exchange, told };
}

/** Authenticates a host to a controller. @param between may change a message on its way */
function run(
  exchange: ControllerExchange,
  options: Partial<HostExchangeOptions> & { key: Key | undefined },
  between: (message: Buffer, towards: 'host' | 'controller') => Buffer = (message) => message,
): Promise<void> {
  const transport = {
    send: (message: Buffer) => exchange.send(between(Buffer.from(message), 'controller')),
    receive: async (size: number) => between(Buffer.concat([exchange.receive()], size), 'host'),
  };
  return authenticate(transport, { ...ends, power, ...options });
}
const reject = async (work: Promise<void>): Promise<VioError> => {
  const err = await work.then(
    () => undefined,
    (e: unknown) => e,
  );
  if (!(err instanceof VioError)) throw new Error(`not rejected: ${err}`);
  return err;
};

test.each([
  [0, 2, false, true],
  [3, 2, true, true],
  [0, 0, false, false],
  [3, 0, true, false], // a target may ask on the admin queue alone
])('queue %d with AUTHREQ %d, the target to prove itself: %s', (qid, authreq, mutual, must) => {
  expect(mustAuthenticate(qid, authreq, mutual)).toBe(must);
});
test('a target that must prove itself and does not ask is not trusted', () => {
  expect(() => mustAuthenticate(0, 0, true)).toThrow('does not authenticate itself');
  for (const qid of [0, 1]) expect(() => mustAuthenticate(qid, 4, false)).toThrow('secure channel');
});

describe('a connection that ends in an exchange', () => {
  const closed = Object.assign(new Error('closed'), { code: 'ECONNRESET' });
  /** @param at the step that fails: 0 sends the negotiation, 1 gets the challenge, 2 sends the reply, 3 gets the verdict */
  const endingAt = (at: number, error: Error = closed) => {
    const { exchange } = controller(keys());
    let step = 0;
    const reach = async () => {
      if (step++ === at) throw error;
    };
    const transport = {
      send: async (message: Buffer) => {
        await reach();
        await exchange.send(message);
      },
      receive: async (size: number) => {
        await reach();
        return Buffer.concat([exchange.receive()], size);
      },
    };
    return authenticate(transport, { ...ends, power, key: key() }).then(
      () => undefined,
      (err: unknown) => err,
    );
  };

  test('instead of a verdict is a refusal, as far as a host can tell', async () => {
    const err = await endingAt(3);
    expect(err).toMatchObject({ code: 'EKEYREJECTED', exit: 6, cause: closed, hint: expect.stringContaining('key of this host') });
  });
  test.each([0, 1, 2])('at step %d is what it is', async (at) => expect(await endingAt(at)).toBe(closed));
  test('for another reason is what it is', async () => {
    const late = Object.assign(new Error('late'), { code: 'ETIMEDOUT' });
    expect(await endingAt(3, late)).toBe(late);
  });
});

describe('groups', () => {
  // the last words of the primes before their 64 ones: RFC 7919, appendix A
  test.each([
    [1, 2048, '886B423861285C97'],
    [2, 3072, '25E41D2B66C62E37'],
    [3, 4096, 'C68A007E5E655F6A'],
    [4, 6144, 'A40E329CD0E40E65'],
    [5, 8192, 'D68C8BB7C5C6424C'],
  ])('group %d', (id, bits, tail) => {
    const prime = groupPrime(id);
    expect(prime).toHaveLength(bits / 8);
    expect(prime.subarray(-16, -8).toString('hex').toUpperCase()).toBe(tail);
    expect(prime.subarray(-8)).toEqual(Buffer.alloc(8, 0xff));
    expect(prime.subarray(0, 16).toString('hex').toUpperCase()).toBe('FFFFFFFFFFFFFFFFADF85458A2BB4A9A');
    if (bits > 2048) return; // the same formula; minutes for the larger ones
    const p = BigInt(`0x${prime.toString('hex')}`);
    expect(checkPrimeSync(p, { checks: 8 }) && checkPrimeSync((p - 1n) / 2n, { checks: 8 })).toBe(true);
  });

  test('powers agree with the Diffie-Hellman of Node', async () => {
    const other = createDiffieHellman(groupPrime(1), 2);
    const theirs = other.generateKeys();
    const pair = await makePair(1, power);
    const shared = await sharedSecret(pair, Buffer.concat([Buffer.alloc(256 - theirs.length), theirs]), power);
    expect(shared.equals(Buffer.concat([Buffer.alloc(256), other.computeSecret(pair.value)]).subarray(-256))).toBe(true);
  });

  test('values that give the secret away are refused', () => {
    const p = groupPrime(1);
    const value = (n: bigint) => Buffer.from(n.toString(16).padStart(512, '0'), 'hex');
    const prime = BigInt(`0x${p.toString('hex')}`);
    for (const n of [0n, 1n, prime - 1n, prime, prime + 1n, (1n << 2048n) - 1n]) expect(validValue(1, value(n))).toBe(false);
    for (const n of [2n, 3n, prime - 2n]) expect(validValue(1, value(n))).toBe(true);
    expect(validValue(1, value(2n).subarray(1))).toBe(false);
    expect(validValue(1, Buffer.concat([Buffer.alloc(1), value(2n)]))).toBe(false);
  });
});

describe('both sides', () => {
  test.each([...hashes.keys()].flatMap((hash) => [...groupNames.keys()].map((group) => [hash, group] as const)))(
    'hash %d, group %d: unidirectional, bidirectional, and again',
    async (hash, group) => {
      const known = keys();
      const { exchange, told } = controller(known, { hashes: [hash], groups: [group] });
      await run(exchange, { key: known.host });
      await run(exchange, { key: known.host, controllerKey: known.controller });
      expect(told).toEqual({ succeeded: 2, failed: [] });
      expect(exchange.state).toBe('idle');
    },
  );

  test('the controller chooses what it prefers among what is offered', async () => {
    const known = keys();
    const { exchange } = controller(known, { hashes: [2, 1], groups: [1, 0] });
    await run(exchange, { key: known.host, hashes: [1], groups: [0, 3] }, (message, towards) => {
      if (towards === 'host' && message[1] === 1) expect([message[8], message[9]]).toEqual([1, 0]);
      return message;
    });
  });

  test('keys that are wiped and replaced within an exchange open nothing', async () => {
    const known = keys();
    const old: Key = { hash: known.host.hash, bytes: Buffer.from(known.host.bytes) };
    const zeroes: Key = { hash: old.hash, bytes: Buffer.alloc(old.bytes.length) };
    for (const theirs of [zeroes, old]) {
      let now: ChapKeys = { host: { hash: old.hash, bytes: Buffer.from(old.bytes) }, controller: undefined };
      const told = { succeeded: 0, failed: [] as string[] };
      const exchange = new ControllerExchange({
        ...ends,
        policy: () => ({ hashes: [1], groups: [0] }),
        keys: () => now,
        power,
        succeeded: () => void told.succeeded++,
        failed: (why) => void told.failed.push(why),
      });
      await reject(
        run(exchange, { key: theirs }, (message, towards) => {
          if (towards === 'host' && message[1] === 1) {
            now.host.bytes.fill(0); // as a rotation does
            now = keys(false);
          }
          return message;
        }),
      );
      expect(told).toEqual({ succeeded: 0, failed: [expect.stringContaining('changed meanwhile')] });
    }
  });

  test('wrong, missing and swapped keys', async () => {
    const known = keys();
    const check = async (options: Parameters<typeof run>[1], theirs: ChapKeys | undefined, code: string) => {
      const { exchange, told } = controller(theirs);
      const err = await reject(run(exchange, options));
      expect(err.code).toBe(code);
      expect(err.exit).toBe(6);
      expect(told.succeeded).toBe(0);
      return { exchange, told };
    };
    await check({ key: undefined }, known, 'ENOKEY');
    await check({ key: key() }, known, 'EKEYREJECTED');
    await check({ key: { ...known.host, hash: 2 } }, known, 'EKEYREJECTED');
    await check({ key: known.host }, undefined, 'EKEYREJECTED');
    await check({ key: known.host, controllerKey: key() }, keys(false), 'EKEYREJECTED');
    // the host tells the controller that it did not prove itself
    const { exchange, told } = await check({ key: known.host, controllerKey: key() }, known, 'EKEYREJECTED');
    expect(told.failed).toEqual([expect.stringContaining('the host gives up')]);
    expect(exchange.over).toBe(true);
    // a controller cannot send the host's own answer back, and the host's key is not the controller's
    await check({ key: known.host, controllerKey: known.host }, known, 'EKEYREJECTED');
  });

  test('nothing in common: the reason says what', async () => {
    const known = keys();
    const messages = async (options: Partial<HostExchangeOptions>, policy: ChapPolicy) =>
      (await reject(run(controller(known, policy).exchange, { key: known.host, ...options }))).message;
    expect(await messages({ hashes: [1] }, { hashes: [3], groups: [0] })).toContain('hash function not usable');
    expect(await messages({ groups: [0] }, { hashes: [3], groups: [5] })).toContain('group not usable');
  });
});

/** Messages of a good exchange, fresh each time. */
async function stage(until: 'negotiate' | 'reply' | 'success2', group = 1) {
  const known = keys();
  const { exchange, told } = controller(known, { hashes: [1], groups: [group] });
  const host = new HostExchange({ ...ends, power, key: known.host, controllerKey: known.controller }, known.host);
  let message = host.negotiate();
  if (until !== 'negotiate') {
    await exchange.send(message);
    message = await host.reply(exchange.receive());
  }
  if (until === 'success2') {
    await exchange.send(message);
    message = host.success(exchange.receive())!;
  }
  return { exchange, told, message, host };
}

/** Sends a bad message: it must become a failure, told once, after which nothing is taken any more. */
async function mustFail({ exchange, told }: Awaited<ReturnType<typeof stage>>, message: Buffer, explanation?: number) {
  await exchange.send(message);
  expect(told.succeeded).toBe(0);
  expect(told.failed).toHaveLength(1);
  if (exchange.over) return; // told by AUTH_Failure2
  const failure = exchange.receive();
  expect([failure.length, failure[0], failure[1], failure[6]]).toEqual([8, 0, 0xf1, 1]);
  if (explanation !== undefined) expect(failure[7]).toBe(explanation);
  expect(exchange.over).toBe(true);
  await exchange.send(message);
  expect([told.succeeded, told.failed.length, exchange.receive()[1]]).toEqual([0, 1, 0xf1]);
}

describe('a controller refuses', () => {
  const edit = (message: Buffer, at: number, ...bytes: number[]) => {
    const copy = Buffer.from(message);
    copy.set(bytes, at);
    return copy;
  };
  const prime = groupPrime(1);
  const minus = Buffer.from(prime);
  minus[255]! -= 1;
  type Row = [what: string, until: 'negotiate' | 'reply' | 'success2', spoil: (m: Buffer) => Buffer, explanation: number];
  const rows: Row[] = [
    ['no byte', 'negotiate', () => Buffer.alloc(0), 6],
    ['half a header', 'negotiate', (m) => m.subarray(0, 5), 6],
    ['a header alone', 'negotiate', (m) => m.subarray(0, 6), 6],
    ['no protocol', 'negotiate', (m) => edit(m, 7, 0), 6],
    ['two protocols, one there', 'negotiate', (m) => edit(m, 7, 2), 6],
    ['255 protocols', 'negotiate', (m) => edit(m, 7, 255), 6],
    ['a byte more', 'negotiate', (m) => Buffer.concat([m, Buffer.alloc(1)]), 6],
    ['a byte less', 'negotiate', (m) => m.subarray(0, -1), 6],
    ['secure channel concatenation', 'negotiate', (m) => edit(m, 6, 1), 3],
    ['another protocol', 'negotiate', (m) => edit(m, 8, 2), 2],
    ['31 hash functions', 'negotiate', (m) => edit(m, 10, 31), 6],
    ['255 hash functions', 'negotiate', (m) => edit(m, 10, 255), 6],
    ['no hash function', 'negotiate', (m) => edit(m, 10, 0), 6],
    ['31 groups', 'negotiate', (m) => edit(m, 11, 31), 6],
    ['no group', 'negotiate', (m) => edit(m, 11, 0), 6],
    ['hash functions 0, 4 and 255', 'negotiate', (m) => edit(m, 12, 0, 4, 255), 4],
    ['groups 6 to 255', 'negotiate', (m) => edit(m, 42, 6, 7, 8, 254, 255, 9), 5],
    ['a reply first', 'negotiate', (m) => edit(m, 0, 1, 2), 7],
    ['Success2 first', 'negotiate', (m) => edit(m, 0, 1, 4), 7],
    ['a challenge of its own', 'negotiate', (m) => edit(m, 0, 1, 1), 7],
    ['AUTH_Failure1', 'negotiate', (m) => edit(m, 0, 0, 0xf1), 7],
    ['AUTH_Failure2 first', 'negotiate', (m) => edit(m, 0, 0, 0xf0), 7],
    ['an unknown type', 'negotiate', (m) => edit(m, 0, 7), 7],
    ['an unknown message', 'reply', (m) => edit(m, 1, 99), 7],
    ['another transaction', 'reply', (m) => edit(m, 4, m[4]! ^ 1), 6],
    ['HL 0', 'reply', (m) => edit(m, 6, 0), 6],
    ['HL 48 of SHA-256', 'reply', (m) => edit(m, 6, 48), 6],
    ['HL 255', 'reply', (m) => edit(m, 6, 255), 6],
    ['CVALID 2', 'reply', (m) => edit(m, 8, 2), 6],
    ['CVALID 255', 'reply', (m) => edit(m, 8, 255), 6],
    ['a challenge with sequence number 0', 'reply', (m) => edit(m, 12, 0, 0, 0, 0), 6],
    ['DHVLEN 0', 'reply', (m) => edit(m, 10, 0, 0), 6],
    ['DHVLEN 65535', 'reply', (m) => edit(m, 10, 255, 255), 6],
    ['DHVLEN of another group', 'reply', (m) => edit(m, 10, 0x80, 1), 6],
    ['a shorter reply', 'reply', (m) => m.subarray(0, -1), 6],
    ['a longer reply', 'reply', (m) => Buffer.concat([m, Buffer.alloc(4)]), 6],
    ['a reply without parts', 'reply', (m) => m.subarray(0, 16), 6],
    ['half a reply', 'reply', (m) => m.subarray(0, 10), 6],
    ['DH value 0', 'reply', (m) => Buffer.concat([m.subarray(0, 80), Buffer.alloc(256)]), 6],
    ['DH value 1', 'reply', (m) => edit(Buffer.concat([m.subarray(0, 80), Buffer.alloc(256)]), 335, 1), 6],
    ['DH value p - 1', 'reply', (m) => Buffer.concat([m.subarray(0, 80), minus]), 6],
    ['DH value p', 'reply', (m) => Buffer.concat([m.subarray(0, 80), prime]), 6],
    ['DH value 2^2048 - 1', 'reply', (m) => Buffer.concat([m.subarray(0, 80), Buffer.alloc(256, 255)]), 6],
    ['a response of zeroes', 'reply', (m) => edit(m, 16, ...Buffer.alloc(32)), 1],
    ['another DH value', 'reply', (m) => Buffer.concat([m.subarray(0, 335), Buffer.from([m[335]! ^ 1])]), 1],
    ['AUTH_Negotiate again', 'reply', () => edit(Buffer.alloc(72), 7, 1), 7],
    ['Success2 instead of a reply', 'reply', (m) => edit(m.subarray(0, 16), 1, 4), 7],
    ['Success2 of another transaction', 'success2', (m) => edit(m, 4, m[4]! ^ 1), 6],
    ['a short Success2', 'success2', (m) => m.subarray(0, 15), 6],
    ['a long Success2', 'success2', (m) => Buffer.concat([m, m]), 6],
    ['AUTH_Failure2 of another transaction', 'success2', (m) => edit(m, 0, 0, 0xf0, 0, 0, m[4]! ^ 1), 7],
  ];
  test.each(rows)('%s (%s)', async (_what, until, spoil, explanation) => {
    const at = await stage(until);
    await mustFail(at, spoil(at.message), explanation);
  });

  test('a reply that is sent twice, or replayed in another exchange', async () => {
    const twice = await stage('reply');
    await twice.exchange.send(twice.message);
    await mustFail(twice, twice.message, 7);
    const other = await stage('reply');
    other.message.copy(twice.message, 0, 0, 6); // with the right transaction
    await mustFail(other, twice.message, 1);
  });

  test('its own challenge back', async () => {
    const at = await stage('negotiate');
    await at.exchange.send(at.message);
    const challenge = at.exchange.receive();
    const reply = await at.host.reply(challenge);
    challenge.copy(reply, 48, 16, 48);
    await mustFail(at, reply, 6);
  });

  test('a second message before the first is answered', async () => {
    const at = await stage('reply');
    const [first] = [at.exchange.send(at.message), at.exchange.send(at.message)];
    await first;
    expect(at.told.succeeded).toBe(0);
    expect(at.exchange.receive()[1]).toBe(0xf1);
  });

  test.each(['idle', 'reply', 'working', 'success2'] as const)('Authentication Receive in state %s', async (state) => {
    const at = await stage(state === 'idle' ? 'negotiate' : state === 'success2' ? 'success2' : 'reply');
    const pending = state === 'working' ? at.exchange.send(at.message) : undefined;
    expect(at.exchange.state).toBe(state);
    const failure = at.exchange.receive();
    await pending;
    expect([failure[1], failure[7], at.told.succeeded, at.exchange.over]).toEqual([0xf1, 7, 0, true]);
  });

  test('every flipped bit of a reply and of Success2', async () => {
    const { message } = await stage('reply', 0);
    for (let at = 0; at < message.length; at++) {
      // reserved bytes, and the host's challenge and number, change nothing about the host's response
      const free = [2, 3, 7, 9].includes(at) || (at >= 12 && at < 16) || at >= 48;
      const one = await stage('reply', 0);
      // without the lowest bit of CVALID the host only asks for no proof
      one.message[at]! ^= 1 << randomInt(at === 8 ? 1 : 0, 8);
      if (free) continue;
      await mustFail(one, one.message);
    }
  });
});

describe('a host refuses', () => {
  const towardsHost = async (id: number, spoil: (m: Buffer) => void, code: string) => {
    const known = keys();
    const { exchange, told } = controller(known, { hashes: [1], groups: [1] });
    const err = await reject(
      run(exchange, { key: known.host, controllerKey: known.controller }, (message, towards) => {
        if (towards === 'host' && message[1] === id) spoil(message);
        return message;
      }),
    );
    expect(err.code).toBe(code);
    expect(told.succeeded).toBe(0);
    expect(exchange.over).toBe(true); // it was told
  };
  test.each<[string, number, (m: Buffer) => void, string]>([
    ['another transaction', 1, (m) => void (m[4]! ^= 1), 'EPROTO'],
    ['a hash that was not offered', 1, (m) => void (m[8] = 9), 'EPROTO'],
    ['a group that was not offered', 1, (m) => void (m[9] = 77), 'EPROTO'],
    ['HL of another hash', 1, (m) => void (m[6] = 64), 'EPROTO'],
    ['DHVLEN 65535', 1, (m) => void m.writeUInt16LE(65535, 10), 'EPROTO'],
    ['DHVLEN 4', 1, (m) => void m.writeUInt16LE(4, 10), 'EPROTO'],
    ['DH value 0', 1, (m) => void m.fill(0, 48, 304), 'EPROTO'],
    ['DH value 2^2048 - 1', 1, (m) => void m.fill(255, 48, 304), 'EPROTO'],
    ['Success1 instead of a challenge', 1, (m) => void (m[1] = 3), 'EPROTO'],
    ['a response of zeroes', 3, (m) => void m.fill(0, 16), 'EKEYREJECTED'],
    ['no response', 3, (m) => void (m[8] = 0), 'EKEYREJECTED'],
    ['a response of another length', 3, (m) => void (m[6] = 48), 'EKEYREJECTED'],
    ['Success1 of another transaction', 3, (m) => void (m[5]! ^= 1), 'EPROTO'],
  ])('%s', (_what, id, spoil, code) => towardsHost(id, spoil, code));
});

test('the names of both ends are part of the responses', async () => {
  const known = keys();
  for (const other of [{ hostnqn: `${ends.hostnqn}2` }, { subnqn: `${ends.subnqn}2` }]) {
    const { exchange } = controller({ host: { ...known.host, hash: 0 }, controller: undefined });
    expect((await reject(run(exchange, { key: { ...known.host, hash: 0 }, ...other }))).code).toBe('EKEYREJECTED');
  }
});
