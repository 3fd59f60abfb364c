/**
 * DH-HMAC-CHAP at a target that asks for it: commands (da), AUTH_Negotiate (dn), the reply (dr), Success2 (ds), and the order of messages
 * (do). Sections are those of the NVMe Base Specification 2.0.
 */
import { groupPrime, nullGroup } from '../../auth/groups.js';
import { hashes } from '../../auth/keys.js';
import {
  AdminOpcode,
  AuthId,
  AuthType,
  type authCmd,
  authFailed,
  authFailure,
  chapReply,
  chapSuccess2,
  connectCmd,
  connectData,
  dynamicCntlid,
  encodePdu,
  Fctype,
  Fid,
  NvmOpcode,
  pdus,
} from '../../wire/index.js';
import { type Bench, expectSetup, type Facts } from '../bench.js';
import type { Case } from '../case.js';
import { anyError, describeOutcome, holds, ok } from '../expect.js';
import { keptOut, Locked } from '../locked.js';
import { type CommandOptions, finding, type Outcome } from '../raw.js';

/** Why a case of authentication cannot be judged. */
const noChap = ({ chap }: Facts): string | undefined => (chap?.chosen ? undefined : 'the target asks for no authentication');
const noGroup = (facts: Facts): string | undefined =>
  noChap(facts) ?? (facts.chap!.chosen!.group === nullGroup ? 'the target chooses no Diffie-Hellman group' : undefined);
const noProof = (facts: Facts): string | undefined =>
  noChap(facts) ?? (facts.chap!.controllerKey ? undefined : 'no --dhchap-ctrl-secret-file');

/** As many as this, or as the limit on open files allows. */
const crowd = 10_000;
const before = '8.3.4.2: until a queue is authenticated, only authentication commands pass; others end with Authentication Required';
const command = '5.2, 6.1 and 8.3.4.4: a field of an authentication command in error; the host is not let in';
const negotiation = '8.3.4.4.1: AUTH_Negotiate in error is answered with AUTH_Failure1; the host is not let in';
const replying = '8.3.4.5.4: a reply in error is answered with AUTH_Failure1; the host is not let in';
const deciding = '8.3.4.5.6: Success2 ends the exchange; until it has come, the host is not let in';
const order = '8.3.4.4 and 8.3.4.5: a message out of turn ends the exchange; the host is not let in';

type Run = (locked: Locked, bench: Bench) => Promise<Outcome>;
/** A case in which the host must not be let in. */
const out = (id: string, title: string, spec: string, run: Run, skip = noChap): Case => ({
  id,
  title,
  spec,
  accept: [holds(keptOut)],
  run: async (bench) => run(await Locked.open(bench), bench),
  skip,
});

type Spoil = (message: Buffer, facts: Facts) => Buffer;
/** A message with a change, sent in its turn. */
const sent =
  (stage: (locked: Locked) => Promise<Buffer>, spoil: Spoil): Run =>
  async (locked, bench) =>
    locked.judge(await bench.authSend(locked.queue, spoil(await stage(locked), bench.facts)));
/** A message with other bytes at a place. */
const put = (message: Buffer, at: number, ...bytes: number[]): Buffer => {
  const copy = Buffer.from(message);
  copy.set(bytes, at);
  return copy;
};
const edit =
  (at: number, ...bytes: number[]): Spoil =>
  (message) =>
    put(message, at, ...bytes);
/** A message with a bit of one byte the other way round. */
const flip = (message: Buffer, at: number): Buffer => put(message, at, message[at]! ^ 0x40);
const longer = (message: Buffer, by: number): Buffer => Buffer.concat([message, Buffer.alloc(by)]);
const shorter: Spoil = (message) => message.subarray(0, -1);
/** Bytes of a response and of a challenge. */
const size = (facts: Facts): number => hashes.get(facts.chap!.chosen!.hash)!.size;
/** Where the DH value of a reply begins. */
const valueAt = (facts: Facts): number => chapReply.size + 2 * size(facts);
/** Another DH value. */
const value =
  (make: (prime: bigint) => bigint): Spoil =>
  (message, facts) => {
    const prime = groupPrime(facts.chap!.chosen!.group);
    const digits = make(BigInt(`0x${prime.toString('hex')}`)).toString(16);
    return Buffer.concat([message.subarray(0, valueAt(facts)), Buffer.from(digits.padStart(prime.length * 2, '0'), 'hex')]);
  };
/** AUTH_Failure2 of the transaction that a message is of. */
const failure2: Spoil = (message) =>
  authFailure.encode({ type: AuthType.common, id: AuthId.failure2, tid: message.readUInt16LE(4), reason: authFailed, explanation: 1 });

/** Commands that must not pass. */
const commands: [id: string, title: string, run: Run][] = [
  [
    'da01',
    'Identify',
    ({ queue }) => queue.command({ opcode: AdminOpcode.identify }, { read: 4096, tweak: (sqe) => void sqe.writeUInt8(1, 40) }),
  ],
  [
    'da02',
    'Get Log Page',
    ({ queue }) =>
      queue.command(
        { opcode: AdminOpcode.getLogPage, nsid: 0xffff_ffff },
        { read: 512, tweak: (sqe) => void sqe.writeUInt32LE(0x7f_0002, 40) },
      ),
  ],
  ['da03', 'Set Features, Number of Queues', ({ queue }, bench) => bench.feature(queue, Fid.numberOfQueues, 0)],
  ['da04', 'Asynchronous Event Request', ({ queue }) => queue.command({ opcode: AdminOpcode.asyncEventRequest })],
  ['da05', 'Property Get', ({ queue }, bench) => bench.getProperty(queue, 0x1c)],
  ['da06', 'Property Set, CC.EN = 1', ({ queue }, bench) => bench.setProperty(queue, 0x14, 0x46_0001n)],
  ['da07', 'an unknown opcode', ({ queue }) => queue.command({ opcode: 0xff })],
];

/** Authentication Send of a good message with fields in error. */
const send =
  (fields: Parameters<typeof authCmd.encode>[0], options: CommandOptions = {}): Run =>
  async (locked, bench) =>
    locked.judge(await bench.authSend(locked.queue, locked.host.negotiate(), fields, options));
/** Authentication Receive of the challenge, likewise. */
const receive =
  (fields: Parameters<typeof authCmd.encode>[0], options: CommandOptions = {}): Run =>
  async (locked, bench) => {
    await expectSetup('AUTH_Negotiate', bench.authSend(locked.queue, locked.host.negotiate()), 'cqe');
    return locked.judge(await bench.authReceive(locked.queue, 4096, fields, options), false);
  };
const fields: [id: string, title: string, run: Run][] = [
  ['da10', 'Authentication Send of another security protocol', send({ secp: 0x55 })],
  ['da11', 'Authentication Send with SPSP0 2', send({ spsp0: 2 })],
  ['da12', 'Authentication Send with SPSP1 0', send({ spsp1: 0 })],
  ['da13', 'Authentication Send with TL 0', send({ length: 0 })],
  ['da14', 'Authentication Send with TL shorter than its data', send({ length: 71 })],
  ['da15', 'Authentication Send with TL of 4 GiB', send({ length: 0xffff_ffff })],
  ['da16', 'Authentication Send of 4 GiB', send({ length: 0xffff_fffc }, { inCapsule: false, length: 0xffff_fffc })],
  ['da17', 'Authentication Receive with AL 0', receive({ length: 0 })],
  ['da18', 'Authentication Receive with AL 8, too little for a challenge', receive({ length: 8 })],
  ['da19', 'Authentication Receive of 4 GiB', receive({ length: 0xffff_fffc }, { length: 0xffff_fffc })],
];

const negotiations: [id: string, title: string, spoil: Spoil][] = [
  ['dn01', 'a message of one byte', (m) => m.subarray(0, 1)],
  ['dn02', 'half a header', (m) => m.subarray(0, 5)],
  ['dn03', 'AUTH_Negotiate without a descriptor', (m) => m.subarray(0, 8)],
  ['dn04', 'AUTH_Negotiate one byte too short', shorter],
  ['dn05', 'AUTH_Negotiate of no protocol', edit(7, 0)],
  ['dn06', 'AUTH_Negotiate of two protocols, of which one is there', edit(7, 2)],
  ['dn07', 'AUTH_Negotiate of 255 protocols', edit(7, 255)],
  ['dn08', 'AUTH_Negotiate that asks for an unknown secure channel', edit(6, 0xff)],
  ['dn09', 'AUTH_Negotiate of an unknown protocol', edit(8, 0x55)],
  ['dn10', 'AUTH_Negotiate of no hash function', edit(10, 0)],
  ['dn11', 'AUTH_Negotiate of 31 hash functions', edit(10, 31)],
  ['dn12', 'AUTH_Negotiate of no group', edit(11, 0)],
  ['dn13', 'AUTH_Negotiate of 255 groups', edit(11, 255)],
  ['dn14', 'AUTH_Negotiate of hash functions that do not exist', (m) => put(put(m, 10, 3), 12, 0, 4, 255)],
  ['dn15', 'AUTH_Negotiate of groups that do not exist', (m) => put(put(m, 11, 3), 42, 6, 0x7f, 255)],
  ['dn16', 'a reply instead of AUTH_Negotiate', edit(0, AuthType.dhchap, AuthId.reply)],
  ['dn17', 'a challenge of the host', edit(0, AuthType.dhchap, AuthId.challenge)],
  ['dn18', 'Success1 of the host', edit(0, AuthType.dhchap, AuthId.success1)],
  ['dn19', 'Success2 instead of AUTH_Negotiate', edit(0, AuthType.dhchap, AuthId.success2)],
  ['dn20', 'an unknown message', edit(0, 7, 0x77)],
];

const replies: [id: string, title: string, spoil: Spoil, skip?: typeof noChap][] = [
  ['dr01', 'a reply of another transaction', (m) => flip(m, 4)],
  ['dr02', 'a reply with HL 0', edit(6, 0)],
  ['dr03', 'a reply with HL 255', edit(6, 255)],
  ['dr04', 'a reply with HL of another hash function', (m, facts) => put(m, 6, size(facts) === 32 ? 48 : 32)],
  ['dr05', 'a reply with CVALID 1 and a challenge with sequence number 0', (m) => put(put(m, 8, 1), 12, 0, 0, 0, 0)],
  ['dr06', 'a reply of 8 bytes', (m) => m.subarray(0, 8)],
  ['dr07', 'a reply that ends behind its header', (m) => m.subarray(0, chapReply.size)],
  ['dr08', 'a reply one byte too short', shorter],
  ['dr09', 'a reply with DHVLEN 65535', edit(10, 255, 255)],
  ['dr10', 'a reply with a response of zeroes', (m, facts) => put(m, chapReply.size, ...Buffer.alloc(size(facts)))],
  ['dr11', 'a reply with one wrong bit in its response', (m) => flip(m, chapReply.size)],
  ['dr12', 'a reply with DHVLEN 0 and no value', (m, facts) => put(m.subarray(0, valueAt(facts)), 10, 0, 0), noGroup],
  ['dr13', 'a DH value of 0', value(() => 0n), noGroup],
  ['dr14', 'a DH value of 1', value(() => 1n), noGroup],
  ['dr15', 'a DH value of p - 1', value((p) => p - 1n), noGroup],
  ['dr16', 'a DH value of p', value((p) => p), noGroup],
  ['dr17', 'a DH value of p + 1', value((p) => p + 1n), noGroup],
  ['dr18', 'a DH value of all ones', value((p) => (1n << BigInt(p.toString(2).length)) - 1n), noGroup],
  ['dr19', 'a DH value one byte too long', (m) => put(longer(m, 1), 10, m[10]! + 1), noGroup],
  ['dr20', 'a DH value one byte too short', (m) => put(shorter(m, {} as Facts), 10, m[10]! - 1, m[11]! - (m[10] === 0 ? 1 : 0)), noGroup],
  ['dr21', 'another DH value than the response was made with', value((p) => p >> 3n), noGroup],
  ['dr22', 'AUTH_Negotiate again instead of a reply', edit(0, AuthType.common, AuthId.negotiate)],
  ['dr23', 'Success2 instead of a reply', (m) => put(m.subarray(0, chapSuccess2.size), 1, AuthId.success2)],
  ['dr24', 'AUTH_Failure2 instead of a reply, then on as if nothing had happened', failure2],
];

const verdicts: [id: string, title: string, spoil: Spoil][] = [
  ['ds01', 'Success2 of another transaction', (m) => flip(m, 4)],
  ['ds02', 'Success2 one byte too short', shorter],
  ['ds03', 'AUTH_Failure2 instead of Success2: the target has not proved itself', failure2],
  ['ds04', 'AUTH_Negotiate instead of Success2', (m) => put(longer(m, 56), 0, AuthType.common, AuthId.negotiate)],
];

/** A good reply for one exchange, with the transaction of another one, which is sent in its place. */
async function foreign(from: Locked, to: Locked, bench: Bench, used: boolean): Promise<Outcome> {
  const good = await from.reply();
  if (used) {
    await expectSetup('the reply', bench.authSend(from.queue, good), 'cqe');
    await expectSetup('Success1', bench.authReceive(from.queue, 4096), 'cqe');
  }
  const own = await to.reply();
  own.copy(good, 4, 4, 6);
  return to.judge(await bench.authSend(to.queue, good));
}

/** An exchange that nothing is wrong with, with a pause before each step. */
async function slowly(bench: Bench, pause: number): Promise<Outcome> {
  const locked = await Locked.open(bench);
  const wait = () => new Promise((resolve) => setTimeout(resolve, pause));
  await wait();
  const message = await locked.reply();
  await wait();
  await expectSetup('the reply', bench.authSend(locked.queue, message), 'cqe');
  await wait();
  const last = locked.host.success((await expectSetup('Success1', bench.authReceive(locked.queue, 4096), 'cqe')).data);
  await wait();
  if (last) await expectSetup('Success2', bench.authSend(locked.queue, last), 'cqe');
  const after = await bench.getProperty(locked.queue, 0x1c);
  return finding(ok().match(after), ok().match(after) ? 'authenticated' : describeOutcome(after));
}

const orders: Case[] = [
  out('do01', 'Authentication Receive before any message', order, async (locked) => locked.judge(await locked.fetch(), false)),
  out('do02', 'the challenge fetched twice', order, async (locked) => {
    await locked.challenge();
    return locked.locked(describeOutcome(await locked.fetch()));
  }),
  out('do03', 'AUTH_Negotiate twice', order, async (locked, bench) => {
    await locked.challenge();
    return locked.locked(describeOutcome(await bench.authSend(locked.queue, locked.host.negotiate())));
  }),
  out('do04', 'a good reply of another connection', order, async (locked, bench) =>
    foreign(await Locked.open(bench), locked, bench, false),
  ),
  out('do05', 'a reply that has opened another queue', order, async (locked, bench) =>
    foreign(await Locked.open(bench), locked, bench, true),
  ),
  out(
    'do06',
    "the target's own challenge sent back to it",
    '8.3.4.5.4: a challenge of the host must not be that of the controller, or the answer would be what was asked for',
    async (locked, bench) => {
      const challenge = await locked.challenge();
      const message = await locked.host.reply(challenge);
      challenge.copy(message, chapReply.size + size(bench.facts), 16, 16 + size(bench.facts));
      return locked.judge(await bench.authSend(locked.queue, message));
    },
    noProof,
  ),
  out('do07', 'a reply with a wrong response, and a good one without a pause', order, async (locked) => {
    const good = await locked.reply();
    const wrong = locked.authSend(flip(good, chapReply.size));
    const right = locked.authSend(good);
    locked.queue.send(Buffer.concat([wrong.pdu, right.pdu]));
    return locked.judge(await locked.queue.completion(right.cid));
  }),
  out(
    'do08',
    'Success2 never sent, and commands behind Success1',
    before,
    async (locked) => {
      await locked.success2();
      return locked.locked('nothing');
    },
    noProof,
  ),
  out('do09', 'Connect of an I/O queue of an association that is not authenticated', before, async (locked, bench) => {
    const io = await bench.initialised();
    const outcome = await bench.connect(io, { qid: 1, cntlid: locked.cntlid, sqsize: bench.entries - 1 });
    return ok().match(outcome) ? finding(false, 'the I/O queue is connected') : locked.judge(outcome, false);
  }),
  {
    id: 'do10',
    title: 'READ, WRITE and Flush on an I/O queue that is not authenticated',
    spec: before,
    accept: [holds(keptOut)],
    run: async (bench) => {
      const { admin, cntlid } = await bench.admin();
      await expectSetup('Number of Queues', bench.feature(admin, Fid.numberOfQueues, 0), 'cqe');
      const io = await bench.initialised();
      const { dw0 } = await expectSetup('Connect', bench.connect(io, { qid: 1, cntlid, sqsize: bench.entries - 1 }), 'cqe');
      if (dw0 >> 16 === 0) return finding(true, keptOut, 'the target asks on the admin queue alone');
      for (const opcode of [NvmOpcode.read, NvmOpcode.write, NvmOpcode.flush]) {
        const data = opcode === NvmOpcode.read ? { read: bench.bs } : {};
        const outcome = await io.command({ opcode, nsid: bench.facts.ns.nsid }, bench.rw(0n, 1, data));
        if (outcome.kind === 'closed') break;
        if (!anyError.match(outcome)) return finding(false, `opcode ${opcode}: ${describeOutcome(outcome)}`);
      }
      return finding(true, keptOut);
    },
    skip: noChap,
  },
  {
    id: 'do11',
    title: 'an exchange with pauses of 500 ms (legal)',
    spec: '8.3.4.4: a controller waits as long as KATO says, or two minutes',
    accept: [holds('authenticated')],
    run: (bench) => slowly(bench, 500),
    skip: noChap,
  },
  {
    id: 'do12',
    title: 'authentication again on a queue that is open (legal)',
    spec: '8.3.4.3: a host may authenticate again at any time',
    accept: [holds('authenticated twice')],
    run: async (bench) => {
      const { admin } = await bench.admin();
      await bench.prove(admin);
      const after = await bench.getProperty(admin, 0x1c);
      return finding(ok().match(after), ok().match(after) ? 'authenticated twice' : describeOutcome(after));
    },
    skip: noChap,
  },
  {
    id: 'do13',
    title: `${crowd} connections that begin to authenticate and stop, then a host`,
    spec: 'those who do not go on must not keep hosts out: an exchange has a deadline, or the oldest make room',
    accept: [holds('the host is served')],
    run: async (bench) => {
      const begun = await beginMany(bench, crowd);
      const outcome = await bench.servedAfterAll();
      const good = ok().match(outcome) && begun > 0;
      return finding(good, good ? 'the host is served' : describeOutcome(outcome), `${begun} connections were open`);
    },
    skip: (facts) => noChap(facts) ?? (facts.tls ? 'with TLS, the handshakes of tl are what comes first' : undefined),
  },
];

/** ICReq, Connect and AUTH_Negotiate without waiting for an answer, of many connections. @returns how many were open in the end */
async function beginMany(bench: Bench, count: number): Promise<number> {
  const { hostnqn, subnqn, hostid } = bench.facts;
  const locked = await Locked.open(bench);
  const connect = locked.queue.capsule(
    { opcode: AdminOpcode.fabrics, fctype: Fctype.connect },
    {
      data: connectData.encode({ hostid, cntlid: dynamicCntlid, subnqn, hostnqn }),
      inCapsule: true,
      tweak: (sqe) => void connectCmd.encode({ sqsize: 31 }, sqe),
    },
  );
  const bytes = Buffer.concat([encodePdu(pdus.icReq, {}), connect.pdu, locked.authSend(locked.host.negotiate()).pdu]);
  return bench.silent(count, () => bytes);
}

export const chapCases: Case[] = [
  ...commands.map(([id, title, run]) =>
    out(id, `${title} before authentication`, before, async (locked, bench) => locked.judge(await run(locked, bench), false)),
  ),
  ...fields.map(([id, title, run]) => out(id, title, command, run)),
  ...negotiations.map(([id, title, spoil]) =>
    out(
      id,
      title,
      negotiation,
      sent(async ({ host }) => host.negotiate(), spoil),
    ),
  ),
  ...replies.map(([id, title, spoil, skip]) =>
    out(
      id,
      title,
      replying,
      sent((locked) => locked.reply(), spoil),
      skip,
    ),
  ),
  ...verdicts.map(([id, title, spoil]) =>
    out(
      id,
      title,
      deciding,
      sent((locked) => locked.success2(), spoil),
      noProof,
    ),
  ),
  ...orders,
];
