/** Discovery services of a source: what is believed of them, how often they are asked, and what the log says. */
import { native } from '../../../../src/native/index.js';
import type { Store } from '../../../../src/native/storage.js';
import { takeNotes } from '../../../../src/storage/remote/news.js';
import { followPaths, type Named, namedPaths } from '../../../../src/storage/remote/paths.js';
import { FakeTarget } from '../../../support/nvme-fake.js';

const nqn = 'nqn.s';

describe('asking', () => {
  const targets: FakeTarget[] = [];
  afterEach(() => {
    for (const target of targets.splice(0)) target.close();
  });
  const optionsOf = ({ host, port }: { host: string; port: number }) => ({
    ...{ address: host, port, timeout: 5000, hostnqn: 'nqn.h', hostid: Buffer.alloc(16, 1), subnqn: nqn, ioQueues: 0 },
  });
  /** A service whose log has these records. */
  async function service(records: number, fill: (record: Buffer, i: number) => void): Promise<number> {
    const target = new FakeTarget();
    target.log = Buffer.alloc((records + 1) * 1024);
    target.log.writeBigUInt64LE(BigInt(records), 8);
    for (let i = 0; i < records; i++) fill(target.log.subarray((i + 1) * 1024, (i + 2) * 1024), i);
    targets.push(target);
    return await target.listen();
  }
  /** NVMe over Fabrics, Discovery Log Page Entry: TRTYPE, ADRFAM, SUBTYPE; TRSVCID at 32, SUBNQN at 256, TRADDR at 512. */
  const record = (to: Buffer, subtype: number, port: number, name: string): void => {
    to[0] = 3;
    to[1] = 1;
    to[2] = subtype;
    to.write(String(port).padEnd(32), 32, 'latin1');
    to.write(name, 256, 'latin1');
    to.write('127.0.0.1'.padEnd(256), 512, 'latin1');
  };

  test('a service that many refer to, or that is given twice, is asked once', async () => {
    let asked = 0;
    const last = await service(1, (to) => record(to, 2, 4420, nqn));
    targets[0]!.hooks.ic = () => {
      asked++;
      return false;
    };
    const first = await service(40, (to) => record(to, 1, last, 'nqn.2014-08.org.nvmexpress.discovery'));
    const named = await namedPaths(
      [first, first].map((port) => ({ host: '127.0.0.1', port })),
      nqn,
      optionsOf,
    );
    expect(named).toEqual({ paths: [{ host: '127.0.0.1', port: 4420 }], errors: [], answered: true });
    expect(asked).toBe(1);
  });

  test('a service with too many records; errors are in an order that answers do not change', async () => {
    const many = await service(1025, () => {});
    const dead = await service(0, () => {});
    targets.pop()!.close();
    const places = [many, dead].map((port) => ({ host: '127.0.0.1', port }));
    const [one, other] = [await namedPaths(places, nqn, optionsOf), await namedPaths(places.reverse(), nqn, optionsOf)];
    expect(one.errors).toHaveLength(2);
    expect(one.errors.join()).toMatch(new RegExp(`discovery: 127\\.0\\.0\\.1:${many}: .*1025 records`));
    expect(one.errors.join()).toMatch(new RegExp(`discovery: 127\\.0\\.0\\.1:${dead}: .*ECONNREFUSED`));
    expect(other.errors).toEqual(one.errors);
  });
});

describe('following', () => {
  let state = { live: 1, all: 2 };
  const store = {} as Store;
  beforeEach(() => {
    jest.useFakeTimers();
    state = { live: 1, all: 2 };
    jest.spyOn(native().nvmeHost, 'hostPaths').mockImplementation(() => state);
  });
  afterEach(() => {
    jest.useRealTimers();
    jest.restoreAllMocks();
    takeNotes(store);
  });
  const none: Named = { paths: [], errors: [], answered: true };
  /** Questions in each minute, and the lines. */
  async function minutes(count: number, answer: (question: number) => Named): Promise<{ asked: number[]; lines: string[] }> {
    let questions = 0;
    followPaths(store, async () => answer(questions++), none);
    const asked: number[] = [];
    const lines: string[] = [];
    for (let i = 0; i < count; i++) {
      const before = questions;
      await jest.advanceTimersByTimeAsync(60_000);
      asked.push(questions - before);
      lines.push(...takeNotes(store));
    }
    state = { live: 2, all: 2 };
    return { asked, lines };
  }

  test('a path that never comes: pauses grow to a minute; without any path, to ten seconds', async () => {
    const { asked } = await minutes(5, () => none);
    expect(asked[0]).toBeLessThanOrEqual(5);
    expect(asked[0]).toBeGreaterThanOrEqual(3);
    expect(asked.slice(2)).toEqual([1, 1, 1]);
  });
  test('without any path, services are asked every ten seconds', async () => {
    state = { live: 0, all: 2 };
    expect((await minutes(3, () => none)).asked.slice(1)).toEqual([6, 6]);
  });
  test('errors that stay are said once, whatever a service does in between', async () => {
    state = { live: 0, all: 2 };
    expect((await minutes(5, () => ({ ...none, errors: ['x', 'y'], answered: false }))).lines).toEqual(['x', 'y']);
  });
  test('names and errors that change at each question: at most 16 lines in a minute, the same one once', async () => {
    state = { live: 0, all: 2 };
    const flips = await minutes(1, (i) => ({ ...none, errors: [i % 2 ? 'x' : 'y'], answered: false }));
    expect(flips.lines.sort()).toEqual(['x', 'y']);
  });
  test('lines that are always new are bounded', async () => {
    state = { live: 0, all: 2 };
    const { lines } = await minutes(3, (i) => ({ ...none, errors: Array.from({ length: 10 }, (_, n) => `${i}.${n}`), answered: false }));
    expect(lines.length).toBeGreaterThan(0);
    expect(lines.length).toBeLessThanOrEqual(3 * 16);
  });
});
