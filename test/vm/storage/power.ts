// In a guest that will lose its power: servers over dm-log-writes, and writers of sequence numbers.
import { execFile } from 'node:child_process';
import fs from 'node:fs';
import { promisify } from 'node:util';
import { Fid } from '../../../src/nvme/wire/index.js';
import { NvmeDisk, RingDisk, type ServedDisk } from '../../support/served-disk.js';
import { SECTOR, stamped } from '../../support/storage-model.js';
import { dm, main, serveBlk, serveNvmf, sh } from './inside.js';
import { DISK, LANES, SERVERS, step, writesThrough } from './sequence.js';

/** Bytes of the log of each disk. */
const LOG = Number(process.env.LOG_SIZE);
const run = promisify(execFile);

/** The n-th disk: a slice of the first device, its log a slice of the second. */
function logged(n: number): string {
  const slice = (name: string, device: string, size: number): string => dm(name, size / SECTOR, `linear ${device} ${(n * size) / SECTOR}`);
  return dm(`disk${n}`, DISK / SECTOR, `log-writes ${slice(`data${n}`, '/dev/vda', DISK)} ${slice(`log${n}`, '/dev/vdb', LOG)}`);
}

const acknowledged = async (n: number, lane: number, sequence: number): Promise<void> => {
  fs.writeSync(1, `ACK ${n} ${lane} ${sequence}\n`);
  if (sequence % 4 === 0) await run('dmsetup', ['message', `disk${n}`, '0', 'mark', `${lane}:${sequence}`]);
};

async function write(n: number, lane: number, disk: ServedDisk): Promise<never> {
  for (let sequence = 1; ; sequence++) {
    const { at, count, durable: wanted } = step(lane, sequence);
    const durable = writesThrough(n, lane) ? 'at once' : wanted;
    const outcome = await disk.write(at * SECTOR, stamped(at, count, sequence), durable === 'fua');
    if (outcome !== 'ok') throw new Error(`write ${sequence}: ${outcome}`);
    if (durable === 'no') continue;
    const flushed = durable === 'flush' ? await disk.flush() : 'ok';
    if (flushed !== 'ok') throw new Error(`flush after ${sequence}: ${flushed}`);
    await acknowledged(n, lane, sequence);
  }
}

/** One that lies: its writes are in the page cache alone. The check must find that. */
async function lie(n: number): Promise<void> {
  const fd = fs.openSync(`/dev/mapper/disk${n}`, 'r+');
  for (let sequence = 1; sequence <= 20; sequence++) {
    const { at, count } = step(0, sequence);
    fs.writeSync(fd, stamped(at, count, sequence), 0, count * SECTOR, at * SECTOR);
    await acknowledged(n, 0, sequence);
  }
}

main(async () => {
  sh('modprobe virtio_blk; modprobe dm_mod; modprobe dm_log_writes');
  const writers: Promise<void>[] = [];
  for (const [n, name] of SERVERS.entries()) {
    const [kind, engine] = name.split(', engine ') as [string, string];
    const device = logged(n);
    if (kind === 'nvmf') {
      const target = await serveNvmf([device, '--engine', engine]);
      for (let lane = 0; lane < LANES; lane++) {
        const disk = await NvmeDisk.open(target.port, target.nqn);
        if (writesThrough(n, lane)) await disk.controller.setFeature(Fid.volatileWriteCache, 0);
        writers.push(write(n, lane, disk));
      }
    } else {
      await serveBlk([`/run/s${n}=${device}`, '--engine', engine]);
      const disk = await RingDisk.open(`/run/s${n}`, { flush: !writesThrough(n, 0) });
      for (let lane = 0; lane < LANES; lane++) writers.push(write(n, lane, disk));
    }
  }
  logged(SERVERS.length);
  await lie(SERVERS.length);
  fs.writeSync(1, 'LIED\n');
  await Promise.all(writers);
});
