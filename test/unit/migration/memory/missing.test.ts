/** Pages that a stream does not give: whether that is damage, and what is said about it. */
import fs from 'node:fs';
import path from 'node:path';
import { openInput } from '../../../../src/migration/containers/input.js';
import { extract } from '../../../../src/migration/export/extract.js';
import { verify } from '../../../../src/migration/inspect/verify.js';
import { virtioMemOf } from '../../../../src/migration/memory/missing.js';
import * as m from '../../../support/migration.js';

const judge = (bytes: Buffer) =>
  m.inFolder(async (dir) => {
    const file = path.join(dir, 'f');
    fs.writeFileSync(file, bytes);
    return verify(openInput(file), () => {});
  });
const all = m.cat(m.page(0, m.pattern(0), 'pc.ram'), m.zeros(m.PAGE, 16 * m.PAGE));

test.each([
  ['all of them', m.cat(), 16, 0n],
  ['the first', m.cat(m.page(m.PAGE, m.pattern(1), 'pc.ram'), m.zeros(2 * m.PAGE, 16 * m.PAGE)), 1, 0n],
  ['one in the middle', m.cat(m.zero(0, 'pc.ram'), m.zeros(m.PAGE, 7 * m.PAGE), m.zeros(8 * m.PAGE, 16 * m.PAGE)), 1, 0x7000n],
  ['the last', m.cat(m.zero(0, 'pc.ram'), m.zeros(m.PAGE, 15 * m.PAGE)), 1, 0xf000n],
])('%s: damage, with the number of pages and the first of them', async (_what, records, pages, first) => {
  const done = await judge(m.sample({ ram: m.ramSections(records) }));
  expect(done).toMatchObject({
    verdict: 'damaged',
    complete: false,
    ram: { pages: 16, present: 16 - pages },
    missing: [{ block: 'pc.ram', pages, first, reason: 'absent', lost: true }],
  });
  expect(done.issues).toMatchObject([{ code: 'ram-absent', severity: 'error', path: 'ram/pc.ram' }]);
});

test('a word that only multifd sends tells where the pages are', async () => {
  const done = await judge(m.sample({ ram: m.ramSections(m.cat(m.be64(0x200))) }));
  expect(done).toMatchObject({ complete: false, missing: [{ reason: 'multifd', pages: 16 }] });
});

test('postcopy that ran: the rest was sent on demand', async () => {
  const ram = m.ramSections(m.cat(m.zero(0, 'pc.ram')));
  const done = await judge(m.sample({ ram, devices: m.cat(m.command(4), m.command(5), m.full(0, 'timer', 1, m.timerBody)) }));
  expect(done).toMatchObject({ complete: false, missing: [{ reason: 'postcopy', pages: 15 }] });
});

const sharedStream = (records: Buffer) =>
  m.sample({
    configuration: m.configuration('pc-i440fx-10.0', m.capabilities('x-ignore-shared')),
    ram: m.ramSections(records, m.blockList(['pc.ram', 16 * m.PAGE, m.be64(0)], ['rom', m.PAGE, m.be64(0xfffff000n)])),
  });

test('x-ignore-shared: the memory is elsewhere, which is no damage, and no complete file', async () => {
  const done = await judge(sharedStream(m.zero(0, 'rom')));
  expect(done.capabilities).toEqual(['x-ignore-shared']);
  expect(done).toMatchObject({ verdict: 'memory-elsewhere', complete: false, missing: [{ block: 'pc.ram', reason: 'shared', pages: 16 }] });
  expect(done.issues).toMatchObject([{ severity: 'warning', code: 'ram-shared' }]);
});

test('x-ignore-shared: a block of which some pages came is not shared', async () => {
  const done = await judge(sharedStream(m.cat(m.zero(0, 'rom'), m.zero(0, 'pc.ram'))));
  expect(done).toMatchObject({ verdict: 'damaged', missing: [{ block: 'pc.ram', reason: 'absent', pages: 15 }] });
});

const mem = (plugged: bigint): { body: Buffer; desc: object } => ({
  body: m.cat(m.be64(1n << 32n), m.be64(8 << 20), m.be64(2 << 20), m.be64(plugged)),
  desc: m.device('0000:00:01.0/virtio-mem-device-early', [
    {
      name: 'tmp',
      type: 'tmp',
      size: 24,
      vmsd_name: 't',
      version: 1,
      fields: ['addr', 'region_size', 'block_size'].map((name) => ({ name, type: 'uint64', size: 8 })),
    },
    { name: 'bitmap', type: 'bitmap', size: 8 },
  ]),
});

test.each([
  ['what is not plugged', 0b0101n, [], 'complete'],
  ['a page of what is plugged', 0b0111n, [{ reason: 'absent', pages: 512, first: 0x200000n }], 'damaged'],
] as const)('virtio-mem: %s', async (_what, bitmap, lost, verdict) => {
  const { body, desc } = mem(bitmap);
  const at = 2 << 20;
  const records = m.cat(m.zero(0, '0000:00:01.0/vm0'), m.zeros(m.PAGE, at), m.zeros(2 * at, 3 * at), all);
  const bytes = m.sample({
    ram: m.ramSections(records, m.blockList(['0000:00:01.0/vm0', 8 << 20], ['pc.ram', 16 * m.PAGE])),
    devices: m.cat(m.full(5, '0000:00:01.0/virtio-mem-device-early', 1, body), m.full(0, 'timer', 1, m.timerBody)),
    tail: m.cat(m.eof, m.vmdesc([desc, ...m.devices])),
  });
  const done = await judge(bytes);
  expect(done.verdict).toBe(verdict);
  expect(done.missing).toMatchObject([{ reason: 'unplugged', pages: lost.length ? 512 : 1024, lost: false }, ...lost]);
});

test('a stream without its END of the RAM, and one without RAM at all', async () => {
  const whole = m.ramSections();
  const noEnd = await judge(m.sample({ ram: whole.subarray(0, whole.length - m.end(2, m.EOS).length) }));
  expect(noEnd).toMatchObject({ verdict: 'damaged', issues: [{ code: 'section-open' }] });
  expect(await judge(m.sample({ ram: m.cat() }))).toMatchObject({ complete: false, issues: [{ code: 'no-ram' }] });
});

describe('ram', () => {
  const out = (bytes: Buffer, options = {}) =>
    m.inFolder(async (dir) => {
      fs.writeFileSync(path.join(dir, 'f'), bytes);
      const fd = fs.openSync(path.join(dir, 'out'), 'w+');
      try {
        return await extract(openInput(path.join(dir, 'f')), fd, { as: 'sparse', ...options }, () => {});
      } finally {
        expect(fs.fstatSync(fd).size).toBeLessThan(1 << 20);
        fs.closeSync(fd);
      }
    });

  test('writes nothing for memory that is not there', async () => {
    await expect(out(m.sample({ ram: m.ramSections(m.cat()) }))).rejects.toMatchObject({
      exit: 5,
      message: expect.stringMatching(/16 pages/),
    });
    await expect(out(sharedStream(m.zero(0, 'rom')))).rejects.toMatchObject({
      exit: 7,
      message: expect.stringMatching(/pc\.ram: .*shared/),
    });
  });

  test('a block of a shared stream that is there', async () => {
    expect(await out(sharedStream(m.zero(0, 'rom')), { block: 'rom' })).toMatchObject({ complete: true });
  });
});

test.each([
  ['a path', ['pc.ram', '0000:00:01.0/vga.vram', '0000:00:03.0/vm'], '0000:00:03.0/vm'],
  ['no path, and alone', ['pc.ram', '0000:00:01.0/vga.vram', 'vm'], 'vm'],
  ['no path, and another one is as large', ['mem0', 'vm'], undefined],
])('memory of virtio-mem is found among blocks of its size: %s', (_what, names, expected) => {
  const blocks = names.map((name) => ({ name, length: 16n << 20n }));
  const device = {
    section: '0000:00:03.0/virtio-mem-device-early',
    address: 1n << 32n,
    size: 16n << 20n,
    blockSize: 2n << 20n,
    plugged: [],
  };
  expect(blocks.find((block) => virtioMemOf(block, blocks, [device]))?.name).toBe(expected);
});
