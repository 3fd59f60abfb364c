/** The host against targets that lie: it ends with a typed error, in bounded time, and stores nothing outside a command's data. */
import { randomBytes } from 'node:crypto';
import { Controller, type ControllerOptions, discover, Namespace, Queue } from '../../../../src/nvme/host/index.js';
import { encodePdu, identifyController, NvmOpcode, PduFlag, pdus, sqe } from '../../../../src/nvme/wire/index.js';
import { type FakeConnection, type FakeHooks, FakeTarget } from '../../../support/nvme-fake.js';

const targets: FakeTarget[] = [];
afterEach(() => {
  for (const target of targets.splice(0)) target.close();
});

async function start(
  hooks: FakeHooks = {},
  change: (target: FakeTarget) => void = () => {},
): Promise<{ target: FakeTarget; options: ControllerOptions }> {
  const target = new FakeTarget(hooks);
  change(target);
  targets.push(target);
  const port = await target.listen();
  return {
    target,
    options: { address: '127.0.0.1', port, timeout: 1000, hostnqn: 'nqn.h', hostid: Buffer.alloc(16, 1), subnqn: 'nqn.s', ioQueues: 1 },
  };
}
const open = async (options: ControllerOptions) => {
  const controller = await Controller.connect(options);
  return { controller, ns: new Namespace(controller, await controller.namespace(1)) };
};
/** A hook that lies to reads on I/O queues. */
const onRead = (lie: (connection: FakeConnection, cid: number) => void): FakeHooks => ({
  command: (connection, command) => {
    const { opcode, cid } = sqe.decode(command);
    if (connection.qid === 0 || opcode !== NvmOpcode.read) return false;
    lie(connection, cid);
    return true;
  },
});
const onWrite = (lie: (connection: FakeConnection, cid: number) => void): FakeHooks => ({
  command: (connection, command) => {
    const { opcode, cid } = sqe.decode(command);
    if (connection.qid === 0 || opcode !== NvmOpcode.write) return false;
    lie(connection, cid);
    return true;
  },
});

test('the fake target is right where nothing makes it wrong', async () => {
  for (const digests of [{}, { headerDigest: true, dataDigest: true }]) {
    const { target, options } = await start();
    const { controller, ns } = await open({ ...options, ...digests });
    const data = randomBytes(32768);
    await ns.write(8n, data);
    await ns.write(200n, data.subarray(0, 512));
    const back = Buffer.alloc(32768);
    await ns.read(8n, back);
    expect(back.equals(data)).toBe(true);
    await controller.disconnect();
    expect({ faults: target.faults, terminated: target.terminated }).toEqual({ faults: [], terminated: [] });
  }
});

describe('handshake', () => {
  const ic = (answer: (connection: FakeConnection) => void): FakeHooks => ({
    ic: (connection) => {
      answer(connection);
      return true;
    },
  });
  test.each<[string, FakeHooks, string]>([
    ['another PDU instead of ICResp', ic((c) => c.complete(0)), 'no ICResp'],
    ['ICResp of 256 bytes', ic((c) => c.send(Buffer.from('0100800000010000'.padEnd(256, '0'), 'hex'))), 'wrong PLEN'],
    ['PLEN FFFFFFFFh', ic((c) => c.send(Buffer.from('01008000ffffffff', 'hex'))), 'wrong PLEN'],
    ['PFV 1', ic((c) => c.icResp({ pfv: 1 })), 'wrong PFV'],
    ['CPDA 32', ic((c) => c.icResp({ cpda: 32 })), 'wrong CPDA'],
    ['MAXH2CDATA 0', ic((c) => c.icResp({ maxh2cdata: 0 })), 'wrong MAXH2CDATA'],
    ['MAXH2CDATA 4095', ic((c) => c.icResp({ maxh2cdata: 4095 })), 'wrong MAXH2CDATA'],
    ['MAXH2CDATA FFFFFFFFh', ic((c) => c.icResp({ maxh2cdata: 0xffffffff })), 'wrong MAXH2CDATA'],
    ['a digest not asked for', ic((c) => c.icResp({ dgst: 3 })), 'a digest that was not asked for'],
    ['C2HTermReq', ic((c) => c.send(encodePdu(pdus.c2hTermReq, { fes: 6, fei: 8 }))), 'Unsupported Parameter'],
    [
      'C2HTermReq of 200 bytes',
      ic((c) => c.send(Buffer.from('03001800c8000000'.padEnd(400, '0'), 'hex'))),
      'the target ended the connection',
    ],
    ['garbage', ic((c) => c.send(Buffer.from('HTTP/1.1 400 Bad Request\r\n\r\n'))), 'broke the protocol'],
    ['closing', ic((c) => c.socket.end()), 'closed the connection'],
    ['silence', ic(() => {}), 'no answer within 1 s'],
    ['one byte every 300 ms', ic((c) => void setInterval(() => c.send(Buffer.of(1)), 300).unref()), 'no answer within 1 s'],
  ])('%s', async (_name, hooks, message) => {
    const { options } = await start(hooks);
    const started = performance.now();
    await expect(Controller.connect(options)).rejects.toThrow(message);
    expect(performance.now() - started).toBeLessThan(30_000);
  });
  test('a digest asked for and not granted', async () => {
    const { options } = await start(ic((c) => c.icResp({ dgst: 0 })));
    await expect(Controller.connect({ ...options, dataDigest: true })).rejects.toMatchObject({ exit: 7 });
  });
  test('CONNECT that is never answered', async () => {
    const { options, target } = await start({ command: () => true });
    await expect(Controller.connect(options)).rejects.toMatchObject({ exit: 124 });
    await new Promise((resolve) => setTimeout(resolve, 100));
    expect(target.connections).toBe(0);
  });
});

describe('reads', () => {
  const data = Buffer.alloc(4096, 7);
  const bad = (name: string, lie: (connection: FakeConnection, cid: number) => void, fes: number) => [name, lie, fes] as const;
  test.each([
    bad('completion of an unknown command', (c) => c.complete(0x777), 1),
    bad('a completion twice', (c, cid) => void [c.answer(cid, data), c.complete(cid)], 1),
    bad('success before the data', (c, cid) => c.complete(cid), 2),
    bad('success after half of the data', (c, cid) => void [c.c2h(cid, data.subarray(0, 2048), {}, 0), c.complete(cid)], 2),
    bad('data for an unknown command', (c) => c.c2h(0x777, data), 1),
    bad('data out of order', (c, cid) => c.c2h(cid, data.subarray(0, 2048), { datao: 2048 }, 0), 2),
    bad('data twice', (c, cid) => void [c.c2h(cid, data.subarray(0, 2048), {}, 0), c.c2h(cid, data.subarray(0, 2048), {}, 0)], 2),
    bad('data beyond the command', (c, cid) => c.c2h(cid, Buffer.alloc(8192), {}), 4),
    bad('data at FFFFF000h', (c, cid) => c.c2h(cid, data, { datao: 0xfffff000 }), 4),
    bad('DATAL 0', (c, cid) => c.c2h(cid, data, { datal: 0 }), 1),
    bad('DATAL other than the data', (c, cid) => c.c2h(cid, data, { datal: 4092 }), 1),
    bad('LAST_PDU before the end', (c, cid) => c.c2h(cid, data.subarray(0, 512)), 2),
    bad('SUCCESS without LAST_PDU', (c, cid) => c.c2h(cid, data, {}, PduFlag.success), 1),
    bad('an R2T', (c, cid) => c.r2t(cid, { r2tl: 4096 }), 1),
    bad('a PDU of 4 GiB', (c) => c.send(Buffer.from('07041818ffffffff', 'hex')), 5),
    bad('reserved flags', (c) => c.send(Buffer.from('05f0180018000000'.padEnd(48, '0'), 'hex')), 1),
  ])('%s', async (_name, lie, fes) => {
    const { target, options } = await start(onRead(lie));
    const { controller, ns } = await open(options);
    const frame = Buffer.alloc(8192, 0xaa);
    const twice = Promise.allSettled([ns.read(0n, frame.subarray(2048, 6144)), new Promise((resolve) => setTimeout(resolve, 60))]);
    await twice;
    await expect(ns.read(0n, Buffer.alloc(512))).rejects.toMatchObject({ code: 'EPROTO', exit: 5 });
    expect(target.terminated).toEqual([fes]);
    // Nothing was stored outside the command's memory.
    expect(frame.subarray(0, 2048).every((b) => b === 0xaa) && frame.subarray(6144).every((b) => b === 0xaa)).toBe(true);
    controller.close();
  });

  test('the SUCCESS flag completes, and a wrong data digest fails the command alone', async () => {
    const spoiled: number[] = [];
    const { options } = await start(
      onRead((c, cid) => {
        const pdu = encodePdu(pdus.c2hData, { cccid: cid, datal: 4096 }, { ...c.build(), data, flags: PduFlag.last | PduFlag.success });
        if (spoiled.push(cid) <= 10) pdu.writeUInt8(pdu[pdu.length - 1]! ^ 1, pdu.length - 1);
        c.send(pdu);
      }),
    );
    const { controller, ns } = await open({ ...options, dataDigest: true });
    const into = Buffer.alloc(4096);
    await expect(ns.read(0n, into)).rejects.toMatchObject({ code: 'EBADMSG', exit: 5 });
    expect(spoiled.length).toBe(4); // the first try and three more
    while (spoiled.length < 10) await ns.read(0n, into).catch(() => undefined);
    await ns.read(0n, into);
    expect(into.equals(data)).toBe(true);
    controller.close();
  });
});

describe('writes', () => {
  const data = Buffer.alloc(8192, 5);
  test.each<[string, (c: FakeConnection, cid: number) => void, number]>([
    ['R2T for an unknown command', (c) => c.r2t(0x777, { r2tl: 4096 }), 1],
    ['R2TL 0', (c, cid) => c.r2t(cid, { r2tl: 0 }), 1],
    ['R2T beyond the data', (c, cid) => c.r2t(cid, { r2tl: 8193 }), 4],
    ['R2TL FFFFFFFFh', (c, cid) => c.r2t(cid, { r2to: 1, r2tl: 0xffffffff }), 4],
    ['R2T that skips', (c, cid) => c.r2t(cid, { r2to: 4096, r2tl: 4096 }), 2],
    ['overlapping R2Ts', (c, cid) => void [c.r2t(cid, { r2tl: 4096 }), c.r2t(cid, { r2to: 2048, r2tl: 4096 })], 2],
    ['success before all data was asked for', (c, cid) => void [c.r2t(cid, { r2tl: 4096 }), c.complete(cid)], 2],
    ['data', (c, cid) => c.c2h(cid, data), 1],
  ])('%s', async (_name, lie, fes) => {
    const { target, options } = await start(onWrite(lie));
    const { controller, ns } = await open(options);
    await expect(ns.write(0n, data)).rejects.toMatchObject({ code: 'EPROTO', exit: 5 });
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect(target.terminated).toEqual([fes]);
    controller.close();
  });
  test('more R2Ts than MAXR2T allows, in one packet', async () => {
    const { target, options } = await start(
      onWrite((c, cid) => {
        const one = (r2to: number) => encodePdu(pdus.r2t, { cccid: cid, ttag: 1, r2to, r2tl: 2048 });
        c.send(Buffer.concat([one(0), one(2048), one(4096)]));
      }),
    );
    const { controller, ns } = await open(options);
    await expect(ns.write(0n, data)).rejects.toMatchObject({ code: 'EPROTO' });
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect(target.terminated).toEqual([5]);
    controller.close();
  });
});

describe('Identify and the discovery log', () => {
  test.each([
    ['LBADS 0', { lbafs: [{ ms: 0, ds: 0, rp: 0 }] }, '2^0 bytes'],
    ['LBADS 63', { lbafs: [{ ms: 0, ds: 63, rp: 0 }] }, '2^63 bytes'],
    ['NSZE 2^64-1', { nsze: 0xffff_ffff_ffff_ffffn }, 'blocks of 2^9'],
    ['a format that is not there', { flbas: 0x0f }, 'FLBAS'],
    ['metadata', { lbafs: [{ ms: 8, ds: 9, rp: 0 }] }, 'metadata'],
    ['NSZE 0', { nsze: 0n }, 'not active'],
  ])('%s', async (_name, namespace, message) => {
    const { options } = await start({}, (target) => {
      target.namespace = namespace;
    });
    await expect(open(options)).rejects.toThrow(message);
  });
  test.each([
    ['IOCCSZ 0', { ioccsz: 0 }],
    ['IOCCSZ FFFFFFFFh', { ioccsz: 0xffffffff }],
    ['MDTS 255', { mdts: 255 }],
    ['NN FFFFFFFFh', { nn: 0xffffffff }],
    ['MAXCMD 0', { maxcmd: 0 }],
  ])('%s still reads and writes', async (_name, controllerFields) => {
    const { options } = await start({}, (target) => {
      target.controller = controllerFields;
    });
    const { controller, ns } = await open(options);
    const data = randomBytes(16384);
    await ns.write(0n, data);
    const back = Buffer.alloc(data.length);
    await ns.read(0n, back);
    expect(back.equals(data)).toBe(true);
    expect(controller.maxTransfer).toBeLessThanOrEqual(1 << 20);
    await controller.disconnect();
  });
  test('a namespace list that never ends', async () => {
    const { options } = await start({
      command: (c, command) => {
        const { opcode, cid } = sqe.decode(command);
        if (c.qid > 0 || opcode !== 6 || command[40] !== 2) return false;
        const list = Buffer.alloc(4096);
        for (let i = 0; i < 1024; i++) list.writeUInt32LE(i + 1, 4 * i);
        c.answer(cid, list);
        return true;
      },
    });
    const { controller } = await open(options);
    await expect(controller.namespaces()).rejects.toThrow('repeats');
    controller.close();
  });
  test('NUMREC 2^63, and a GENCTR that always changes', async () => {
    const huge = await start({}, (target) => {
      target.log = Buffer.alloc(2048);
      target.log.writeBigUInt64LE(1n << 63n, 8);
    });
    await expect(discover(huge.options)).rejects.toThrow('9223372036854775808 records');
    let genctr = 0n;
    const moving: Awaited<ReturnType<typeof start>> = await start({
      command: (_c, command) => {
        if (command[0] === 2) moving.target.log.writeBigUInt64LE(++genctr, 0);
        return false;
      },
    });
    moving.target.log = Buffer.alloc(2048);
    await expect(discover(moving.options)).rejects.toThrow('changed 10 times');
  });
  test('more records than are wanted, and answers that each come in time but never all', async () => {
    const { options, target } = await start();
    target.log = Buffer.alloc(3 * 1024);
    target.log.writeBigUInt64LE(2n, 8);
    expect((await discover(options, { records: 2 })).records).toHaveLength(2);
    await expect(discover(options, { records: 1 })).rejects.toThrow('2 records');
    let genctr = 0n;
    const slow: Awaited<ReturnType<typeof start>> = await start({
      command: (c, command) => {
        if (command[0] !== 2) return false;
        const page = Buffer.alloc(1024);
        page.writeBigUInt64LE(++genctr, 0);
        setTimeout(() => c.answer(sqe.decode(command).cid, page), 200);
        return true;
      },
    });
    await expect(discover({ ...slow.options, timeout: 60_000 }, { within: 300 })).rejects.toMatchObject({ code: 'ETIMEDOUT' });
    expect(genctr).toBeLessThan(10n);
  });
  test('names without end and with escape sequences', async () => {
    const { options } = await start({}, (target) => {
      target.log = Buffer.alloc(2048, 0x1b);
      target.log.fill(0, 0, 1024);
      target.log.writeBigUInt64LE(1n, 8);
    });
    const { records } = await discover(options);
    expect(records[0]!.subnqn.length).toBe(256);
    expect(records[0]!.traddr.length).toBe(256);
    expect(identifyController.size).toBe(4096);
  });
});

test('KATO: the host keeps the association alive, and a dead target is noticed', async () => {
  let beats = 0;
  const { options } = await start({
    command: (c, command) => {
      if (command[0] !== 0x18) return false;
      if (++beats < 3) c.complete(sqe.decode(command).cid);
      return true;
    },
  });
  const controller = await Controller.connect({ ...options, keepAlive: 100, timeout: 300 });
  await new Promise((resolve) => setTimeout(resolve, 700));
  expect(beats).toBeGreaterThanOrEqual(3);
  expect(controller.admin.error).toMatchObject({ exit: 124 });
  controller.close();
});

test('a queue holds no more commands than its entries, and all complete', async () => {
  let most = 0;
  const open2: { c: FakeConnection; cid: number }[] = [];
  const { options } = await start(
    onRead((c, cid) => {
      open2.push({ c, cid });
      most = Math.max(most, open2.length);
      setTimeout(() => {
        const one = open2.shift()!;
        one.c.answer(one.cid, Buffer.alloc(512, 1));
      }, 2);
    }),
  );
  const { controller, ns } = await open({ ...options, queueSize: 5 });
  await Promise.all(Array.from({ length: 40 }, () => ns.read(0n, Buffer.alloc(512))));
  expect(most).toBe(4);
  expect(controller.queues[0]).toBeInstanceOf(Queue);
  await controller.disconnect();
});
