/** What a failed sync means to hosts and guests of both servers. */
import { NvmOpcode, rwCmd, sqe } from '../../src/nvme/wire/index.js';
import { Window } from '../../src/vhost-user/frontend/window.js';
import { connect } from '../../src/vhost-user/wire/channel.js';
import { Background } from '../support/background.js';
import { plainEnv, program, vioctl } from '../support/cli.js';
import { FaultDisk, noFaultDisk } from '../support/fault-disk.js';
import { connectHost, serveTarget } from '../support/nvme-target.js';
import { skip } from '../support/skip.js';
import { at, running } from '../support/storage-servers.js';
import { blkHeader, Driver } from '../support/vhost-user.js';

describe('a sync that fails', () => {
  const missing = noFaultDisk();
  const command = (opcode: number, fields: { fua?: number; slba?: bigint; nlb?: number } = {}): Buffer =>
    rwCmd.encode({ slba: 0n, nlb: 0, fua: 0, ...fields }, sqe.encode({ opcode, nsid: 1 }));
  const data = Buffer.alloc(512, 'x');

  test.each(['sync', 'uring'])(
    'nvmf, engine %s: flush and FUA fail for every host from then on, plain writes and reads go on, and ctl list tells',
    async (engine) => {
      if (missing) return skip(`nvmf ${engine}: failing syncs`, missing);
      const disk = await FaultDisk.open(8 << 20);
      try {
        const control = at('ctl');
        const target = await serveTarget([disk.file, '--engine', engine, '--control', control]);
        const [a, b] = [await connectHost(target, { ioQueues: 2 }), await connectHost(target, { ioQueues: 1 })];
        const run = async (host: typeof a, opcode: number, fua = 0, queue = 0) => {
          const out = opcode === NvmOpcode.write ? { out: data } : opcode === NvmOpcode.read ? { into: Buffer.alloc(512) } : undefined;
          const { status } = await host.queues[queue]!.send(command(opcode, { fua }), out);
          return [status.sct, status.sc];
        };
        const [ok, fault] = [
          [0, 0],
          [2, 0x80],
        ];
        expect(await run(a, NvmOpcode.write, 1)).toEqual(ok);
        expect(await run(b, NvmOpcode.flush)).toEqual(ok);
        await disk.set({ fail_syncs: 1 });
        expect(await run(a, NvmOpcode.write, 1)).toEqual(fault);
        for (const [host, queue] of [
          [a, 0],
          [a, 1],
          [b, 0],
          [await connectHost(target, { ioQueues: 1 }), 0],
        ] as const) {
          expect(await run(host, NvmOpcode.flush, 0, queue)).toEqual(fault);
          expect(await run(host, NvmOpcode.write, 1, queue)).toEqual(fault);
          expect(await run(host, NvmOpcode.write, 0, queue)).toEqual(ok);
          expect(await run(host, NvmOpcode.read, 0, queue)).toEqual(ok);
        }
        const listed = JSON.parse(vioctl(['nvmf', 'ctl', control, 'list', '--json']).stdout) as typeof target.document & {
          subsystems: { namespaces: object[] }[];
        };
        expect(listed.subsystems[0]!.namespaces[0]).toMatchObject({ syncError: 'EIO' });
        expect(vioctl(['nvmf', 'ctl', control, 'list']).stdout).toContain('data may be lost (EIO)');
        const warning = async (): Promise<number> => (await a.getLog(2, 512))[0]!;
        expect(await warning()).toBe(4); // the reliability is degraded
        const reopen = (...more: string[]) => vioctl(['nvmf', 'ctl', control, 'reopen', '1', ...more]);
        expect(reopen('--dry-run').stdout).toContain(`would open ${disk.file} of namespace 1 anew`);
        expect(await run(b, NvmOpcode.flush)).toEqual(fault);
        expect(reopen().status).toBe(0);
        for (const host of [a, b]) expect(await run(host, NvmOpcode.flush)).toEqual(ok);
        expect(await warning()).toBe(0);
        expect(vioctl(['nvmf', 'ctl', control, 'list', '--json']).stdout).not.toContain('syncError');
        await disk.set({ fail_syncs: 1 });
        expect(await run(b, NvmOpcode.write, 1)).toEqual(fault);
        expect(await run(a, NvmOpcode.flush)).toEqual(fault);
        expect(await target.stop()).toBe(1);
        const lines = target.messages().split('\n');
        const told = lines.filter((line) => line.includes('data may be lost'));
        expect(told.length).toBe(2); // once before it was opened anew, once after
        for (const line of told) expect(line).toContain(`${disk.file}: `);
      } finally {
        await disk.close();
      }
    },
  );

  test.each(['sync', 'uring'])('nvmf, engine %s: a full disk is no failed sync', async (engine) => {
    if (missing) return skip(`nvmf ${engine}: a full disk`, missing);
    const disk = await FaultDisk.open(8 << 20);
    try {
      const target = await serveTarget([disk.file, '--engine', engine]);
      const host = await connectHost(target, { ioQueues: 1 });
      await disk.set({ full_after: 1 });
      const full = await host.queues[0]!.send(command(NvmOpcode.write, { fua: 1 }), { out: data });
      expect([full.status.sct, full.status.sc]).toEqual([0, 0x81]);
      await disk.set({ full_after: 0 });
      const flush = await host.queues[0]!.send(command(NvmOpcode.flush), undefined);
      expect(flush.status.sc).toBe(0);
      expect(await target.stop()).toBe(0);
      expect(target.messages()).toContain(`${disk.file}: a request has failed: ENOSPC\n`);
    } finally {
      await disk.close();
    }
  });

  test.each(['sync', 'io_uring'])('vhost-user, engine %s: on all queues, and on the next connection', async (engine) => {
    if (missing) return skip(`vhost-user ${engine}: failing syncs`, missing);
    const disk = await FaultDisk.open(8 << 20);
    try {
      const socket = at('sock');
      const argv = [process.execPath, program, 'vhost-user', 'serve', 'blk', socket, '--file', disk.file];
      const server = new Background([...argv, '--engine', engine, '--queues', '2'], plainEnv());
      running.push(server);
      await server.sees(/^serving /m);
      const open = async () => {
        const window = await Window.open(await connect(socket), { queues: 2 });
        await window.start();
        return { window, drivers: [new Driver(window, 0), new Driver(window, 1)] };
      };
      const request = async (driver: Driver, type: number, body = Buffer.alloc(0)) =>
        (await driver.request([blkHeader(type), ...(body.length > 0 ? [body] : [])], 1))[0];
      const [write, flush] = [1, 4];
      const first = await open();
      expect(await request(first.drivers[0]!, write, data)).toBe(0);
      expect(await request(first.drivers[0]!, flush)).toBe(0);
      await disk.set({ fail_syncs: 1, sync_delay: 0.3 });
      // both at once: whoever leads, both are told
      expect(await Promise.all(first.drivers.map((driver) => request(driver, flush)))).toEqual([1, 1]);
      for (const driver of first.drivers) expect(await request(driver, flush)).toBe(1);
      expect(await request(first.drivers[1]!, write, data)).toBe(0);
      first.window.close();
      const second = await open();
      expect(await request(second.drivers[1]!, flush)).toBe(1);
      await server.sees(/data may be lost \(EIO/);
      await server.sees(/disk: a request has failed: EIO/);
      second.window.close();
      expect(await server.stop()).toBe(1);
    } finally {
      await disk.close();
    }
  });
});
