/** Limits of a namespace: they hold, and whoever waits under them keeps nobody else waiting. */
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { native } from '../../src/native/index.js';
import type { Limits } from '../../src/native/storage.js';
import { Controller, type ControllerOptions } from '../../src/nvme/host/controller.js';
import { Subsystem } from '../../src/nvme/target/subsystem.js';
import { Target } from '../../src/nvme/target/target.js';
import { NvmOpcode, rwCmd, sqe } from '../../src/nvme/wire/index.js';
import { hostid, hostnqn } from '../support/nvme-raw.js';
import { eventually } from '../support/wait.js';

const nqn = 'nqn.2014-08.org.nvmexpress:unit';
const { storage } = native();
const rate = (average: number, burst = 0, seconds = 1) => ({ average, burst, seconds });

let dir: string;
let target: Target;
let subsystem: Subsystem;
let options: ControllerOptions;
const setUp = (engine: 'sync' | 'uring', second: string, limits: Limits): void => {
  const [first, file] = ['free', 'limited'].map((name) => path.join(dir, name)) as [string, string];
  for (const one of [first, file]) fs.writeFileSync(one, Buffer.alloc(4 << 20, one));
  target = new Target(native().nvme, { engine });
  subsystem = new Subsystem(native().nvme, { nqn });
  subsystem.add({ source: first });
  subsystem.add({ source: second === 'file' ? file : second, ...limits });
  target.addSubsystem(subsystem);
  const { port } = target.listen('127.0.0.1', 0);
  options = { address: '127.0.0.1', port, timeout: 60_000, subnqn: nqn, hostnqn, hostid, ioQueues: 1, queueSize: 128 };
};
beforeEach(() => {
  dir = fs.mkdtempSync(path.join(os.tmpdir(), 'nvmt-'));
});
afterEach(async () => {
  await target.stop();
  fs.rmSync(dir, { recursive: true, force: true });
});

const block = (opcode: number, nsid: number, slba: number, fields: Parameters<typeof rwCmd.encode>[0] = {}) =>
  rwCmd.encode({ slba: BigInt(slba), nlb: 7, ...fields }, sqe.encode({ opcode, nsid }));
/** One request of a kind, with 4 KiB of data where it has any. */
const send = (host: Controller, opcode: number, nsid: number, slba: number, size = 4096) => {
  const data = Buffer.alloc(size, slba);
  const way =
    opcode === NvmOpcode.read ? { into: data } : opcode === NvmOpcode.write || opcode === NvmOpcode.compare ? { out: data } : undefined;
  return host.queues[0]!.send(block(opcode, nsid, slba, { nlb: size / 512 - 1 }), way);
};
const waiting = () => storage.limits(subsystem.namespaces.get(2)!.store).waiting;
describe.each(['sync', 'uring'] as const)('engine %s', (engine) => {
  test.each(['file', 'ram:4194304'])('%s: 100 requests that wait cost nobody else anything, also on the same queue', async (source) => {
    // one a second, and room for none in advance: whatever the machine's speed, most of them wait
    setUp(engine, source, { iops: rate(1) });
    const host = await Controller.connect(options);
    const kinds = [NvmOpcode.write, NvmOpcode.read, NvmOpcode.compare, NvmOpcode.verify, NvmOpcode.writeZeroes];
    let left = 100;
    // 64 KiB each: more than a connection may have under way, would they count
    const work = Array.from({ length: left }, (_, i) =>
      send(host, kinds[i % kinds.length]!, 2, i, i % 2 === 0 ? 65536 : 4096).finally(() => left--),
    );
    for (let round = 0; round < 4; round++) {
      await host.keepAlive();
      const data = Buffer.alloc(4096, round);
      expect((await host.queues[0]!.send(block(NvmOpcode.write, 1, 8 * round), { out: data })).status).toMatchObject({ sct: 0, sc: 0 });
      const into = Buffer.alloc(4096);
      await host.queues[0]!.run(block(NvmOpcode.read, 1, 8 * round), { into });
      expect(into.equals(data)).toBe(true);
      // a flush is not counted, and does not wait behind those that are
      await host.queues[0]!.run(sqe.encode({ opcode: NvmOpcode.flush, nsid: 2 }));
    }
    expect(left).toBeGreaterThan(0);
    expect(waiting()).toBeGreaterThan(0);
    storage.setLimits(subsystem.namespaces.get(2)!.store, {});
    for (const [i, { status }] of (await Promise.all(work)).entries())
      expect([kinds[i % kinds.length], status.sct, status.sc]).toEqual(
        // what a compare finds depends on the writes that overlap it: Compare Failure is right too
        kinds[i % kinds.length] === NvmOpcode.compare
          ? [NvmOpcode.compare, expect.any(Number), expect.any(Number)]
          : [kinds[i % kinds.length], 0, 0],
      );
    expect(waiting()).toBe(0);
    await host.disconnect();
  });

  test('operations and bytes that come through are no more than the limits allow', async () => {
    setUp(engine, 'file', { iops: rate(200, 400) });
    const host = await Controller.connect(options);
    /** Takes `ms` at least, and until more than `least` were done. */
    const run = async (ms: number, size: number, least: number): Promise<{ count: number; seconds: number }> => {
      const begin = performance.now();
      let count = 0;
      const one = async (worker: number): Promise<void> => {
        while (count <= least || performance.now() - begin < ms) {
          await send(host, worker % 2 ? NvmOpcode.read : NvmOpcode.write, 2, worker * 128, size);
          count++;
        }
      };
      await Promise.all(Array.from({ length: 16 }, (_, worker) => one(worker)));
      return { count, seconds: (performance.now() - begin) / 1000 };
    };
    // 400 at once, and the one that makes the bucket over-full; then 200 a second
    const { count, seconds } = await run(2500, 4096, 400);
    expect(count).toBeLessThanOrEqual(401 + 200 * seconds + 1);
    storage.setLimits(subsystem.namespaces.get(2)!.store, { bps: rate(1 << 20) });
    const bytes = await run(2000, 65536, 4);
    // 100 ms in advance, and each of the 64 KiB that were let in last
    expect(bytes.count * 65536).toBeLessThanOrEqual((1 << 20) * (bytes.seconds + 0.1) + 65536);
    await host.disconnect();
  });

  test('a host that goes, and a namespace that is removed, leave nothing waiting', async () => {
    setUp(engine, 'file', { iops: rate(1) });
    const { store } = subsystem.namespaces.get(2)!;
    const [gone, stays] = [await Controller.connect(options), await Controller.connect(options)];
    const lost = Array.from({ length: 20 }, (_, i) => send(gone, i % 2 ? NvmOpcode.read : NvmOpcode.write, 2, i).catch(() => undefined));
    await eventually(() => waiting() >= 15);
    gone.close();
    await Promise.all(lost);
    await eventually(() => waiting() === 0);

    const failed = Array.from({ length: 20 }, (_, i) => send(stays, i % 2 ? NvmOpcode.read : NvmOpcode.write, 2, i));
    await eventually(() => storage.limits(store).waiting >= 15);
    await target.remove(subsystem, 2);
    const results = await Promise.all(failed);
    // Invalid Namespace or Format
    expect(results.filter(({ status }) => status.sct === 0 && status.sc === 0x0b).length).toBeGreaterThan(10);
    // and the file is free at once
    native().storage.close(native().storage.open(path.join(dir, 'limited'), {}));
    await stays.queues[0]!.run(block(NvmOpcode.read, 1, 0), { into: Buffer.alloc(4096) });
    await stays.disconnect();
  });

  test('a target that stops does not wait for those under limits', async () => {
    setUp(engine, 'file', { iops: rate(1) });
    const host = await Controller.connect(options);
    const lost = Array.from({ length: 100 }, (_, i) => send(host, NvmOpcode.write, 2, i).catch(() => undefined));
    await eventually(() => waiting() >= 50);
    await target.stop();
    await Promise.all(lost);
    host.close();
  });
});
