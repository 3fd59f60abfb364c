/** Admin commands (ad). Sections are those of the NVMe Base Specification 2.0. */
import { AdminOpcode, Fctype, Fid, featureCmd, getLogCmd, identifyCmd, Lid } from '../../wire/index.js';
import type { Bench } from '../bench.js';
import type { Case } from '../case.js';
import { anyError, closed, describeOutcome, holds, ok, permanent, silence, status } from '../expect.js';
import { type CommandOptions, finding, type Outcome, type RawConnection } from '../raw.js';

type IdentifyFields = Parameters<typeof identifyCmd.encode>[0];
const identify =
  (fields: IdentifyFields, nsid = 0, options: CommandOptions = {}) =>
  async (bench: Bench): Promise<Outcome> =>
    (await bench.admin()).admin.command(
      { opcode: AdminOpcode.identify, nsid },
      { read: 4096, ...options, tweak: (sqe) => void identifyCmd.encode(fields, sqe) },
    );

/** Get Log Page of `bytes`. */
const log =
  (lid: number, bytes: number, fields: Parameters<typeof getLogCmd.encode>[0] = {}, options: CommandOptions = {}) =>
  async (bench: Bench): Promise<Outcome> => {
    const dwords = bytes / 4 - 1;
    return (await bench.admin()).admin.command(
      { opcode: AdminOpcode.getLogPage, nsid: 0xffffffff },
      {
        read: bytes,
        ...options,
        tweak: (sqe) => void getLogCmd.encode({ lid, numdl: dwords & 0xffff, numdu: dwords >>> 16, ...fields }, sqe),
      },
    );
  };

const admin =
  (fields: Parameters<RawConnection['command']>[0], options: CommandOptions = {}) =>
  async (bench: Bench): Promise<Outcome> =>
    (await bench.admin()).admin.command(fields, options);

/** Sends `count` Asynchronous Event Requests at once and collects the completions that come. */
async function manyEvents(bench: Bench, count: number): Promise<{ refused: Outcome[]; last: Outcome; admin: RawConnection }> {
  const { admin } = await bench.admin();
  for (let i = 0; i < count; i++) admin.send(admin.capsule({ opcode: AdminOpcode.asyncEventRequest }).pdu);
  const refused: Outcome[] = [];
  for (;;) {
    const event = await admin.next(500);
    if (event.kind !== 'cqe') return { refused, last: event, admin };
    refused.push(event);
  }
}

const noPartialLog = '5.16: NUMD is the number of dwords to return, from LPO on';

export const adminCases: Case[] = [
  {
    id: 'ad01',
    title: 'an opcode that does not exist (FCh)',
    spec: '3.3.3.2: Invalid Command Opcode',
    accept: [permanent(0x01)],
    run: admin({ opcode: 0xfc }),
  },
  { id: 'ad02', title: 'Identify CNS FFh', spec: '5.17: Invalid Field', accept: [permanent(0x02)], run: identify({ cns: 0xff }) },
  {
    id: 'ad03',
    title: 'Identify Namespace NSID 0',
    spec: '5.17.2.1: Invalid Namespace or Format',
    accept: [permanent(0x0b)],
    run: identify({ cns: 0 }, 0),
  },
  {
    id: 'ad04',
    title: 'Identify Namespace NSID FFFFFFFFh',
    spec: '5.17.2.1: common values where namespace management is offered, else Invalid Namespace or Format',
    accept: [permanent(0x0b), ok(4096)],
    run: identify({ cns: 0 }, 0xffffffff),
  },
  {
    id: 'ad05',
    title: 'Identify Namespace of an inactive NSID',
    spec: '5.17.2.1: zeroes up to NN, Invalid Namespace or Format beyond it',
    accept: [holds('zeroes for NSID <= NN, 0Bh beyond')],
    run: async (bench) => {
      const { nsids, identify: controller } = bench.facts;
      let nsid = 1;
      while (nsids.includes(nsid)) nsid++;
      const outcome = await identify({ cns: 0 }, nsid)(bench);
      const zero = outcome.kind === 'cqe' && outcome.sc === 0 && outcome.data.length === 4096 && outcome.data.every((b) => b === 0);
      const good = nsid <= controller.nn ? zero : permanent(0x0b).match(outcome);
      return finding(good, `NSID ${nsid} of NN ${controller.nn}: ${describeOutcome(outcome)}${zero ? ', all zero' : ''}`);
    },
  },
  {
    id: 'ad06',
    title: 'active namespace list from NSID FFFFFFFEh',
    spec: '5.17.2.2: Invalid Namespace or Format',
    accept: [permanent(0x0b)],
    run: identify({ cns: 2 }, 0xfffffffe),
  },
  {
    id: 'ad07',
    title: 'Identify CNS 06h with CSI FFh',
    spec: '5.17: a command set that is not there',
    accept: [permanent(0x02), status(1, 0x29)],
    run: identify({ cns: 6, csi: 0xff }),
  },
  {
    id: 'ad08',
    title: 'Identify with SGL length 8192',
    spec: 'never more than the 4096 bytes of the structure',
    accept: [permanent(0x0f), ok(4096)],
    run: identify({ cns: 1 }, 0, { length: 8192 }),
  },
  {
    id: 'ad09',
    title: 'Identify with SGL length 0',
    spec: 'Data SGL Length Invalid',
    accept: [permanent(0x0f)],
    run: identify({ cns: 1 }, 0, { length: 0 }),
  },
  {
    id: 'ad10',
    title: 'Identify with SGL length 512',
    spec: 'Data SGL Length Invalid, or what fits',
    accept: [permanent(0x0f), ok(512)],
    run: identify({ cns: 1 }, 0, { length: 512 }),
  },
  {
    id: 'ad11',
    title: 'Get Log Page LID FFh',
    spec: '5.16: Invalid Log Page',
    accept: [status(1, 0x09), permanent(0x02)],
    run: log(0xff, 512),
  },
  {
    id: 'ad12',
    title: 'SMART log with LPO 2',
    spec: '5.16: LPO bits 1:0 are 0',
    accept: [permanent(0x02)],
    run: log(Lid.smart, 512, { lpo: 2n }),
  },
  {
    id: 'ad13',
    title: 'SMART log from LPO 4, 508 bytes (legal)',
    spec: noPartialLog,
    accept: [ok(508)],
    run: log(Lid.smart, 508, { lpo: 4n }),
    skip: (facts) => (facts.identify.lpa & 4 ? undefined : 'no extended data for Get Log Page (LPA.2)'),
  },
  {
    id: 'ad14',
    title: 'SMART log with LPO 2^40',
    spec: '5.16: an offset beyond the page is Invalid Field',
    accept: [permanent(0x02)],
    run: log(Lid.smart, 512, { lpo: 1n << 40n }),
  },
  { id: 'ad15', title: 'SMART log, the first 16 bytes (legal)', spec: noPartialLog, accept: [ok(16)], run: log(Lid.smart, 16) },
  {
    id: 'ad16',
    title: 'error log, one entry (legal)',
    spec: noPartialLog,
    accept: [ok(64)],
    run: log(Lid.error, 64),
  },
  {
    id: 'ad17',
    title: 'error log of 1 GiB',
    spec: 'more than MDTS: refused, nothing of that size allocated',
    accept: [permanent(0x0f), permanent(0x02)],
    run: log(Lid.error, 1 << 30),
    skip: (facts) => (facts.identify.mdts === 0 ? 'MDTS 0: no limit' : undefined),
  },
  {
    id: 'ad18',
    title: 'Set Features FID FFh',
    spec: '5.27: Invalid Field',
    accept: [permanent(0x02)],
    run: async (bench) => bench.feature((await bench.admin()).admin, 0xff, 0),
  },
  {
    id: 'ad19',
    title: 'Get Features FID FFh',
    spec: '5.15: Invalid Field',
    accept: [permanent(0x02)],
    run: admin({ opcode: AdminOpcode.getFeatures }, { tweak: (sqe) => void featureCmd.encode({ fid: 0xff }, sqe) }),
  },
  {
    id: 'ad20',
    title: 'Number of Queues: 65535 asked for',
    spec: '5.27.1.5: success; dw0 says how many there are',
    accept: [holds('success with the number granted')],
    run: async (bench) => {
      const outcome = await bench.feature((await bench.admin()).admin, Fid.numberOfQueues, 0xfffefffe);
      const granted = outcome.kind === 'cqe' && outcome.sc === 0 && outcome.dw0 !== 0xfffefffe;
      return finding(granted, granted ? 'success with the number granted' : describeOutcome(outcome));
    },
  },
  {
    id: 'ad21',
    title: 'Number of Queues when an I/O queue exists',
    spec: '5.27.1.5: Command Sequence Error',
    accept: [permanent(0x0c), status(0, 0x0c)],
    run: async (bench) => bench.feature((await bench.session()).admin, Fid.numberOfQueues, 0x00030003),
  },
  {
    id: 'ad22',
    title: 'Number of Queues: FFFFh asked for',
    spec: '5.27.1.5: FFFFh is not allowed',
    accept: [permanent(0x02)],
    run: async (bench) => bench.feature((await bench.admin()).admin, Fid.numberOfQueues, 0xffffffff),
  },
  {
    id: 'ad23',
    title: '64 Asynchronous Event Requests',
    spec: '5.2: beyond AERL + 1 each is Asynchronous Event Request Limit Exceeded',
    accept: [holds('all beyond AERL + 1 refused with 1/05h')],
    run: async (bench) => {
      const { refused, last, admin } = await manyEvents(bench, 64);
      const limit = bench.facts.identify.aerl + 1;
      const right = refused.filter((o) => o.kind === 'cqe' && o.sct === 1 && o.sc === 5).length;
      const alive = ok().match(await bench.getProperty(admin, 0x1c));
      // The queue holds 31 commands; a target may close on more.
      const good =
        (last.kind === 'closed' && refused.length === 0) || (right === refused.length && right === Math.max(0, 64 - limit) && alive);
      return finding(
        good,
        good ? 'all beyond AERL + 1 refused with 1/05h' : `${right} of 64 refused with 1/05h, AERL ${limit - 1}, then ${last.kind}`,
      );
    },
  },
  {
    id: 'ad24',
    title: 'Keep Alive with KATO 0',
    spec: '5.18: Keep Alive Timeout Invalid, or success',
    accept: [status(0, 0x1a), ok()],
    run: admin({ opcode: AdminOpcode.keepAlive }),
  },
  {
    id: 'ad26',
    title: 'Create I/O Submission Queue',
    spec: 'memory-based queues are not for fabrics',
    accept: [permanent(0x01)],
    run: admin({ opcode: 0x01 }),
  },
  {
    id: 'ad27',
    title: 'FUSE 01 on Identify',
    spec: '3.4.2: fused admin commands do not exist; never parked',
    accept: [permanent(0x02)],
    run: admin({ opcode: AdminOpcode.identify }, { read: 4096, tweak: (sqe) => void identifyCmd.encode({ cns: 1 }, sqe.fill(0x41, 1, 2)) }),
  },
  {
    id: 'ad28',
    title: 'Identify with PSDT 00 (PRP)',
    spec: 'fabrics commands use SGLs',
    accept: [permanent(0x02)],
    run: admin({ opcode: AdminOpcode.identify }, { read: 4096, tweak: (sqe) => void identifyCmd.encode({ cns: 1 }, sqe.fill(0, 1, 2)) }),
  },
  {
    id: 'ad29',
    title: 'fabrics command type 3Fh',
    spec: '6: no such command',
    accept: [permanent(0x01), permanent(0x02)],
    run: admin({ opcode: AdminOpcode.fabrics, fctype: 0x3f }),
  },
  {
    id: 'ad30',
    title: 'no Keep Alive with KATO 2 s',
    spec: '3.9: the association ends within KATO and one granule, twice that with TBKAS',
    accept: [closed],
    run: async (bench) => {
      const { admin } = await bench.admin({}, { kato: 2000 });
      const granule = bench.facts.identify.kas * 100;
      return admin.next(2 * 2000 + granule + 1500);
    },
    skip: (facts) => (facts.identify.kas === 0 ? 'no keep-alive (KAS 0)' : undefined),
  },
  {
    id: 'ad31',
    title: 'Keep Alive every second with KATO 2 s, for 5 s (legal)',
    spec: '3.9: the association lives',
    accept: [ok()],
    run: async (bench) => {
      const kato = 2000;
      for (let attempt = 1; ; attempt++) {
        const { admin } = await bench.admin({}, { kato });
        let [sent, longest] = [performance.now(), 0];
        const send = (command: () => Promise<Outcome>): Promise<Outcome> => {
          longest = Math.max(longest, performance.now() - sent);
          sent = performance.now();
          return command();
        };
        let outcome: Outcome = finding(true, '');
        for (let i = 0; i < 5; i++) {
          outcome = await send(() => admin.command({ opcode: AdminOpcode.keepAlive }));
          if (!ok().match(outcome)) break;
          await new Promise((resolve) => setTimeout(resolve, 1000));
        }
        if (ok().match(outcome)) outcome = await send(() => bench.getProperty(admin, 0x1c));
        // on a busy machine it is this host that was late, and the target may be right
        if (longest < kato || attempt === 3) return outcome;
      }
    },
    skip: (facts) => (facts.identify.kas === 0 ? 'no keep-alive (KAS 0)' : undefined),
  },
  {
    id: 'ad32',
    title: 'two Asynchronous Event Requests with one CID',
    spec: '3.3.3.1: Command ID Conflict may be answered; the queue lives',
    accept: [holds('the queue lives')],
    run: async (bench) => {
      const { admin } = await bench.admin();
      for (let i = 0; i < 2; i++) admin.send(admin.capsule({ opcode: AdminOpcode.asyncEventRequest }, { cid: 0x77 }).pdu);
      const answer = await admin.next(300);
      const alive = answer.kind === 'closed' || answer.kind === 'term' ? answer : await bench.getProperty(admin, 0x1c);
      const good = (silence.match(answer) || (answer.kind === 'cqe' && answer.sc === 3) || anyError.match(answer)) && ok().match(alive);
      return finding(good, good ? 'the queue lives' : `${describeOutcome(answer)}; then ${describeOutcome(alive)}`);
    },
  },
  {
    id: 'ad33',
    title: '4096 Asynchronous Event Requests at once',
    spec: 'refused or the connection ended: nothing is kept for them',
    accept: [holds('bounded')],
    run: async (bench) => {
      const { last, admin } = await manyEvents(bench, 4096);
      if (last.kind !== 'silent') return finding(true, 'bounded');
      const alive = await bench.getProperty(admin, 0x1c);
      return finding(ok().match(alive), ok().match(alive) ? 'bounded' : describeOutcome(alive));
    },
  },
  {
    id: 'ad36',
    title: '65,535 Asynchronous Event Requests, one behind the other',
    spec: '5.2: beyond AERL + 1 each is Asynchronous Event Request Limit Exceeded; nothing is kept for them, and the queue lives',
    accept: [holds('all refused, the queue lives')],
    run: async (bench) => {
      const sqsize = Math.min(bench.facts.cap.mqes, 127);
      const { admin } = await bench.admin({}, { sqsize });
      const most = Math.max(1, sqsize - (bench.facts.identify.aerl + 1));
      const count = 65535;
      let answered = 0;
      let wrong: Outcome | undefined;
      for (let cid = 0; cid < count; ) {
        const burst: Buffer[] = [];
        // as many as the queue holds at a time: this host keeps the rules of flow control
        for (const end = Math.min(count, cid + most); cid < end; cid++)
          burst.push(admin.capsule({ opcode: AdminOpcode.asyncEventRequest }, { cid }).pdu);
        admin.send(Buffer.concat(burst));
        // those that wait for events are never answered
        while (answered < cid - (bench.facts.identify.aerl + 1)) {
          const event = await admin.next();
          if (event.kind !== 'cqe' || event.sct !== 1 || event.sc !== 5) wrong ??= event;
          if (event.kind !== 'cqe') return finding(false, `${describeOutcome(event)} after ${answered} refusals`);
          answered++;
        }
      }
      const alive = await admin.command({ opcode: AdminOpcode.keepAlive }, { cid: 0xffff });
      const good = !wrong && alive.kind === 'cqe';
      return finding(good, good ? 'all refused, the queue lives' : describeOutcome(wrong ?? alive));
    },
  },
  {
    id: 'ad34',
    title: 'Abort of a command that is not there',
    spec: '5.1: success with dw0 bit 0 set: not aborted',
    accept: [holds('success, not aborted')],
    run: async (bench) => {
      const outcome = await admin({ opcode: AdminOpcode.abort }, { tweak: (sqe) => void sqe.writeUInt32LE(0x4242_0000, 40) })(bench);
      const good = outcome.kind === 'cqe' && outcome.sct === 0 && outcome.sc === 0 && (outcome.dw0 & 1) === 1;
      return finding(good, good ? 'success, not aborted' : describeOutcome(outcome));
    },
  },
  {
    id: 'ad35',
    title: 'I/O command Property Get on an I/O queue',
    spec: '6: Property commands are for the admin queue',
    accept: [anyError],
    run: async (bench) => {
      const { io } = await bench.session();
      return io.command({ opcode: AdminOpcode.fabrics, fctype: Fctype.propertyGet }, {});
    },
  },
];
