/** Paths and access: ANA (an), what each host sees (ho), limits (li), and logs and features that say what is there (lo, fe). */
import { createHash } from 'node:crypto';
import {
  AdminOpcode,
  AnaState,
  anaGroup,
  anaHeader,
  Cmic,
  Cns,
  decodeNamespaceList,
  errorEntry,
  Fid,
  featureCmd,
  getLogCmd,
  identifyCmd,
  identifyNamespace,
  Lid,
  Lpa,
  NvmOpcode,
  Oaes,
} from '../../wire/index.js';
import type { Bench, ConnectFields, Facts } from '../bench.js';
import { expectSetup, openFilesLimit } from '../bench.js';
import type { Case } from '../case.js';
import { describeOutcome, holds, ok, permanent, status } from '../expect.js';
import { finding, type Outcome, type RawConnection } from '../raw.js';

const allNamespaces = 0xffff_ffff;

function getLog(admin: RawConnection, lid: number, bytes: number, lsp = 0): Promise<Outcome> {
  const dwords = bytes / 4 - 1;
  return admin.command(
    { opcode: AdminOpcode.getLogPage, nsid: allNamespaces },
    { read: bytes, tweak: (sqe) => void getLogCmd.encode({ lid, lsp, numdl: dwords & 0xffff, numdu: dwords >>> 16 }, sqe) },
  );
}
const readLog = async (admin: RawConnection, lid: number, bytes: number, lsp = 0): Promise<Buffer> =>
  (await expectSetup(`Get Log Page ${lid.toString(16)}h`, getLog(admin, lid, bytes, lsp), 'cqe')).data;

const identify = (admin: RawConnection, cns: number, nsid = 0): Promise<Outcome> =>
  admin.command({ opcode: AdminOpcode.identify, nsid }, { read: 4096, tweak: (sqe) => void identifyCmd.encode({ cns }, sqe) });
const identifyData = async (admin: RawConnection, cns: number, nsid = 0): Promise<Buffer> =>
  (await expectSetup(`Identify ${cns.toString(16)}h`, identify(admin, cns, nsid), 'cqe')).data;

/** First of the namespaces that a host sees. */
const activeList = async (admin: RawConnection): Promise<number[]> => decodeNamespaceList(await identifyData(admin, Cns.activeNamespaces));

interface Group {
  state: number;
  nsids: number[];
}

/** An ANA log that no host can read. It is the finding of whatever case meets it. */
class WrongLog extends Error {}

/** The ANA log as a host reads it. @throws WrongLog */
function parseAna(log: Buffer): { chgcnt: bigint; groups: Map<number, Group> } {
  const { chgcnt, ngrps } = anaHeader.decode(log);
  const groups = new Map<number, Group>();
  let at = anaHeader.size;
  for (let i = 0; i < ngrps; i++) {
    if (at + anaGroup.size > log.length) throw new WrongLog(`${ngrps} groups do not fit the log`);
    const { grpid, nnsids, state } = anaGroup.decode(log, at);
    at += anaGroup.size;
    if (at + 4 * nnsids > log.length) throw new WrongLog(`the namespaces of group ${grpid} do not fit the log`);
    if (groups.has(grpid)) throw new WrongLog(`group ${grpid} is listed twice`);
    groups.set(grpid, { state, nsids: Array.from({ length: nnsids }, (_, k) => log.readUInt32LE(at + 4 * k)) });
    at += 4 * nnsids;
  }
  return { chgcnt, groups };
}

/** Room for the ANA log: all groups, and all namespaces that hosts may see. */
const anaSize = ({ identify: { nanagrpid, nn }, maxTransfer }: Facts): number =>
  Math.min(anaHeader.size + nanagrpid * anaGroup.size + 4 * Math.min(nn, 1024), maxTransfer) & ~3;
const readAna = async (bench: Bench, admin: RawConnection, lsp = 0) => parseAna(await readLog(admin, Lid.ana, anaSize(bench.facts), lsp));

const noAna = (facts: Facts): string | undefined => (facts.identify.cmic & Cmic.ana ? undefined : 'no ANA (CMIC)');
const noOther = (facts: Facts): string | undefined =>
  facts.other ? undefined : 'the discovery log does not have this address of the subsystem and another one that can be reached';

/** What I/O is answered with in each state. */
const statusOf = new Map<number, { sct: number; sc: number }>([
  [AnaState.optimized, { sct: 0, sc: 0 }],
  [AnaState.nonOptimized, { sct: 0, sc: 0 }],
  [AnaState.inaccessible, { sct: 3, sc: 2 }],
  [AnaState.persistentLoss, { sct: 3, sc: 1 }],
  [AnaState.change, { sct: 3, sc: 3 }],
]);

/** A queue like that of session(), through another address. */
async function sessionAt(bench: Bench, at: { address: string; port: number } | undefined, fields: ConnectFields = {}) {
  const admin = await bench.initialised({}, at);
  const cntlid = await bench.join(admin, fields);
  await bench.enable(admin);
  await expectSetup('Number of Queues', bench.feature(admin, Fid.numberOfQueues, 0), 'cqe');
  const io = await bench.initialised({}, at);
  await bench.join(io, { ...fields, qid: 1, cntlid, sqsize: bench.entries - 1 });
  return { admin, io, cntlid };
}

/** Another host, the same one every time. */
function otherHost({ hostnqn }: Facts): ConnectFields & { hostnqn: string; hostid: Buffer } {
  const hostid = createHash('sha256').update(`another host than ${hostnqn}`).digest().subarray(0, 16);
  return {
    hostnqn: `nqn.2014-08.org.nvmexpress:uuid:${hostid.toString('hex').replace(/^(.{8})(.{4})(.{4})(.{4})/, '$1-$2-$3-$4-')}`,
    hostid,
  };
}

const readOf = (bench: Bench, io: RawConnection, nsid: number): Promise<Outcome> =>
  io.command({ opcode: NvmOpcode.read, nsid }, bench.rw(0n, 1, { read: bench.bs }));

/** What a host finds of a namespace that it does not see; undefined if nothing. */
async function traces(bench: Bench, { admin, io }: { admin: RawConnection; io: RawConnection }, nsid: number): Promise<string | undefined> {
  const said = `namespace ${nsid}, which is not in the list:`;
  const gone = permanent(0x0b);
  const read = await readOf(bench, io, nsid);
  if (!gone.match(read)) return `${said} READ gets ${describeOutcome(read)}`;
  const flush = await io.command({ opcode: NvmOpcode.flush, nsid });
  if (!gone.match(flush)) return `${said} Flush gets ${describeOutcome(flush)}`;
  const data = await identify(admin, Cns.namespace, nsid);
  const zero = data.kind === 'cqe' && data.sc === 0 && data.data.length === 4096 && data.data.every((byte) => byte === 0);
  if (!zero && !gone.match(data)) return `${said} Identify gets ${describeOutcome(data)} that are not zero`;
  const descriptors = await identify(admin, Cns.namespaceDescriptors, nsid);
  if (!(descriptors.kind === 'cqe' && (descriptors.sc !== 0 || descriptors.data.every((byte) => byte === 0))))
    return `${said} its identifiers are told`;
  if (noAna(bench.facts) !== undefined) return undefined;
  const log = await readAna(bench, admin);
  return [...log.groups.values()].some(({ nsids }) => nsids.includes(nsid)) ? `${said} it is in the ANA log` : undefined;
}

/** Most associations that the case about limits opens. */
const manyControllers = 600;

const cases: Case[] = [
  {
    id: 'an01',
    title: 'the ANA log, the namespace list and Identify (legal)',
    spec: '5.16.1.12: every namespace that the host sees is in one group, that of its ANAGRPID; no other namespace is',
    accept: [holds('every namespace is in its group')],
    run: async (bench) => {
      const { admin } = await bench.admin();
      const log = await readAna(bench, admin);
      const seen = await activeList(admin);
      const listed = [...log.groups.values()].flatMap(({ nsids }) => nsids);
      const strange = listed.find((nsid, i) => !seen.includes(nsid) || listed.indexOf(nsid) !== i);
      if (strange !== undefined && seen.length < 1024) return finding(false, `namespace ${strange} is not active, or is listed twice`);
      for (const nsid of seen.slice(0, 64)) {
        const { anagrpid } = identifyNamespace.decode(await identifyData(admin, Cns.namespace, nsid));
        if (!log.groups.get(anagrpid)?.nsids.includes(nsid)) return finding(false, `namespace ${nsid} is not in its group ${anagrpid}`);
      }
      return finding(true, 'every namespace is in its group');
    },
    skip: noAna,
  },
  {
    id: 'an02',
    title: 'a READ, and the ANA state of its group',
    spec: '8.1: what I/O is answered with follows from the state that the log tells',
    accept: [holds('the status follows from the state')],
    run: async (bench) => {
      const { admin, io } = await bench.session();
      const log = await readAna(bench, admin);
      const { nsid } = bench.facts.ns;
      const group = [...log.groups.values()].find(({ nsids }) => nsids.includes(nsid));
      const expected = statusOf.get(group?.state ?? 0);
      if (!expected) return finding(false, `the state of namespace ${nsid} is ${group?.state ?? 'not told'}`);
      const read = await bench.read(io, 0n);
      const good = read.kind === 'cqe' && read.sct === expected.sct && read.sc === expected.sc;
      return finding(good, good ? 'the status follows from the state' : `state ${group!.state}, and READ gets ${describeOutcome(read)}`);
    },
    skip: noAna,
  },
  {
    id: 'an03',
    title: 'the ANA log without namespaces (RGO, legal)',
    spec: '5.16.1.12: the same groups, each without a list',
    accept: [holds('the same groups without namespaces')],
    run: async (bench) => {
      const { admin } = await bench.admin();
      const [whole, groups] = [await readAna(bench, admin), await readAna(bench, admin, 1)];
      const same =
        [...whole.groups].every(([id, { state }]) => groups.groups.get(id)?.state === state) && whole.groups.size === groups.groups.size;
      const bare = [...groups.groups.values()].every(({ nsids }) => nsids.length === 0);
      const text = same && bare ? 'the same groups without namespaces' : same ? 'namespaces are listed' : 'other groups';
      return finding(same && bare, text);
    },
    skip: noAna,
  },
  {
    id: 'an04',
    title: 'two addresses of the subsystem: two controllers, the same namespaces',
    spec: '8.1, 2.4.1: hosts join paths by the subsystem, NGUID, EUI-64 and UUID; controller IDs are unique in it',
    accept: [holds('two controllers, the same namespaces')],
    run: async (bench) => {
      const [one, two] = [await bench.admin(), await sessionAt(bench, bench.facts.other)];
      if (one.cntlid === two.cntlid) return finding(false, `both controllers are ${one.cntlid}`);
      const [a, b] = [await activeList(one.admin), await activeList(two.admin)];
      if (a.join() !== b.join()) return finding(false, `namespaces ${a.join(', ')} here, ${b.join(', ')} there`);
      for (const nsid of a.slice(0, 64)) {
        const ids = await Promise.all([one, two].map(({ admin }) => identifyData(admin, Cns.namespaceDescriptors, nsid)));
        if (!ids[0]!.equals(ids[1]!)) return finding(false, `namespace ${nsid} has other identifiers there`);
      }
      const [here, there] = await Promise.all([one, two].map(({ admin }) => identifyData(admin, Cns.controller)));
      const subsystem = (data: Buffer): string => data.toString('latin1', 4, 64) + data.toString('latin1', 768, 1024);
      const same = subsystem(here!) === subsystem(there!);
      return finding(same, same ? 'two controllers, the same namespaces' : 'serial number, model or NQN differ');
    },
    skip: noOther,
  },
  {
    id: 'an05',
    title: 'an ANA state changes at this address, and not at another one',
    spec: '8.1.3, 5.16.1.12: the event and the change count come to hosts whose log has changed, and to no others',
    accept: [holds('told here, and not there')],
    run: async (bench) => {
      const [one, two] = [await bench.admin(), await sessionAt(bench, bench.facts.other)];
      const event = (admin: RawConnection) => {
        const { pdu, cid } = admin.capsule({ opcode: AdminOpcode.asyncEventRequest });
        admin.send(pdu);
        return (wait: number) => admin.completion(cid, wait);
      };
      for (const { admin } of [one, two])
        await expectSetup('Set Features 0Bh', bench.feature(admin, Fid.asyncEventConfiguration, Oaes.ana), 'cqe');
      const before = [await readAna(bench, one.admin), await readAna(bench, two.admin)];
      const [here, there] = [event(one.admin), event(two.admin)];
      await bench.facts.changeAna!();
      const told = await here(2000);
      const not = await there(500);
      const after = [await readAna(bench, one.admin), await readAna(bench, two.admin)];
      const counts = [before[0], after[0], before[1], after[1]].map((log) => log!.chgcnt);
      if (told.kind !== 'cqe' || (told.dw0 & 0xffff07) !== 0x0c0302) return finding(false, `no ANA event here: ${describeOutcome(told)}`);
      if (counts[1]! <= counts[0]!) return finding(false, `the change count here stays ${counts[1]}`);
      if (not.kind !== 'silent') return finding(false, `an event at the other address: ${describeOutcome(not)}`);
      if (counts[2] !== counts[3]) return finding(false, 'the change count of the other address has changed');
      return finding(true, 'told here, and not there');
    },
    skip: (facts) => noAna(facts) ?? noOther(facts) ?? (facts.changeAna ? undefined : 'no --change-ana command'),
  },
  {
    id: 'ho01',
    title: 'namespaces that another host sees, and this one does not',
    spec: '5.17, 3.2.1: a namespace that is not attached is inactive: not listed, not identified, no I/O',
    accept: [holds('each host meets only what it sees')],
    run: async (bench) => {
      const other = otherHost(bench.facts);
      const guest = await bench.connect(await bench.initialised(), other);
      if (!ok().match(guest)) return finding(true, 'each host meets only what it sees');
      const [mine, his] = [await bench.session(), await sessionAt(bench, undefined, other)];
      const [a, b] = [await activeList(mine.admin), await activeList(his.admin)];
      for (const [session, nsids] of [
        [mine, b.filter((nsid) => !a.includes(nsid))],
        [his, a.filter((nsid) => !b.includes(nsid))],
      ] as const)
        for (const nsid of nsids.slice(0, 16)) {
          const found = await traces(bench, session, nsid);
          if (found !== undefined) return finding(false, found);
        }
      const differ = a.join() !== b.join();
      return { ...finding(true, 'each host meets only what it sees'), note: differ ? 'their lists differ' : 'both see the same' };
    },
  },
  {
    id: 'ho02',
    title: 'an NSID that is not in the list: READ, Flush, Identify, logs',
    spec: '3.2.1: an inactive namespace; Invalid Namespace or Format, and Do Not Retry',
    accept: [holds('it is not there')],
    run: async (bench) => {
      const session = await bench.session();
      const seen = await activeList(session.admin);
      const last = seen.at(-1) ?? 0;
      const found = await traces(bench, session, last + 1);
      return finding(found === undefined, found ?? 'it is not there');
    },
    skip: ({ identify: { nn }, nsids }) => (nsids.length < nn && nsids.length < 1024 ? undefined : 'all namespaces are there'),
  },
  {
    id: 'li01',
    title: 'associations without an end',
    spec: '6.3: a host beyond a limit is told, with Connect Controller Busy; it is not cut off',
    accept: [holds('told by a status, or let in')],
    run: async (bench) => {
      const most = Math.min(manyControllers, openFilesLimit() - 200);
      for (let count = 0; count < most; count++) {
        const outcome = await bench.connect(await bench.initialised());
        if (ok().match(outcome)) continue;
        const good = status(1, 0x81).match(outcome);
        return { ...finding(good, good ? 'told by a status, or let in' : describeOutcome(outcome)), note: `${count} associations` };
      }
      return { ...finding(true, 'told by a status, or let in'), note: `${most} associations` };
    },
  },
  {
    id: 'lo01',
    title: 'the list of log pages (00h), and what answers',
    spec: '5.16.1.1: a log page that is listed can be read; one that is not gets Invalid Log Page or Invalid Field',
    accept: [holds('the list is right')],
    run: async (bench) => {
      const { admin } = await bench.admin();
      const list = await readLog(admin, Lid.supported, 1024);
      // of these, some need more than a LID: an endurance group, a context, a telemetry area
      const plain = [
        Lid.error,
        Lid.smart,
        Lid.firmware,
        Lid.changedNamespaces,
        Lid.effects,
        Lid.ana,
        Lid.featureEffects,
        Lid.managementEffects,
      ];
      for (const lid of plain) {
        const listed = (list.readUInt32LE(4 * lid) & 1) === 1;
        const outcome = await getLog(admin, lid, 16);
        if (ok().match(outcome) !== listed)
          return finding(false, `${lid.toString(16)}h is ${listed ? '' : 'not '}listed: ${describeOutcome(outcome)}`);
      }
      return finding(true, 'the list is right');
    },
    skip: ({ identify: { lpa } }) => (lpa & Lpa.supported ? undefined : 'no list of log pages (LPA)'),
  },
  {
    id: 'lo02',
    title: 'the list of features (12h), and what answers',
    spec: '5.16.1.18: a feature that is listed can be read, one that is not gets Invalid Field',
    accept: [holds('the list is right')],
    run: async (bench) => {
      const { admin } = await bench.admin();
      const list = await readLog(admin, Lid.featureEffects, 1024);
      for (let fid = 0; fid < 256; fid++) {
        const listed = (list.readUInt32LE(4 * fid) & 1) === 1;
        const outcome = await admin.command(
          { opcode: AdminOpcode.getFeatures },
          { read: 512, tweak: (sqe) => void featureCmd.encode({ fid, value: fid === Fid.hostIdentifier ? 1 : 0 }, sqe) },
        );
        if (ok().match(outcome) !== listed)
          return finding(false, `${fid.toString(16)}h is ${listed ? '' : 'not '}listed: ${describeOutcome(outcome)}`);
      }
      return finding(true, 'the list is right');
    },
    skip: ({ identify: { lpa } }) => (lpa & Lpa.supported ? undefined : 'no list of features (LPA)'),
  },
  {
    id: 'lo03',
    title: 'the error log after a READ beyond the end',
    spec: '5.16.1.2: the entry names the command; TRTYPE is 0 where the transport has nothing to do with the error',
    accept: [holds('the entry is right')],
    run: async (bench) => {
      const { admin, io } = await bench.session();
      const { nsid, blocks } = bench.facts.ns;
      const read = await bench.read(io, blocks);
      if (read.kind !== 'cqe' || read.sc === 0) return finding(false, `READ: ${describeOutcome(read)}`);
      const entry = errorEntry.decode(await readLog(admin, Lid.error, errorEntry.size));
      const code = entry.status_field & 0x7ff;
      const good = entry.sqid === 1 && entry.cmdid === read.cid && code === ((read.sct << 8) | read.sc) && entry.nsid === nsid;
      if (!good)
        return finding(false, `queue ${entry.sqid}, command ${entry.cmdid}, status ${code.toString(16)}h, namespace ${entry.nsid}`);
      return finding(entry.trtype === 0, entry.trtype === 0 ? 'the entry is right' : `TRTYPE ${entry.trtype}`);
    },
  },
  {
    id: 'fe01',
    title: 'Asynchronous Event Configuration with all bits',
    spec: '5.27.1.8: bits that mean nothing are kept, or refused: a host must not believe that it will be told',
    accept: [permanent(0x02), holds('all bits are kept')],
    run: async (bench) => {
      const { admin } = await bench.admin();
      const set = await bench.feature(admin, Fid.asyncEventConfiguration, 0xffff_ffff);
      if (!ok().match(set)) return set;
      const get = await admin.command(
        { opcode: AdminOpcode.getFeatures },
        { tweak: (sqe) => void featureCmd.encode({ fid: Fid.asyncEventConfiguration }, sqe) },
      );
      const kept = get.kind === 'cqe' && get.dw0 >>> 0 === 0xffff_ffff;
      return finding(kept, kept ? 'all bits are kept' : `set with success, ${describeOutcome(get)}`);
    },
  },
  {
    id: 'co28',
    title: 'a WRITE right behind the Connect of its I/O queue',
    spec: '6.3: nothing is sent before Connect has completed; what comes is refused or done, and costs no other host anything',
    accept: [holds('both are answered')],
    run: async (bench) => {
      const { admin, cntlid } = await bench.admin();
      await expectSetup('Number of Queues', bench.feature(admin, Fid.numberOfQueues, 0), 'cqe');
      const io = await bench.initialised();
      const kept = await bench.contents((await bench.session()).io);
      const connect = bench.connect(io, { qid: 1, cntlid, sqsize: bench.entries - 1 }, { cid: 1 });
      const { pdu, cid } = io.capsule(
        { opcode: NvmOpcode.write, nsid: bench.facts.ns.nsid },
        bench.rw(0n, 1, { data: kept, inCapsule: false, cid: 2 }),
      );
      io.send(pdu);
      const first = await connect;
      if (!ok().match(first)) return finding(false, `Connect: ${describeOutcome(first)}`);
      const second = io.seen(cid) ?? (await io.completion(cid));
      return finding(second.kind === 'cqe', second.kind === 'cqe' ? 'both are answered' : `WRITE: ${describeOutcome(second)}`);
    },
  },
];

export const pathCases: Case[] = cases.map((one) => ({
  ...one,
  run: (bench) =>
    one.run(bench).catch((err) => {
      if (err instanceof WrongLog) return finding(false, err.message);
      throw err;
    }),
}));
