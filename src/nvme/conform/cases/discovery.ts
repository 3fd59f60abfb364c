/** The discovery service (di). Sections are those of the NVMe Base Specification 2.0. */
import { AdminOpcode, discoveryHeader, discoveryNqn, discoveryRecord, getLogCmd, Lid, NvmOpcode } from '../../wire/index.js';
import type { Bench, Facts } from '../bench.js';
import { expectSetup } from '../bench.js';
import type { Case } from '../case.js';
import { anyError, describeOutcome, holds, ok, permanent, status } from '../expect.js';
import { finding, type Outcome, type RawConnection } from '../raw.js';

/** Get Log Page of the discovery log. */
function log(admin: RawConnection, at: number, bytes: number): Promise<Outcome> {
  const dwords = bytes / 4 - 1;
  return admin.command(
    { opcode: AdminOpcode.getLogPage },
    {
      read: bytes,
      tweak: (sqe) => void getLogCmd.encode({ lid: Lid.discovery, numdl: dwords & 0xffff, numdu: dwords >>> 16, lpo: BigInt(at) }, sqe),
    },
  );
}

const header = async (admin: RawConnection) =>
  discoveryHeader.decode((await expectSetup('Get Log Page', log(admin, 0, discoveryHeader.size), 'cqe')).data);

/** Header and records, read until both are of one generation. */
async function wholeLog(admin: RawConnection): Promise<{ genctr: bigint; records: Buffer }> {
  for (let i = 0; i < 10; i++) {
    const { genctr, numrec } = await header(admin);
    const size = Number(numrec) * discoveryRecord.size;
    const records = size === 0 ? Buffer.alloc(0) : (await expectSetup('Get Log Page', log(admin, discoveryHeader.size, size), 'cqe')).data;
    if ((await header(admin)).genctr === genctr) return { genctr, records };
  }
  throw new Error('GENCTR changes all the time');
}

const noDiscovery = (facts: Facts) => (facts.discovery ? undefined : 'no discovery service at this address');
const service = (bench: Bench) => bench.admin({}, { subnqn: discoveryNqn });

export const discoveryCases: Case[] = [
  {
    id: 'di01',
    title: 'the discovery log in pages of one record (legal)',
    spec: '5.16.1.23: the log in pieces is the log at once; the subsystem is listed',
    accept: [holds('the same bytes, and the subsystem is listed')],
    run: async (bench) => {
      const { admin } = await service(bench);
      const { records } = await wholeLog(admin);
      const pages: Buffer[] = [];
      for (let at = 0; at < records.length; at += discoveryRecord.size)
        pages.push((await expectSetup('Get Log Page', log(admin, discoveryHeader.size + at, discoveryRecord.size), 'cqe')).data);
      const same = Buffer.concat(pages).equals(records);
      const listed = pages.some((page) => discoveryRecord.decode(page).subnqn === bench.facts.subnqn);
      const good = same && listed;
      return finding(good, good ? 'the same bytes, and the subsystem is listed' : same ? 'the subsystem is not listed' : 'other bytes');
    },
    skip: noDiscovery,
  },
  {
    id: 'di02',
    title: 'the discovery log changes between two reads of its pages',
    spec: '5.16.1.23: GENCTR tells a host that the log has changed, and the log is right when read again; no read fails for it',
    accept: [holds('GENCTR has changed with the log')],
    run: async (bench) => {
      const { admin } = await service(bench);
      const before = await wholeLog(admin);
      await expectSetup('Get Log Page', log(admin, discoveryHeader.size, discoveryRecord.size), 'cqe');
      await bench.facts.change!();
      // the host goes on with the page that came next; behind the end of a shorter log is nothing
      const next = await log(admin, discoveryHeader.size + discoveryRecord.size, discoveryRecord.size);
      if (!ok(discoveryRecord.size).match(next) && !permanent(0x02).match(next)) return finding(false, describeOutcome(next));
      const { genctr } = await header(admin);
      const after = await wholeLog(admin);
      if (after.records.equals(before.records)) return finding(false, 'the command to change the log has not changed it');
      const told = genctr !== before.genctr;
      return finding(told, told ? 'GENCTR has changed with the log' : `the log has changed, GENCTR is ${genctr} as before`);
    },
    skip: (facts) => noDiscovery(facts) ?? (facts.change ? undefined : 'no --change command'),
  },
  {
    id: 'di03',
    title: 'a read of the discovery log far beyond its end',
    spec: '5.16: Invalid Field, or zeroes; never memory that is not of the log',
    accept: [permanent(0x02), holds('zeroes')],
    run: async (bench) => {
      const { admin } = await service(bench);
      const outcome = await log(admin, 1 << 30, 1024);
      if (!ok().match(outcome) || outcome.kind !== 'cqe') return outcome;
      const zero = outcome.data.length === 1024 && outcome.data.every((byte) => byte === 0);
      return finding(zero, zero ? 'zeroes' : describeOutcome(outcome));
    },
    skip: noDiscovery,
  },
  {
    id: 'di04',
    title: 'Connect of an I/O queue of the discovery service',
    spec: '3.1.2.3: a discovery controller has no I/O queues',
    accept: [status(1, 0x82), permanent(0x0c), permanent(0x02), permanent(0x01)],
    run: async (bench) => {
      const { cntlid } = await service(bench);
      return bench.connect(await bench.initialised({}, undefined, discoveryNqn), { qid: 1, cntlid, sqsize: 31, subnqn: discoveryNqn });
    },
    skip: noDiscovery,
  },
  {
    id: 'di05',
    title: 'an I/O command on the discovery service',
    spec: '3.1.2.3: a discovery controller has no namespaces',
    accept: [anyError],
    run: async (bench) => {
      const { admin } = await service(bench);
      return admin.command({ opcode: NvmOpcode.datasetManagement, nsid: 1 }, { data: Buffer.alloc(16), inCapsule: true });
    },
    skip: noDiscovery,
  },
];
