/** The native host against targets that lie, are slow, or go away: typed errors in bounded time, and service as soon as it is possible. */
import { randomBytes } from 'node:crypto';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { native } from '../../src/native/index.js';
import type { CopyResult, HostOptions } from '../../src/native/nvme-host.js';
import { AdminOpcode, encodePdu, NvmOpcode, PduFlag, pdus, sqe } from '../../src/nvme/wire/index.js';
import { type FakeConnection, type FakeHooks, FakeTarget } from '../support/nvme-fake.js';
import { hostid, hostnqn } from '../support/nvme-raw.js';
import { eventually } from '../support/wait.js';

let dir: string;
let target: FakeTarget;
beforeAll(() => {
  dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-host-'));
});
afterAll(() => fs.rmSync(dir, { recursive: true }));
afterEach(() => target.close());

const base: Omit<HostOptions, 'addresses'> = {
  ...{ hostnqn, hostid, subnqn: 'nqn.2014-08.org.nvmexpress:fake', nsid: 1, queues: 1, entries: 32, keepAliveMs: 0 },
  ...{ timeoutMs: 700, lossMs: 0, headerDigest: false, dataDigest: false, flowControl: true, replay: false },
};
async function addressOf(hooks: FakeHooks, change: (fake: FakeTarget) => void = () => {}): Promise<HostOptions['addresses']> {
  target = new FakeTarget(hooks);
  change(target);
  return [{ host: '127.0.0.1', port: await target.listen() }];
}
const open = async (hooks: FakeHooks, options: Partial<HostOptions> = {}, change?: (fake: FakeTarget) => void) =>
  native().nvmeHost.hostOpen({ ...base, addresses: await addressOf(hooks, change), ...options }).done;

/** Copies out of the target or into it, from byte 0 on. */
async function copy(
  host: Awaited<ReturnType<typeof open>>,
  write: boolean,
  data = Buffer.alloc(8192, 5),
  chunk = 8192,
): Promise<CopyResult & { data: Buffer }> {
  const file = path.join(dir, 'data');
  fs.writeFileSync(file, write ? data : '');
  const fd = fs.openSync(file, 'r+');
  try {
    const what = { fd, write, offset: 0n, length: BigInt(data.length), chunk, depth: 2, fua: false, deallocate: false };
    const result = await native().nvmeHost.hostCopy(host, what).done;
    return { ...result, data: fs.readFileSync(file) };
  } finally {
    fs.closeSync(fd);
  }
}
/** Lies to commands of I/O queues. */
const on = (opcode: number, lie: (connection: FakeConnection, cid: number) => void): FakeHooks => ({
  command: (connection, command) => {
    if (connection.qid === 0 || sqe.get(command, 'opcode') !== opcode) return false;
    lie(connection, sqe.get(command, 'cid'));
    return true;
  },
});
const data = Buffer.alloc(8192, 7);

test.each([{}, { headerDigest: true, dataDigest: true }, { headerDigest: true, queues: 3 }, { dataDigest: true, flowControl: false }])(
  'a target that is right: %j',
  async (options) => {
    const host = await open({}, options);
    const bytes = randomBytes(200 * 512);
    expect(await copy(host, true, bytes)).toMatchObject({ error: '', bytes: BigInt(bytes.length), durable: BigInt(bytes.length) });
    expect(target.disk.subarray(0, bytes.length).equals(bytes)).toBe(true);
    const back = await copy(host, false, bytes);
    expect([back.error, back.data.equals(bytes)]).toEqual(['', true]);
    await native().nvmeHost.hostClose(host);
    expect([target.faults, target.terminated]).toEqual([[], []]);
  },
);

describe('what breaks the protocol ends the connection, and the target is told what', () => {
  type Lie = [name: string, opcode: number, lie: (c: FakeConnection, cid: number) => void, fes: number];
  const { read, write } = NvmOpcode;
  const half = data.subarray(0, 4096);
  test.each<Lie>([
    ['completion of an unknown command', read, (c) => c.complete(0x777), 1],
    ['a completion twice', read, (c, cid) => void [c.answer(cid, data), c.complete(cid)], 1],
    ['success before the data', read, (c, cid) => c.complete(cid), 2],
    ['success after half of the data', read, (c, cid) => void [c.c2h(cid, half, {}, 0), c.complete(cid)], 2],
    ['data for an unknown command', read, (c) => c.c2h(0x777, data), 1],
    ['data out of order', read, (c, cid) => c.c2h(cid, half, { datao: 4096 }, 0), 2],
    ['data twice', read, (c, cid) => void [c.c2h(cid, half, {}, 0), c.c2h(cid, half, {}, 0)], 2],
    ['data beyond the command', read, (c, cid) => c.c2h(cid, Buffer.alloc(16384)), 4],
    ['data at FFFFF000h', read, (c, cid) => c.c2h(cid, data, { datao: 0xfffff000 }), 4],
    ['DATAL 0', read, (c, cid) => c.c2h(cid, data, { datal: 0 }), 1],
    ['DATAL other than the data', read, (c, cid) => c.c2h(cid, data, { datal: 8188 }), 1],
    ['LAST_PDU before the end', read, (c, cid) => c.c2h(cid, half), 2],
    ['SUCCESS without LAST_PDU', read, (c, cid) => c.c2h(cid, data, {}, PduFlag.success), 1],
    ['an R2T for a READ', read, (c, cid) => c.r2t(cid, { r2tl: 4096 }), 1],
    ['reserved flags', read, (c) => c.send(Buffer.from('05f0180018000000'.padEnd(48, '0'), 'hex')), 1],
    ['a second ICResp', read, (c) => c.icResp({}), 2],
    ['an unknown type', read, (c) => c.send(Buffer.from('0a00180018000000'.padEnd(48, '0'), 'hex')), 1],
    ['R2T for an unknown command', write, (c) => c.r2t(0x777, { r2tl: 4096 }), 1],
    ['R2TL 0', write, (c, cid) => c.r2t(cid, { r2tl: 0 }), 1],
    ['R2T beyond the data', write, (c, cid) => c.r2t(cid, { r2tl: 8193 }), 4],
    ['R2TL FFFFFFFFh', write, (c, cid) => c.r2t(cid, { r2to: 1, r2tl: 0xffffffff }), 4],
    ['R2T that skips', write, (c, cid) => c.r2t(cid, { r2to: 4096, r2tl: 4096 }), 2],
    ['overlapping R2Ts', write, (c, cid) => void [c.r2t(cid, { r2tl: 4096 }), c.r2t(cid, { r2to: 2048, r2tl: 4096 })], 2],
    ['success before all data was asked for', write, (c, cid) => void [c.r2t(cid, { r2tl: 4096 }), c.complete(cid)], 2],
    ['data for a WRITE', write, (c, cid) => c.c2h(cid, data), 1],
  ])('%s', async (_name, opcode, lie, fes) => {
    const host = await open(on(opcode, lie));
    // a completion that comes once more meets the next command, or none
    const results = [await copy(host, opcode === NvmOpcode.write), await copy(host, opcode === NvmOpcode.write)];
    expect(results[1]).toMatchObject({ error: 'ENOTCONN', lost: 'EPROTO' });
    await eventually(() => target.terminated.length > 0);
    expect(target.terminated).toEqual([fes]);
    await native().nvmeHost.hostClose(host);
  });

  test('a PDU of 4 GiB is neither awaited nor stored', async () => {
    const host = await open(on(read, (c) => c.send(Buffer.from('07041818ffffffff'.padEnd(48, '0'), 'hex'))));
    expect(await copy(host, false)).toMatchObject({ error: 'ENOTCONN', lost: 'EPROTO' });
    await native().nvmeHost.hostClose(host);
  });

  test('C2HTermReq, a closed connection, silence, and data of a byte at a time', async () => {
    const term = (c: FakeConnection) => c.send(encodePdu(pdus.c2hTermReq, { fes: 6, fei: 8 }));
    const trickle = (c: FakeConnection, cid: number): void => {
      let at = 0;
      setInterval(() => c.c2h(cid, data.subarray(0, 1), { datao: at++, datal: 1 }, 0), 100).unref();
    };
    for (const [lie, lost] of [
      [term, 'EPROTO'],
      [(c: FakeConnection) => void c.socket.destroy(), 'ECONNRESET'],
      [() => {}, 'ETIMEDOUT'],
      [trickle, 'ETIMEDOUT'],
    ] as const) {
      const host = await open(on(read, lie));
      expect(await copy(host, false)).toMatchObject({ error: 'ENOTCONN', where: 'namespace', lost });
      await native().nvmeHost.hostClose(host);
      target.close();
    }
  });
});

describe('connecting', () => {
  const ic = (answer: (connection: FakeConnection) => void): FakeHooks => ({ ic: (c) => [answer(c)].length > 0 });
  test.each<[string, FakeHooks, string, ((fake: FakeTarget) => void)?]>([
    ['another PDU instead of ICResp', ic((c) => c.complete(0)), 'EPROTO'],
    ['ICResp of 256 bytes', ic((c) => c.send(Buffer.from('0100800000010000'.padEnd(256, '0'), 'hex'))), 'EPROTO'],
    ['PFV 1', ic((c) => c.icResp({ pfv: 1 })), 'EPROTO'],
    ['CPDA 32', ic((c) => c.icResp({ cpda: 32 })), 'EPROTO'],
    ['MAXH2CDATA 0', ic((c) => c.icResp({ maxh2cdata: 0 })), 'EPROTO'],
    ['MAXH2CDATA 4095', ic((c) => c.icResp({ maxh2cdata: 4095 })), 'EPROTO'],
    ['a digest not asked for', ic((c) => c.icResp({ dgst: 3 })), 'EPROTO'],
    ['C2HTermReq', ic((c) => c.send(encodePdu(pdus.c2hTermReq, { fes: 6, fei: 8 }))), 'EPROTO'],
    ['closing', ic((c) => c.socket.destroy()), 'ECONNRESET'],
    ['silence', ic(() => {}), 'ETIMEDOUT'],
    ['ICResp byte by byte', ic((c) => void setInterval(() => c.send(Buffer.of(1)), 300).unref()), 'ETIMEDOUT'],
    ['CONNECT without an answer', { command: () => true }, 'ETIMEDOUT'],
    ['another CNTLID in Identify', {}, 'EPROTO', (fake) => void (fake.controller = { cntlid: 2 })],
    ['LBADS 0', {}, 'EPROTO', (fake) => void (fake.namespace = { lbafs: [{ ms: 0, ds: 0, rp: 0 }] })],
    ['LBADS 63', {}, 'EPROTO', (fake) => void (fake.namespace = { lbafs: [{ ms: 0, ds: 63, rp: 0 }] })],
    ['NSZE 2^64-1', {}, 'EPROTO', (fake) => void (fake.namespace = { nsze: 0xffff_ffff_ffff_ffffn })],
    ['a format that is not there', {}, 'EPROTO', (fake) => void (fake.namespace = { flbas: 0x0f })],
    ['metadata', {}, 'EOPNOTSUPP', (fake) => void (fake.namespace = { lbafs: [{ ms: 8, ds: 9, rp: 0 }] })],
    ['NSZE 0', {}, 'ENXIO', (fake) => void (fake.namespace = { nsze: 0n })],
  ])('%s', async (_name, hooks, code, change = () => {}) => {
    await expect(open(hooks, {}, change)).rejects.toMatchObject({ code });
    await eventually(() => target.connections === 0);
    expect(target.connections).toBe(0);
  });

  test.each([{ ioccsz: 0 }, { ioccsz: 0xffffffff }, { mdts: 255 }, { mdts: 1 }, { nn: 0xffffffff }, { maxcmd: 0 }, { icdoff: 1 }])(
    '%j still reads and writes',
    async (controller) => {
      const host = await open({}, {}, (fake) => void (fake.controller = controller));
      const bytes = randomBytes(16384);
      expect(await copy(host, true, bytes)).toMatchObject({ error: '' });
      expect((await copy(host, false, bytes)).data.equals(bytes)).toBe(true);
      await native().nvmeHost.hostClose(host);
    },
  );

  test('stop ends it; a list of several namespaces names them; one that never ends is refused', async () => {
    const opening = native().nvmeHost.hostOpen({ ...base, timeoutMs: 60_000, addresses: await addressOf(ic(() => {})) });
    opening.stop();
    await expect(opening.done).rejects.toMatchObject({ code: 'ECANCELED' });
    target.close();
    await expect(open({}, { nsid: 0 }, (fake) => void (fake.nsids = [3, 5]))).rejects.toThrow('2: 3, 5');
    target.close();
    const list = Buffer.alloc(4096);
    for (let i = 0; i < 1024; i++) list.writeUInt32LE(i + 1, 4 * i);
    const endless: FakeHooks = {
      command: (c, command) => {
        const { opcode, cid } = sqe.decode(command);
        if (c.qid > 0 || opcode !== AdminOpcode.identify || command[40] !== 2) return false;
        c.answer(cid, list);
        return true;
      },
    };
    await expect(open(endless, { nsid: 0 })).rejects.toMatchObject({ code: 'EPROTO' });
  });
});

describe('statuses and digests', () => {
  test('a wrong data digest fails the command alone, and is tried again', async () => {
    let spoiled = 0;
    const hooks = on(NvmOpcode.read, (c, cid) => {
      const pdu = encodePdu(pdus.c2hData, { cccid: cid, datal: 8192 }, { ...c.build(), data, flags: PduFlag.last | PduFlag.success });
      if (++spoiled <= 3) pdu.writeUInt8(pdu[pdu.length - 1]! ^ 1, pdu.length - 1);
      c.send(pdu);
    });
    const host = await open(hooks, { dataDigest: true });
    const result = await copy(host, false);
    expect([result.error, result.data.equals(data), spoiled]).toEqual(['', true, 4]);
    spoiled = -1e9; // from now on every one is wrong
    expect(await copy(host, false)).toMatchObject({ error: 'EBADMSG', lost: '' });
    await native().nvmeHost.hostClose(host);
  });

  test('what may help is tried again, a bounded number of times; what cannot is not', async () => {
    let asked = 0;
    let status = 0x0022;
    let failing = 3;
    const hooks = on(NvmOpcode.read, (c, cid) => {
      asked++;
      if (asked <= failing) c.complete(cid, { status: status << 1 });
      else c.answer(cid, data);
    });
    const host = await open(hooks);
    expect([(await copy(host, false)).error, asked]).toEqual(['', 4]);
    [asked, failing] = [0, Number.POSITIVE_INFINITY];
    expect([(await copy(host, false)).error, asked]).toEqual(['EIO', 6]);
    [asked, status] = [0, 0x4281]; // DNR
    const result = await copy(host, false);
    expect([result.error, result.status, asked]).toEqual(['EIO', 0x4281, 1]);
    await native().nvmeHost.hostClose(host);
  });
});

test('connections that are lost over and over: every request ends well', async () => {
  let commands = 0;
  let lost = 0;
  const hooks: FakeHooks = {
    command: (c, command) => {
      if (c.qid === 0 || sqe.get(command, 'opcode') !== NvmOpcode.flush) return false;
      // before the answer, after it, and in the midst of it
      if (++commands % 3 === 0) return false;
      lost++;
      if (commands % 3 === 1) c.complete(sqe.get(command, 'cid'));
      if (commands % 2 === 0) c.send(Buffer.from('050018', 'hex'));
      c.socket.end();
      return true;
    },
  };
  const store = await native().nvmeHost.hostSource({
    ...{ ...base, lossMs: 30_000, timeoutMs: 5000, replay: true, readonly: false, unmap: false },
    addresses: await addressOf(hooks),
  });
  for (let i = 0; i < 40; i++) await native().storage.flush(store);
  expect(lost).toBeGreaterThanOrEqual(26);
  expect(native().storage.failures(store).count).toBe(0);
  native().storage.close(store);
});

test('a command that takes too long is aborted; the association goes on if the controller gives it up', async () => {
  let slow: { c: FakeConnection; cid: number } | undefined;
  let aborts = 0;
  const hooks: FakeHooks = {
    command: (c, command) => {
      const { opcode, cid } = sqe.decode(command);
      if (c.qid === 0 && opcode === AdminOpcode.abort) {
        aborts++;
        slow!.c.complete(slow!.cid, { status: 0x0007 << 1 });
        c.complete(cid);
        return true;
      }
      if (c.qid === 0 || opcode !== NvmOpcode.read || aborts > 0) return false;
      slow = { c, cid };
      return true;
    },
  };
  const host = await open(hooks, { timeoutMs: 300 });
  expect(await copy(host, false)).toMatchObject({ error: '', lost: '' });
  expect(aborts).toBe(1);
  expect(native().nvmeHost.hostFacts(host)).toMatchObject({ paths: 1, reconnects: 0 });
  await native().nvmeHost.hostClose(host);
});

test('keep-alives, and a target that does not answer them any more', async () => {
  let beats = 0;
  const hooks: FakeHooks = {
    command: (c, command) => {
      if (command[0] !== AdminOpcode.keepAlive || c.qid > 0) return false;
      if (++beats < 3) c.complete(sqe.get(command, 'cid'));
      return true;
    },
  };
  const host = await open(hooks, { keepAliveMs: 2000 });
  await eventually(() => native().nvmeHost.hostFacts(host).paths === 0);
  expect(native().nvmeHost.hostFacts(host).paths).toBe(0);
  expect(beats).toBeGreaterThanOrEqual(3);
  expect(await copy(host, false)).toMatchObject({ error: 'ENOTCONN', lost: 'ETIMEDOUT' });
  await native().nvmeHost.hostClose(host);
});

describe('what a volatile cache has acknowledged, before a flush', () => {
  const { write, flush } = NvmOpcode;
  const cache = { vwc: 1, mdts: 5 };
  const lasting = { lossMs: 30_000, timeoutMs: 5000, replay: true };
  type Hook = (connection: FakeConnection, cid: number, bytes: number) => boolean;
  /** A target whose answers to writes and flushes may be other ones. */
  const cached = (hooks: { write?: Hook; flush?: Hook }, options: Partial<HostOptions> = {}) => {
    const command = (c: FakeConnection, bytes: Buffer): boolean => {
      const { opcode, cid, sglLength } = sqe.decode(bytes);
      const hook = c.qid === 0 ? undefined : opcode === write ? hooks.write : opcode === flush ? hooks.flush : undefined;
      return hook?.(c, cid, sglLength) ?? false;
    };
    return open({ command }, { ...lasting, ...options }, (fake) => void (fake.controller = cache));
  };

  test('is written again in pieces that the target takes now', async () => {
    const bytes = randomBytes(128 << 10);
    let lost = false;
    const pieces: number[] = [];
    const host = await cached({
      write: (_c, _cid, size) => lost && pieces.push(size) < 0,
      flush: (c) => {
        if (lost) return false;
        lost = true;
        target.disk.fill(0);
        target.controller = { ...cache, mdts: 1 };
        c.socket.destroy();
        return true;
      },
    });
    expect(await copy(host, true, bytes, 64 << 10)).toMatchObject({ error: '' });
    expect(pieces).toEqual(Array(16).fill(8192));
    expect(target.disk.subarray(0, bytes.length).equals(bytes)).toBe(true);
    await native().nvmeHost.hostClose(host);
  });

  test('is given up, and the flush says so, if the target dies of it each time', async () => {
    let lost = 0;
    const host = await cached(
      {
        flush: (c) => lost === 0 && [lost++, c.socket.destroy()].length > 0,
        write: (c) => lost > 0 && [lost++, c.socket.destroy()].length > 0,
      },
      // well above the time of a connection on a slow machine
      { lossMs: 12_000 },
    );
    expect(await copy(host, true)).toMatchObject({ error: 'EIO' });
    expect(lost).toBeGreaterThan(2);
    expect(lost).toBeLessThan(30); // with pauses
    expect(await copy(host, false)).toMatchObject({ error: '' });
    await native().nvmeHost.hostClose(host);
  });

  test('is given up, and the next flush that succeeds says so, if the target cannot flush it', async () => {
    let bad = true;
    const host = await cached({ flush: (c, cid) => bad && [c.complete(cid, { status: 0x0006 << 1 })].length > 0 });
    const bytes = Buffer.alloc(1 << 20, 3);
    // more than is kept
    for (let i = 0; i < 70; i++) expect((await copy(host, true, bytes, 128 << 10)).error).toBe('EIO');
    bad = false;
    expect((await copy(host, true)).error).toBe('EIO');
    expect((await copy(host, true)).error).toBe('');
    await native().nvmeHost.hostClose(host);
  });

  test('is not durable by a flush that was sent before it', async () => {
    let early: (() => void) | undefined;
    let flushes = 0;
    const host = await cached(
      {
        flush: (c, cid) => {
          flushes++;
          if (flushes === 1) early = () => c.complete(cid);
          if (flushes !== 2) return flushes === 1;
          early!();
          c.socket.end();
          return true;
        },
      },
      { replay: false },
    );
    const first = copy(host, true);
    while (!early) await new Promise((resolve) => setTimeout(resolve, 5));
    expect((await copy(host, true)).error).toBe('EIO');
    expect((await first).error).toBe('');
    await native().nvmeHost.hostClose(host);
  });
});
