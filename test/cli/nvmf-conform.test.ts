/** `nvmf conform` against our own target, and against targets that break one rule each. */
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { connectData, discoveryHeader, discoveryRecord, Oncs, sqe } from '../../src/nvme/wire/index.js';
import { program } from '../support/cli.js';
import { type FakeHooks, FakeTarget } from '../support/nvme-fake.js';
import { brokenTarget, type Change } from '../support/nvme-relay.js';
import { nvmf, type ServedTarget, serveTarget } from '../support/nvme-target.js';

// Ends a test that hangs, on the slowest machine: what is judged must not depend on it.
jest.setTimeout(600_000);

let target: ServedTarget;
let dir: string;
let socket: string;
beforeAll(async () => {
  dir = fs.mkdtempSync(path.join(os.tmpdir(), 'nvmf-'));
  socket = path.join(dir, 'ctl');
  // two addresses, so that queues can come through the wrong one
  target = await serveTarget(['ram:16M', '--listen', '127.0.0.1:0', '--listen', '127.0.0.1:0', '--control', socket]);
});
afterAll(async () => {
  await target?.stop();
  fs.rmSync(dir, { recursive: true, force: true });
});
/** A shell command that changes what the discovery log lists. */
let changes = 0;
const changeLog = () => `"${process.execPath}" "${program}" nvmf ctl ${socket} add ram:1M --nqn nqn.2014-08.org.example:extra${++changes}`;

/** A shell command that changes an ANA state. */
const changeAna = (words: string) => `"${process.execPath}" "${program}" nvmf ctl ${socket} --nqn ${target.nqn} ${words}`;

const conform = (port: number, ...args: string[]) => nvmf(['conform', '-s', String(port), '-n', target.nqn, ...args]);

test('our target is right in every case', async () => {
  const changes = ['--change', changeLog(), '--change-ana', changeAna(`listener ana 127.0.0.1:${target.port} non-optimized`)];
  const { status, stdout, stderr } = await conform(target.port, '--json', ...changes);
  const report = JSON.parse(stdout.toString());
  // nvmf-conform-secure.test.ts judges a target with keys
  const left = /^(the target asks for no authentication|no --dhchap-ctrl-secret-file|no --tls-key-file)$/;
  const judged = report.cases.filter((c: { verdict: string; got: string }) => c.verdict !== 'skipped' || !left.test(c.got));
  expect(judged.filter((c: { verdict: string }) => c.verdict !== 'ok')).toEqual([]);
  expect([judged.length, report.cases.length]).toEqual([184, 305]);
  expect({ status, ok: report.ok, stderr }).toEqual({ status: 0, ok: judged.length, stderr: expect.stringContaining(' 0 differ') });
});

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
  /** Data of a log page with this many bytes, changed. */
  const page =
    (bytes: number) =>
    (change: (data: Buffer) => unknown): Change =>
    (pdu, { digests }) => {
      if (pdu[0] === 7 && digests === 0 && pdu.length === 24 + bytes) change(pdu.subarray(24));
      return [pdu];
    };
  /** 32 groups and 1024 namespaces. */
  const anaLog = page(16 + 32 * 32 + 4 * 1024);
  const errorEntry = page(64);
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
    ['does not say which Connect parameter is wrong', noIpo, ['co0?', 'co20'], ['co04', 'co05', 'co07', 'co09']],
    ['ignores HPDA', misaligned, ['ic07', 'io29'], ['ic07']],
    ['uses the SUCCESS flag with SQ flow control on', successFlag, ['io29', 'ad15'], ['io29']],
    ['lists a namespace in the ANA log that is not there', anaLog((log) => log.writeUInt32LE(9, 48)), ['an01', 'an03'], ['an01']],
    [
      'counts groups that its ANA log does not have',
      anaLog((log) => log.writeUInt16LE(999, 8)),
      ['an01', 'an02', 'an03', 'io01'],
      ['an01', 'an02', 'an03'],
    ],
    ['tells another ANA state than I/O meets', anaLog((log) => log.writeUInt8(3, 32)), ['an01', 'an02'], ['an02']],
    ['lists namespaces although groups alone are asked for', anaLog((log) => log.writeUInt32LE(1, 20)), ['an01', 'an03'], ['an03']],
    ['says that the transport is to blame for every error', errorEntry((entry) => entry.writeUInt8(3, 29)), ['lo0?'], ['lo03']],
    ['names another queue in the error log', errorEntry((entry) => entry.writeUInt16LE(7, 8)), ['lo0?'], ['lo03']],
  ];
  test.each(rows)('%s', async (_name, change, only, expected) => {
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
  });
});

describe('a target of its own that breaks one rule is found', () => {
  const opcodeOf = (command: Buffer) => sqe.get(command, 'opcode');
  /** Starts a target with these hooks, judges it with some cases. @returns the cases that differ */
  const judge = async (hooks: FakeHooks, only: string[], prepare: (fake: FakeTarget, port: number) => void | Promise<void> = () => {}) => {
    const fake = new FakeTarget(hooks);
    const port = await fake.listen();
    try {
      await prepare(fake, port);
      const { stdout } = await conform(port, '--json', ...only.flatMap((glob) => ['--only', glob]));
      const { cases } = JSON.parse(stdout.toString()) as { cases: { id: string; verdict: string; got: string }[] };
      expect(cases.filter((c) => c.verdict === 'skipped')).toEqual([]);
      return cases.filter((c) => c.verdict === 'differs').map((c) => c.id);
    } finally {
      fake.close();
    }
  };

  test('none of these cases finds anything where nothing is wrong', async () => {
    const refuse: FakeHooks['command'] = (connection, command) => {
      const auth = opcodeOf(command) === 0x7f && [5, 6].includes(command[4]!);
      if (!auth) return false;
      connection.complete(sqe.get(command, 'cid'), { status: 0x4002 << 1 });
      return true;
    };
    expect(await judge({ command: refuse }, ['ic17', 'au0?', 'co27'])).toEqual([]);
  });

  test('a target that stands still for a while is slow, not silent', async () => {
    let still = 0;
    const sleep: FakeHooks['command'] = (_connection, command) => {
      // all of the target, as on a machine that is too busy, for longer than silence is waited for
      if (opcodeOf(command) === 0x18 && still++ === 0) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 2500);
      return false;
    };
    expect(await judge({ command: sleep }, ['ad24'])).toEqual([]);
    expect(still).toBeGreaterThan(0);
  });

  test('10,000 silent connections keep hosts out', async () => {
    expect(await judge({}, ['ic17'], (fake) => fake.limit(20))).toEqual(['ic17']);
  });

  test('event requests are taken without an end', async () => {
    expect(await judge({ command: (_c, command) => opcodeOf(command) === 0x0c }, ['ad36'])).toEqual(['ad36']);
  });

  test('authentication messages are met with silence, or end the connection', async () => {
    const auth = (command: Buffer) => opcodeOf(command) === 0x7f && [5, 6].includes(command[4]!);
    expect(await judge({ command: (_c, command) => auth(command) }, ['au01', 'au02'])).toEqual(['au01', 'au02']);
    const hangUp: FakeHooks['command'] = (connection, command) => {
      if (auth(command)) connection.socket.destroy();
      return auth(command);
    };
    expect(await judge({ command: hangUp }, ['au03', 'au09'])).toEqual(['au03', 'au09']);
  });

  test.each([
    ['copies the wrong blocks', 1, ['io31']],
    ['copies block by block, which is allowed', 0, []],
  ])('%s', async (_what, shift, expected) => {
    let disk: Buffer;
    const copy: FakeHooks['command'] = (connection, command, data) => {
      if (connection.qid === 0 || opcodeOf(command) !== 0x19) return false;
      let to = Number(command.readBigUInt64LE(40)) * 512;
      for (let at = 0; at < data.length; at += 32) {
        const from = (Number(data.readBigUInt64LE(at + 8)) + shift) * 512;
        for (let n = 0; n <= data.readUInt16LE(at + 16); n++, to += 512) disk.copy(disk, to, from + n * 512, from + (n + 1) * 512);
      }
      connection.complete(sqe.get(command, 'cid'));
      return true;
    };
    const found = await judge({ command: copy }, ['io31'], (fake) => {
      disk = fake.disk;
      fake.controller = { oncs: Oncs.copy };
      fake.namespace = { msrc: 127, mssrl: 128, mcl: 128 };
    });
    expect(found).toEqual(expected);
  });

  test('an I/O queue is let in through another address', async () => {
    const second = new FakeTarget();
    const other = await second.listen();
    const found = await judge({}, ['co25'], (fake, port) => {
      const record = (trsvcid: number) =>
        discoveryRecord.encode({ trtype: 3, adrfam: 1, subtype: 2, trsvcid: String(trsvcid), traddr: '127.0.0.1', subnqn: target.nqn });
      fake.log = Buffer.concat([discoveryHeader.encode({ genctr: 1n, numrec: 2n }, Buffer.alloc(1024)), record(port), record(other)]);
    });
    second.close();
    expect(found).toEqual(['co25']);
  });

  test('two addresses give out one controller ID', async () => {
    const second = new FakeTarget();
    const other = await second.listen();
    const found = await judge({}, ['an04'], (fake, port) => {
      const record = (trsvcid: number) =>
        discoveryRecord.encode({ trtype: 3, adrfam: 1, subtype: 2, trsvcid: String(trsvcid), traddr: '127.0.0.1', subnqn: target.nqn });
      fake.log = Buffer.concat([discoveryHeader.encode({ genctr: 1n, numrec: 2n }, Buffer.alloc(1024)), record(port), record(other)]);
    });
    second.close();
    expect(found).toEqual(['an04']);
  });

  test('an ANA change is told at every address, or at none', async () => {
    const run = async (command: string) => {
      const { stdout } = await conform(target.port, '--json', '--only', 'an05', '--change-ana', command);
      return JSON.parse(stdout.toString()).cases[0] as { verdict: string; got: string };
    };
    await run(changeAna('ana 1 optimized'));
    const everywhere = await run(changeAna('ana 1 non-optimized'));
    expect(everywhere).toMatchObject({ verdict: 'differs', got: expect.stringMatching(/at the other address/) });
    expect(await run('true')).toMatchObject({ verdict: 'differs', got: expect.stringMatching(/no ANA event here/) });
    expect(await run(changeAna(`listener ana 127.0.0.1:${target.port} optimized`))).toMatchObject({ verdict: 'ok' });
    expect((await run(changeAna('ana 1 optimized'))).verdict).toBe('differs');
  });

  test('a masked namespace is read all the same; one that is not there, too', async () => {
    const guests = new WeakSet<object>();
    let first: string | undefined;
    const mask: FakeHooks['command'] = (connection, command, data) => {
      if (opcodeOf(command) === 0x7f && command[4] === 1) {
        const { hostnqn } = connectData.decode(data);
        first ??= hostnqn;
        if (hostnqn !== first) guests.add(connection);
      }
      if (opcodeOf(command) !== 6 || command[40] !== 2 || !guests.has(connection)) return false;
      connection.answer(sqe.get(command, 'cid'), Buffer.concat([Buffer.from([1, 0, 0, 0]), Buffer.alloc(4092)]));
      return true;
    };
    const prepare = (fake: FakeTarget) => {
      fake.nsids = [1, 2];
      fake.controller = { nn: 16 };
    };
    expect(await judge({ command: mask }, ['ho01'], prepare)).toEqual(['ho01']);
    expect(await judge({}, ['ho02'], prepare)).toEqual(['ho02']);
  });

  test('a host beyond a limit is cut off without a word', async () => {
    expect(await judge({}, ['li01'], (fake) => fake.limit(20))).toEqual(['li01']);
  });

  test('lists of logs and features say other things than what answers; unknown bits are forgotten', async () => {
    const prepare = (fake: FakeTarget) => {
      fake.controller = { lpa: 0x20 };
      fake.log = Buffer.alloc(4096);
    };
    expect(await judge({}, ['lo01', 'lo02', 'fe01'], prepare)).toEqual(['lo01', 'lo02', 'fe01']);
  });

  test('what comes behind a Connect is never answered', async () => {
    const swallow: FakeHooks['command'] = (connection, command) => connection.qid > 0 && opcodeOf(command) === 1;
    expect(await judge({ command: swallow }, ['co28'])).toEqual(['co28']);
  });

  test('GENCTR stays while the discovery log changes', async () => {
    const still: Change = (pdu, { digests }) => {
      // the header of the discovery log, 1024 bytes that begin with GENCTR
      if (pdu[0] === 7 && digests === 0 && pdu.length === 24 + 1024 && pdu.readBigUInt64LE(pdu[3]!) < 1000n)
        pdu.writeBigUInt64LE(7n, pdu[3]!);
      return [pdu];
    };
    const broken = await brokenTarget(target.port, still);
    const run = (port: number) => conform(port, '--json', '--only', 'di02', '--change', changeLog());
    expect(JSON.parse((await run(target.port)).stdout.toString()).ok).toBe(1);
    const { stdout } = await run(broken.port);
    broken.close();
    expect(JSON.parse(stdout.toString()).cases[0]).toMatchObject({ verdict: 'differs', got: 'the log has changed, GENCTR is 7 as before' });
    // a command that changes nothing, and one that fails, are told as that
    for (const [command, got] of [
      ['true', /has not changed it/],
      ['exit 3', /ended with 3/],
    ] as const) {
      const { stdout: text } = await conform(target.port, '--json', '--only', 'di02', '--change', command);
      expect(JSON.parse(text.toString()).cases[0].got).toMatch(got);
    }
    expect(JSON.parse((await conform(target.port, '--json', '--only', 'di02')).stdout.toString()).skipped).toBe(1);
  });
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
