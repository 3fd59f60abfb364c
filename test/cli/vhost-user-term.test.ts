import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { Window } from '../../src/vhost-user/frontend/window.js';
import { connect } from '../../src/vhost-user/wire/channel.js';
import { Background } from '../support/background.js';
import { plainEnv, program } from '../support/cli.js';
import { compileC } from '../support/compile.js';
import { Driver } from '../support/vhost-user.js';

/** The end of `serve blk` while requests are under way. */
let dir: string;
let slow: string;
beforeAll(() => {
  dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-term-'));
  slow = compileC('test/support/programs/slow-disk.c', path.join(dir, 'slow.so'), ['-shared', '-fPIC']);
});
afterAll(() => fs.rmSync(dir, { recursive: true }));

const SECTOR = 512;
const DATA = 0x4000;
/** Puts a write of one sector, full of `slot + 1`, into the ring. */
function write(driver: Driver, slot: number): void {
  const at = DATA + slot * 0x800;
  const header = Buffer.alloc(16);
  header.writeUInt32LE(1, 0);
  header.writeBigUInt64LE(BigInt(slot), 8);
  driver.write(at, Buffer.concat([header, Buffer.alloc(SECTOR, slot + 1), Buffer.from([0xee])]));
  const place = (offset: number): bigint => driver.gpa + BigInt(at + offset);
  driver.desc(slot * 3, place(0), 16, 1, slot * 3 + 1);
  driver.desc(slot * 3 + 1, place(16), SECTOR, 1, slot * 3 + 2);
  driver.desc(slot * 3 + 2, place(16 + SECTOR), 1, 2, 0);
  driver.offer(slot * 3);
}

async function serve(name: string, engine: string, delay: number, queues = 2) {
  const [socket, file] = [path.join(dir, `${name}.sock`), path.join(dir, `${name}.img`)];
  fs.writeFileSync(file, Buffer.alloc(1 << 20));
  const argv = [process.execPath, program, 'vhost-user', 'serve', 'blk', socket, '--file', `${file},format=raw`]; // raw: the slow disk is not read at the start
  const server = new Background([...argv, '--engine', engine, '--queues', `${queues}`], {
    ...plainEnv(),
    ...(delay > 0 && { LD_PRELOAD: slow, SLOW_DISK_MS: `${delay}` }),
  });
  await server.sees(/serving/);
  const window = await Window.open(await connect(socket), { queues });
  await window.start();
  return { server, window, file, drivers: window.rings.map((_, i) => new Driver(window, i)) };
}
const written = (file: string, slots: number): number[] => {
  const data = fs.readFileSync(file);
  return Array.from({ length: slots }, (_, i) => i).filter((i) => data[i * SECTOR] === i + 1);
};
const hungUp = (window: Window): Promise<void> =>
  new Promise((resolve) => {
    const poll = (): void => {
      if (window.front.exchange.channel.closed) resolve();
      else setTimeout(poll, 1);
    };
    poll();
  });

test.each(['io_uring', 'sync'])(
  '%s: SIGTERM on a slow disk: the used rings at the hang-up hold all that was done, and no more',
  async (engine) => {
    const { server, window, file, drivers } = await serve(`slow-${engine}`, engine, 150);
    try {
      for (let slot = 0; slot < 8; slot++) write(drivers[slot % 2]!, slot);
      await new Promise((resolve) => setTimeout(resolve, 400));
      server.child.kill('SIGTERM');
      await hungUp(window);
      const used = drivers.map((d) => d.usedHeads());
      const onDisk = written(file, 8);
      expect(
        used
          .flat()
          .map((head) => head / 3)
          .sort(),
      ).toEqual(onDisk);
      expect(await server.exited).toBe(0);
      expect(drivers.map((d) => d.usedHeads())).toEqual(used);
      expect(written(file, 8)).toEqual(onDisk);
      if (engine === 'io_uring') expect(onDisk).toHaveLength(8);
      else expect(onDisk.length).toBeGreaterThan(0);
    } finally {
      window.close();
      await server.stop('SIGKILL');
    }
  },
);

test('a second SIGTERM ends a server at once whose disk is slow', async () => {
  const { server, window, drivers } = await serve('twice', 'sync', 15000, 1);
  try {
    write(drivers[0]!, 0);
    await new Promise((resolve) => setTimeout(resolve, 200));
    server.child.kill('SIGTERM');
    await server.sees(/finishing the requests under way/);
    server.child.kill('SIGTERM');
    expect(await server.exited).toBe(143);
  } finally {
    window.close();
  }
});
