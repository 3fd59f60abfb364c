/** What a hostile or unlucky host, and its administrator, can do to a target: it serves on, gives all back, tells the truth. */
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { native } from '../../src/native/index.js';
import { Bench, type Facts } from '../../src/nvme/conform/bench.js';
import { learn } from '../../src/nvme/conform/index.js';
import type { RawConnection } from '../../src/nvme/conform/raw.js';
import { Controller, type ControllerOptions } from '../../src/nvme/host/controller.js';
import type { Completion } from '../../src/nvme/host/queue.js';
import { Subsystem } from '../../src/nvme/target/subsystem.js';
import { Target } from '../../src/nvme/target/target.js';
import { AdminOpcode, ccValue, Fctype, Fid, NvmOpcode, rwCmd, sqe } from '../../src/nvme/wire/index.js';
import { hostid, hostnqn } from '../support/nvme-raw.js';
import { eventually } from '../support/wait.js';

const nqn = 'nqn.2014-08.org.nvmexpress:unit';
const openFds = () => fs.readdirSync('/proc/self/fd').length;
/** What our descriptors refer to. */
openFds.all = () =>
  fs.readdirSync('/proc/self/fd').flatMap((fd) => {
    const at = `/proc/self/fd/${fd}`;
    return fs.existsSync(at) ? [fs.readlinkSync(at)] : [];
  });
const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));
const code = ({ status }: Completion) => [status.sct, status.sc];

/** A block command of a namespace. */
const block = (
  opcode: number,
  slba: number,
  blocks: number,
  extra: Parameters<typeof rwCmd.encode>[0] & { nsid?: number } = {},
): Buffer => {
  const { nsid = 1, ...fields } = extra;
  return rwCmd.encode({ slba: BigInt(slba), nlb: blocks - 1, ...fields }, sqe.encode({ opcode, nsid }));
};

describe.each(['sync', 'uring'] as const)('the target, engine %s', (engine) => {
  let dir: string;
  let target: Target;
  let subsystem: Subsystem;
  let options: ControllerOptions;
  let facts: Facts;
  let bench: Bench;
  const file = () => path.join(dir, 'disk.img');
  const connect = (more: Partial<ControllerOptions> = {}) => Controller.connect({ ...options, ...more });

  beforeEach(async () => {
    dir = fs.mkdtempSync(path.join(os.tmpdir(), 'nvmt-'));
    fs.writeFileSync(file(), '');
    fs.truncateSync(file(), 16 << 20);
    target = new Target(native().nvme, { engine, threads: 2 });
    subsystem = new Subsystem(native().nvme, { nqn });
    subsystem.add({ source: file() });
    subsystem.add({ source: `ram:${16 << 20}`, blockSize: 4096 });
    target.addSubsystem(subsystem);
    const { port } = target.listen('127.0.0.1', 0);
    options = { address: '127.0.0.1', port, timeout: 90_000, subnqn: nqn, hostnqn, hostid, ioQueues: 1 };
    facts = await learn(options);
    bench = new Bench(facts);
  });
  afterEach(async () => {
    bench.close();
    await target.stop();
    fs.rmSync(dir, { recursive: true, force: true });
  });
  const drained = async () => {
    await eventually(() => target.connections === 0 && target.controllers().length === 0);
    expect([target.connections, target.controllers().length]).toEqual([0, 0]);
  };
  /** A host that behaves is served. */
  const serves = async (nsid = 1) => {
    const host = await connect({ dataDigest: true });
    const [queue] = host.queues;
    const data = Buffer.alloc(65536, `${Math.random()} `);
    const blocks = nsid === 1 ? 128 : 16;
    await queue!.run(block(NvmOpcode.write, 64, blocks, { nsid, fua: 1 }), { out: data });
    const into = Buffer.alloc(data.length);
    await queue!.run(block(NvmOpcode.read, 64, blocks, { nsid }), { into });
    expect(into.equals(data)).toBe(true);
    await host.disconnect();
  };
  /** The WRITE of some blocks, whose data has been asked for. */
  const asked = async (io: RawConnection, blocks: number, cid: number) => {
    io.send(io.capsule({ opcode: NvmOpcode.write, nsid: 1 }, { ...bench.rw(0n, blocks, { length: blocks * 512 }), cid }).pdu);
    const ask = await io.next();
    if (ask.kind !== 'r2t') throw new Error(`no R2T but ${ask.kind}`);
    return ask;
  };

  test('an identifier that is in use is refused, and the command that has it goes on', async () => {
    const { io } = await bench.session();
    const ask = await asked(io, 128, 7);
    expect(await bench.read(io, 0n, 1, { cid: 7 })).toMatchObject({ kind: 'cqe', sct: 0, sc: 3 });
    expect(await bench.read(io, 0n, 1, { cid: 7 })).toMatchObject({ kind: 'cqe', sct: 0, sc: 3 });
    io.answer(ask, Buffer.alloc(65536, 'x'));
    expect(await io.completion(7)).toMatchObject({ kind: 'cqe', cid: 7, sct: 0, sc: 0 });
    // and it is free again
    expect(await bench.read(io, 0n, 1, { cid: 7 })).toMatchObject({ kind: 'cqe', sct: 0, sc: 0 });
  });

  test('a host may shut down with the identifier of a pending Asynchronous Event Request', async () => {
    const { admin } = await bench.admin();
    admin.send(admin.capsule({ opcode: AdminOpcode.asyncEventRequest }, { cid: 3 }).pdu);
    const get = () => admin.send(admin.capsule({ opcode: 0x7f, fctype: Fctype.propertyGet, cdw11: 0x14 }, { cid: 3 }).pdu);
    for (let i = 0; i < 2; i++) {
      get();
      expect(await admin.completion(3)).toMatchObject({ kind: 'cqe', cid: 3, sct: 0, sc: 0 });
    }
    expect(await bench.getProperty(admin, 0x1c)).toMatchObject({ kind: 'cqe', sct: 0, sc: 0 });
  });

  test('data that was sent already is not taken twice', async () => {
    const { io } = await bench.session();
    const ask = await asked(io, 16, 1);
    const piece = (datao: number, flags = 0) => io.h2c({ cccid: 1, ttag: ask.ttag, datao, datal: 2048 }, Buffer.alloc(2048, 9), flags);
    io.send(piece(0));
    io.send(piece(2048));
    io.send(piece(1024)); // overlaps both
    expect(await io.next()).toMatchObject({ kind: 'term', fes: 2 });
    await serves();
  });

  test('R2Ts ask for 4 MiB of one connection at a time, and for the rest as data comes', async () => {
    const { io } = await bench.session();
    const size = 1 << 20;
    for (let cid = 0; cid < 12; cid++)
      io.send(io.capsule({ opcode: NvmOpcode.write, nsid: 1 }, { ...bench.rw(BigInt(cid * 2048), 2048, { length: size }), cid }).pdu);
    const waiting: Extract<Awaited<ReturnType<RawConnection['next']>>, { kind: 'r2t' }>[] = [];
    for (let done = 0; done < 12; ) {
      const event = await io.next(done === 0 && waiting.length === 4 ? 300 : 5000);
      if (event.kind === 'silent') expect(waiting.length).toBe(4);
      if (event.kind === 'r2t') waiting.push(event);
      if (event.kind === 'cqe') {
        expect([event.sct, event.sc]).toEqual([0, 0]);
        done++;
      }
      if (event.kind === 'term' || event.kind === 'closed') throw new Error(event.kind);
      expect(waiting.length).toBeLessThanOrEqual(4);
      // answered in the opposite order, when four are open or no more come
      if (event.kind !== 'r2t' || waiting.length + done === 12) {
        const next = waiting.pop();
        if (next) io.answer(next, Buffer.alloc(size, 0x41 + next.cccid));
      }
    }
    const bytes = fs.readFileSync(file());
    for (let cid = 0; cid < 12; cid++) expect(bytes.subarray(cid * size, (cid + 1) * size).every((b) => b === 0x41 + cid)).toBe(true);
  });

  test.each([4, 36, 512, 4100])('data digests hold over PDUs of %d bytes that TCP cuts anywhere', async (per) => {
    const { io } = await bench.session({ headerDigest: true, dataDigest: true });
    const data = Buffer.from(Array.from({ length: 8192 }, (_, i) => (i * 7) & 0xff));
    const ask = await asked(io, 16, 3);
    const stream: Buffer[] = [];
    const { send } = io;
    io.send = (bytes) => void stream.push(Buffer.from(bytes));
    io.answer(ask, data, per);
    io.send = send;
    const all = Buffer.concat(stream);
    for (let at = 0, step = 1; at < all.length; at += step, step = (step * 5 + 1) % 997) {
      io.send(all.subarray(at, at + step));
      if (at % 7 === 0) await new Promise((resolve) => setImmediate(resolve));
    }
    expect(await io.completion(3)).toMatchObject({ kind: 'cqe', sct: 0, sc: 0 });
    const back = await bench.read(io, 0n, 16);
    expect(back.kind === 'cqe' && back.data.equals(data)).toBe(true);
  });

  test('a queue of two entries works, through all of its turns', async () => {
    const host = await connect({ queueSize: 2 });
    const [queue] = host.queues;
    const seen: number[] = [];
    for (let i = 0; i < 5; i++) seen.push((await queue!.run(block(NvmOpcode.read, 0, 8), { into: Buffer.alloc(4096) })).sqhd);
    expect(seen).toEqual([0, 1, 0, 1, 0]);
    await host.disconnect();
  });

  test('keep-alive times: none, the shortest, the longest', async () => {
    const of = async (kato: number) => {
      const { admin } = await bench.admin({}, { kato });
      const feature = await admin.command({ opcode: 0x0a }, { tweak: (command) => void command.writeUInt32LE(Fid.keepAliveTimer, 40) });
      return { admin, kato: feature.kind === 'cqe' ? [feature.dw0, feature.dw1] : [] };
    };
    const [none, short, long] = [await of(0), await of(1), await of(0xffff_ffff)];
    expect([none.kato, short.kato, long.kato]).toEqual([
      [0, 0],
      [1000, 0],
      [4_294_967_000, 0],
    ]);
    expect(await short.admin.next(4000)).toMatchObject({ kind: 'closed' });
    for (const { admin } of [none, long]) expect(await bench.getProperty(admin, 0x1c)).toMatchObject({ kind: 'cqe', sc: 0, dw0: 1 });
  });

  test('a controller reset while data is on its way, then enabled again', async () => {
    const { admin, io, cntlid } = await bench.session();
    const ask = await asked(io, 2048, 1);
    io.send(io.h2c({ cccid: 1, ttag: ask.ttag, datao: 0, datal: 4096 }, Buffer.alloc(4096, 'lost'), 0));
    const cc = (en: 0 | 1) => bench.setProperty(admin, 0x14, BigInt(ccValue({ en, iosqes: 6, iocqes: 4 })));
    expect(await cc(0)).toMatchObject({ kind: 'cqe', sc: 0 });
    io.send(io.h2c({ cccid: 1, ttag: ask.ttag, datao: 4096, datal: 4096 }, Buffer.alloc(4096, 'lost'), 0));
    expect(await io.next()).toMatchObject({ kind: 'closed' });
    expect(await cc(1)).toMatchObject({ kind: 'cqe', sc: 0 });
    const again = await bench.ioQueue(cntlid, 1);
    const read = await bench.read(again, 0n, 16);
    expect(read.kind === 'cqe' && read.data.equals(Buffer.alloc(8192))).toBe(true); // nothing of the write that was cut off
  });

  test('connections that go away while their commands run', async () => {
    const before = { fds: openFds() };
    for (let round = 0; round < 60; round++) {
      const host = await connect({ ioQueues: 2, dataDigest: round % 2 === 0 });
      const work: Promise<unknown>[] = [];
      for (const queue of host.queues)
        for (let i = 0; i < 16; i++) {
          const [nsid, blocks] = i % 4 === 0 ? [2, 16] : [1, 128];
          const opcode = [NvmOpcode.write, NvmOpcode.compare, NvmOpcode.read, NvmOpcode.write][i % 4]!;
          const data = Buffer.alloc(65536, round);
          work.push(
            queue.send(block(opcode, i * 128, blocks, { nsid, fua: 1 }), opcode === NvmOpcode.read ? { into: data } : { out: data }),
          );
          work.push(queue.send(sqe.encode({ opcode: NvmOpcode.flush, nsid: 1 })));
          work.push(queue.send(block(NvmOpcode.verify, 0, 4096)));
        }
      await sleep(round % 8);
      host.close();
      await Promise.allSettled(work);
    }
    await serves();
    await drained();
    await sleep(100);
    expect(openFds()).toBeLessThanOrEqual(before.fds);
  });

  test('hosts that come and go at once, in every state', async () => {
    const fds = openFds();
    const one = async (i: number) => {
      const own = new Bench(facts);
      try {
        const stage = i % 5;
        if (stage === 0) await own.raw();
        else if (stage === 1) await own.initialised();
        else if (stage === 2) await own.connected({}, { kato: 1000 });
        else if (stage === 3) await own.admin();
        else await asked((await own.session()).io, 256, 1);
      } finally {
        own.close();
      }
    };
    for (let round = 0; round < 10; round++) await Promise.all(Array.from({ length: 50 }, (_, i) => one(i + round)));
    await serves();
    await drained();
    await sleep(100);
    expect(openFds()).toBeLessThanOrEqual(fds);
    expect(subsystem.counters().queues).toBe(0);
  });

  /** Keeps reads and writes going on both queues until told; collects statuses that are not success. */
  const load = (host: Controller, nsid: number, blocks: number) => {
    const errors = new Map<string, number>();
    let going = true;
    let done = 0;
    const lane = async (n: number) => {
      const queue = host.queues[n % host.queues.length]!;
      const data = Buffer.alloc(blocks * (nsid === 1 ? 512 : 4096), n);
      while (going) {
        const write = (n + done) % 2 === 0;
        const at = (n * blocks * 7) % (nsid === 1 ? 16384 : 2048);
        const c = await queue.send(
          block(write ? NvmOpcode.write : NvmOpcode.read, at, blocks, { nsid, fua: n % 4 === 0 ? 1 : 0 }),
          write ? { out: data } : { into: data },
        );
        done++;
        const name = code(c).join('/');
        if (name !== '0/0') errors.set(name, (errors.get(name) ?? 0) + 1);
      }
    };
    const lanes = Array.from({ length: 16 }, (_, n) => lane(n));
    return {
      errors,
      done: () => done,
      /** When every lane has ended by itself: its connection is gone. */
      ended: () => Promise.allSettled(lanes),
      stop: async () => {
        going = false;
        return Promise.allSettled(lanes);
      },
    };
  };

  test('a namespace that is removed under load: Invalid Namespace, its file is closed, others work', async () => {
    const host = await connect({ ioQueues: 2 });
    const work = load(host, 1, 64);
    await sleep(100);
    const before = work.done();
    const open = () => openFds.all().filter((at) => at === file()).length;
    const idle = await connect(); // a queue without work does not keep it open either
    expect(open()).toBe(1);
    target.remove(subsystem, 1);
    await eventually(() => (work.errors.get('0/11') ?? 0) >= 20);
    await work.stop();
    expect(before).toBeGreaterThan(0);
    expect([...work.errors.keys()]).toEqual(['0/11']);
    await serves(2);
    await eventually(() => open() === 0);
    expect(open()).toBe(0);
    await idle.disconnect();
    await host.disconnect();
    // and it can come back
    target.add(subsystem, { source: file(), nsid: 1 });
    await serves();
  });

  test('a host that is disconnected under load', async () => {
    const host = await connect({ ioQueues: 2 });
    const other = await connect();
    const work = load(host, 1, 64);
    await sleep(100);
    expect(target.kick((c) => c.cntlid === host.cntlid)).toBe(1);
    const lanes = await work.ended();
    expect(lanes.filter((lane) => lane.status !== 'rejected')).toEqual([]);
    expect(work.errors.size === 0 || [...work.errors.keys()].every((name) => name === '0/12')).toBe(true);
    await other.queues[0]!.run(block(NvmOpcode.read, 0, 8), { into: Buffer.alloc(4096) });
    await other.disconnect();
    host.close();
    await drained();
  });

  test('a file that shrinks and grows under load: errors beyond its end, then none', async () => {
    const host = await connect({ ioQueues: 2 });
    const work = load(host, 1, 64);
    await sleep(50);
    const namespace = subsystem.namespaces.get(1)!;
    const resized = async () => target.resize(subsystem, namespace, await target.measure(subsystem, namespace));
    // A write that is under way may make the file as long as it was, before its size is taken: then once more.
    for (let i = 0; i < 20 && !work.errors.has('0/128'); i++) {
      fs.truncateSync(file(), 1 << 20);
      await resized();
      await sleep(200);
    }
    // reads of blocks that were there when they were checked and are not any more are media errors
    expect([...work.errors.keys()].filter((name) => name !== '0/128' && name !== '2/129')).toEqual([]);
    expect(work.errors.has('0/128')).toBe(true);
    fs.truncateSync(file(), 16 << 20);
    await resized();
    await sleep(100);
    work.errors.clear();
    const before = work.done();
    await sleep(200);
    await work.stop();
    expect(work.done()).toBeGreaterThan(before);
    expect([...work.errors.keys()]).toEqual([]);
    await serves();
    await host.disconnect();
  });

  test('a truncated file: reads fail, writes bring the blocks back', async () => {
    const host = await connect();
    const [queue] = host.queues;
    fs.truncateSync(file(), 4096);
    const into = Buffer.alloc(8192, 0x55);
    expect(code(await queue!.send(block(NvmOpcode.read, 0, 16), { into }))).toEqual([2, 0x81]);
    expect(code(await queue!.send(block(NvmOpcode.compare, 8, 8), { out: Buffer.alloc(4096) }))).toEqual([2, 0x81]);
    expect(code(await queue!.send(block(NvmOpcode.verify, 0, 64)))).toEqual([2, 0x81]);
    await queue!.run(block(NvmOpcode.write, 8, 8, { fua: 1 }), { out: Buffer.alloc(4096, 'back') });
    await queue!.run(block(NvmOpcode.read, 0, 16), { into });
    expect(into.subarray(4096).equals(Buffer.alloc(4096, 'back'))).toBe(true);
    await host.disconnect();
  });

  test('fused pairs are atomic against each other, and come to their end among durable writes', async () => {
    const hosts = [await connect(), await connect(), await connect()];
    const noise = load(hosts[2]!, 1, 8);
    const at = 32000;
    let won = 0;
    /** Counts up with compare-and-write until it has won some times. */
    const counter = async (host: Controller) => {
      const [queue] = host.queues;
      for (let wins = 0; wins < 40; ) {
        const old = Buffer.alloc(512);
        await queue!.run(block(NvmOpcode.read, at, 1), { into: old });
        const next = Buffer.from(old);
        next.writeUInt32LE(old.readUInt32LE(0) + 1, 0);
        const [compared, written] = await Promise.all([
          queue!.send(sqe.encode({ fuse: 1 }, block(NvmOpcode.compare, at, 1)), { out: old }),
          queue!.send(sqe.encode({ fuse: 2 }, block(NvmOpcode.write, at, 1, { fua: 1 })), { out: next }),
        ]);
        if (compared.status.sc === 0) {
          expect(code(written)).toEqual([0, 0]);
          wins++;
          won++;
        } else {
          expect([code(compared), code(written)]).toEqual([
            [2, 0x85],
            [0, 0x09],
          ]);
        }
      }
    };
    await Promise.all([counter(hosts[0]!), counter(hosts[1]!)]);
    await noise.stop();
    const last = Buffer.alloc(512);
    await hosts[0]!.queues[0]!.run(block(NvmOpcode.read, at, 1), { into: last });
    expect([last.readUInt32LE(0), won]).toEqual([80, 80]);
    for (const host of hosts) await host.disconnect();
  });

  test('IPv4, IPv6 and all addresses at once; each tells the address that was used', async () => {
    const six = target.listen('::1', 0);
    const any = target.listen('0.0.0.0', 0);
    for (const [address, port] of [
      ['::1', six.port],
      ['127.0.0.5', any.port],
      ['127.0.0.1', options.port],
    ] as const) {
      const host = await connect({ address, port, ioQueues: 2 });
      await host.queues[1]!.run(block(NvmOpcode.read, 0, 8), { into: Buffer.alloc(4096) });
      await host.disconnect();
    }
    const log = target.discoveryLog(hostnqn, '127.0.0.5').toString('latin1');
    expect([log.includes('127.0.0.5'), log.includes('0.0.0.0')]).toEqual([true, false]);
  });
});
