/** Operations on a running target, as hosts that are connected meet them. */
import { native } from '../../src/native/index.js';
import { Controller, type ControllerOptions } from '../../src/nvme/host/controller.js';
import type { NvmeError } from '../../src/nvme/host/errors.js';
import type { Listener } from '../../src/nvme/target/discovery.js';
import * as operations from '../../src/nvme/target/operations/index.js';
import { Subsystem } from '../../src/nvme/target/subsystem.js';
import { Target } from '../../src/nvme/target/target.js';
import {
  AnaState,
  AsyncEvent,
  anaGroup,
  anaHeader,
  decodeNamespaceList,
  discoveryHeader,
  discoveryNqn,
  discoveryRecord,
  encodePdu,
  Fid,
  Lid,
  NvmOpcode,
  pdus,
  rwCmd,
  sqe,
} from '../../src/nvme/wire/index.js';
import { capsule, connectCapsule, enableCapsule, hostid, hostnqn, icRequest, Peer } from '../support/nvme-raw.js';

const nqn = 'nqn.2014-08.org.example:unit';
const other = 'nqn.2014-08.org.example:other';

let target: Target;
let subsystem: Subsystem;
let first: Listener;
let second: Listener;
const hosts: Controller[] = [];
beforeEach(() => {
  target = new Target(native().nvme, { discoveryNqn: 'nqn.2014-08.org.example:discovery' });
  subsystem = new Subsystem(native().nvme, { nqn });
  for (const group of [1, 2]) subsystem.add({ source: 'ram:1048576', group });
  target.addSubsystem(subsystem);
  first = target.listen('127.0.0.1', 0);
  second = target.listen('127.0.0.1', 0);
});
afterEach(async () => {
  for (const host of hosts.splice(0)) await host.disconnect().catch(() => {});
  await target.stop();
});

async function connect(options: Partial<ControllerOptions> = {}): Promise<Controller> {
  const at = { address: '127.0.0.1', port: first.port, timeout: 90_000 };
  const host = await Controller.connect({ ...at, subnqn: nqn, hostnqn, hostid, ioQueues: 1, ...options });
  hosts.push(host);
  return host;
}
const read = async (host: Controller, nsid: number): Promise<string> => {
  const command = rwCmd.encode({ slba: 0n, nlb: 7 }, sqe.encode({ opcode: NvmOpcode.read, nsid }));
  const { status } = await host.queues[0]!.send(command, { into: Buffer.alloc(4096) });
  return `${status.sct}/${status.sc.toString(16)}${status.dnr ? ' DNR' : ''}${status.crd > 0 ? ` CRD${status.crd}` : ''}`;
};
const ana = async (host: Controller) => {
  const log = await host.getLog(Lid.ana, 4096);
  const { chgcnt, ngrps } = anaHeader.decode(log);
  const groups: Record<number, { state: number; chgcnt: bigint; nsids: number[] }> = {};
  let at = anaHeader.size;
  for (let i = 0; i < ngrps; i++) {
    const group = anaGroup.decode(log, at);
    at += anaGroup.size;
    const nsids = Array.from({ length: group.nnsids }, (_, k) => log.readUInt32LE(at + 4 * k));
    at += 4 * group.nnsids;
    groups[group.grpid] = { state: group.state, chgcnt: group.chgcnt, nsids };
  }
  return { chgcnt, groups };
};
const apply = async (change: operations.Change): Promise<readonly string[]> => {
  await operations.applyAll([change]);
  return change.todo;
};
const refusal = (promise: Promise<unknown>): Promise<{ sct: number; sc: number; dnr: boolean }> =>
  promise.then(
    () => Promise.reject(new Error('it was let in')),
    (err: NvmeError) => {
      const { sct, sc, dnr } = err.status!;
      return { sct, sc, dnr };
    },
  );
const busy = { sct: 1, sc: 0x81, dnr: false };

test('ANA states of one listener: its hosts alone are told, count, and are kept out', async () => {
  const [a, b] = [await connect(), await connect({ port: second.port })];
  for (const host of [a, b]) await host.setFeature(Fid.asyncEventConfiguration, 0x800 | 0x100);
  const [eventOfA, eventOfB] = [a.nextEvent(), b.nextEvent()];
  let toldB = false;
  eventOfB.then(() => (toldB = true)).catch(() => {});
  expect(await apply(operations.setListenerAna(target, subsystem, first, 2, AnaState.inaccessible))).toHaveLength(1);
  expect(await eventOfA).toBe(AsyncEvent.anaChanged);
  expect(await ana(a)).toEqual({
    chgcnt: 1n,
    groups: { 1: { state: AnaState.optimized, chgcnt: 0n, nsids: [1] }, 2: { state: AnaState.inaccessible, chgcnt: 1n, nsids: [2] } },
  });
  expect(await ana(b)).toMatchObject({ chgcnt: 0n, groups: { 2: { state: AnaState.optimized, chgcnt: 0n } } });
  expect([await read(a, 1), await read(a, 2), await read(b, 2)]).toEqual(['0/0', '3/2', '0/0']);
  expect(toldB).toBe(false);
  // all ports: what was set for one is gone; b is told of group 2 as non-optimized, and so is a
  await apply(operations.setAna(target, subsystem, 2, AnaState.nonOptimized));
  expect(await eventOfB).toBe(AsyncEvent.anaChanged);
  expect((await ana(a)).groups[2]).toMatchObject({ state: AnaState.nonOptimized, chgcnt: 2n });
  expect((await ana(b)).groups[2]).toMatchObject({ state: AnaState.nonOptimized, chgcnt: 1n });
  // once more is nothing
  expect(await apply(operations.setAna(target, subsystem, 2, AnaState.nonOptimized))).toEqual([]);
  // the list of a group changes with its namespaces, without an event of its own
  target.add(subsystem, { source: 'ram:4096', group: 2 });
  expect((await ana(b)).groups[2]).toMatchObject({ chgcnt: 2n, nsids: [2, 3] });
});

test.each([
  [AnaState.nonOptimized, '0/0'],
  [AnaState.inaccessible, '3/2'],
  [AnaState.persistentLoss, '3/1 DNR'],
  [AnaState.change, '3/3'],
])('ANA state %i: I/O is answered with %s', async (state, status) => {
  const host = await connect();
  await apply(operations.setListenerAna(target, subsystem, first, undefined, state));
  expect([await read(host, 1), await read(host, 2)]).toEqual([status, status]);
  if (state !== AnaState.change) return;
  // a host that waits as long as it is told is told to
  expect(host.identify.crdt1).toBeGreaterThan(0);
  const behaviour = Buffer.alloc(512);
  behaviour[0] = 1;
  await host.setFeature(Fid.hostBehaviour, 0, { out: behaviour });
  expect(await read(host, 1)).toBe('3/3 CRD1');
});

test('a masked namespace is not there for other hosts: lists, Identify, I/O, the ANA log; only they are told', async () => {
  const [a, b] = [await connect(), await connect({ hostnqn: other })];
  for (const host of [a, b]) await host.setFeature(Fid.asyncEventConfiguration, 0x100);
  const events = [a.nextEvent(), b.nextEvent()];
  let toldA = false;
  events[0]!.then(() => (toldA = true)).catch(() => {});
  await apply(operations.setMask(target, subsystem, 2, [hostnqn]));
  expect(await events[1]).toBe(AsyncEvent.namespaceChanged);
  expect(decodeNamespaceList(await b.getLog(Lid.changedNamespaces, 4096))).toEqual([2]);
  expect([await a.namespaces(), await b.namespaces()]).toEqual([[1, 2], [1]]);
  expect([await read(a, 2), await read(b, 2), await read(b, 1)]).toEqual(['0/0', '0/b DNR', '0/0']);
  await expect(b.namespace(2)).rejects.toThrow();
  expect((await ana(b)).groups[2]).toBeUndefined();
  expect(await apply(operations.setMask(target, subsystem, 2, [hostnqn]))).toEqual([]);
  await apply(operations.setMask(target, subsystem, 2, []));
  await events[0];
  expect(toldA).toBe(true);
  expect(await a.namespaces()).toEqual([1]);
  await apply(operations.setMask(target, subsystem, 2, undefined));
  expect([await a.namespaces(), await b.namespaces()]).toEqual([
    [1, 2],
    [1, 2],
  ]);
  expect(await read(b, 2)).toBe('0/0');
  // a new one that is masked is told to nobody else
  target.add(subsystem, { source: 'ram:4096', hosts: [other] });
  expect([await a.namespaces(), await b.namespaces()]).toEqual([
    [1, 2],
    [1, 2, 3],
  ]);
});

test('hosts: added, removed with their associations, any', async () => {
  const a = await connect();
  await apply(operations.addHosts(target, subsystem, [hostnqn]));
  expect(await read(a, 1)).toBe('0/0'); // any host may still
  await apply(operations.setAnyHost(target, subsystem, false));
  expect(await read(a, 1)).toBe('0/0');
  expect(await refusal(connect({ hostnqn: other }))).toEqual({ sct: 1, sc: 0x84, dnr: true });
  await apply(operations.addHosts(target, subsystem, [other]));
  const b = await connect({ hostnqn: other });
  await apply(operations.removeHosts(target, subsystem, [hostnqn]));
  await expect(read(a, 1)).rejects.toThrow();
  expect(await read(b, 1)).toBe('0/0');
  expect(await refusal(connect())).toEqual({ sct: 1, sc: 0x84, dnr: true });
  await apply(operations.setAnyHost(target, subsystem, true));
  expect(await read(await connect(), 1)).toBe('0/0');
  expect(() => operations.addHosts(target, subsystem, ['iqn.wrong'])).toThrow('not an NQN');
});

test('listeners come and go: discovery tells, paths end, ports are free at once and never mean another one', async () => {
  const discovery = await connect({ subnqn: discoveryNqn, ioQueues: 0, keepAlive: 0 });
  expect(discovery.identify.subnqn).toBe('nqn.2014-08.org.example:discovery');
  await discovery.setFeature(Fid.asyncEventConfiguration, 0x8000_0000);
  const records = async () => {
    const log = await discovery.getLog(Lid.discovery, 16 * 1024);
    const { numrec } = discoveryHeader.decode(log);
    return Array.from({ length: Number(numrec) }, (_, i) => discoveryRecord.decode(log, 1024 * (i + 1))).map(
      (r) => `${r.portid} ${r.traddr} ${r.trsvcid} ${r.subtype} ${r.subnqn.slice(-9)}`,
    );
  };
  const before = await records();
  let event = discovery.nextEvent();
  await apply(operations.addListener(target, { address: '127.0.0.2', port: 0, advertise: { address: '192.0.2.7', port: 4420 } }));
  expect(await event).toBe(AsyncEvent.discoveryChanged);
  expect((await records()).slice(before.length)).toEqual(['3 192.0.2.7 4420 3 discovery', '3 192.0.2.7 4420 2 mple:unit']);
  const third = target.listeners[2]!;
  const host = await connect({ address: '127.0.0.2', port: third.port });
  await apply(operations.setListenerAna(target, subsystem, third, undefined, AnaState.inaccessible));
  event = discovery.nextEvent();
  await apply(operations.removeListener(target, { address: '127.0.0.2', port: third.port }));
  expect(await event).toBe(AsyncEvent.discoveryChanged);
  expect(await records()).toEqual(before);
  await expect(read(host, 1)).rejects.toThrow();
  await expect(connect({ address: '127.0.0.2', port: third.port })).rejects.toThrow('ECONNREFUSED');
  // the same port again, at once: another path, without the states of the old one
  await apply(operations.addListener(target, { address: '127.0.0.2', port: third.port }));
  expect(await records()).toContain(`4 127.0.0.2 ${third.port} 2 mple:unit`);
  expect(await read(await connect({ address: '127.0.0.2', port: third.port }), 1)).toBe('0/0');
  expect(await apply(operations.addListener(target, { address: '127.0.0.2', port: third.port }))).toEqual([]);
  expect(() => operations.addListener(target, { address: '127.0.0.2', port: third.port, discoveryOnly: true })).toThrow('in another way');
  await apply(operations.addReferral(target, { address: '192.0.2.9', port: 8009 }));
  expect((await records()).at(-1)).toBe('0 192.0.2.9 8009 1 discovery');
  await apply(operations.removeReferral(target, { address: '192.0.2.9', port: 8009 }));
  expect((await records()).at(-1)).not.toContain('192.0.2.9');
});

test('limits of the target and of a host: refused with Controller Busy, retried with success', async () => {
  await apply(operations.setLimits(target, { controllers: 1 }));
  const a = await connect();
  expect(await refusal(connect({ hostnqn: other }))).toEqual(busy);
  await apply(operations.setLimits(target, { controllers: 10, connections: 2 }));
  expect(await refusal(connect({ hostnqn: other }))).toEqual(busy);
  await apply(operations.setLimits(target, { connections: 100, queues: 3 }));
  const b = await connect({ hostnqn: other, ioQueues: 8 });
  expect(b.queues).toHaveLength(3);
  await apply(operations.setHostLimits(target, 'any', { queues: 2, connections: 4 }));
  await apply(operations.setHostLimits(target, hostnqn, { queues: 1, connections: 3 }));
  expect(await refusal(connect({ hostnqn: other }))).toEqual(busy); // four connections that it had before
  await a.disconnect();
  const again = await connect({ ioQueues: 8 });
  expect(again.queues).toHaveLength(1);
  expect(await refusal(connect({ ioQueues: 8 }))).toEqual(busy); // its admin queue is the third: none for I/O
  await apply(operations.setHostLimits(target, hostnqn, { connections: undefined, queues: undefined }));
  await apply(operations.setHostLimits(target, 'any', { connections: undefined, queues: undefined }));
  expect((await connect({ ioQueues: 8 })).queues).toHaveLength(3);
  expect(() => operations.setLimits(target, { queues: 65 })).toThrow('must be 1 to 64');
});

test('bytes of a host: never more under way than that, over all its connections; another host has its own', async () => {
  await apply(operations.setHostLimits(target, hostnqn, { bytes: 8192 }));
  const [a, b] = [await connect({ queueSize: 128 }), await connect({ queueSize: 128, port: second.port })];
  const greedy = await connect({ hostnqn: other, queueSize: 128 });
  const write = (host: Controller, slba: number, size: number) => {
    const command = rwCmd.encode({ slba: BigInt(slba), nlb: size / 512 - 1 }, sqe.encode({ opcode: NvmOpcode.write, nsid: 1 }));
    return host.queues[0]!.send(command, { out: Buffer.alloc(size, slba) });
  };
  const work = [];
  for (let i = 0; i < 100; i++) {
    for (const host of [a, b, greedy]) work.push(write(host, 8 * (i % 16), 4096), write(host, 0, 65536));
    work.push(read(a, 1), read(b, 2));
  }
  for (const one of await Promise.all(work as Promise<unknown>[]))
    expect(one).toEqual(typeof one === 'string' ? '0/0' : expect.objectContaining({ status: expect.objectContaining({ sct: 0, sc: 0 }) }));
  // those that wait are let go when the limit is lifted, and when their host goes
  await apply(operations.setHostLimits(target, hostnqn, { bytes: 4096 }));
  const left = Array.from({ length: 64 }, () => write(a, 0, 65536));
  await apply(operations.setHostLimits(target, hostnqn, { bytes: undefined }));
  for (const { status } of await Promise.all(left)) expect(status.sc).toBe(0);
  await apply(operations.setHostLimits(target, hostnqn, { bytes: 4096 }));
  const lost = Array.from({ length: 64 }, () => write(a, 0, 65536).catch(() => 'lost'));
  target.kick((c) => c.hostnqn === hostnqn);
  await Promise.all(lost);
  expect(await read(await connect(), 1)).toBe('0/0');
});

test('a host whose budget is used up by one command gets no R2T for the next, on any connection', async () => {
  await apply(operations.setHostLimits(target, hostnqn, { bytes: 8192 }));
  const admin = await Peer.open(first.port);
  admin.socket.write(Buffer.concat([icRequest(), connectCapsule(nqn)]));
  await admin.pdu();
  const cntlid = (await admin.pdu())!.readUInt16LE(8);
  admin.socket.write(enableCapsule());
  await admin.pdu();
  const queues: Peer[] = [];
  for (const qid of [1, 2]) {
    const queue = await Peer.open(first.port);
    queue.socket.write(Buffer.concat([icRequest(), connectCapsule(nqn, { qid, cntlid })]));
    await queue.pdu();
    expect((await queue.pdu())![0]).toBe(pdus.capsuleResp.type);
    queues.push(queue);
  }
  const [one, two] = queues as [Peer, Peer];
  const write = capsule(
    rwCmd.encode({ slba: 0n, nlb: 15 }, sqe.encode({ opcode: NvmOpcode.write, nsid: 1, cid: 7, psdt: 1, sglId: 0x5a, sglLength: 8192 })),
  );
  one.socket.write(write);
  const r2tPdu = (await one.pdu())!;
  expect(r2tPdu[0]).toBe(pdus.r2t.type);
  two.socket.write(write);
  expect(await two.until(() => two.received.length > 0, 300)).toBe(false);
  const answer = { cccid: 7, ttag: r2tPdu.readUInt16LE(10), datao: 0, datal: 8192 };
  const data = encodePdu(pdus.h2cData, answer, { data: Buffer.alloc(8192), flags: 4 });
  one.socket.write(data);
  expect((await one.pdu())![0]).toBe(pdus.capsuleResp.type);
  expect((await two.pdu())![0]).toBe(pdus.r2t.type);
  // one that has got room and goes leaves it to others
  one.socket.write(write);
  expect(await one.until(() => one.received.length > 0, 100)).toBe(false);
  two.close();
  expect((await one.pdu())![0]).toBe(pdus.r2t.type);
  for (const peer of [one, admin]) peer.close();
});

test('drain: no admission, commands end, idle; hosts wait, and go on afterwards', async () => {
  const host = await connect();
  await host.setFeature(Fid.asyncEventConfiguration, 0x800);
  const event = host.nextEvent();
  const reads = Array.from({ length: 64 }, () => read(host, 1));
  const change = operations.drain(target, [subsystem], 10_000);
  await apply(change);
  expect(operations.outstanding(subsystem)).toBe(0);
  expect(await event).toBe(AsyncEvent.anaChanged);
  for (const status of await Promise.all(reads)) expect(['0/0', '3/2']).toContain(status);
  expect(await read(host, 1)).toBe('3/2');
  expect(await refusal(connect())).toEqual(busy);
  expect(await apply(operations.drain(target, [subsystem], 10_000))).toEqual([]);
  expect(await apply(operations.resume(target, [subsystem]))).toHaveLength(1);
  expect(await read(host, 1)).toBe('0/0');
  await connect();
});

test('a drain that takes too long says what is under way, and stays closed', async () => {
  const slow = target.add(subsystem, { source: 'ram:1048576' });
  native().storage.setLimits(slow.store, { iops: { average: 1, burst: 0, seconds: 1 }, bps: undefined });
  const host = await connect();
  const work = Array.from({ length: 8 }, () => read(host, slow.nsid));
  await work[0];
  await expect(apply(operations.drain(target, [subsystem], 0))).rejects.toThrow(/drain: \d commands are still under way after 0 ms/);
  expect(await refusal(connect())).toEqual(busy);
  native().storage.setLimits(slow.store, {});
  await Promise.all(work);
  await apply(operations.drain(target, [subsystem], 10_000));
  await apply(operations.resume(target, [subsystem]));
  await connect();
});

test('logs that list features and logs say what answers', async () => {
  const host = await connect();
  const logs = await host.getLog(Lid.supported, 1024);
  for (let lid = 0; lid < 256; lid++) {
    const listed = (logs.readUInt32LE(4 * lid) & 1) === 1;
    // the last two are about an endurance group, of which there is none
    const group = lid === Lid.enduranceGroup || lid === Lid.rotationalMedia;
    const answer = await host.getLog(lid, 16).then(
      () => true,
      (err: NvmeError) => err.status?.sct !== 1,
    );
    expect([lid, group || answer]).toEqual([lid, group || listed]);
  }
  const fids = await host.getLog(Lid.featureEffects, 1024);
  for (let fid = 0; fid < 256; fid++) {
    const listed = (fids.readUInt32LE(4 * fid) & 1) === 1;
    const { status } = await host.admin.send(sqe.encode({ opcode: 0x0a, cdw10: fid | 0x300 }));
    expect([fid, status.sc === 0]).toEqual([fid, listed]);
  }
});
