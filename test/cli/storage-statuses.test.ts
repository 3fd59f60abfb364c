/** What an error of a source becomes for hosts and guests: its status, one line in the log with the source's name, and a server that lives. */
import { NvmOpcode, rwCmd, sqe } from '../../src/nvme/wire/index.js';
import { Window } from '../../src/vhost-user/frontend/window.js';
import { connect } from '../../src/vhost-user/wire/channel.js';
import { Background } from '../support/background.js';
import { plainEnv, program } from '../support/cli.js';
import { FaultDisk, noFaultDisk, type RandomFault } from '../support/fault-disk.js';
import { connectHost, serveTarget } from '../support/nvme-target.js';
import { skip } from '../support/skip.js';
import { at, running } from '../support/storage-servers.js';
import { blkHeader, Driver } from '../support/vhost-user.js';

type Op = 'read' | 'write' | 'sync';
/** SCT and SC, NVM Command Set and NVMe Base Specification, "Status". */
const [ok, capacity, writeFault, readError] = [
  [0, 0],
  [0, 0x81],
  [2, 0x80],
  [2, 0x81],
];
/** What fails, with which errno, and what NVMe hosts are told. Guests are told VIRTIO_BLK_S_IOERR of all of them. */
const errors: ['read' | 'write', string, number[]][] = [
  ['read', 'EIO', readError!],
  ['read', 'ESTALE', readError!],
  ['read', 'ENXIO', readError!],
  ['write', 'EIO', writeFault!],
  ['write', 'ESTALE', writeFault!],
  ['write', 'ENXIO', writeFault!],
  ['write', 'ENOSPC', capacity!],
  ['write', 'EDQUOT', capacity!],
];
/** The same of a sync, which is latched. */
const losses: Record<string, number[]> = { ESTALE: writeFault!, EDQUOT: capacity! };
const fault = (op: Op, errno: string): RandomFault => `${op}_${errno.toLowerCase()}` as RandomFault;

interface Served {
  /** Does it, at a place of its own: the status. */
  run(op: Op, place: number): Promise<unknown>;
  messages(): string;
  /** Ends it: its exit status. */
  stop(): Promise<unknown>;
}

async function nvmf(file: string, engine: string): Promise<Served> {
  const target = await serveTarget([`${file},format=raw`, '--engine', engine]);
  const host = await connectHost(target, { ioQueues: 1 });
  const opcodes = { read: NvmOpcode.read, write: NvmOpcode.write, sync: NvmOpcode.flush };
  return {
    run: async (op, place) => {
      const fields = { slba: BigInt(place * 8), nlb: 7 };
      const command = rwCmd.encode(op === 'sync' ? {} : fields, sqe.encode({ opcode: opcodes[op], nsid: 1 }));
      const data = Buffer.alloc(4096, 'x');
      const { status } = await host.queues[0]!.send(command, op === 'read' ? { into: data } : op === 'write' ? { out: data } : undefined);
      return [status.sct, status.sc];
    },
    messages: target.messages,
    stop: () => target.stop(),
  };
}

async function vhostUser(file: string, engine: string): Promise<Served> {
  const socket = at('sock');
  const server = new Background(
    [process.execPath, program, 'vhost-user', 'serve', 'blk', `${socket}=${file},format=raw`, '--engine', engine],
    plainEnv(),
  );
  running.push(server);
  await server.sees(/^serving /m);
  const window = await Window.open(await connect(socket));
  await window.start();
  const driver = new Driver(window);
  const types = { read: 0, write: 1, sync: 4 };
  return {
    run: async (op, place) => {
      const header = blkHeader(types[op], BigInt(op === 'sync' ? 0 : place * 8));
      const answer = await driver.request([header, ...(op === 'write' ? [Buffer.alloc(4096, 'x')] : [])], op === 'read' ? 4097 : 1);
      return answer.at(-1);
    },
    messages: () => server.stderr,
    stop: () => {
      window.close();
      return server.stop();
    },
  };
}

describe.each([
  ['nvmf', 'sync', 'ESTALE'],
  ['nvmf', 'uring', 'EDQUOT'],
  ['vhost-user', 'sync', 'EDQUOT'],
  ['vhost-user', 'uring', 'ESTALE'],
] as const)('%s, engine %s', (kind, engine, loss) => {
  test('errors of reads, writes and a sync', async () => {
    const missing = noFaultDisk();
    if (missing) return skip(`${kind} ${engine}: errors of a source`, missing);
    const expected = (status: number[]): unknown => (kind === 'nvmf' ? status : status === ok ? 0 : 1);
    const disk = await FaultDisk.open(1 << 20, true); // no page cache: the error is the one that was injected
    try {
      const served = await (kind === 'nvmf' ? nvmf : vhostUser)(disk.file, engine);
      for (const [op, errno, status] of errors) {
        await disk.set({ random: { [fault(op, errno)]: 1 } });
        const told: unknown[] = [];
        for (let i = 0; i < 3; i++) told.push(await served.run(op, 20 + i));
        expect([op, errno, told]).toEqual([op, errno, Array(3).fill(expected(status))]);
        await disk.set({ random: {} });
        // it lives, and all works again
        for (const other of ['read', 'write', 'sync'] as const)
          expect([op, errno, other, await served.run(other, 30)]).toEqual([op, errno, other, expected(ok!)]);
      }
      const lines = (): string[] =>
        served
          .messages()
          .split('\n')
          .filter((line) => line.startsWith(`${disk.file}: `));
      const failures = (): string[] => lines().filter((line) => /failed: E/.test(line));
      expect(failures().length).toBeLessThan(2); // one a minute
      await disk.set({ random: { [fault('sync', loss)]: 1 } });
      expect([loss, await served.run('sync', 0)]).toEqual([loss, expected(losses[loss]!)]);
      await disk.set({ random: {} });
      expect([loss, await served.run('sync', 0)]).toEqual([loss, expected(losses[loss]!)]);
      for (const other of ['read', 'write'] as const) expect([other, await served.run(other, 30)]).toEqual([other, expected(ok!)]);
      expect(await served.stop()).toBe(1);
      expect(lines().filter((line) => line.includes('data may be lost'))).toEqual([expect.stringContaining(`(${loss} of a sync)`)]);
      expect(failures().join('\n')).toMatch(new RegExp(`failed: ${loss}$`)); // the last one, at the end
    } finally {
      for (const server of running.splice(0)) await server.stop('SIGKILL');
      await disk.close();
    }
  });
});
