import fs from 'node:fs';
import { native } from '../../native/index.js';
import { OwnedFd } from '../../native/owned-fd.js';
import { VirtioF } from '../wire/features.js';
import { inflight } from '../wire/messages.js';
import type { CheckCase, Outcome } from './model.js';
import { baseOf, CheckRing, must, ringSize } from './ring.js';
import { type CheckSession, memorySize, reactionText } from './session.js';

/** Milliseconds in which a ring that must not be processed would be. */
const quiet = 200;
const section = (name: string): string => `Front-end message types, VHOST_USER_${name}`;

/** Gives a connection the memory of the ring, which the first connection has. */
const shareMemory = (to: CheckSession, first: CheckSession): Promise<void> =>
  must(to, 'SET_MEM_TABLE', { count: 1, regions: [first.region()] }, [first.memfd()]);

/** The next connection, with the same memory. */
async function reconnected(session: CheckSession): Promise<CheckSession> {
  const again = await session.reconnect();
  await shareMemory(again, session);
  return again;
}

/** Sets a ring up and enables it. @param base index that it goes on at */
async function start(session: CheckSession, ring: CheckRing, base?: number): Promise<void> {
  await ring.setUp(session, base);
  await ring.enable(session);
}

/** A case with a ring of a block device, whose requests are known. @param needs a protocol feature */
const ringCase = (
  name: string,
  about: string,
  expected: string,
  run: (session: CheckSession, ring: CheckRing) => Promise<Outcome | string>,
  needs?: string,
): CheckCase => ({
  name,
  section: about,
  expected,
  run: async (session) => {
    if (needs !== undefined && !session.has(needs)) return { skipped: `${needs} is not offered` };
    if (!(await session.isBlock())) return { skipped: 'no block device: no request is known that changes nothing' };
    const ring = new CheckRing(session.memory);
    try {
      await shareMemory(session, session);
      const outcome = await run(session, ring);
      return typeof outcome === 'string' ? { ok: outcome === expected, got: outcome } : outcome;
    } finally {
      ring.close();
    }
  },
});

/** How a number of requests ended: `answered`, or what is missing. */
async function answered(session: CheckSession, ring: CheckRing, count: number, first = 0): Promise<string> {
  if (!(await ring.done(count, session.timeout))) return `used index ${ring.used} after ${count} requests`;
  const failed = Array.from({ length: count - first }, (_, i) => first + i).find((request) => ring.status(request) !== 0);
  if (failed !== undefined) return `request ${failed} has status ${ring.status(failed)}`;
  const heads = ring.heads().slice(first);
  const missing = Array.from({ length: count - first }, (_, i) => (first + i) * 3).find((head) => !heads.includes(head));
  return missing === undefined ? 'answered' : `head ${missing} is not in the used ring`;
}

/** Region of one queue (specification, "Inflight I/O tracking", split virtqueue). */
const layout = { version: 8, count: 10, usedIndex: 14, entries: 16, entry: 16, counter: 8 } as const;

/** Gets the region for one queue. @throws Error */
async function regionOf(session: CheckSession): Promise<{ fd: OwnedFd; size: bigint; offset: bigint }> {
  const asked = inflight.encode({ size: 0n, offset: 0n, queues: 1, queueSize: ringSize });
  const { reaction, fds } = await session.withFds(31, asked);
  if (reaction.kind !== 'reply' || fds.length !== 1) {
    for (const fd of fds) fd.close();
    throw new Error(`GET_INFLIGHT_FD: ${reactionText(reaction)} with ${fds.length} descriptors`);
  }
  const { size, offset } = inflight.decode(reaction.payload);
  return { fd: fds[0]!, size, offset };
}
const giveRegion = (session: CheckSession, { fd, size, offset }: { fd: OwnedFd; size: bigint; offset: bigint }): Promise<void> =>
  must(session, 'SET_INFLIGHT_FD', { size, offset, queues: 1, queueSize: ringSize }, [new OwnedFd(native().vhostUser.dup(fd.fd))]);

/** The state of the region when nothing is in flight: `clean`, or what is not as it must be. */
function clean(region: { fd: OwnedFd; offset: bigint }, used: number): string {
  const bytes = Buffer.alloc(layout.entries + layout.entry * ringSize);
  fs.readSync(region.fd.fd, bytes, 0, bytes.length, Number(region.offset));
  if (bytes.readUInt16LE(layout.version) !== 1) return `version ${bytes.readUInt16LE(layout.version)}`;
  if (bytes.readUInt16LE(layout.count) !== ringSize) return `${bytes.readUInt16LE(layout.count)} entries`;
  if (bytes.readUInt16LE(layout.usedIndex) !== used) return `used_idx ${bytes.readUInt16LE(layout.usedIndex)} at used index ${used}`;
  const busy = Array.from({ length: ringSize }, (_, i) => i).find((i) => bytes[layout.entries + layout.entry * i] !== 0);
  return busy === undefined ? 'clean' : `head ${busy} is still in flight`;
}

/** Requests are answered, and rings start, stop and go on where the specification says. */
const io: CheckCase[] = [
  ringCase('reads are answered', 'Ring states', 'answered', async (session, ring) => {
    await start(session, ring);
    for (let i = 0; i < 3; i++) ring.submit();
    return answered(session, ring, 3);
  }),
  ringCase('the call eventfd is signalled', section('SET_VRING_CALL'), 'signalled', async (session, ring) => {
    await start(session, ring);
    const before = ring.called(); // a back-end may call at the start
    ring.submit();
    if (!(await ring.done(1, session.timeout))) return 'no answer';
    for (const end = performance.now() + session.timeout; performance.now() < end; ) {
      if (ring.called()) return 'signalled';
      await new Promise((resolve) => setTimeout(resolve, 2));
    }
    return before ? 'signalled before the request only' : 'not signalled';
  }),
  ringCase('a kick that came before SET_VRING_KICK', 'Ring states', 'answered', async (session, ring) => {
    ring.submit();
    await start(session, ring);
    return answered(session, ring, 1);
  }),
  ringCase('a kick before SET_VRING_ENABLE', 'Ring states', 'answered', async (session, ring) => {
    await ring.setUp(session);
    ring.submit();
    await new Promise((resolve) => setTimeout(resolve, 20));
    await ring.enable(session);
    // in a ring that is disabled, requests may be taken without effect: the next one has to work
    const taken = ring.used;
    if (taken > 0) ring.submit();
    return answered(session, ring, taken + 1, taken);
  }),
  ringCase('GET_VRING_BASE tells how far the ring was processed', section('GET_VRING_BASE'), 'base 3', async (session, ring) => {
    await start(session, ring);
    for (let i = 0; i < 3; i++) ring.submit();
    const came = await answered(session, ring, 3);
    return came === 'answered' ? `base ${await baseOf(session)}` : came;
  }),
  ringCase(
    'requests in the ring at GET_VRING_BASE are answered or left',
    section('GET_VRING_BASE'),
    'base = used index',
    async (session, ring) => {
      await start(session, ring);
      for (let i = 0; i < 16; i++) ring.submit();
      const base = await baseOf(session);
      const { used } = ring;
      return base === used ? 'base = used index' : `base ${base}, used index ${used}`;
    },
  ),
  ringCase('a stopped ring is not processed', 'Ring states', 'not processed', async (session, ring) => {
    await start(session, ring);
    ring.submit();
    if (!(await ring.done(1, session.timeout))) return 'no answer before the stop';
    await baseOf(session);
    ring.submit();
    await new Promise((resolve) => setTimeout(resolve, quiet));
    return ring.used === 1 ? 'not processed' : 'processed';
  }),
  ringCase('a ring that is started again goes on at its base', section('SET_VRING_BASE'), 'answered', async (session, ring) => {
    await start(session, ring);
    for (let i = 0; i < 3; i++) ring.submit();
    if (!(await ring.done(3, session.timeout))) return 'no answer before the stop';
    const base = await baseOf(session);
    await start(session, ring, base);
    ring.submit();
    return answered(session, ring, 4, 3);
  }),
  ringCase('after a reconnection, a ring goes on at its used index', 'Communication', 'answered', async (session, ring) => {
    await start(session, ring);
    for (let i = 0; i < 3; i++) ring.submit();
    if (!(await ring.done(3, session.timeout))) return 'no answer before the end of the connection';
    const again = await reconnected(session);
    await start(again, ring, ring.used);
    ring.submit();
    return answered(again, ring, 4, 3);
  }),
];

/** Requests that outlive a back-end. */
const inflightCases: CheckCase[] = [
  ringCase(
    'the in-flight region tells that nothing is in flight',
    'Inflight I/O tracking',
    'clean',
    async (session, ring) => {
      const region = await regionOf(session);
      try {
        await giveRegion(session, region);
        await start(session, ring);
        for (let i = 0; i < 3; i++) ring.submit();
        const came = await answered(session, ring, 3);
        if (came !== 'answered') return came;
        await baseOf(session);
        return clean(region, 3);
      } finally {
        region.fd.close();
      }
    },
    'INFLIGHT_SHMFD',
  ),
  ringCase(
    'a request that an earlier back-end left in flight is answered',
    'Inflight I/O tracking',
    'answered',
    async (session, ring) => {
      const region = await regionOf(session);
      try {
        await giveRegion(session, region);
        await start(session, ring);
        ring.submit();
        if (!(await ring.done(1, session.timeout))) return 'no answer before the reconnection';
        await baseOf(session);
        // as a back-end leaves it that has answered the third request before the second, and died
        const request = ring.submit(false);
        ring.answer(ring.submit(false));
        const entry = Buffer.alloc(layout.entry);
        entry[0] = 1;
        entry.writeBigUInt64LE(2n ** 32n, layout.counter);
        fs.writeSync(region.fd.fd, entry, 0, entry.length, Number(region.offset) + layout.entries + layout.entry * request * 3);
        fs.writeSync(region.fd.fd, Buffer.from([ring.used, 0]), 0, 2, Number(region.offset) + layout.usedIndex);
        const again = await reconnected(session);
        await giveRegion(again, region);
        await start(again, ring, ring.used);
        ring.signal();
        if (!(await ring.done(3, session.timeout))) return `used index ${ring.used} after 3 requests`;
        await new Promise((resolve) => setTimeout(resolve, 50));
        const [head, ...more] = ring.heads().slice(2);
        return more.length > 0
          ? 'another request is answered twice'
          : head === request * 3
            ? 'answered'
            : 'another request is answered again';
      } finally {
        region.fd.close();
      }
    },
    'INFLIGHT_SHMFD',
  ),
];

/** Pages of the log that are marked. */
function marked(log: OwnedFd): Set<number> {
  const bytes = Buffer.alloc(memorySize / 0x1000 / 8);
  fs.readSync(log.fd, bytes, 0, bytes.length, 0);
  return new Set(Array.from({ length: bytes.length * 8 }, (_, i) => i).filter((i) => (bytes[i >> 3]! & (1 << (i & 7))) !== 0));
}

const logging: CheckCase[] = [
  ringCase(
    'the dirty log has what a read has written',
    'Migration',
    'data, status and used ring',
    async (session, ring) => {
      if ((session.features & VirtioF.logAll) === 0n) return { skipped: 'VHOST_F_LOG_ALL is not offered' };
      const log = new OwnedFd(native().vhostUser.memfd('vioctl-check-log', 0x1000, 0));
      try {
        const dup = new OwnedFd(native().vhostUser.dup(log.fd));
        const r = await session.request('SET_LOG_BASE', { size: 0x1000n, offset: 0n }, [dup]);
        if (r.kind === 'closed') return { ok: false, got: `SET_LOG_BASE: ${reactionText(r)}` };
        await must(session, 'SET_FEATURES', { value: session.ackedFeatures | VirtioF.logAll });
        await ring.setUp(session, 0, true);
        await ring.enable(session);
        const request = ring.submit();
        if (!(await ring.done(1, session.timeout))) return 'no answer';
        await baseOf(session); // what is still to be marked is marked
        const pages = ring.pages(request);
        const found = marked(log);
        const missing = Object.entries(pages).filter(([, page]) => !found.has(page));
        return missing.length > 0 ? `no mark for ${missing.map(([part]) => part).join(', ')}` : 'data, status and used ring';
      } finally {
        log.close();
      }
    },
    'LOG_SHMFD',
  ),
];

/** Cases with a ring that runs; each reads the first sector of a block device. */
export const ringCases: readonly CheckCase[] = [...io, ...inflightCases, ...logging];
