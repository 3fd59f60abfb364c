/**
 * The volatile write cache (feature 06h) is switched off while commands are under way: what is answered afterwards is on
 * the disk, whatever was known of the command when it came.
 */
import { spawnSync } from 'node:child_process';
import { native } from '../../src/native/index.js';
import { Bench } from '../../src/nvme/conform/bench.js';
import { learn } from '../../src/nvme/conform/index.js';
import type { RawConnection } from '../../src/nvme/conform/raw.js';
import { Subsystem } from '../../src/nvme/target/subsystem.js';
import { Target } from '../../src/nvme/target/target.js';
import { copyRange, Fid, NvmOpcode } from '../../src/nvme/wire/index.js';
import { FaultDisk, noFaultDisk } from '../support/fault-disk.js';
import { hostid, hostnqn } from '../support/nvme-raw.js';
import { skip } from '../support/skip.js';

const nqn = 'nqn.2014-08.org.nvmexpress:unit';
const ok = { kind: 'cqe', sct: 0, sc: 0 };
const losetup = (...args: string[]) => spawnSync('losetup', args, { encoding: 'utf8' });

describe.each([
  ['sync', 'file'],
  ['uring', 'file'],
  ['uring', 'block device'],
] as const)('engine %s, %s', (engine, kind) => {
  let disk: FaultDisk | undefined;
  let device: string | undefined;
  let target: Target | undefined;
  let bench: Bench;

  beforeEach(async () => {
    const missing = noFaultDisk();
    if (missing) return skip('a disk that tells of its syncs', missing);
    disk = await FaultDisk.open(4 << 20);
    if (kind === 'block device') {
      const { status, stdout } = losetup('--find', '--show', disk.file);
      if (status !== 0) return skip('a block device', 'needs loop devices');
      device = stdout.trim();
    }
    target = new Target(native().nvme, { engine });
    const subsystem = new Subsystem(native().nvme, { nqn });
    subsystem.add({ source: device ?? disk.file });
    target.addSubsystem(subsystem);
    const { port } = target.listen('127.0.0.1', 0);
    bench = new Bench(await learn({ address: '127.0.0.1', port, timeout: 90_000, subnqn: nqn, hostnqn, hostid }));
  });
  afterEach(async () => {
    if (target) {
      bench.close();
      await target.stop();
      target = undefined;
    }
    if (device !== undefined) losetup('--detach', device);
    device = undefined;
    await disk?.close();
    disk = undefined;
  });

  /** The command's data has been asked for, and is owed. */
  const asked = async (io: RawConnection, opcode: number, length: number, cid: number) => {
    const rw = bench.rw(64n, opcode === NvmOpcode.copy ? 1 : 16, { length });
    io.send(io.capsule({ opcode, nsid: 1 }, { ...rw, cid }).pdu);
    const ask = await io.next();
    if (ask.kind !== 'r2t') throw new Error(`no R2T but ${ask.kind}`);
    return ask;
  };
  const range = copyRange.encode({ slba: 0n, nlb: 15 });

  test.each([
    ['write', NvmOpcode.write, Buffer.alloc(8192, 'new')],
    ['copy', NvmOpcode.copy, range],
  ] as const)('a %s whose data comes after the switch is durable when it is answered; one before is not', async (_, opcode, data) => {
    if (!target) return;
    const { admin, io } = await bench.session();
    expect(await bench.write(io, 0n, Buffer.alloc(8192, 'copied'))).toMatchObject(ok);
    const before = await asked(io, opcode, data.length, 11);
    const cached = (await disk!.ops()).length;
    io.answer(before, data);
    expect(await io.completion(11)).toMatchObject(ok);
    expect((await disk!.ops()).slice(cached)).not.toContain('fsync');
    const ask = await asked(io, opcode, data.length, 12);
    expect(await bench.feature(admin, Fid.volatileWriteCache, 0)).toMatchObject(ok);
    const done = (await disk!.ops()).length;
    expect((await disk!.ops())[done - 1]).toBe('fsync');
    io.answer(ask, data);
    expect(await io.completion(12)).toMatchObject(ok);
    const since = (await disk!.ops()).slice(done).filter((op) => op !== 'read');
    expect(since).toContain('write');
    expect(since.at(-1)).toBe('fsync');
  });

  if (kind === 'block device') return; // its page cache does not wait for the disk
  test('a write that is being done while the cache is switched off', async () => {
    if (!target) return;
    const { admin, io } = await bench.session();
    const syncs = async () => (await disk!.ops()).filter((op) => op === 'fsync').length;
    const begun = await syncs();
    await disk!.set({ write_delay: 1 });
    const write = bench.write(io, 64n, Buffer.alloc(4096, 'slow'));
    while ((await disk!.ops()).at(-1) !== 'write') await new Promise((resolve) => setTimeout(resolve, 5));
    const off = bench.feature(admin, Fid.volatileWriteCache, 0);
    expect(await write).toMatchObject(ok);
    const answered = await syncs();
    expect(await off).toMatchObject(ok);
    await disk!.set({ write_delay: 0 });
    // the flush of the switch may have begun before the write had ended: it is not what the write waits for
    expect(answered - begun).toBe(2);
  });
});
