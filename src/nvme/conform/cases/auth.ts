/** Authentication messages (au) where none is asked for. Sections are those of the NVMe Base Specification 2.0. */
import { AdminOpcode, authCmd, Fctype, Fid } from '../../wire/index.js';
import type { Bench } from '../bench.js';
import { expectSetup } from '../bench.js';
import type { Case } from '../case.js';
import { anyError, describeOutcome, holds, ok } from '../expect.js';
import { type CommandOptions, finding, type Outcome, type RawConnection } from '../raw.js';

const refused = 'refused, and the queue lives';
const spec =
  '6.1, 8.3.4: a controller that did not ask for it refuses, or answers by the protocol; never silence, never more data than asked for';

/** The security protocol of DH-HMAC-CHAP: SECP E9h, SPSP 0101h. */
const chap = { secp: 0xe9, spsp0: 1, spsp1: 1 };
/** AUTH_Negotiate of SHA-256 without a Diffie-Hellman group. */
function negotiate(): Buffer {
  const message = Buffer.alloc(72);
  message.set([0, 0, 0, 0, 1, 0, 0, 1, 1, 0, 1, 1, 1], 0);
  return message;
}

/** Sends an authentication command; afterwards its queue must do what it did before. */
async function judge(queue: RawConnection, send: boolean, fields: Parameters<typeof authCmd.encode>[0], options: CommandOptions) {
  const outcome = await queue.command(
    { opcode: AdminOpcode.fabrics, fctype: send ? Fctype.authSend : Fctype.authReceive },
    { ...options, tweak: (sqe) => void authCmd.encode({ ...chap, ...fields }, sqe) },
  );
  const asked = send ? 0 : (options.length ?? options.read ?? 0);
  const answered = anyError.match(outcome) || (ok().match(outcome) && outcome.kind === 'cqe' && outcome.data.length <= asked);
  if (!answered) return finding(false, describeOutcome(outcome));
  return { answered, outcome };
}

const admin =
  (send: boolean, fields: Parameters<typeof authCmd.encode>[0], options: CommandOptions) =>
  async (bench: Bench): Promise<Outcome> => {
    const { admin } = await bench.admin();
    const judged = await judge(admin, send, fields, options);
    if ('kind' in judged) return judged;
    const alive = await bench.getProperty(admin, 0x1c);
    return finding(ok().match(alive), ok().match(alive) ? refused : `${describeOutcome(judged.outcome)}; then ${describeOutcome(alive)}`);
  };

const cases: Case[] = [
  {
    id: 'au01',
    title: 'Authentication Send where none is asked for',
    spec,
    accept: [holds(refused)],
    run: admin(true, { length: 72 }, { data: negotiate(), inCapsule: true }),
  },
  {
    id: 'au02',
    title: 'Authentication Receive where none is asked for',
    spec,
    accept: [holds(refused)],
    run: admin(false, { length: 4096 }, { read: 4096 }),
  },
  {
    id: 'au03',
    title: 'Authentication Send with TL longer than its data',
    spec,
    accept: [holds(refused)],
    run: admin(true, { length: 0xffff_ffff }, { data: negotiate(), inCapsule: true }),
  },
  {
    id: 'au04',
    title: 'Authentication Send of 4096 bytes on request',
    spec,
    accept: [holds(refused)],
    run: admin(true, { length: 4096 }, { data: Buffer.concat([negotiate(), Buffer.alloc(4024)]) }),
  },
  {
    id: 'au05',
    title: 'Authentication Receive of 4 GiB',
    spec: `${spec}; nothing of that size allocated`,
    accept: [holds(refused)],
    run: admin(false, { length: 0xffff_ffff }, { length: 0xffff_fffc }),
  },
  {
    id: 'au06',
    title: 'Authentication Send of an unknown security protocol',
    spec,
    accept: [holds(refused)],
    run: admin(true, { secp: 0x55, spsp0: 0xff, spsp1: 0xff, length: 72 }, { data: negotiate(), inCapsule: true }),
  },
  {
    id: 'au07',
    title: 'Authentication Send before the controller is enabled, which is then enabled',
    spec,
    accept: [holds(refused)],
    run: async (bench) => {
      const { admin } = await bench.connected();
      const judged = await judge(admin, true, { length: 72 }, { data: negotiate(), inCapsule: true });
      if ('kind' in judged) return judged;
      const alive = await bench.getProperty(admin, 0x1c);
      return finding(ok().match(alive), ok().match(alive) ? refused : describeOutcome(alive));
    },
  },
  {
    id: 'au08',
    title: 'Authentication Send as the first command of a connection',
    spec: '6.3: Connect is the first command of a queue',
    accept: [anyError],
    run: async (bench) => {
      const connection = await bench.initialised();
      return connection.command(
        { opcode: AdminOpcode.fabrics, fctype: Fctype.authSend },
        { data: negotiate(), inCapsule: true, tweak: (sqe) => void authCmd.encode({ ...chap, length: 72 }, sqe) },
      );
    },
  },
  {
    id: 'au09',
    title: 'Authentication Send on an I/O queue',
    spec,
    accept: [holds(refused)],
    run: async (bench) => {
      const { admin, cntlid } = await bench.admin();
      await expectSetup('Number of Queues', bench.feature(admin, Fid.numberOfQueues, 0), 'cqe');
      const io = await bench.ioQueue(cntlid, 1);
      const judged = await judge(io, true, { length: 72 }, { data: negotiate(), inCapsule: true });
      if ('kind' in judged) return judged;
      const read = await bench.read(io, 0n);
      return finding(ok().match(read), ok().match(read) ? refused : describeOutcome(read));
    },
  },
];

/** None of them means anything at a target that asks for authentication: see chap.ts. */
export const authCases: Case[] = cases.map((one) => ({
  ...one,
  skip: ({ chap }) => (chap?.chosen ? 'the target asks for authentication' : undefined),
}));
