/** What reaches a source: holes, the page cache, write-through. */
import fs from 'node:fs';
import { AdminOpcode, featureCmd, NvmOpcode, rwCmd, sqe } from '../../src/nvme/wire/index.js';
import { Window } from '../../src/vhost-user/frontend/window.js';
import { connect } from '../../src/vhost-user/wire/channel.js';
import { VirtioF } from '../../src/vhost-user/wire/features.js';
import { FaultDisk, noFaultDisk } from '../support/fault-disk.js';
import { connectHost, serveTarget } from '../support/nvme-target.js';
import { skip } from '../support/skip.js';
import { image, lastSocket, type Server, serve } from '../support/storage-servers.js';
import { blkHeader, blkRange, Driver } from '../support/vhost-user.js';

describe('data', () => {
  const MiB = 1 << 20;
  const allocated = (file: string): number => {
    const fd = fs.openSync(file, 'r');
    fs.fsyncSync(fd); // delayed allocation counts as none
    fs.closeSync(fd);
    return fs.statSync(file).blocks * 512;
  };
  /** Writes 64 KiB at a MiB of the disk: through NVMe, or through a virtqueue. */
  interface Disk {
    pid: number;
    write: (mebibyte: number, fill: number | string) => Promise<void>;
    read: (mebibyte: number) => Promise<Buffer>;
    flush: () => Promise<void>;
    end: () => Promise<void>;
  }
  async function writer(server: Server, engine: string, source: string): Promise<Disk> {
    const body = (fill: number | string): Buffer => Buffer.alloc(65536, fill);
    if (server === 'nvmf') {
      const target = await serveTarget([source, '--engine', engine]);
      const host = await connectHost(target, { ioQueues: 1 });
      const run = async (opcode: number, at: number, transfer?: { out: Buffer } | { into: Buffer }) => {
        const command = rwCmd.encode({ slba: BigInt((at * MiB) / blockSize), nlb: 65536 / blockSize - 1 }, sqe.encode({ opcode, nsid: 1 }));
        expect((await host.queues[0]!.send(command, transfer)).status.sc).toBe(0);
      };
      const { blockSize } = target.namespaces[0]!;
      return {
        pid: target.child.pid!,
        read: async (at) => {
          const into = Buffer.alloc(65536);
          await run(NvmOpcode.read, at, { into });
          return into;
        },
        flush: () => run(NvmOpcode.flush, 0),
        write: (at, fill) => run(NvmOpcode.write, at, { out: body(fill) }),
        end: async () => expect(await target.stop()).toBe(0),
      };
    }
    const started = await serve(server, source, '--engine', engine);
    const window = await Window.open(await connect(lastSocket()));
    await window.start();
    const driver = new Driver(window);
    const run = async (type: number, at: number, out: Buffer[], inSize: number): Promise<Buffer> => {
      const answer = await driver.request([blkHeader(type, BigInt(at * 2048)), ...out], inSize + 1);
      expect(answer[inSize]).toBe(0);
      return answer.subarray(0, inSize);
    };
    return {
      pid: started.child.pid!,
      read: (at) => run(0, at, [], 65536),
      flush: async () => void (await run(4, 0, [], 0)),
      write: async (at, fill) => void (await run(1, at, [body(fill)], 0)),
      end: async () => {
        window.close();
        expect(await started.stop()).toBe(0);
      },
    };
  }

  test.each([
    ['nvmf', 'sync'],
    ['nvmf', 'uring'],
    ['vhost-user', 'sync'],
    ['vhost-user', 'io_uring'],
  ] as const)('%s, engine %s: a hole stays one; zero=unmap makes holes, zero=off none', async (server, engine) => {
    const file = image('sparse', 8 * MiB);
    fs.writeSync(fs.openSync(`${file}2`, 'w'), Buffer.alloc(65536));
    if (allocated(file) !== 0 || allocated(`${file}2`) < 65536) return skip('sparse files', 'the file system of the tests has none');
    let disk = await writer(server, engine, file);
    await disk.write(1, 0);
    expect(allocated(file)).toBe(0);
    await disk.write(2, 'data');
    await disk.write(2, 0); // over data: the space stays, the data goes
    await disk.write(3, 'data');
    expect(allocated(file)).toBeGreaterThanOrEqual(2 * 65536);
    await disk.end();
    const contents = fs.readFileSync(file);
    expect(contents.subarray(MiB, 3 * MiB).equals(Buffer.alloc(2 * MiB))).toBe(true);
    expect(contents.subarray(3 * MiB, 3 * MiB + 65536).equals(Buffer.alloc(65536, 'data'))).toBe(true);
    disk = await writer(server, engine, `${file},zero=unmap`);
    await disk.write(2, 0);
    await disk.write(3, 0);
    await disk.end();
    expect(allocated(file)).toBe(0);
    expect(fs.readFileSync(file).equals(Buffer.alloc(8 * MiB))).toBe(true);
    disk = await writer(server, engine, `${file},zero=off`);
    await disk.write(1, 0);
    await disk.end();
    expect(allocated(file)).toBeGreaterThanOrEqual(65536);
  });

  /** Numbers of the buffers that the rings of a process know. */
  const registeredBuffers = (pid: number): string[] =>
    fs
      .readdirSync(`/proc/${pid}/fdinfo`)
      .flatMap((fd) => /^UserBufs:\s+(\d+)/m.exec(fs.readFileSync(`/proc/${pid}/fdinfo/${fd}`, 'utf8'))?.[1] ?? []);

  test.each([
    ['nvmf', 'sync', 512],
    ['nvmf', 'uring', 4096],
    ['vhost-user', 'sync', 4096],
    ['vhost-user', 'io_uring', 512],
  ] as const)(
    '%s, engine %s, blocks of %d: direct=on does not use the page cache, whatever buffers a guest has',
    async (server, engine, bs) => {
      const file = image('direct', 8 * MiB);
      try {
        fs.closeSync(fs.openSync(file, fs.constants.O_RDWR | fs.constants.O_DIRECT));
      } catch {
        return skip('direct=on', 'the file system of the tests has no O_DIRECT');
      }
      const disk = await writer(server, engine, `${file},direct=on,bs=${bs}`);
      const flags = fs
        .readdirSync(`/proc/${disk.pid}/fd`)
        .filter((fd) => fs.readlinkSync(`/proc/${disk.pid}/fd/${fd}`) === file)
        .map((fd) => Number.parseInt(/^flags:\s+(\d+)/m.exec(fs.readFileSync(`/proc/${disk.pid}/fdinfo/${fd}`, 'utf8'))![1]!, 8));
      expect(flags.map((bits) => bits & fs.constants.O_DIRECT)).toEqual([fs.constants.O_DIRECT]);
      for (const [at, fill] of [
        [1, 'one'],
        [2, 'two'],
        [2, 0],
      ] as const)
        await disk.write(at, fill);
      await disk.flush();
      expect(await disk.read(1)).toEqual(Buffer.alloc(65536, 'one'));
      expect(await disk.read(2)).toEqual(Buffer.alloc(65536));
      if (engine === 'io_uring') expect(registeredBuffers(disk.pid)).toContain('8'); // the guest's are not aligned
      await disk.end();
      expect(fs.readFileSync(file).subarray(MiB, MiB + 65536)).toEqual(Buffer.alloc(65536, 'one'));
    },
  );
});

describe('write-through', () => {
  const missing = noFaultDisk();
  /** What reaches the disk while `use` runs: true if a sync ends it. */
  async function synced(disk: FaultDisk, use: () => Promise<unknown>): Promise<boolean> {
    const before = (await disk.ops()).length;
    await use();
    const ops = (await disk.ops()).slice(before);
    expect(ops).toContain('write');
    return ops.lastIndexOf('fsync') > ops.lastIndexOf('write');
  }

  test.each(['sync', 'uring'])(
    'nvmf, engine %s: a host that switches the write cache off has durable writes, other hosts their cache',
    async (engine) => {
      if (missing) return skip(`nvmf ${engine}: write-through`, missing);
      const disk = await FaultDisk.open(8 << 20);
      try {
        const target = await serveTarget([disk.file, '--engine', engine]);
        const [host, other] = [await connectHost(target, { ioQueues: 1 }), await connectHost(target, { ioQueues: 1 })];
        const write = (who: typeof host, opcode: number = NvmOpcode.write) =>
          who.queues[0]!.send(
            rwCmd.encode({ slba: 0n, nlb: 7 }, sqe.encode({ opcode, nsid: 1 })),
            opcode === NvmOpcode.write ? { out: Buffer.alloc(4096, 'w') } : undefined,
          );
        const cache = async (value?: number): Promise<number> => {
          const opcode = value === undefined ? AdminOpcode.getFeatures : AdminOpcode.setFeatures;
          const { status, dw0 } = await host.admin.send(
            featureCmd.encode({ fid: 6, value: value ?? 0 }, sqe.encode({ opcode })),
            undefined,
          );
          expect(status.sc).toBe(0);
          return dw0 & 1;
        };
        expect(await cache()).toBe(1);
        expect(await synced(disk, () => write(host))).toBe(false);
        // what the cache holds is durable before the answer comes
        expect(await synced(disk, async () => [await write(host), await cache(0)])).toBe(true);
        expect(await cache()).toBe(0);
        for (let i = 0; i < 3; i++) expect(await synced(disk, () => write(host))).toBe(true);
        expect(await synced(disk, async () => [await write(host), await write(host, NvmOpcode.writeZeroes)])).toBe(true);
        expect(await synced(disk, () => write(other))).toBe(false);
        await cache(1);
        expect(await synced(disk, () => write(host))).toBe(false);
        await cache(0);
        await disk.set({ fail_syncs: 1 });
        expect((await write(host)).status.sct).toBe(2);
        await disk.set({ fail_syncs: 0 });
        expect((await write(host)).status.sct).toBe(2);
        expect((await write(other)).status.sct).toBe(0);
        await target.stop();
      } finally {
        await disk.close();
      }
    },
  );

  test.each(['sync', 'io_uring'])('vhost-user, engine %s: a driver without VIRTIO_BLK_F_FLUSH has durable writes', async (engine) => {
    if (missing) return skip(`vhost-user ${engine}: write-through`, missing);
    const disk = await FaultDisk.open(8 << 20);
    try {
      await serve('vhost-user', disk.file, '--engine', engine);
      for (const features of [VirtioF.version1 | VirtioF.protocolFeatures, VirtioF.version1 | VirtioF.protocolFeatures | (1n << 9n)]) {
        const flushes = (features >> 9n) & 1n;
        const window = await Window.open(await connect(lastSocket()), { features });
        await window.start();
        const driver = new Driver(window);
        const write = () => driver.request([blkHeader(1), Buffer.alloc(4096, 'w')], 1);
        for (let i = 0; i < 3; i++) expect(await synced(disk, write)).toBe(flushes === 0n);
        expect(await synced(disk, async () => [await write(), await driver.request([blkHeader(13), blkRange(0n, 8)], 1)])).toBe(
          flushes === 0n,
        );
        if (flushes === 0n) {
          const { length } = await disk.ops();
          expect((await driver.request([blkHeader(13), blkRange(0n, 8)], 1))[0]).toBe(0);
          expect((await disk.ops()).slice(length)).toContain('fsync');
        } else {
          await disk.set({ fail_syncs: 1 });
          expect((await write())[0]).toBe(0);
        }
        window.close();
      }
    } finally {
      await disk.close();
    }
  });
});
