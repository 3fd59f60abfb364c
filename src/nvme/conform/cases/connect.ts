/** Connect (co) and properties (pr). Sections are those of the NVMe Base Specification 2.0. */
import { AdminOpcode, ccValue, Fid, identifyCmd } from '../../wire/index.js';
import type { Bench, ConnectFields } from '../bench.js';
import { expectSetup } from '../bench.js';
import type { Case } from '../case.js';
import { badConnect, closed, describeOutcome, holds, ok, permanent, status } from '../expect.js';
import { type CommandOptions, finding, type Outcome, type RawConnection } from '../raw.js';

/** Connect of the admin queue with something wrong. */
const badAdmin =
  (fields: ConnectFields | ((bench: Bench) => ConnectFields), options: CommandOptions = {}) =>
  async (bench: Bench): Promise<Outcome> => {
    const connection = await bench.initialised();
    return bench.connect(connection, typeof fields === 'function' ? fields(bench) : fields, options);
  };

/** Connect of I/O queue 1 with something wrong. */
const badIo =
  (fields: ConnectFields | ((bench: Bench) => ConnectFields)) =>
  async (bench: Bench): Promise<Outcome> => {
    const { admin, cntlid } = await bench.admin();
    await expectSetup('Number of Queues', bench.feature(admin, Fid.numberOfQueues, 0), 'cqe');
    const io = await bench.initialised();
    return bench.connect(io, { qid: 1, cntlid, sqsize: bench.entries - 1, ...(typeof fields === 'function' ? fields(bench) : fields) });
  };

const parameters = '6.3: Connect Invalid Parameters names the offset of the parameter';
const identity = '6.3: every queue of an association has the same host: HOSTNQN and HOSTID are those of the admin queue';
const notReady = async (bench: Bench, cc: Parameters<typeof ccValue>[0]): Promise<Outcome> => {
  const { admin } = await bench.connected();
  const set = await bench.setProperty(admin, 0x14, BigInt(ccValue(cc)));
  if (set.kind !== 'cqe') return set;
  await new Promise((resolve) => setTimeout(resolve, 50));
  const csts = await expectSetup('Property Get CSTS', bench.getProperty(admin, 0x1c), 'cqe');
  const refused = set.sc !== 0;
  const rdy = (csts.dw0 & 1) !== 0;
  const cfs = (csts.dw0 & 2) !== 0;
  return finding(!rdy && (refused || cfs), `${describeOutcome(set)}; CSTS=${csts.dw0.toString(16)}h`);
};

export const connectCases: Case[] = [
  {
    id: 'co01',
    title: 'the first command is Property Get',
    spec: '6.3: Connect is the first command of a queue',
    accept: [permanent(0x0c)],
    run: async (bench) => bench.getProperty(await bench.initialised(), 0, 1),
  },
  {
    id: 'co02',
    title: 'the first command is Identify',
    spec: '6.3: Connect is the first command of a queue',
    accept: [permanent(0x0c)],
    run: async (bench) =>
      (await bench.initialised()).command(
        { opcode: AdminOpcode.identify },
        { read: 4096, tweak: (sqe) => void identifyCmd.encode({ cns: 1 }, sqe) },
      ),
  },
  {
    id: 'co03',
    title: 'Connect with RECFMT 1',
    spec: '6.3: Connect Incompatible Format',
    accept: [status(1, 0x80), badConnect(40, 'sqe')],
    run: badAdmin({}, { tweak: (sqe) => void sqe.writeUInt16LE(1, 40) }),
  },
  { id: 'co04', title: 'Connect with SQSIZE 0', spec: parameters, accept: [badConnect(44, 'sqe')], run: badAdmin({ sqsize: 0 }) },
  {
    id: 'co05',
    title: 'Connect of the admin queue with SQSIZE 65535',
    spec: parameters,
    accept: [badConnect(44, 'sqe')],
    run: badAdmin({ sqsize: 65535 }),
  },
  {
    id: 'co06',
    title: 'Connect to a subsystem that does not exist',
    spec: parameters,
    accept: [badConnect(256, 'data'), status(1, 0x84)],
    run: badAdmin({ subnqn: 'nqn.2014-08.org.nvmexpress:no-such-subsystem' }),
  },
  {
    id: 'co07',
    title: 'Connect with a SUBNQN without NUL in 256 bytes',
    spec: parameters,
    accept: [badConnect(256, 'data')],
    run: badAdmin({ spoilData: (data) => data.fill(0x61, 256, 512) }),
  },
  {
    id: 'co08',
    title: 'Connect with an empty HOSTNQN',
    spec: `${parameters}; a target that lets every host in may take a host without a name`,
    accept: [badConnect(512, 'data'), status(1, 0x84), ok()],
    run: badAdmin({ hostnqn: '' }),
  },
  {
    id: 'co09',
    title: 'Connect with a HOSTNQN without NUL in 256 bytes',
    spec: parameters,
    accept: [badConnect(512, 'data')],
    run: badAdmin({ spoilData: (data) => data.fill(0x61, 512, 768) }),
  },
  {
    id: 'co10',
    title: 'Connect with HOSTID zero',
    spec: '6.3: a host identifier of 0 is not valid over fabrics',
    accept: [badConnect(0, 'data')],
    run: badAdmin({ hostid: Buffer.alloc(16) }),
  },
  {
    id: 'co11',
    title: 'Connect of the admin queue with CNTLID 0',
    spec: `${parameters}; a dynamic controller is asked for with FFFFh`,
    accept: [badConnect(16, 'data')],
    run: badAdmin({ cntlid: 0 }),
  },
  {
    id: 'co12',
    title: 'Connect of the admin queue with CNTLID FFFEh',
    spec: parameters,
    accept: [badConnect(16, 'data')],
    run: badAdmin({ cntlid: 0xfffe }),
  },
  {
    id: 'co13',
    title: 'Connect of an I/O queue with CNTLID FFFFh',
    spec: parameters,
    accept: [badConnect(16, 'data')],
    run: badIo({ cntlid: 0xffff }),
  },
  {
    id: 'co14',
    title: 'Connect twice on the admin queue',
    spec: '6.3: one Connect per queue',
    accept: [permanent(0x0c)],
    run: async (bench) => bench.connect((await bench.connected()).admin),
  },
  {
    id: 'co15',
    title: 'Connect of an I/O queue to a controller that does not exist',
    spec: parameters,
    accept: [badConnect(16, 'data')],
    run: badIo({ cntlid: 0xffee }),
  },
  {
    id: 'co16',
    title: 'I/O Connect with another HOSTNQN',
    spec: identity,
    accept: [badConnect(512, 'data'), status(1, 0x84)],
    run: badIo((bench) => ({ hostnqn: `${bench.facts.hostnqn.slice(0, 200)}x` })),
  },
  {
    id: 'co17',
    title: 'I/O Connect with another HOSTID',
    spec: identity,
    accept: [badConnect(0, 'data')],
    run: badIo((bench) => ({ hostid: Buffer.from(bench.facts.hostid.map((b) => b ^ 0xff)) })),
  },
  {
    id: 'co18',
    title: 'I/O Connect before CC.EN=1',
    spec: '6.3: I/O queues belong to an enabled controller',
    accept: [permanent(0x0c), status(1, 0x82)],
    run: async (bench) => {
      const { cntlid } = await bench.connected();
      return bench.connect(await bench.initialised(), { qid: 1, cntlid });
    },
  },
  {
    id: 'co19',
    title: 'I/O Connect with a queue identifier in use',
    spec: '6.3: Command Sequence Error, and the queue that is there lives on',
    accept: [holds('refused with 0Ch DNR, the first queue works')],
    run: async (bench) => {
      const { io, cntlid } = await bench.session();
      const second = await bench.connect(await bench.initialised(), { qid: 1, cntlid, sqsize: bench.entries - 1 });
      const read = await bench.read(io, 0n);
      const good = permanent(0x0c).match(second) && ok().match(read);
      return finding(
        good,
        good ? 'refused with 0Ch DNR, the first queue works' : `${describeOutcome(second)}; then READ: ${describeOutcome(read)}`,
      );
    },
  },
  {
    id: 'co20',
    title: 'Connect with SGL length 1023',
    spec: '6.3: Connect has 1024 bytes of data',
    accept: [permanent(0x0f), badConnect(24, 'sqe')],
    run: badAdmin({}, { length: 1023 }),
  },
  {
    id: 'co21',
    title: 'Connect with QID 65535',
    spec: parameters,
    accept: [badConnect(42, 'sqe'), status(1, 0x01)],
    run: badIo({ qid: 65535 }),
  },
  {
    id: 'co22',
    title: 'Connect with PSDT 00 (PRP)',
    spec: 'fabrics commands use SGLs',
    accept: [permanent(0x02)],
    run: badAdmin({}, { tweak: (sqe) => void sqe.writeUInt8(0, 1) }),
  },
  {
    id: 'co23',
    title: 'I/O Connect with KATO 5000 (legal)',
    spec: '6.3: KATO means nothing on I/O queues: hosts that send it are not locked out',
    accept: [ok()],
    run: badIo({ kato: 5000 }),
  },
  {
    id: 'co24',
    title: 'more I/O queues than granted',
    spec: '5.27: Number of Queues bounds the queue identifiers',
    accept: [badConnect(42, 'sqe'), status(1, 0x01), permanent(0x0c)],
    run: async (bench) => {
      const { cntlid } = await bench.session(); // grants as many as it likes, one is asked for
      return bench.connect(await bench.initialised(), { qid: 0x7ffe, cntlid, sqsize: bench.entries - 1 });
    },
  },
  {
    id: 'co25',
    title: 'I/O Connect through another address of the subsystem',
    spec: '2.2.2, 3.1.2: a controller is bound to one port of its subsystem; all its queues come through that port',
    accept: [badConnect(16, 'data'), status(1, 0x82), permanent(0x0c), permanent(0x02)],
    run: async (bench) => {
      const { admin, cntlid } = await bench.admin();
      await expectSetup('Number of Queues', bench.feature(admin, Fid.numberOfQueues, 0), 'cqe');
      return bench.connect(await bench.initialised({}, bench.facts.other), { qid: 1, cntlid, sqsize: bench.entries - 1 });
    },
    skip: (facts) =>
      facts.other ? undefined : 'the discovery log does not have this address of the subsystem and another one that can be reached',
  },
  {
    id: 'co26',
    title: 'Connect with its data on request (legal)',
    spec: 'TCP 3.3.2: in-capsule data is the choice of the host; R2T is sent',
    accept: [ok()],
    run: badAdmin({}, { inCapsule: false }),
  },
  {
    id: 'co27',
    title: 'all I/O queues that are granted, at once (legal)',
    spec: '5.27.1.5: a queue that is granted can be connected; none costs the others anything',
    accept: [holds('all are connected and read')],
    run: async (bench) => {
      const { admin, cntlid } = await bench.admin();
      const { dw0 } = await expectSetup('Number of Queues', bench.feature(admin, Fid.numberOfQueues, 0x7f007f), 'cqe');
      const granted = Math.min(128, (dw0 & 0xffff) + 1, (dw0 >>> 16) + 1);
      const queues: RawConnection[] = [];
      for (let qid = 1; qid <= granted; qid++) queues.push(await bench.ioQueue(cntlid, qid));
      const reads = await Promise.all(queues.map((io) => bench.read(io, 0n)));
      const bad = reads.find((outcome) => !ok(bench.bs).match(outcome));
      return { ...finding(!bad, bad ? describeOutcome(bad) : 'all are connected and read'), note: `${granted} queues` };
    },
  },
  {
    id: 'pr01',
    title: 'Property Get CAP with size 4',
    spec: '6.6: CAP is 8 bytes',
    accept: [permanent(0x02)],
    run: async (bench) => bench.getProperty((await bench.connected()).admin, 0, 0),
  },
  {
    id: 'pr02',
    title: 'Property Get of an offset that does not exist',
    spec: '6.6: Invalid Field',
    accept: [permanent(0x02)],
    run: async (bench) => bench.getProperty((await bench.connected()).admin, 0x1234, 0),
  },
  {
    id: 'pr03',
    title: 'Property Get with ATTRIB size 7',
    spec: '6.6: reserved sizes',
    accept: [permanent(0x02)],
    run: async (bench) => bench.getProperty((await bench.connected()).admin, 0, 7),
  },
  {
    id: 'pr04',
    title: 'Property Set VS',
    spec: '6.6: VS is read only',
    accept: [permanent(0x02)],
    run: async (bench) => bench.setProperty((await bench.connected()).admin, 8, 0n),
  },
  {
    id: 'pr05',
    title: 'Property Set CC with size 8',
    spec: '6.6: CC is 4 bytes',
    accept: [permanent(0x02)],
    run: async (bench) => bench.setProperty((await bench.connected()).admin, 0x14, 0x460001n, 1),
  },
  {
    id: 'pr06',
    title: 'CC.EN=1 with CC.MPS=15',
    spec: '3.1.3.5: a page size that CAP does not allow never gives CSTS.RDY=1',
    accept: [holds('refused, or CSTS.CFS=1, and RDY=0')],
    run: (bench) => notReady(bench, { en: 1, iosqes: 6, iocqes: 4, mps: 15 }),
    skip: (facts) => (facts.cap.mpsmax === 15 ? 'CAP.MPSMAX is 15' : undefined),
  },
  {
    id: 'pr07',
    title: 'CC.EN=1 with CC.CSS=3',
    spec: '3.1.3.5: a reserved command set never gives CSTS.RDY=1',
    accept: [holds('refused, or CSTS.CFS=1, and RDY=0')],
    run: (bench) => notReady(bench, { en: 1, iosqes: 6, iocqes: 4, css: 3 }),
  },
  {
    id: 'pr08',
    title: 'CC.EN=1 with IOSQES 0Fh',
    spec: '3.1.3.5: an entry size that Identify does not allow',
    accept: [holds('refused, or CSTS.CFS=1, and RDY=0')],
    run: (bench) => notReady(bench, { en: 1, iosqes: 15, iocqes: 4 }),
  },
  {
    id: 'pr09',
    title: 'CC.EN 1 to 0 with an I/O queue, then READ on it',
    spec: '3.7.2: a controller reset deletes the I/O queues',
    accept: [closed, permanent(0x0c), status(0, 0x08)],
    run: async (bench) => {
      const { admin, io } = await bench.session();
      await expectSetup('CC.EN=0', bench.setProperty(admin, 0x14, BigInt(ccValue({ iosqes: 6, iocqes: 4 }))), 'cqe');
      return bench.read(io, 0n);
    },
  },
  {
    id: 'pr10',
    title: 'CC.EN 1, 0 and 1 again (legal)',
    spec: '3.7.2: a controller can be enabled again after a reset',
    accept: [holds('RDY follows EN')],
    run: async (bench) => {
      const { admin } = await bench.admin();
      const follow = async (en: 0 | 1): Promise<boolean> => {
        await expectSetup(
          `CC.EN=${en}`,
          bench.setProperty(admin, 0x14, BigInt(ccValue({ en, iosqes: 6, iocqes: 4, css: bench.facts.cap.css & 0x40 ? 6 : 0 }))),
          'cqe',
        );
        return bench.becomes(admin, (csts) => (csts & 1) === en);
      };
      const down = await follow(0);
      const up = await follow(1);
      return finding(down && up, down && up ? 'RDY follows EN' : `RDY after EN=0: ${down ? 0 : 1}, after EN=1: ${up ? 1 : 0}`);
    },
  },
  {
    id: 'pr11',
    title: 'shutdown: CC.SHN=01',
    spec: '3.6.1: CSTS.SHST becomes 10b',
    accept: [holds('SHST becomes 2')],
    run: async (bench) => {
      const { admin } = await bench.admin();
      await expectSetup(
        'CC.SHN=1',
        bench.setProperty(admin, 0x14, BigInt(ccValue({ en: 1, iosqes: 6, iocqes: 4, css: bench.facts.cap.css & 0x40 ? 6 : 0, shn: 1 }))),
        'cqe',
      );
      const good = await bench.becomes(admin, (csts) => ((csts >> 2) & 3) === 2);
      return finding(good, good ? 'SHST becomes 2' : 'SHST does not become 2');
    },
  },
];
