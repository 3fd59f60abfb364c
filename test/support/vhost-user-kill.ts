import fs from 'node:fs';
import path from 'node:path';
import { connect } from '../../src/vhost-user/wire/channel.js';
import { Background } from './background.js';
import { Guest } from './vhost-user-guest.js';

export interface KillOptions {
  dir: string;
  packed: boolean;
  engine: 'io_uring' | 'sync';
  rounds: number;
  /** Of the random times and signals. */
  seed: number;
}
const [SECTORS, WRITERS, RINGS] = [64, 8, 2];

/** Numbers from 0 to 1, the same for the same seed. */
export function randomOf(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1103515245) + 12345) & 0x7fffffff;
    return state / 0x7fffffff;
  };
}

/**
 * Eight writers of sequence numbers on two rings, over a server that is ended by SIGKILL or SIGTERM at random moments and started anew.
 * Whatever is answered twice throws, whatever is never answered times out; at the end the disk must hold what was written.
 * @returns how many writes were done
 */
export async function killRounds(options: KillOptions): Promise<number> {
  const { dir, packed, engine, rounds } = options;
  const random = randomOf(options.seed);
  const [file, socket] = [path.join(dir, 'img'), path.join(dir, 's')];
  fs.writeFileSync(file, Buffer.alloc(WRITERS * SECTORS * 512));
  const guest = new Guest({ packed, inflight: true, eventIdx: true, rings: RINGS, num: 32 });
  const serve = async (): Promise<Background> => {
    const argv = ['vhost-user', 'serve', 'blk', socket, '--file', file, '--queues', `${RINGS}`, '--engine', engine];
    const server = Background.vioctl(argv);
    await server.sees(/serving/);
    await guest.start(await connect(socket));
    return server;
  };
  const owners = guest.rings.map(() => new Map<number, () => void>());
  let ended = false;
  let failure: unknown;
  const poll = setInterval(() => {
    try {
      for (const [i, ring] of guest.rings.entries())
        for (const name of ring.completed()) {
          owners[i]!.get(name)!();
          owners[i]!.delete(name);
        }
    } catch (err) {
      failure ??= err;
    }
  }, 1);
  let writes = 0;
  const last = Array.from({ length: WRITERS }, () => new Array<number>(SECTORS).fill(0));
  const writer = async (w: number): Promise<void> => {
    const at = guest.buffers + w * 0x1000;
    const ring = w % RINGS;
    for (let sequence = 1; !ended; sequence++) {
      const sector = sequence % SECTORS;
      const data = Buffer.alloc(512);
      for (let i = 0; i < 512; i += 8) data.writeDoubleLE(sequence, i);
      const parts = guest.request(1, w * SECTORS + sector, at, 512);
      guest.memory.write(at + 512, data);
      await new Promise<void>((resolve, reject) => {
        const hang = setTimeout(() => reject(failure ?? new Error(`writer ${w}: write ${sequence} was never answered`)), 30_000);
        const name = guest.rings[ring]!.add(parts, sequence % 2 ? at + 0x800 : undefined)!;
        owners[ring]!.set(name, () => {
          clearTimeout(hang);
          resolve();
        });
        guest.kick(ring);
      });
      if (guest.status(at) !== 0) throw new Error(`writer ${w}: status ${guest.status(at)}`);
      last[w]![sector] = sequence;
      writes++;
    }
  };
  let server = await serve();
  try {
    const writers = Promise.all(Array.from({ length: WRITERS }, (_, w) => writer(w)));
    writers.catch(() => {});
    for (let round = 0; round < rounds; round++) {
      await new Promise((resolve) => setTimeout(resolve, 5 + random() * 100));
      const term = random() < 0.4;
      const status = await server.stop(term ? 'SIGTERM' : 'SIGKILL');
      if (term && status !== 0) throw new Error(`SIGTERM: status ${status}: ${server.stderr}`);
      guest.front.close();
      server = await serve();
    }
    ended = true;
    await writers;
    if (failure) throw failure;
  } finally {
    ended = true;
    clearInterval(poll);
    guest.close();
    await server.stop();
  }
  const disk = fs.readFileSync(file);
  for (let w = 0; w < WRITERS; w++)
    for (let sector = 0; sector < SECTORS; sector++) {
      const found = disk.readDoubleLE((w * SECTORS + sector) * 512 + 504);
      if (found !== last[w]![sector]) throw new Error(`writer ${w}, sector ${sector}: ${found} instead of ${last[w]![sector]}`);
    }
  return writes;
}
