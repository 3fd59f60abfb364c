/** A file that is written to a namespace is sent from where it lies: wherever it begins, and whatever becomes of it meanwhile. */
import { randomBytes } from 'node:crypto';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { native } from '../../src/native/index.js';
import type { CopyResult, HostOptions, RemoteNamespace } from '../../src/native/nvme-host.js';
import { NvmOpcode, sqe } from '../../src/nvme/wire/index.js';
import { type FakeConnection, FakeTarget } from '../support/nvme-fake.js';
import { hostid, hostnqn } from '../support/nvme-raw.js';
import { eventually } from '../support/wait.js';

const page = 4096;
const folders = [os.tmpdir(), '/dev/shm'];
/** Data of at most 8 KiB in a PDU is copied behind its header; more is sent by the kernel from where it lies. */
const ways = [
  { chunk: 2 * page, digest: false },
  { chunk: 4 * page, digest: false },
  { chunk: 4 * page, digest: true },
];

/** A target that keeps writes, while it is told to, until it is told to take them. */
class Patient {
  connections = 0;
  keeps = false;
  /** Asks for the data of a write that is kept. */
  readonly kept: (() => void)[] = [];
  readonly fake: FakeTarget;
  readonly #parts = new Map<number, { at: number; left: number }>();

  constructor() {
    this.fake = new FakeTarget({
      ic: (connection) => {
        this.connections++;
        connection.icResp({ maxh2cdata: 1 << 16 });
        return true;
      },
      command: (connection, command, data) => this.keeps && data.length === 0 && this.#command(connection, command),
      data: (connection, cid, data) => {
        const part = this.#parts.get(cid)!;
        data.copy(this.fake.disk, part.at);
        part.at += data.length;
        part.left -= data.length;
        if (part.left === 0) connection.complete(cid);
      },
    });
  }
  #command(connection: FakeConnection, command: Buffer): boolean {
    if (connection.qid === 0 || sqe.get(command, 'opcode') !== NvmOpcode.write) return false;
    const { cid, sglLength } = sqe.decode(command);
    this.#parts.set(cid, { at: Number(command.readBigUInt64LE(40)) * 512, left: sglLength });
    this.kept.push(() => connection.r2t(cid, { r2tl: sglLength }));
    return true;
  }
  /** Takes one of those that are kept. */
  async takeOne(): Promise<void> {
    this.kept.shift()!();
    await eventually(() => [...this.#parts.values()].some(({ left }) => left === 0));
  }
  /** Takes those that are kept; the others are taken at once. */
  takeAll(): void {
    this.keeps = false;
    for (const take of this.kept) take();
  }
}

let dir: string;
let target: Patient;
let host: RemoteNamespace;
const fds: number[] = [];
afterEach(async () => {
  await native().nvmeHost.hostClose(host);
  for (const fd of fds.splice(0)) fs.closeSync(fd);
  target.fake.close();
  fs.rmSync(dir, { recursive: true });
});

async function begin(folder: string, dataDigest: boolean, bytes: Buffer): Promise<number> {
  dir = fs.mkdtempSync(path.join(folder, 'vioctl-input-'));
  target = new Patient();
  const options: HostOptions = {
    ...{ hostnqn, hostid, subnqn: 'nqn.2014-08.org.nvmexpress:fake', nsid: 1, queues: 1, entries: 32, keepAliveMs: 0 },
    ...{ timeoutMs: 20_000, lossMs: 0, headerDigest: false, dataDigest, flowControl: true, replay: false },
    addresses: [{ host: '127.0.0.1', port: await target.fake.listen() }],
  };
  host = await native().nvmeHost.hostOpen(options).done;
  fs.writeFileSync(path.join(dir, 'input'), bytes);
  const fd = fs.openSync(path.join(dir, 'input'), 'r+');
  fds.push(fd);
  return fd;
}
const copy = (fd: number, chunk: number, length = 1 << 19, offset = 0n): Promise<CopyResult> =>
  native().nvmeHost.hostCopy(host, {
    ...{ fd, write: true, offset, length: BigInt(length), chunk, depth: 2, fua: false, deallocate: false },
  }).done;
const positionOf = (fd: number) => Number(/pos:\t(\d+)/.exec(fs.readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8'))![1]);

describe.each(folders)('in %s', (folder) => {
  test.each([0, 1, 511, page - 1, page, 3 * page + 512])('from position %d of a file', async (position) => {
    const bytes = randomBytes(20 * page + 77);
    const fd = await begin(folder, false, bytes);
    fs.readSync(fd, Buffer.alloc(position), 0, position, null);
    for (const offset of [0, 512, 700]) {
      fs.readSync(fd, Buffer.alloc(0), 0, 0, null);
      const rest = bytes.subarray(positionOf(fd));
      expect(await copy(fd, 2 * page, 5 * page, BigInt(offset))).toMatchObject({ error: '', bytes: 5n * 4096n, overlong: true });
      expect(target.fake.disk.subarray(offset, offset + 5 * page).equals(rest.subarray(0, 5 * page))).toBe(true);
      // where a reader would have left it: what follows is copied next
      expect(positionOf(fd)).toBe(bytes.length - rest.length + 5 * page);
    }
    expect(target.fake.faults).toEqual([]);
  });

  test('a file that grows is copied to its new end', async () => {
    const bytes = randomBytes(8 * page);
    const fd = await begin(folder, false, bytes.subarray(0, 6 * page));
    target.keeps = true;
    const done = copy(fd, 2 * page);
    await eventually(() => target.kept.length === 2);
    fs.writeSync(fd, bytes, 6 * page, 2 * page, 6 * page);
    target.takeAll();
    expect(await done).toMatchObject({ error: '', bytes: BigInt(bytes.length) });
    expect(target.fake.disk.subarray(0, bytes.length).equals(bytes)).toBe(true);
  });

  test.each(ways)('a file that is cut behind what was looked at ends there: $chunk, digest $digest', async ({ chunk, digest }) => {
    const bytes = randomBytes(16 * page);
    const fd = await begin(folder, digest, bytes);
    target.keeps = true;
    const done = copy(fd, chunk);
    const end = 2 * chunk + 512;
    await eventually(() => target.kept.length === 2);
    fs.ftruncateSync(fd, end);
    target.takeAll();
    expect(await done).toMatchObject({ error: '', bytes: BigInt(end) });
    expect(target.fake.disk.subarray(0, end).equals(bytes.subarray(0, end))).toBe(true);
  });

  const cuts = ways.flatMap((way) => [0, 100, page, page + 100, 2 * way.chunk - 1].map((cut) => ({ ...way, cut })));
  test.each(cuts)('cut while it is sent, the copy fails and the connection stays: %j', async ({ chunk, digest, cut }) => {
    const bytes = randomBytes(16 * page);
    const fd = await begin(folder, digest, bytes);
    fds.push(fs.openSync(path.join(dir, 'input'), 'r'));
    target.keeps = true;
    const [failing, other] = [copy(fd, chunk), copy(fds[1]!, 2048, 2048, 0x40000n)];
    await eventually(() => target.kept.length === 3);
    fs.ftruncateSync(fd, cut);
    target.takeAll();
    const result = await failing;
    expect(result).toMatchObject({ error: 'EIO', where: 'cut', status: 0, lost: '' });
    expect(Number(result.bytes)).toBeLessThanOrEqual(cut);
    expect(result.durable).toBeLessThanOrEqual(result.bytes);
    const whole = Number(result.bytes);
    expect(target.fake.disk.subarray(0, whole).equals(bytes.subarray(0, whole))).toBe(true);
    expect((await other).lost).toBe('');
    expect([target.connections, target.fake.faults, target.fake.terminated]).toEqual([2, [], []]);
  });

  test('cut while it is sent, and as long as before at the end: the copy fails', async () => {
    const fd = await begin(folder, false, randomBytes(16 * page));
    target.keeps = true;
    const failing = copy(fd, 4 * page);
    await eventually(() => target.kept.length === 2);
    fs.ftruncateSync(fd, page);
    await target.takeOne();
    fs.ftruncateSync(fd, 16 * page);
    target.takeAll();
    expect(await failing).toMatchObject({ error: 'EIO', where: 'cut', bytes: 0n, durable: 0n, lost: '' });
  });
});
