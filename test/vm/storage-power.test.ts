// The power goes while both servers write: QEMU is killed, and the log of dm-log-writes below each server tells what was
// durable at each flush. Nothing that was acknowledged as durable may be missing there.
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { logEntries } from '../support/log-writes.js';
import { SECTOR, stampAt } from '../support/storage-model.js';
import { spawnGuest } from './lab.js';
import { storageGuest } from './storage/lab.js';
import { DISK, durableBefore, Expected, LANES, SERVERS } from './storage/sequence.js';

const LIAR = SERVERS.length;
const LOG = 96 << 20;
/** Acknowledgements of each writer before the power goes. */
const ENOUGH = 20;

/** A part of a sparse file. */
function slice(file: string, n: number, size: number): Buffer {
  const data = Buffer.alloc(size);
  const fd = fs.openSync(file, 'r');
  fs.readSync(fd, data, 0, size, n * size);
  fs.closeSync(fd);
  return data;
}

/** Replays a log. @returns what was missing, and how much was checked */
function replay(server: number, log: Buffer): { missing: string[]; flushes: number; marks: number } {
  const disk = Buffer.alloc(DISK);
  const expected = Array.from({ length: LANES }, (_, lane) => new Expected(lane));
  const newest = new Array<number>(LANES).fill(0);
  const known = new Array<number>(LANES).fill(0);
  const missing: string[] = [];
  let [flushes, marks] = [0, 0];
  for (const { at, data, size, flush, discard, mark } of logEntries(log)) {
    if (discard) disk.fill(0, at, at + size);
    data.copy(disk, at);
    for (let part = at; part < at + data.length; part += SECTOR) {
      const lane = Math.floor(part / (DISK / LANES));
      newest[lane] = Math.max(newest[lane]!, stampAt(disk, part, part / SECTOR));
    }
    const acknowledged = /^(\d+):(\d+)$/.exec(mark ?? '');
    if (acknowledged) {
      const lane = Number(acknowledged[1]);
      known[lane] = Math.max(known[lane]!, Number(acknowledged[2]));
      marks++;
    }
    if (!flush && !acknowledged) continue;
    if (flush) flushes++;
    for (let lane = 0; lane < LANES; lane++) {
      // A write that was begun says that all durable ones before it had been acknowledged.
      known[lane] = Math.max(known[lane]!, durableBefore(server, lane, newest[lane]!));
      const lack = expected[lane]!.missing(disk, known[lane]!);
      if (lack !== undefined) missing.push(lack);
    }
  }
  return { missing: missing.slice(0, 3), flushes, marks };
}

test('nothing that was acknowledged as durable is missing after a power cut', async () => {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-power-'));
  const files = ['data', 'log'].map((name) => path.join(dir, name));
  for (const [i, file] of files.entries()) {
    fs.writeFileSync(file, '');
    fs.truncateSync(file, (LIAR + 1) * (i === 0 ? DISK : LOG));
  }
  const drive = (file: string, i: number): string[] => [
    ...['-drive', `file=${file},if=none,id=power${i},format=raw,cache=writeback`, '-device', `virtio-blk-pci,drive=power${i}`],
  ];
  const { env, ...program } = storageGuest('power');
  const guest = await spawnGuest({
    kernel: '6.12',
    ...program,
    env: { ...env, LOG_SIZE: `${LOG}` },
    args: files.flatMap(drive),
    timeout: 420,
  });
  try {
    const acknowledged = (n: number, lane: number): number[] =>
      [...guest.stdout.matchAll(new RegExp(`^ACK ${n} ${lane} (\\d+)$`, 'gm'))].map((match) => Number(match[1]));
    const writers = SERVERS.flatMap((_, n) => Array.from({ length: LANES }, (_, lane) => [n, lane] as const));
    await guest.line(/^LIED$/, 200);
    const end = Date.now() + 120_000;
    while (!writers.every(([n, lane]) => acknowledged(n, lane).length >= ENOUGH) && Date.now() < end)
      await new Promise((resolve) => setTimeout(resolve, 200));
    await guest.stop(); // SIGKILL
    const report: Record<string, unknown> = {};
    for (const [n, server] of SERVERS.entries()) {
      const found = replay(n, slice(files[1]!, n, LOG));
      const lanes = Array.from({ length: LANES }, (_, lane) => acknowledged(n, lane));
      report[server] = { ...found, acknowledged: lanes.map((all) => all.length) };
      expect({ server, missing: found.missing }).toEqual({ server, missing: [] });
      expect(found.flushes).toBeGreaterThan(ENOUGH);
      expect(found.marks).toBeGreaterThan(3);
      // and the disk itself, as the machine left it
      const disk = slice(files[0]!, n, DISK);
      for (const [lane, all] of lanes.entries()) {
        expect(all.length).toBeGreaterThanOrEqual(ENOUGH);
        expect(new Expected(lane).missing(disk, all.at(-1)!)).toBeUndefined();
      }
    }
    console.log(JSON.stringify(report));
    // the check finds a server that acknowledges too early
    expect(replay(LIAR, slice(files[1]!, LIAR, LOG)).missing).not.toEqual([]);
  } finally {
    await guest.stop();
    fs.rmSync(dir, { recursive: true, force: true });
  }
});
