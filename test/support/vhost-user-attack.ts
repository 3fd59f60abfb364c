import fs from 'node:fs';
import path from 'node:path';
import { connect } from '../../src/vhost-user/wire/channel.js';
import { Background } from './background.js';
import { GPA, Guest } from './vhost-user-guest.js';

export interface AttackOptions {
  dir: string;
  packed: boolean;
  engine: 'uring' | 'sync';
  /** How long, in seconds. */
  seconds: number;
  /** Of everything random. */
  seed: number;
}

/** What an attack came to. */
export interface AttackResult {
  rounds: number;
  /** Lines of the log about rings that were stopped. */
  stopped: number;
  /** Requests that other rings and disks had answered meanwhile. */
  honest: number;
  /** Largest resident set of the server, in bytes. */
  resident: number;
}

/** The bound of the resident set, in bytes. */
export const residentBound = 100 << 20;
const [SIZE, NUM, SECTOR] = [4 << 20, 64, 512];
/** Where descriptors of the attack may lead: not to the rings and requests that are to stay unharmed. */
const zone = { start: 0x40000, end: SIZE };
const attacked = 0;
const honest = 1;
/** Longest wait for an honest request, in milliseconds: the server has much to do. */
const patience = 60_000;

/** xorshift32 */
function randomOf(seed: number): (below: number) => number {
  let state = seed | 1;
  return (below) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % below;
  };
}

type Random = ReturnType<typeof randomOf>;

function descriptor(random: Random, packed: boolean): Buffer {
  const bytes = Buffer.alloc(16);
  const inside = zone.start + random(zone.end - zone.start);
  const at = [GPA + inside, GPA + inside, GPA + (inside & ~15), GPA + SIZE - random(32), random(GPA), 2 ** 48 + inside][random(6)]!;
  bytes.writeBigUInt64LE(random(20) === 0 ? 2n ** 64n - BigInt(1 + random(100)) : BigInt(at));
  bytes.writeUInt32LE([0, 1, 16, 512, 4096, random(1 << 16), 0xffffffff - random(100), 16 * (1 + random(70))][random(8)]!, 8);
  const [link, flags] = [random(random(4) === 0 ? 65536 : NUM), random(random(8) === 0 ? 65536 : 8)];
  // a packed ring takes what has its wrap counter: AVAIL, not USED
  bytes.writeUInt16LE(packed ? link : flags, 12);
  bytes.writeUInt16LE(packed ? (flags & ~0x8080) | (random(6) === 0 ? random(2) * 0x8080 : 0x80) : link, 14);
  return bytes;
}

/** Fills the attacked ring, and tables and headers of requests in the zone, at random, and kicks it. */
function strike(guest: Guest, random: Random, packed: boolean): void {
  const { memory, rings } = guest;
  const { desc, avail } = rings[attacked]!.parts;
  for (let i = 0; i < 40; i++) memory.write(zone.start + random((zone.end - zone.start) / 16 - 64) * 16, descriptor(random, packed));
  for (let i = 0; i < 20; i++) {
    const header = Buffer.alloc(16);
    header.writeUInt32LE([0, 1, 4, 8, 11, 13, random(2 ** 31)][random(7)]!);
    header.writeBigUInt64LE(BigInt(random(4) === 0 ? random(2 ** 31) : random(SIZE / SECTOR)), 8);
    memory.write(zone.start + random((zone.end - zone.start) / 16 - 1) * 16, header);
  }
  for (let i = 0; i < NUM; i++) if (random(3) > 0) memory.write(desc + 16 * i, descriptor(random, packed));
  if (!packed) {
    for (let i = 0; i < NUM; i++) memory.setU16(avail + 4 + 2 * i, random(random(10) === 0 ? 65536 : NUM));
    memory.setU16(avail + 2, random(10) === 0 ? random(65536) : memory.u16(avail + 2) + random(NUM));
  }
  guest.kick(attacked);
}

/** One honest write, and the read of it. @throws Error where an answer is missing or wrong */
async function roundTrip(guest: Guest, ring: number, random: Random): Promise<void> {
  const at = guest.buffers + ring * 0x2000;
  const sector = random(64);
  const data = Buffer.alloc(SECTOR, random(256));
  for (const type of [1, 0]) {
    const parts = guest.request(type, sector, at, SECTOR);
    guest.memory.write(at + 512, type === 1 ? data : Buffer.alloc(SECTOR));
    guest.rings[ring]!.add(parts);
    guest.kick(ring);
    await guest.used(1, ring, patience);
    if (guest.status(at) !== 0) throw new Error(`an honest request has status ${guest.status(at)}`);
  }
  if (!guest.memory.read(at + 512, SECTOR).equals(data)) throw new Error('an honest request reads other data than it wrote');
}

function residentOf(pid: number): number {
  return Number(/^VmRSS:\s+(\d+) kB/m.exec(fs.readFileSync(`/proc/${pid}/status`, 'utf8'))![1]) * 1024;
}

/**
 * A guest that puts random chains into one of its rings, over and over, while its other ring and another guest's disk of the same
 * server work. @throws Error where the server ends, grows beyond residentBound, or fails an honest request
 */
export async function attack({ dir, packed, engine, seconds, seed }: AttackOptions): Promise<AttackResult> {
  const random = randomOf(seed);
  const at = (name: string): string => path.join(dir, name);
  for (const name of ['bad', 'good']) fs.writeFileSync(at(name), Buffer.alloc(SIZE));
  const disks = ['bad', 'good'].map((name) => `${at(`${name}.sock`)}=${at(name)}`);
  const server = Background.vioctl(['vhost-user', 'serve', 'blk', ...disks, '--engine', engine]);
  await server.sees(/^serving .*\nserving /m);
  const result: AttackResult = { rounds: 0, stopped: 0, honest: 0, resident: 0 };
  const good = new Guest({ packed, num: NUM });
  try {
    await good.start(await connect(at('good.sock')));
    for (const end = performance.now() + seconds * 1000; performance.now() < end; result.rounds++) {
      const guest = new Guest({ packed, rings: 2, num: NUM, eventIdx: random(2) === 1 }, SIZE);
      try {
        await guest.start(await connect(at('bad.sock')));
        for (let i = 0; i < 8; i++) {
          strike(guest, random, packed);
          await new Promise((resolve) => setTimeout(resolve, random(3)));
        }
        // an attack may overwrite the buffers of its own other ring, but not while nothing of it is under way any more
        await guest.stopRing(attacked);
        await Promise.all([roundTrip(guest, honest, random), roundTrip(good, 0, random)]);
        result.honest += 4;
      } finally {
        guest.close();
      }
      result.resident = Math.max(result.resident, residentOf(server.child.pid!));
      if (result.resident > residentBound)
        throw new Error(`the server has ${result.resident} bytes resident after ${result.rounds} rounds`);
    }
    result.stopped = server.stderr.match(/ring \d+ stopped: /g)?.length ?? 0;
    good.close();
    const status = await server.stop();
    if (status !== 0) throw new Error(`the server ended with ${status}: ${server.stderr.slice(-1000)}`);
    return result;
  } finally {
    good.close();
    await server.stop('SIGKILL');
  }
}
