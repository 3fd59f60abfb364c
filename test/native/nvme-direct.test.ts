/**
 * direct=on in the target's ring: its files and buffers are registered, against a model in memory, while sources come, go, are
 * opened anew and change their size.
 */
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Sysroot } from '../../src/common/sysroot.js';
import { native } from '../../src/native/index.js';
import { Controller } from '../../src/nvme/host/controller.js';
import { Subsystem } from '../../src/nvme/target/subsystem.js';
import { Target } from '../../src/nvme/target/target.js';
import { NvmOpcode, rwCmd, sqe } from '../../src/nvme/wire/index.js';
import { ringsOf } from '../../src/uring/host/processes.js';
import { kernelAtLeast } from '../../src/uring/host/unavailable.js';
import { FaultDisk, noFaultDisk } from '../support/fault-disk.js';
import { hostid, hostnqn } from '../support/nvme-raw.js';
import { skip } from '../support/skip.js';

const nqn = 'nqn.2014-08.org.nvmexpress:unit';
const SIZE = 4 << 20;
const DEPTH = 32;

let dir: string;
let target: Target;
let subsystem: Subsystem;
let host: Controller;
const models = new Map<string, Buffer>();

beforeEach(() => {
  dir = fs.mkdtempSync(path.join(os.tmpdir(), 'nvmt-direct-'));
});
afterEach(async () => {
  host?.close();
  await target?.stop();
  fs.rmSync(dir, { recursive: true });
  models.clear();
});

/** Makes a file of random data. */
function disk(name: string, random: (below: number) => number): string {
  const file = path.join(dir, name);
  const model = Buffer.alloc(SIZE);
  for (let i = 0; i < SIZE; i += 4) model.writeUInt32LE(random(2 ** 32), i);
  fs.writeFileSync(file, model);
  models.set(file, model);
  return file;
}

/** A generator of numbers below a bound; the seed names a failure. */
function numbers(seed: number): (below: number) => number {
  let state = seed >>> 0 || 1;
  return (below) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

/** Serves files as namespaces 1, 2, ... and connects. False where the file system has no O_DIRECT, or there is no ring. */
async function serve(files: string[], log: (text: string) => void = () => {}): Promise<boolean> {
  target = new Target(native().nvme, { engine: 'uring', log });
  subsystem = new Subsystem(native().nvme, { nqn });
  try {
    for (const source of files) subsystem.add({ source, direct: true, format: 'raw' });
  } catch (err) {
    if ((err as { code?: string }).code !== 'EINVAL') throw err;
    skip('direct I/O of hosts', 'the file system of the tests has no O_DIRECT');
    return false;
  }
  target.addSubsystem(subsystem);
  if (target.engine !== 'uring') {
    skip('direct I/O of hosts in a ring', 'no io_uring');
    return false;
  }
  const { port } = target.listen('127.0.0.1', 0);
  host = await Controller.connect({
    address: '127.0.0.1',
    port,
    timeout: 60_000,
    subnqn: nqn,
    hostnqn,
    hostid,
    ioQueues: 1,
    queueSize: 128,
  });
  return true;
}

/** Reads and writes of all sizes at once, each in a stripe of its own. */
async function load(random: (below: number) => number, nsids: number[], what: string): Promise<void> {
  const jobs = Array.from({ length: DEPTH }, async (_, i) => {
    const nsid = nsids[i % nsids.length]!;
    const { source, blockSize } = subsystem.namespaces.get(nsid)!;
    const model = models.get(source)!;
    const stripe = Math.floor(SIZE / DEPTH / blockSize);
    const blocks = 1 + random(random(4) === 0 ? stripe : Math.min(stripe, 16));
    const slba = i * stripe + random(stripe - blocks + 1);
    const part = model.subarray(slba * blockSize, (slba + blocks) * blockSize);
    const write = random(2) === 0;
    const command = rwCmd.encode(
      { slba: BigInt(slba), nlb: blocks - 1 },
      sqe.encode({ opcode: write ? NvmOpcode.write : NvmOpcode.read, nsid }),
    );
    const data = Buffer.alloc(part.length, 1 + random(255));
    const { status } = await host.queues[0]!.send(command, write ? { out: data } : { into: data });
    expect([what, nsid, slba, blocks, status.sct, status.sc]).toEqual([what, nsid, slba, blocks, 0, 0]);
    if (write) data.copy(part);
    else if (!data.equals(part)) throw new Error(`${what}: wrong data at block ${slba}+${blocks} of namespace ${nsid}`);
  });
  await Promise.all(jobs);
}

/** What the rings of this process have registered of the sources. */
function registered(): { files: string[]; bytes: number } {
  const rings = ringsOf(new Sysroot(), process.pid);
  return {
    files: rings.flatMap((ring) => ring.files.map((file) => path.basename(file.path))).filter((name) => name.startsWith('disk')),
    bytes: rings.flatMap((ring) => ring.buffers).reduce((sum, buffer) => sum + buffer.size, 0),
  };
}
const slots = kernelAtLeast(os.release(), 6, 14);

test('files and buffers are registered, and follow sources that come, go, are opened anew and grow', async () => {
  const seed = Number(process.env.SEED ?? Date.now() % 1_000_000);
  const random = numbers(seed);
  const [a, b, c] = ['disk-a', 'disk-b', 'disk-c'].map((name) => disk(name, random)) as [string, string, string];
  if (!(await serve([a, b]))) return;
  await load(random, [1, 2], `seed ${seed}, at first`);
  if (slots) expect(registered().files.sort()).toEqual(['disk-a', 'disk-b']);
  expect(registered().bytes).toBeGreaterThan(1 << 20);

  // under load, one goes and another one takes its place, and its slot
  for (let round = 0; round < 6; round++) {
    const [gone, fresh] = round % 2 === 0 ? [b, c] : [c, b];
    const busy = load(random, [1], `seed ${seed}, round ${round}, the other one`);
    await target.remove(subsystem, 2);
    expect(registered().files).not.toContain(path.basename(gone));
    // nobody has it any more: it can be locked by anybody
    native().storage.close(native().storage.open(gone, { direct: true }));
    target.add(subsystem, { nsid: 2, source: fresh, direct: true, format: 'raw' });
    await busy;
    await load(random, [1, 2], `seed ${seed}, round ${round}`);
    const reopening = Promise.all([target.reopen(subsystem, 1), load(random, [2], `seed ${seed}, round ${round}, the one beside it`)]);
    await load(random, [1], `seed ${seed}, round ${round}, of one that is opened anew`);
    await reopening;
    await load(random, [1, 2], `seed ${seed}, round ${round}, opened anew`);
    if (slots) expect(registered().files.sort()).toEqual(['disk-a', path.basename(fresh)].sort());
  }
  expect(fs.readFileSync(a).equals(models.get(a)!)).toBe(true);

  // larger, then smaller again: what is gone is out of range, not an error of the ring
  const { blockSize } = subsystem.namespaces.get(1)!;
  fs.truncateSync(a, 2 * SIZE);
  const until = Date.now() + 30_000;
  const size = (): number => subsystem.namespaces.get(1)!.size;
  while (size() !== 2 * SIZE && Date.now() < until) await sleep(50);
  const last = rwCmd.encode({ slba: BigInt((2 * SIZE) / blockSize - 1), nlb: 0 }, sqe.encode({ opcode: NvmOpcode.read, nsid: 1 }));
  const into = Buffer.alloc(blockSize, 1);
  expect((await host.queues[0]!.send(last, { into })).status.sc).toBe(0);
  expect(into.equals(Buffer.alloc(blockSize))).toBe(true);
  fs.truncateSync(a, SIZE);
  expect((await host.queues[0]!.send(last, { into })).status.sc).not.toBe(0);
  await load(random, [1, 2], `seed ${seed}, at last`);

  host.close();
  await target.stop();
  expect(registered()).toEqual({ files: [], bytes: 0 });
});

test('a source that hangs keeps no other one: what is removed beside it is free at once', async () => {
  const missing = noFaultDisk();
  if (missing) return skip('a source that hangs beside direct ones', missing);
  const random = numbers(1);
  const [a, b] = ['disk-a', 'disk-b'].map((name) => disk(name, random)) as [string, string];
  if (!(await serve([a, b]))) return;
  const hanging = await FaultDisk.open(SIZE);
  try {
    target.add(subsystem, { nsid: 3, source: hanging.file, format: 'raw' });
    await load(random, [1, 2], 'before');
    await hanging.set({ write_delay: 15 });
    let ended = false;
    const write = rwCmd.encode({ slba: 0n, nlb: 0 }, sqe.encode({ opcode: NvmOpcode.write, nsid: 3 }));
    const written = host.queues[0]!.send(write, { out: Buffer.alloc(subsystem.namespaces.get(3)!.blockSize) }).then(() => {
      ended = true;
    });
    await load(random, [1, 2], 'beside it');
    await target.remove(subsystem, 2);
    expect(registered().files).not.toContain('disk-b');
    native().storage.close(native().storage.open(b, { direct: true }));
    await load(random, [1], 'after');
    await target.reopen(subsystem, 1);
    await load(random, [1], 'opened anew');
    expect(ended).toBe(false);
    await hanging.set({ write_delay: 0 });
    await written;
  } finally {
    await hanging.set({ write_delay: 0 });
    host.close();
    await target.stop();
    await hanging.close();
  }
});
