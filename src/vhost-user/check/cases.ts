import { regionsOf } from '../frontend/frontend.js';
import { config, encodeMessage, Flag, memTable, number, shmemConfig, singleRegion, vringState } from '../wire/messages.js';
import type { CheckCase, Outcome } from './model.js';
import { ringCases } from './ring-cases.js';
import { type CheckSession, memorySize, memoryUva, type Reaction, reactionText } from './session.js';

const refusedOrClosed = 'refused, or the connection closed';

const afterRefusal = { alive: '', closed: ', then the connection closed', stuck: ', then no answer any more' } as const;

/** A refusal that leaves the connection usable or closes it, or a closed connection. */
async function refused(session: CheckSession, reaction: Reaction): Promise<Outcome> {
  if (reaction.kind === 'closed') return { ok: true, got: reactionText(reaction) };
  if (reaction.kind === 'silence')
    return session.has('REPLY_ACK') ? { ok: false, got: 'no answer' } : { skipped: 'without REPLY_ACK a refusal cannot be seen' };
  if (reaction.kind === 'reply') return { ok: false, got: reactionText(reaction) };
  if (reaction.status === 0n) return { ok: false, got: reactionText(reaction) };
  const condition = await session.condition();
  return { ok: condition !== 'stuck', got: `${reactionText(reaction)}${afterRefusal[condition]}` };
}

function accepted(session: CheckSession, reaction: Reaction): Outcome {
  if (reaction.kind === 'silence' && !session.has('REPLY_ACK')) return { ok: true, got: 'went on' };
  return { ok: reaction.kind === 'status' && reaction.status === 0n, got: reactionText(reaction) };
}

/** The section that describes a message. */
const aboutMessage = (name: string): string => `Front-end message types, VHOST_USER_${name}`;
const headerSection = 'Message Specification, Header';

/** A case about the message that its name starts with, or about headers. */
const malformed = (name: string, send: (session: CheckSession) => Promise<Reaction>, needs?: string): CheckCase => ({
  name,
  section: /^[A-Z_]{4,}/.test(name) ? aboutMessage(/^[A-Z_]+/.exec(name)![0]) : headerSection,
  expected: refusedOrClosed,
  run: async (session) => {
    if (needs !== undefined && !session.has(needs)) return { skipped: `${needs} is not offered` };
    return refused(session, await send(session));
  },
});

const state = (index: number, num: number): Uint8Array => vringState.encode({ index, num });
const word = (value: bigint): Uint8Array => number.encode({ value });

/** What a well-behaved front-end sends must work. */
const good: CheckCase[] = [
  {
    name: 'replies have version 1 and the reply bit, and nothing else',
    section: headerSection,
    expected: 'flags 0x5',
    run: async (session) => {
      const r = await session.request('GET_FEATURES');
      const flags = r.kind === 'reply' ? r.flags : 0;
      return {
        ok: r.kind === 'reply' && flags === (Flag.version | Flag.reply),
        got: r.kind === 'reply' ? `flags 0x${flags.toString(16)}` : reactionText(r),
      };
    },
  },
  {
    name: 'feature words stay the same',
    section: aboutMessage('GET_FEATURES'),
    expected: 'the same twice',
    run: async (session) => {
      const same = (await session.number('GET_FEATURES')) === session.features;
      return { ok: same, got: same ? 'the same twice' : 'another word' };
    },
  },
  {
    name: 'one reply to a request with NEED_REPLY',
    section: 'VHOST_USER_PROTOCOL_F_REPLY_ACK',
    expected: 'one reply, 0',
    run: async (session) => {
      if (!session.has('REPLY_ACK')) return { skipped: 'REPLY_ACK is not offered' };
      const first = await session.request('SET_VRING_NUM', { index: 0, num: 64 });
      const second = await session.reaction(true, 200);
      const ok = first.kind === 'status' && first.status === 0n && second.kind === 'silence';
      return { ok, got: `${reactionText(first)}, then ${reactionText(second)}` };
    },
  },
  {
    name: 'no reply to a request without NEED_REPLY',
    section: 'Communication',
    expected: 'no reply',
    run: async (session) => {
      session.raw(8, Flag.version, state(0, 64)); // not sent before on this connection
      const r = await session.request('GET_FEATURES');
      return { ok: r.kind === 'reply' && r.id === 1, got: r.kind === 'reply' && r.id !== 1 ? `a reply to request ${r.id}` : 'no reply' };
    },
  },
  {
    name: 'a header that arrives in pieces',
    section: 'Communication',
    expected: 'the reply',
    run: async (session) => {
      const message = encodeMessage(1, Flag.version, new Uint8Array(0));
      for (const piece of [message.subarray(0, 3), message.subarray(3, 9), message.subarray(9)]) {
        session.bytes(piece);
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
      const r = await session.reaction(false);
      return { ok: r.kind === 'reply' && r.id === 1, got: reactionText(r) };
    },
  },
  {
    name: 'SET_MEM_TABLE with one region',
    section: aboutMessage('SET_MEM_TABLE'),
    expected: 'accepted',
    run: async (session) => accepted(session, await session.giveMemory()),
  },
  {
    name: 'a ring is set up, started and stopped',
    section: 'Ring states',
    expected: 'accepted, base 0',
    run: async (session) => {
      await session.giveMemory();
      const addresses = { index: 0, flags: 0, desc: memoryUva, avail: memoryUva + 0x1000n, used: memoryUva + 0x2000n, log: 0n };
      const steps: [string, Record<string, unknown>, number][] = [
        ['SET_VRING_CALL', { value: 0n }, 1],
        ['SET_VRING_NUM', { index: 0, num: 64 }, 0],
        ['SET_VRING_BASE', { index: 0, num: 0 }, 0],
        ['SET_VRING_ADDR', addresses, 0],
        ['SET_VRING_KICK', { value: 0n }, 1],
        ['SET_VRING_ENABLE', { index: 0, num: 1 }, 0],
        ['SET_VRING_ENABLE', { index: 0, num: 0 }, 0],
      ];
      for (const [name, values, fds] of steps) {
        const r = accepted(session, await session.request(name, values, fds ? [session.event()] : []));
        if ('ok' in r && !r.ok) return { ok: false, got: `${name}: ${r.got}` };
      }
      const r = await session.request('GET_VRING_BASE', { index: 0, num: 0 });
      const base = r.kind === 'reply' && r.payload.length === 8 ? r.payload.readUInt32LE(4) : undefined;
      return { ok: base === 0, got: base === undefined ? reactionText(r) : `accepted, base ${base}` };
    },
  },
  {
    name: 'GET_CONFIG honours its offset',
    section: aboutMessage('GET_CONFIG'),
    expected: 'the bytes from that offset on',
    run: async (session) => {
      if (!session.has('CONFIG')) return { skipped: 'CONFIG is not offered' };
      const read = async (offset: number, size: number): Promise<Buffer | undefined> => {
        const r = await session.request('GET_CONFIG', { offset, size, flags: 0, data: new Uint8Array(size) });
        return r.kind === 'reply' && r.payload.length === 12 + size ? r.payload.subarray(12) : undefined;
      };
      for (const size of [60, 36, 16, 8]) {
        const whole = await read(0, size);
        if (!whole) continue;
        const part = await read(4, 4);
        const same = part?.equals(whole.subarray(4, 8)) ?? false;
        return { ok: same, got: same ? 'the bytes from that offset on' : part ? 'other bytes' : 'no bytes' };
      }
      return { skipped: 'the configuration space cannot be read' };
    },
  },
  {
    name: 'GET_CONFIG beyond the end',
    section: aboutMessage('GET_CONFIG'),
    expected: 'an answer: no bytes, or those that were asked for; or the connection closed',
    run: async (session) => {
      if (!session.has('CONFIG')) return { skipped: 'CONFIG is not offered' };
      const size = 6;
      const r = await session.send(24, config.encode({ offset: 250, size, flags: 0, data: new Uint8Array(size) }), [], true);
      // "zero length of payload" is an error: of the message or of the configuration in it, the text does not say
      const answered = r.kind === 'reply' && [0, 12, 12 + size].includes(r.payload.length);
      return { ok: answered || r.kind === 'closed', got: reactionText(r) };
    },
  },
  {
    name: 'GET_SHMEM_CONFIG agrees with itself',
    section: aboutMessage('GET_SHMEM_CONFIG'),
    expected: '2056 bytes, as many sizes as are counted',
    run: async (session) => {
      if (!session.has('SHMEM')) return { skipped: 'SHMEM is not offered' };
      const r = await session.request('GET_SHMEM_CONFIG');
      if (r.kind !== 'reply') return { ok: false, got: reactionText(r) };
      try {
        return { ok: true, got: `${regionsOf(shmemConfig.decode(r.payload)).size} regions` };
      } catch (err) {
        return { ok: false, got: (err as Error).message };
      }
    },
  },
];

const table = (session: CheckSession, regions: Record<string, bigint>[], fds: number): Promise<Reaction> =>
  session.send(
    5,
    memTable.encode({ count: regions.length, regions: regions as never }),
    Array.from({ length: fds }, () => session.memfd()),
  );

/** Headers, sizes, descriptors. */
const framing: CheckCase[] = [
  malformed('version 0', (s) => s.send(8, state(0, 64), [], false, 0)),
  malformed('version 2', (s) => s.send(8, state(0, 64), [], false, 2)),
  malformed('a request with the reply bit', (s) => s.send(8, state(0, 64), [], false, Flag.version | Flag.reply)),
  malformed('a reserved flag bit', (s) => s.send(8, state(0, 64), [], false, Flag.version | 0x10)),
  malformed('a payload where none belongs', (s) => s.send(3, new Uint8Array(8))),
  malformed('a payload that is too short', (s) => s.send(8, new Uint8Array(4))),
  malformed('a payload that is too long', (s) => s.send(8, new Uint8Array(24))),
  malformed('a descriptor where none belongs', (s) => s.send(8, state(0, 64), [s.memfd()])),
  malformed('an unknown request', (s) => s.send(99, new Uint8Array(0))),
  {
    name: 'a payload of 4 GiB is announced',
    section: headerSection,
    expected: 'connection closed',
    run: async (session) => {
      session.bytes(Buffer.from('0200000001000000ffffffff', 'hex'));
      session.bytes(Buffer.alloc(64));
      const r = await session.reaction(false);
      return { ok: r.kind === 'closed', got: reactionText(r) };
    },
  },
];

/** Well-framed messages whose contents cannot be. */
const contents: CheckCase[] = [
  malformed('SET_FEATURES with a bit that was not offered', (s) => s.send(2, word(s.features | (1n << 62n)))),
  malformed('SET_PROTOCOL_FEATURES with a bit that was not offered', (s) => s.send(16, word(s.acked | (1n << 63n)))),
  malformed('SET_MEM_TABLE with nine regions', (s) => {
    const nine = Array.from({ length: 9 }, (_, i) => s.region({ gpa: BigInt(i) << 32n, uva: memoryUva + (BigInt(i) << 32n) }));
    return table(s, nine, 8);
  }),
  malformed('SET_MEM_TABLE without its descriptor', (s) => table(s, [s.region()], 0)),
  malformed('SET_MEM_TABLE with a descriptor too many', (s) => table(s, [s.region()], 2)),
  malformed('SET_MEM_TABLE beyond the end of its file', (s) => table(s, [s.region({ size: 1n << 30n })], 1)),
  malformed('SET_MEM_TABLE with a region of no size', (s) => table(s, [s.region({ size: 0n })], 1)),
  malformed('SET_MEM_TABLE with regions that overlap', (s) =>
    table(s, [s.region(), s.region({ gpa: 0x1000n, uva: memoryUva + (1n << 32n) })], 2),
  ),
  malformed(
    'ADD_MEM_REG with two descriptors',
    (s) => s.send(37, singleRegion.encode({ region: s.region() as never }), [s.memfd(), s.memfd()]),
    'CONFIGURE_MEM_SLOTS',
  ),
  malformed(
    'ADD_MEM_REG without a descriptor',
    (s) => s.send(37, singleRegion.encode({ region: s.region() as never })),
    'CONFIGURE_MEM_SLOTS',
  ),
  malformed(
    'ADD_MEM_REG beyond the end of its file',
    (s) => s.send(37, singleRegion.encode({ region: s.region({ offset: BigInt(memorySize) }) as never }), [s.memfd()]),
    'CONFIGURE_MEM_SLOTS',
  ),
  malformed(
    'REM_MEM_REG of a region that is not there',
    (s) => s.send(38, singleRegion.encode({ region: s.region({ gpa: 1n << 40n }) as never })),
    'CONFIGURE_MEM_SLOTS',
  ),
  malformed('SET_VRING_NUM for ring 200', (s) => s.send(8, state(200, 64))),
  malformed('SET_VRING_NUM that is no power of two', (s) => s.send(8, state(0, 3))),
  malformed('SET_VRING_NUM of 65536', (s) => s.send(8, state(0, 65536))),
  malformed('SET_VRING_BASE for ring 200', (s) => s.send(10, state(200, 0))),
  malformed('SET_VRING_ENABLE for ring 200', (s) => s.send(18, state(200, 1))),
  malformed('SET_VRING_ENABLE with 2', (s) => s.send(18, state(0, 2))),
  malformed('SET_VRING_ADDR outside memory', async (s) => {
    await s.giveMemory();
    await s.request('SET_VRING_NUM', { index: 0, num: 64 });
    return s.request('SET_VRING_ADDR', { index: 0, flags: 0, desc: 0x1000n, avail: 0x2000n, used: 0x3000n, log: 0n });
  }),
  malformed('SET_VRING_KICK without its descriptor', (s) => s.send(12, word(0n))),
  malformed('SET_VRING_CALL with two descriptors', (s) => s.send(13, word(0n), [s.event(), s.event()])),
  malformed('SET_VRING_CALL for ring 200', (s) => s.send(13, word(200n), [s.event()])),
  malformed('SET_BACKEND_REQ_FD without its descriptor', (s) => s.send(21, new Uint8Array(0)), 'BACKEND_REQ'),
  {
    name: 'GET_VRING_BASE of ring 200',
    section: aboutMessage('GET_VRING_BASE'),
    expected: 'connection closed, or a reply that is no success',
    run: async (session) => {
      const r = await session.request('GET_VRING_BASE', { index: 200, num: 0 });
      return { ok: r.kind === 'closed' || (r.kind === 'reply' && r.payload.length !== 8), got: reactionText(r) };
    },
  },
];

/** All cases, in the order they run. Each has a connection of its own. */
export const checkCases: readonly CheckCase[] = [...good, ...framing, ...contents, ...ringCases];
