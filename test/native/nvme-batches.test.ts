/**
 * Many commands that come together: a worker writes what it has read before it reads on, and counts a batch at once. Data is
 * compared with a model, and the counts with what was sent.
 */
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { native } from '../../src/native/index.js';
import type { LatencyHistogram } from '../../src/native/nvme.js';
import { Controller } from '../../src/nvme/host/controller.js';
import { Subsystem } from '../../src/nvme/target/subsystem.js';
import { Target } from '../../src/nvme/target/target.js';
import { NvmOpcode, rwCmd, sqe } from '../../src/nvme/wire/index.js';
import { hostid, hostnqn } from '../support/nvme-raw.js';

const nqn = 'nqn.2014-08.org.nvmexpress:unit';
const BLOCK = 4096;
const DEPTH = 127;
const ROUNDS = 12;

const block = (opcode: number, nsid: number, place: number) =>
  rwCmd.encode({ slba: BigInt(place * 8), nlb: 7 }, sqe.encode({ opcode, nsid }));
const total = ({ buckets }: LatencyHistogram): number => buckets.reduce((sum, one) => sum + one, 0);

test.each(['sync', 'uring'] as const)('full queues of writes, reads and flushes of three hosts, engine %s', async (engine) => {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'nvmt-batches-'));
  const target = new Target(native().nvme, { engine });
  try {
    // One place for each command of each host, in two files.
    const places = 3 * DEPTH;
    const files = [path.join(dir, 'a'), path.join(dir, 'b')];
    const models = files.map(() => Buffer.alloc(places * BLOCK, 'model'));
    files.forEach((file, i) => {
      fs.writeFileSync(file, models[i]!);
    });
    const subsystem = new Subsystem(native().nvme, { nqn });
    const namespaces = files.map((source) => subsystem.add({ source, format: 'raw' }));
    target.addSubsystem(subsystem);
    const { port } = target.listen('127.0.0.1', 0);
    const options = { address: '127.0.0.1', port, timeout: 60_000, subnqn: nqn, hostnqn, hostid, ioQueues: 1, queueSize: 128 };
    const hosts = await Promise.all([0, 1, 2].map(() => Controller.connect(options)));
    const sent = [0, 1].map(() => ({ reads: 0, writes: 0, flushes: 0 }));
    for (let round = 0; round < ROUNDS; round++) {
      const work = hosts.flatMap((host, number) =>
        Array.from({ length: DEPTH }, async (_, i) => {
          const place = number * DEPTH + i;
          const of = (i + round) % 5 === 0 ? 1 : 0; // mostly one source, with some of the other between
          const nsid = of + 1;
          const kind = i % 16;
          const [queue] = host.queues;
          if (kind === 3) {
            sent[of]!.flushes++;
            return (await queue!.send(sqe.encode({ opcode: NvmOpcode.flush, nsid }))).status;
          }
          if (kind === 7) {
            sent[of]!.reads++;
            const into = Buffer.alloc(BLOCK);
            const { status } = await queue!.send(block(NvmOpcode.read, nsid, place), { into });
            expect(into.equals(models[of]!.subarray(place * BLOCK, (place + 1) * BLOCK))).toBe(true);
            return status;
          }
          sent[of]!.writes++;
          const out = Buffer.alloc(BLOCK, `host ${number}, command ${i}, round ${round}.`);
          out.copy(models[of]!, place * BLOCK);
          return (await queue!.send(block(NvmOpcode.write, nsid, place), { out })).status;
        }),
      );
      for (const status of await Promise.all(work)) expect(status).toMatchObject({ sct: 0, sc: 0 });
      namespaces.forEach((namespace, of) => {
        const { read, write, flushes, readBytes, writtenBytes } = native().nvme.namespaceUsage(namespace.handle);
        const { reads, writes } = sent[of]!;
        expect([total(read), total(write), flushes]).toEqual([reads, writes, sent[of]!.flushes]);
        expect([readBytes, writtenBytes]).toEqual([reads * BLOCK, writes * BLOCK]);
      });
    }
    files.forEach((file, i) => {
      expect(fs.readFileSync(file).equals(models[i]!)).toBe(true);
    });
    for (const host of hosts) await host.disconnect();
  } finally {
    await target.stop();
    fs.rmSync(dir, { recursive: true });
  }
});
