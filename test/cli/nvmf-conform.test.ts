/** `nvmf conform` against our own target, and against targets that break one rule each. */
import { brokenTarget, type Change } from '../support/nvme-relay.js';
import { nvmf, type Serve, serve } from '../support/nvme-serve.js';

let target: Serve;
beforeAll(async () => {
  target = await serve(['ram:16M']);
});
afterAll(() => target?.stop());

const conform = (port: number, ...args: string[]) => nvmf(['conform', '-s', String(port), '-n', target.nqn, ...args]);

test('our target is right in every case', async () => {
  const { status, stdout, stderr } = await conform(target.port, '--json');
  const report = JSON.parse(stdout.toString());
  expect(report.cases.filter((c: { verdict: string }) => c.verdict !== 'ok')).toEqual([]);
  expect(report.cases.length).toBeGreaterThan(140);
  expect({ status, ok: report.ok, stderr }).toEqual({ status: 0, ok: report.cases.length, stderr: expect.stringContaining(' 0 differ') });
}, 120000);

describe('a target that breaks one rule is found', () => {
  /** Completions of commands with this status code, changed. */
  const completions =
    (change: (cqe: Buffer) => void): Change =>
    (pdu, { digests }) => {
      if (pdu[0] === 5 && (digests & 1) === 0) change(pdu.subarray(8, 24));
      return [pdu];
    };
  const dropTermReq: Change = (pdu) => (pdu[0] === 3 ? [] : [pdu]);
  const clearFei: Change = (pdu) => {
    if (pdu[0] === 3) pdu.writeUInt32LE(77, 10);
    return [pdu];
  };
  const clearDnr = completions((cqe) => void cqe.writeUInt16LE(cqe.readUInt16LE(14) & 0x7fff, 14));
  const alwaysSuccess = completions((cqe) => void cqe.writeUInt16LE(0, 14));
  const noSqhd = completions((cqe) => void cqe.writeUInt16LE(0, 8));
  const noIpo = completions((cqe) => void (cqe.readUInt16LE(14) >> 1 === 0x4182 && cqe.writeUInt32LE(0, 0)));
  const misaligned: Change = (pdu, { digests }) => {
    if (pdu[0] !== 7 || digests !== 0 || pdu[3] === 24) return [pdu];
    const moved = Buffer.concat([pdu.subarray(0, 24), pdu.subarray(pdu[3]!)]);
    moved.writeUInt8(24, 3);
    moved.writeUInt32LE(moved.length, 4);
    return [moved];
  };
  const swallowed = new Set<number>();
  const successFlag: Change = (pdu) => {
    if (pdu[0] === 7 && (pdu[1]! & 4) !== 0) {
      swallowed.add(pdu.readUInt16LE(8));
      pdu.writeUInt8(pdu[1]! | 8, 1);
    }
    return pdu[0] === 5 && swallowed.delete(pdu.readUInt16LE(20)) ? [] : [pdu];
  };
  const rows: [string, Change, string[], string[]][] = [
    [
      'never sends C2HTermReq',
      dropTermReq,
      ['ic0*', 'ch0*', 'co0*'],
      ['ic01', 'ic02', 'ic03', 'ic04', 'ic05', 'ic09', 'ch01', 'ch02', 'ch03', 'ch04', 'ch05', 'ch06', 'ch07', 'ch08', 'ch09'],
    ],
    [
      'names the wrong field in C2HTermReq',
      clearFei,
      ['ch0?', 'ic01', 'h206'],
      ['ch01', 'ch02', 'ch03', 'ch04', 'ch06', 'ch07', 'ch08', 'ch09', 'h206'],
    ],
    [
      'never sets DNR',
      clearDnr,
      ['co01', 'ad0?', 'io01', 'co04', 'ad15'],
      ['co01', 'ad01', 'ad02', 'ad03', 'ad06', 'ad07', 'ad09', 'io01'],
    ],
    [
      'answers every command with success',
      alwaysSuccess,
      ['io01', 'co16', 'co17', 'ad21', 'ad13', 'h212'],
      ['co16', 'co17', 'ad21', 'io01', 'h212'],
    ],
    ['keeps SQHD at 0', noSqhd, ['io29', 'io30'], ['io30']],
    ['does not say which Connect parameter is wrong', noIpo, ['co0?', 'co20'], ['co04', 'co05', 'co07', 'co08', 'co09']],
    ['ignores HPDA', misaligned, ['ic07', 'io29'], ['ic07']],
    ['uses the SUCCESS flag with SQ flow control on', successFlag, ['io29', 'ad15'], ['io29']],
  ];
  test.each(rows)(
    '%s',
    async (_name, change, only, expected) => {
      const broken = await brokenTarget(target.port, change);
      try {
        const { status, stdout } = await conform(broken.port, '--json', ...only.flatMap((glob) => ['--only', glob]));
        const report = JSON.parse(stdout.toString());
        const found = report.cases.filter((c: { verdict: string }) => c.verdict === 'differs').map((c: { id: string }) => c.id);
        for (const id of expected) expect(found).toContain(id);
        expect({ status, differs: report.differs }).toEqual({ status: 4, differs: found.length });
        // What has nothing to do with the rule is still judged right.
        expect(report.ok).toBeGreaterThan(0);
      } finally {
        broken.close();
      }
    },
    60000,
  );
});

test('TAP, JUnit and NDJSON tell the same, and a glob that matches nothing is wrong usage', async () => {
  const only = ['--only', 'pr0?'];
  const tap = (await conform(target.port, ...only)).stdout.toString();
  expect(tap).toMatch(/^TAP version 14\n1\.\.9\nok 1 - pr01 /);
  const xml = (await conform(target.port, ...only, '--junit')).stdout.toString();
  expect(xml).toContain('tests="9" failures="0" skipped="0"');
  const lines = (await conform(target.port, ...only, '--ndjson')).stdout.toString().trim().split('\n');
  expect(lines.map((line) => JSON.parse(line).verdict)).toEqual(Array(9).fill('ok'));
  expect(await conform(target.port, '--only', 'nothing*')).toMatchObject({ status: 2 });
  const broken = await brokenTarget(target.port, (pdu) => (pdu[0] === 3 ? [] : [pdu]));
  const bad = (await conform(broken.port, '--only', 'ic01')).stdout.toString();
  broken.close();
  expect(bad).toMatch(/not ok 1 - ic01 .*\n {2}---\n {2}expected: .*\n {2}got: .*closed/);
});
