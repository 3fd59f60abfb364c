import fs from 'node:fs';
import fc from 'fast-check';
import { native } from '../../src/native/index.js';

const { common } = native();

describe('crc32c', () => {
  // RFC 3720 (iSCSI), B.4
  const known: [string, Uint8Array, number][] = [
    ['32 bytes of zeroes', new Uint8Array(32), 0x8a9136aa],
    ['32 bytes of ones', new Uint8Array(32).fill(0xff), 0x62a8ab43],
    ['32 bytes of incrementing 00..1f', Uint8Array.from({ length: 32 }, (_, i) => i), 0x46dd794e],
    ['32 bytes of decrementing 1f..00', Uint8Array.from({ length: 32 }, (_, i) => 31 - i), 0x113fdb5c],
    ['"123456789"', Buffer.from('123456789'), 0xe3069283],
    ['nothing', new Uint8Array(0), 0],
  ];
  test.each(known)('%s', (_name, bytes, crc) => {
    expect(common.crc32c(bytes)).toBe(crc);
    expect(common.crc32cTable(bytes)).toBe(crc);
  });

  test('the fast path equals the table at every length, alignment and start', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 0, max: 20000 }),
        fc.integer({ min: 0, max: 15 }),
        fc.integer({ min: 0, max: 0xffffffff }),
        (length, skew, seed) => {
          const bytes = new Uint8Array(length + skew).map((_, i) => (i * 2654435761 + seed) >>> 13);
          const part = bytes.subarray(skew);
          expect(common.crc32c(part, seed)).toBe(common.crc32cTable(part, seed));
        },
      ),
      { numRuns: 300 },
    );
  });

  test('results chain', () => {
    const bytes = new Uint8Array(9000).map((_, i) => i * 7);
    expect(common.crc32c(bytes.subarray(5000), common.crc32c(bytes.subarray(0, 5000)))).toBe(common.crc32c(bytes));
  });
});

describe('eventfd', () => {
  test('a signal reaches the event loop with its count, and closing is final', async () => {
    const fd = common.eventfd();
    const counts: number[] = [];
    const watch = common.watchEventfd(fd, (count) => counts.push(count));
    common.signalEventfd(fd, 3);
    common.signalEventfd(fd, 4);
    while (counts.length === 0) await new Promise((resolve) => setTimeout(resolve, 1));
    expect(counts).toEqual([7]);
    watch.close();
    watch.close();
    common.signalEventfd(fd, 1);
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect(counts).toEqual([7]);
    fs.closeSync(fd);
  });
});

test('errors carry code, errno and syscall as Node own do', () => {
  expect(() => common.signalEventfd(9999, 1)).toThrow(expect.objectContaining({ code: 'EBADF', errno: -9, syscall: 'write' }));
  expect(() => common.sdNotify(`/${'x'.repeat(200)}`, 'READY=1')).toThrow(expect.objectContaining({ code: 'ENAMETOOLONG' }));
});
