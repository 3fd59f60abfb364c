/**
 * Commands that arrive before the step they depend on has been answered: behind a CONNECT whose answer is late, behind a
 * Disconnect, with data that comes after the namespace, the queue or the controller has changed. What a command is was
 * decided when it was taken: it is refused or done as that, and the target serves on.
 */
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { native } from '../../src/native/index.js';
import type { NvmeNative } from '../../src/native/nvme.js';
import { Bench } from '../../src/nvme/conform/bench.js';
import { learn } from '../../src/nvme/conform/index.js';
import type { CommandOptions, Outcome, RawConnection } from '../../src/nvme/conform/raw.js';
import { Controller, type ControllerOptions } from '../../src/nvme/host/controller.js';
import { Subsystem } from '../../src/nvme/target/subsystem.js';
import { Target } from '../../src/nvme/target/target.js';
import { AdminOpcode, ccValue, connectCmd, connectData, dynamicCntlid, Fctype, NvmOpcode, rwCmd, sqe } from '../../src/nvme/wire/index.js';
import { hostid, hostnqn } from '../support/nvme-raw.js';
import { eventually } from '../support/wait.js';

const nqn = 'nqn.2014-08.org.nvmexpress:unit';
const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));
/** Status code of Command Sequence Error. */
const sequence = { kind: 'cqe', sct: 0, sc: 0x0c, dnr: true };
const ok = { kind: 'cqe', sct: 0, sc: 0 };
/** How late the target's JavaScript is, in milliseconds: events wait so long before they are looked at. */
let late = 0;

/** The addon with a JavaScript side that takes events `late`. */
function slowed(real: NvmeNative): NvmeNative {
  return {
    ...real,
    targetStart: (options, events) =>
      real.targetStart(options, (batch) => (late > 0 ? void setTimeout(events, late, batch) : events(batch))),
  };
}

describe.each(['sync', 'uring'] as const)('pipelined, engine %s', (engine) => {
  let dir: string;
  let target: Target;
  let subsystem: Subsystem;
  let options: ControllerOptions;
  let bench: Bench;
  const file = () => path.join(dir, 'disk.img');
  /** How many of our descriptors are the file. */
  const held = () =>
    fs
      .readdirSync('/proc/self/fd')
      .filter((fd) => fs.existsSync(`/proc/self/fd/${fd}`) && fs.readlinkSync(`/proc/self/fd/${fd}`) === file()).length;

  beforeEach(async () => {
    late = 0;
    dir = fs.mkdtempSync(path.join(os.tmpdir(), 'nvmt-'));
    fs.writeFileSync(file(), '');
    fs.truncateSync(file(), 16 << 20);
    const addon = slowed(native().nvme);
    target = new Target(addon, { engine, threads: 2, handshakeMs: 700 });
    subsystem = new Subsystem(addon, { nqn });
    subsystem.add({ source: file() });
    subsystem.add({ source: `ram:${16 << 20}`, blockSize: 4096 });
    target.addSubsystem(subsystem);
    const { port } = target.listen('127.0.0.1', 0);
    options = { address: '127.0.0.1', port, timeout: 90_000, subnqn: nqn, hostnqn, hostid, ioQueues: 1 };
    bench = new Bench(await learn(options));
  });
  afterEach(async () => {
    late = 0;
    bench.close();
    await target.stop();
    fs.rmSync(dir, { recursive: true, force: true });
  });

  /** A host that behaves writes and reads back, on both namespaces. */
  const serves = async () => {
    const host = await Controller.connect(options);
    for (const [nsid, blocks] of [
      [1, 128],
      [2, 16],
    ] as const) {
      const command = (opcode: number) => rwCmd.encode({ slba: 64n, nlb: blocks - 1 }, sqe.encode({ opcode, nsid }));
      const data = Buffer.alloc(65536, `${Math.random()} `);
      await host.queues[0]!.run(command(NvmOpcode.write), { out: data });
      const into = Buffer.alloc(data.length);
      await host.queues[0]!.run(command(NvmOpcode.read), { into });
      expect(into.equals(data)).toBe(true);
    }
    await host.disconnect();
  };
  /** A CONNECT capsule; its data in the capsule, or to be asked for. */
  const connect = (c: RawConnection, fields: { qid: number; cntlid?: number; size?: number }, more: CommandOptions = {}) =>
    c.capsule(
      { opcode: AdminOpcode.fabrics, fctype: Fctype.connect },
      {
        data: connectData.encode({ hostid, cntlid: fields.cntlid ?? dynamicCntlid, subnqn: nqn, hostnqn }),
        inCapsule: true,
        cid: 0,
        ...more,
        tweak: (command) => void connectCmd.encode({ qid: fields.qid, sqsize: (fields.size ?? 32) - 1, kato: 0, cattr: 0 }, command),
      },
    ).pdu;
  const at = (slba: number, blocks: number) => (command: Buffer) => void rwCmd.encode({ slba: BigInt(slba), nlb: blocks - 1 }, command);
  /** Commands of every class and way of data, each with an identifier of its own. */
  const everything = (c: RawConnection): Buffer[] => {
    const list: Buffer[] = [];
    const add = (fields: Parameters<RawConnection['capsule']>[0], more: CommandOptions = {}) =>
      list.push(c.capsule(fields, { cid: 100 + list.length, ...more }).pdu);
    for (const nsid of [1, 2, 8, 0xffff_ffff])
      for (const inCapsule of [true, false]) {
        const data = Buffer.alloc(4096, 7);
        for (const opcode of [NvmOpcode.write, NvmOpcode.compare]) {
          add({ opcode, nsid }, { data, inCapsule, tweak: at(0, 8) });
          add({ opcode, nsid, fuse: opcode === NvmOpcode.compare ? 1 : 2 }, { data, inCapsule, tweak: at(0, 8) });
        }
        for (const opcode of [NvmOpcode.datasetManagement, NvmOpcode.copy]) add({ opcode, nsid }, { data: Buffer.alloc(32), inCapsule });
        add({ opcode: AdminOpcode.setFeatures, nsid, cdw10: 0x16 }, { data: Buffer.alloc(512), inCapsule });
      }
    for (const opcode of [NvmOpcode.read, NvmOpcode.flush, NvmOpcode.verify, NvmOpcode.writeZeroes])
      add({ opcode, nsid: 1 }, { read: 512 });
    add({ opcode: AdminOpcode.identify, cdw10: 1 }, { read: 4096 });
    add({ opcode: AdminOpcode.asyncEventRequest });
    add({ opcode: AdminOpcode.keepAlive });
    for (const fctype of [Fctype.propertyGet, Fctype.propertySet, Fctype.disconnect])
      add({ opcode: AdminOpcode.fabrics, fctype }, { tweak: (command) => void command.writeUInt32LE(0x14, 44) });
    add({ opcode: 0xc1 }, { read: 512 });
    return list;
  };
  /** Takes completions until that of `last`. */
  const until = async (c: RawConnection, last: number) => {
    const seen = new Map<number, Outcome>();
    for (;;) {
      const event = await c.next(5000);
      if (event.kind !== 'cqe') throw new Error(`${event.kind} among ${seen.size} completions`);
      seen.set(event.cid, event);
      if (event.cid === last) return seen;
    }
  };

  test.each([0, 60])('all commands behind the CONNECT of an admin and of an I/O queue, JavaScript %d ms late', async (ms) => {
    const { cntlid } = await bench.admin();
    for (const fields of [{ qid: 0 }, { qid: 1, cntlid }]) {
      const c = await bench.initialised();
      late = ms;
      const behind = everything(c);
      c.send(Buffer.concat([connect(c, fields), ...behind]));
      const seen = await until(c, 0);
      late = 0;
      if (ms > 0) expect(seen.size).toBe(behind.length + 1);
      for (const [cid, event] of seen) expect({ cid, ...event }).toMatchObject({ cid, ...(cid === 0 ? ok : sequence) });
      await serves();
      if (fields.qid === 1) {
        const read = await bench.read(c, 0n, 8, { cid: 1 });
        expect([read.kind, read.kind === 'cqe' && read.sc]).toEqual(['cqe', 0]);
        // the entries that were sent behind the CONNECT have been taken from the queue as well
        if (ms > 0 && read.kind === 'cqe') expect(read.sqhd).toBe((behind.length + 2) % 32);
      }
      c.close();
    }
    await serves();
  });

  test('a CONNECT whose data is asked for, commands before its data, a second CONNECT, and its answer late', async () => {
    const { cntlid } = await bench.admin();
    const c = await bench.initialised();
    late = 60;
    c.send(connect(c, { qid: 1, cntlid }, { inCapsule: false }));
    const ask = await c.next();
    if (ask.kind !== 'r2t') throw new Error(ask.kind);
    const data = connectData.encode({ hostid, cntlid, subnqn: nqn, hostnqn });
    const half = (datao: number, flags: number) =>
      c.h2c({ cccid: 0, ttag: ask.ttag, datao, datal: 512 }, data.subarray(datao, datao + 512), flags);
    const write = (cid: number) => c.capsule({ opcode: NvmOpcode.write, nsid: 1 }, { data: Buffer.alloc(512), cid, tweak: at(0, 1) }).pdu;
    c.send(
      Buffer.concat([
        write(5),
        half(0, 0),
        write(6),
        connect(c, { qid: 1, cntlid }, { cid: 7 }),
        half(512, 4),
        write(8),
        connect(c, { qid: 2, cntlid }, { cid: 9 }),
      ]),
    );
    const seen = await until(c, 0);
    expect([...seen.keys()].sort((a, b) => a - b)).toEqual([0, 5, 6, 7, 8, 9]);
    for (const [cid, event] of seen) expect(event).toMatchObject(cid === 0 ? ok : sequence);
    expect(target.controllers().map((controller) => controller.queues.size)).toEqual([1]);
    await serves();
  });

  test('a CONNECT that is refused late, then one that is not', async () => {
    const { cntlid } = await bench.admin();
    const c = await bench.initialised();
    late = 60;
    c.send(Buffer.concat([connect(c, { qid: 1, cntlid: 0x7777 }), connect(c, { qid: 1, cntlid }, { cid: 1 })]));
    expect(await c.next()).toMatchObject({ ...sequence, cid: 1 });
    expect(await c.next()).toMatchObject({ kind: 'cqe', cid: 0, sct: 1, sc: 0x82 });
    c.send(connect(c, { qid: 1, cntlid }, { cid: 2 }));
    expect(await c.next()).toMatchObject({ ...ok, cid: 2 });
    late = 0;
    expect(await bench.read(c, 0n, 1)).toMatchObject(ok);
  });

  test('hosts that go away while their CONNECT waits for an answer; no handshake deadline while it does', async () => {
    const { cntlid } = await bench.admin();
    late = 1500;
    const stays = await bench.initialised();
    stays.send(connect(stays, { qid: 1, cntlid }));
    for (const fields of [{ qid: 0 }, { qid: 2, cntlid }]) {
      const c = await bench.initialised();
      c.send(Buffer.concat([connect(c, fields), ...everything(c)]));
      await sleep(20);
      c.close();
    }
    expect(await stays.next(6000)).toMatchObject(ok);
    late = 0;
    await serves();
    await sleep(1600);
    expect(target.controllers().map((controller) => [...controller.queues.keys()])).toEqual([[1]]);
  });

  test('commands behind a Disconnect are refused; a second Disconnect does not free the queue of another connection', async () => {
    const { admin, io, cntlid } = await bench.session();
    late = 60;
    const disconnect = (cid: number) => io.capsule({ opcode: AdminOpcode.fabrics, fctype: Fctype.disconnect }, { cid }).pdu;
    const behind = everything(io);
    io.send(Buffer.concat([disconnect(50), ...behind, disconnect(51)]));
    const seen = await until(io, 50);
    expect(seen.size).toBe(behind.length + 2);
    for (const [cid, event] of seen) expect(event).toMatchObject(cid === 50 ? ok : sequence);
    late = 0;
    expect(await io.next()).toMatchObject({ kind: 'closed' });
    const again = await bench.ioQueue(cntlid, 1);
    expect(await bench.read(again, 0n, 1)).toMatchObject(ok);
    expect(target.controllers().map((controller) => controller.queues.size)).toEqual([1]);
    // and the reset finds it
    expect(await bench.setProperty(admin, 0x14, BigInt(ccValue({ en: 0, iosqes: 6, iocqes: 4 })))).toMatchObject(ok);
    expect(await again.next()).toMatchObject({ kind: 'closed' });
  });

  /** A write whose data has been asked for. */
  const asked = async (io: RawConnection, cid: number, opcode: number = NvmOpcode.write, slba = 16384, nsid = 1) => {
    io.send(io.capsule({ opcode, nsid }, { ...bench.rw(BigInt(slba), 16, { length: nsid === 1 ? 8192 : 65536 }), cid }).pdu);
    const ask = await io.next();
    if (ask.kind !== 'r2t') throw new Error(`no R2T but ${ask.kind}`);
    return ask;
  };

  test('a file that shrinks between R2T and data keeps its size', async () => {
    const { io } = await bench.session();
    const asks = [await asked(io, 1), await asked(io, 2, NvmOpcode.compare), await asked(io, 3, NvmOpcode.write, 64)];
    fs.truncateSync(file(), 1 << 20);
    await eventually(() => subsystem.namespaces.get(1)!.size <= 1 << 20);
    for (const ask of asks) io.answer(ask, Buffer.alloc(8192, 9));
    for (const [cid, sc] of [
      [1, 0x80],
      [2, 0x80],
      [3, 0],
    ])
      expect(await io.completion(cid!)).toMatchObject({ kind: 'cqe', cid, sct: 0, sc });
    expect(fs.statSync(file()).size).toBe(1 << 20);
    await serves();
  });

  test('a namespace that is removed between R2T and data: its file is closed although the host owes data', async () => {
    const { io } = await bench.session();
    const asks = [await asked(io, 1), await asked(io, 2, NvmOpcode.compare)];
    // the first half of a fused pair waits for a second one that does not come
    io.send(
      io.capsule({ opcode: NvmOpcode.compare, nsid: 1, fuse: 1 }, { data: Buffer.alloc(512), inCapsule: true, cid: 3, tweak: at(0, 1) })
        .pdu,
    );
    await sleep(50);
    expect(held()).toBe(1);
    target.remove(subsystem, 1);
    await eventually(() => held() === 0);
    expect(held()).toBe(0);
    target.add(subsystem, { source: file(), nsid: 1 });
    io.answer(asks[0]!, Buffer.alloc(8192, 9));
    expect(await io.completion(1)).toMatchObject({ kind: 'cqe', sct: 0, sc: 0x0b });
    io.answer(asks[1]!, Buffer.alloc(8192));
    expect(await io.completion(2)).toMatchObject({ kind: 'cqe', sct: 0, sc: 0x0b });
    // the pair: its first half belonged to the namespace that is gone
    io.send(
      io.capsule({ opcode: NvmOpcode.write, nsid: 1, fuse: 2 }, { data: Buffer.alloc(512, 5), inCapsule: true, cid: 4, tweak: at(0, 1) })
        .pdu,
    );
    expect(await io.completion(3)).toMatchObject({ kind: 'cqe', cid: 3, sct: 0, sc: 0x0b });
    expect(await io.completion(4)).toMatchObject({ kind: 'cqe', cid: 4, sct: 0, sc: 9 });
    const back = await bench.read(io, 0n, 1);
    expect(back.kind === 'cqe' && back.data.equals(Buffer.alloc(512))).toBe(true);
    await serves();
  });

  test('a file can be served again as soon as its namespace or subsystem is removed, although idle queues knew it', async () => {
    const idle = [await bench.session(), await bench.session()];
    for (const { io } of idle) expect(await bench.read(io, 0n, 1)).toMatchObject(ok);
    for (let i = 0; i < 10; i++) {
      await target.remove(subsystem, 1);
      target.add(subsystem, { source: file(), nsid: 1 });
    }
    for (const { io } of idle) expect(await bench.read(io, 0n, 1)).toMatchObject(ok);
    await target.removeSubsystem(subsystem);
    subsystem = new Subsystem(native().nvme, { nqn });
    subsystem.add({ source: file() });
    subsystem.add({ source: `ram:${16 << 20}`, blockSize: 4096 });
    target.addSubsystem(subsystem);
    await serves();
  });

  test.each(['disconnect', 'reset', 'kick', 'term', 'remove'] as const)('%s in the middle of the data of a write', async (how) => {
    for (const nsid of [1, 2]) {
      const { admin, io, cntlid } = await bench.session();
      const ask = await asked(io, 1, NvmOpcode.write, 0, nsid);
      const half = ask.r2tl / 2;
      const data = Buffer.alloc(half, 'lost');
      // a PDU is begun, and ends after the change
      const whole = io.h2c({ cccid: 1, ttag: ask.ttag, datao: 0, datal: half }, data, 0);
      const rest = io.h2c({ cccid: 1, ttag: ask.ttag, datao: half, datal: half }, data);
      late = 40;
      io.send(whole.subarray(0, 1000));
      if (how === 'term')
        io.send(Buffer.concat([whole.subarray(1000), Buffer.from([2, 0, 24, 0, 24, 0, 0, 0, 1, 0]), Buffer.alloc(14), rest]));
      if (how === 'disconnect')
        io.send(Buffer.concat([whole.subarray(1000), io.capsule({ opcode: AdminOpcode.fabrics, fctype: Fctype.disconnect }).pdu]));
      if (how === 'reset') admin.send(setCc(admin, 0));
      if (how === 'kick') target.kick((controller) => controller.cntlid === cntlid);
      if (how === 'remove') target.remove(subsystem, nsid);
      await sleep(60);
      if (how !== 'term') io.send(how === 'disconnect' ? rest : Buffer.concat([whole.subarray(1000), rest]));
      late = 0;
      if (how === 'remove') {
        expect(await io.completion(1)).toMatchObject({ kind: 'cqe' });
        target.add(subsystem, nsid === 1 ? { source: file(), nsid } : { source: `ram:${16 << 20}`, blockSize: 4096, nsid });
      } else {
        for (let event = await io.next(); event.kind !== 'closed'; event = await io.next()) expect(event.kind).toBe('cqe');
      }
      admin.close();
      io.close();
      await serves();
    }
  });
  const setCc = (c: RawConnection, en: 0 | 1) =>
    c.capsule(
      { opcode: AdminOpcode.fabrics, fctype: Fctype.propertySet },
      {
        tweak: (command) => {
          command.writeUInt32LE(0x14, 44);
          command.writeUInt32LE(ccValue({ en, iosqes: 6, iocqes: 4 }), 48);
        },
      },
    ).pdu;
});
