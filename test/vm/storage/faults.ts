// In a guest: disks that lose data, and disks that are slow, under hosts of every kind.
import { NvmeDisk, type Outcome, RingDisk, type ServedDisk } from '../../support/served-disk.js';
import { dm, dmSwap, type Engine, engines, fact, kernelFlush, kernelHost, loop, main, serveBlk, serveNvmf, sh } from './inside.js';

const MIB = 64;
const SECTORS = MIB * 2048;

/** Three flushes of everybody, one after the other. */
async function flushes(hosts: Record<string, () => Promise<Outcome> | Outcome>): Promise<Record<string, string[]>> {
  const all: Record<string, string[]> = {};
  for (let i = 0; i < 3; i++) for (const [name, flush] of Object.entries(hosts)) (all[name] ??= []).push(await flush());
  return all;
}

/** Two hosts and a latecomer on a device-mapper device that turns into dm-error and back. */
async function lostUnderHosts(engine: Engine): Promise<void> {
  const name = `nvmf-${engine}`;
  const linear = `linear ${loop(name, MIB).device} 0`;
  const device = dm(name, SECTORS, linear);
  const target = await serveNvmf([device, '--engine', engine]);
  const kernel = (await kernelHost(target, 1)).get(1)!;
  const own = await NvmeDisk.open(target.port, target.nqn);
  const hosts: Record<string, () => Promise<Outcome> | Outcome> = { kernel: () => kernelFlush(kernel), own: () => own.flush() };
  const say = (what: string, value: unknown): void => fact(`${name} ${what}`, value);
  // before: durable
  sh(
    `dd if=/dev/zero bs=64K count=4 status=none | tr '\\0' k | dd of=${kernel} oflag=direct iflag=fullblock bs=64K seek=16 conv=notrunc status=none`,
  );
  await own.write(1 << 22, Buffer.alloc(65536, 'o'));
  say('before', await flushes(hosts));
  // written into the server's page cache, then the disk goes
  sh(
    `dd if=/dev/zero bs=64K count=1 status=none | tr '\\0' K | dd of=${kernel} oflag=direct iflag=fullblock bs=64K seek=16 conv=notrunc status=none`,
  );
  say('write', await own.write(1 << 22, Buffer.alloc(65536, 'O')));
  dmSwap(name, SECTORS, 'error');
  say('lost', await flushes(hosts));
  // the disk comes back; what was lost is lost
  dmSwap(name, SECTORS, linear);
  const late = await NvmeDisk.open(target.port, target.nqn);
  say('back', await flushes({ ...hosts, late: () => late.flush() }));
  say('durable write', await late.write(8192, Buffer.alloc(4096, 'x'), true));
  const into = Buffer.alloc(4096);
  say('read', `${await late.read(1 << 23, into)} ${into.every((byte) => byte === 0)}`);
  say('critical warning', (await late.controller.getLog(2, 512))[0]);
  sh(`node bin/run.js nvmf ctl ${target.control} reopen 1`);
  say('write after reopen', await own.write(1 << 22, Buffer.alloc(65536, 'N'), true));
  say('reopened', await flushes({ ...hosts, late: () => late.flush() }));
  own.close();
  late.close();
  sh(`nvme disconnect -n ${target.nqn}`);
  say('status', await target.server.stop());
  say('on the disk', sh(`dd if=${device} bs=65536 skip=64 count=1 iflag=direct status=none | tr -d N | wc -c`));
}

/** A guest's disk whose device turns into dm-error and back. */
async function lostUnderRing(engine: Engine): Promise<void> {
  const name = `blk-${engine}`;
  const linear = `linear ${loop(name, MIB).device} 0`;
  const device = dm(name, SECTORS, linear);
  const say = (what: string, value: unknown): void => fact(`${name} ${what}`, value);
  const server = await serveBlk([`/run/${name}.sock=${device}`, '--engine', engine, '--control', `/run/${name}.ctl`]);
  let disk = await RingDisk.open(`/run/${name}.sock`);
  await disk.write(0, Buffer.alloc(65536, 'o'));
  say('before', await flushes({ ring: () => disk.flush() }));
  say('write', await disk.write(0, Buffer.alloc(65536, 'O')));
  dmSwap(name, SECTORS, 'error');
  say('lost', await flushes({ ring: () => disk.flush() }));
  dmSwap(name, SECTORS, linear);
  say('back', await flushes({ ring: () => disk.flush() }));
  disk.close();
  disk = await RingDisk.open(`/run/${name}.sock`, { packed: true });
  say('next front-end', await flushes({ ring: () => disk.flush() }));
  sh(`node bin/run.js vhost-user ctl /run/${name}.ctl reopen`);
  say('write after reopen', await disk.write(0, Buffer.alloc(65536, 'N'), true));
  say('reopened', await flushes({ ring: () => disk.flush() }));
  disk.close();
  say('status', await server.stop());
}

/** Times of operations while `busy` lasts, at least ten of each. */
async function times(operations: Record<string, () => Promise<unknown>>, busy: () => boolean): Promise<Record<string, number[]>> {
  const took = Object.fromEntries(Object.keys(operations).map((name) => [name, [] as number[]]));
  for (let i = 0; i < 10 || busy(); i++)
    for (const [name, run] of Object.entries(operations)) {
      const began = performance.now();
      await run();
      took[name]!.push(performance.now() - began);
    }
  return took;
}
/** `most`: nine of ten are no slower. */
const summary = (all: Record<string, number[]>): Record<string, { count: number; middle: number; most: number; longest: number }> =>
  Object.fromEntries(
    Object.entries(all).map(([name, list]) => {
      const sorted = [...list].sort((a, b) => a - b);
      return [
        name,
        {
          count: list.length,
          middle: sorted[sorted.length >> 1]!,
          most: sorted[Math.floor(sorted.length * 0.9)]!,
          longest: sorted.at(-1)!,
        },
      ];
    }),
  );

/** Operations of a neighbour, without and with eight-second writes on another source of the same thread. */
async function slow(name: string, operations: Record<string, () => Promise<unknown>>, slowDisk: ServedDisk): Promise<void> {
  await times(operations, () => false); // what is loaded at its first use
  const idleEnd = performance.now() + 2000;
  const idle = summary(await times(operations, () => performance.now() < idleEnd));
  let left = 12;
  const began = performance.now();
  const outcomes: Outcome[] = [];
  const writes = Array.from({ length: left }, async (_, i) => {
    outcomes.push(await slowDisk.write(i * 65536, Buffer.alloc(4096, i + 1), i % 2 === 0));
    if (i % 4 === 1) outcomes.push(await slowDisk.flush());
    left--;
  });
  const busy = summary(await times(operations, () => left > 0 && performance.now() - began < 7000));
  const stuck = left;
  await Promise.all(writes);
  fact(`slow ${name}`, { idle, busy, stuck, seconds: (performance.now() - began) / 1000, outcomes: [...new Set(outcomes)] });
}

async function slowUnderHosts(engine: Engine): Promise<void> {
  const name = `slow-nvmf-${engine}`;
  const below = loop(name, MIB).device;
  const device = dm(name, SECTORS, `delay ${below} 0 0 ${below} 0 8000 ${below} 0 0`);
  sh(`head -c 4M /dev/urandom >/run/${name}.fast`);
  const target = await serveNvmf([`/run/${name}.fast`, device, '--engine', engine, '--threads', '1']);
  const [fast, other] = [await NvmeDisk.open(target.port, target.nqn), await NvmeDisk.open(target.port, target.nqn, { nsid: 2 })];
  const into = Buffer.alloc(4096);
  let at = 0;
  const operations = {
    'keep-alive': () => fast.controller.keepAlive(),
    identify: () => fast.controller.identifyData(1),
    read: () => fast.read((at = (at + 4096) % (4 << 20)), into),
    'keep-alive of the slow host': () => other.controller.keepAlive(),
  };
  await slow(`nvmf ${engine}`, operations, other);
  fast.close();
  other.close();
  fact(`slow nvmf ${engine} status`, await target.server.stop());
}

async function slowUnderRings(engine: Engine): Promise<void> {
  const name = `slow-blk-${engine}`;
  const below = loop(name, MIB).device;
  const device = dm(name, SECTORS, `delay ${below} 0 0 ${below} 0 8000 ${below} 0 0`);
  sh(`head -c 4M /dev/urandom >/run/${name}.fast`);
  const server = await serveBlk([`/run/${name}.a=/run/${name}.fast`, `/run/${name}.b=${device}`, '--engine', engine]);
  const [fast, other] = [await RingDisk.open(`/run/${name}.a`), await RingDisk.open(`/run/${name}.b`)];
  const into = Buffer.alloc(4096);
  let at = 0;
  const operations = {
    config: () => fast.guest.front.config(0, 60),
    read: () => fast.read((at = (at + 4096) % (4 << 20)), into),
    'config of the slow disk': () => other.guest.front.config(0, 60),
  };
  await slow(`blk ${engine}`, operations, other);
  fast.close();
  other.close();
  fact(`slow blk ${engine} status`, await server.stop());
}

main(async () => {
  sh('modprobe loop; modprobe dm_mod; modprobe dm_delay; modprobe nvme_tcp');
  if (process.env.PART === 'lost')
    for (const engine of engines) {
      await lostUnderHosts(engine);
      await lostUnderRing(engine);
    }
  else
    for (const engine of engines) {
      await slowUnderHosts(engine);
      await slowUnderRings(engine);
    }
});
