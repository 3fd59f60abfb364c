// Storage keys of s390x: a byte for each page, by the layout of QEMU's sources.
import { storageKeys } from '../../../../src/migration/devices/s390.js';
import * as m from '../../../support/migration.js';

const range = (at: number, keys: Buffer) => m.cat(m.be64(at | 2), m.be64(keys.length), keys);
const EOS = m.be64(1);

test('runs of equal keys, and how many pages have each', () => {
  const keys = m.cat(Buffer.alloc(3), Buffer.alloc(5, 0x96), m.u8(0x06), Buffer.alloc(2));
  expect(storageKeys(m.cat(range(0x10000, keys), range(0x80000, m.u8(0x08)), EOS))).toEqual({
    storageKeys: [
      {
        address: 0x10000n,
        pages: 11,
        byKey: { '0x00': 5, '0x06': 1, '0x96': 5 },
        runs: [
          { address: 0x13000n, pages: 5, key: '0x96', access: 9, fetchProtected: false, referenced: true, changed: true },
          { address: 0x18000n, pages: 1, key: '0x06', access: 0, fetchProtected: false, referenced: true, changed: true },
        ],
      },
      {
        address: 0x80000n,
        pages: 1,
        byKey: { '0x08': 1 },
        runs: [{ address: 0x80000n, pages: 1, key: '0x08', access: 0, fetchProtected: true, referenced: false, changed: false }],
      },
    ],
  });
});

test('a guest without keys; a source that failed', () => {
  expect(storageKeys(EOS)).toEqual({ storageKeys: [] });
  expect(storageKeys(m.be64(4))).toEqual({ storageKeys: [], storageKeysFailed: true });
});

test('more runs than are listed are counted', () => {
  const keys = Buffer.from(Array.from({ length: 10_001 }, (_, i) => (i % 2 === 0 ? 0x10 : 0x20)));
  const [found] = storageKeys(m.cat(range(0, keys), EOS))!.storageKeys as { runs: unknown[]; moreRuns: number; byKey: object }[];
  expect(found).toMatchObject({ byKey: { '0x10': 5001, '0x20': 5000 }, moreRuns: 10_001 - 4096 });
  expect(found!.runs).toHaveLength(4096);
});

test.each([
  ['nothing', Buffer.alloc(0)],
  ['no end', range(0, m.u8(1, 2))],
  ['bytes behind the end', m.cat(EOS, m.u8(0))],
  ['an unknown flag', m.cat(m.be64(8), EOS)],
  ['more pages than bytes', m.cat(m.be64(2), m.be64(2n ** 60n), EOS)],
])('%s is another form', (_what, bytes) => {
  expect(storageKeys(bytes)).toBeUndefined();
});
