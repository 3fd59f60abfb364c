/** kill -9 of the target in the middle of writes: what was acknowledged by FUA or a flush is in the file. */
import { randomBytes } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { Controller, Namespace } from '../../src/nvme/host/index.js';
import { effort } from '../support/effort.js';
import { serveTarget, withFolder } from '../support/nvme-target.js';

const rounds = effort(8, 20);
const block = 4096;
const blocks = 512;

test(`${rounds} rounds of kill -9: nothing acknowledged is lost`, () =>
  withFolder(async (dir) => {
    const image = path.join(dir, 'disk.img');
    fs.writeFileSync(image, '');
    fs.truncateSync(image, block * blocks);
    let acknowledged = 0;
    for (let round = 0; round < rounds; round++) {
      const target = await serveTarget([`${image},bs=${block}`]);
      const controller = await Controller.connect({
        address: '127.0.0.1',
        port: target.port,
        timeout: 90_000,
        hostnqn: 'nqn.2014-08.org.example:crash',
        hostid: Buffer.alloc(16, 5),
        subnqn: target.nqn,
        ioQueues: 2,
      });
      const ns = new Namespace(controller, await controller.namespace(1));
      /** What each block must hold: the last acknowledged contents, or a write that was under way. */
      const durable = new Map<number, Buffer>();
      const candidates = new Map<number, Buffer[]>();
      let alive = true;
      const write = async (lba: number, fua: boolean): Promise<[number, Buffer] | undefined> => {
        const data = randomBytes(block);
        candidates.set(lba, [...(candidates.get(lba) ?? []), data]);
        try {
          await ns.write(BigInt(lba), data, fua);
          return [lba, data];
        } catch {
          alive = false; // killed: this write may or may not be there
          return undefined;
        }
      };
      // Four writers with blocks of their own: two with FUA, two that flush after a few writes.
      const writer = async (index: number): Promise<void> => {
        for (let i = 0; alive; i++) {
          if (index < 2) {
            const done = await write(index * 128 + (i % 128), true);
            if (done) durable.set(...done);
          } else {
            const some = [];
            for (let n = 0; n < 4 && alive; n++) some.push(await write(index * 128 + ((i * 4 + n) % 128), false));
            try {
              await ns.flush();
            } catch {
              alive = false;
              return;
            }
            for (const done of some) if (done) durable.set(...done);
          }
        }
      };
      const writers = [0, 1, 2, 3].map(writer);
      setTimeout(() => target.child.kill('SIGKILL'), 40 + round * 7);
      await Promise.all(writers);
      controller.close();
      await target.stop();
      const file = fs.readFileSync(image);
      for (const [lba, data] of durable) {
        const there = file.subarray(lba * block, (lba + 1) * block);
        const later = candidates.get(lba)!;
        const from = later.findIndex((one) => one.equals(data));
        // The acknowledged contents, or those of a write that came after them.
        expect({ round, lba, kept: later.slice(from).some((one) => one.equals(there)) }).toEqual({ round, lba, kept: true });
      }
      acknowledged += durable.size;
    }
    expect(acknowledged).toBeGreaterThan(rounds * 4);
  }));
