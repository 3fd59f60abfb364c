import fs from 'node:fs';
import path from 'node:path';
import { collect } from '../../../src/migration/dump.js';
import { openInput } from '../../../src/migration/input.js';
import { Walker } from '../../../src/migration/walk.js';
import * as m from '../../support/migration.js';

const dump = (bytes: Buffer, options = {}) =>
  m.inFolder(async (dir) => {
    const file = path.join(dir, 'f');
    fs.writeFileSync(file, bytes);
    const input = openInput(file);
    return collect(input, new Walker(input.reader, { issues: input.issues, fields: true, ...options }));
  });

test('a whole stream: every record, counters, fields by name', async () => {
  const bytes = m.sample();
  const doc = await dump(bytes);
  expect(doc).toMatchObject({
    complete: true,
    version: 3,
    configuration: { machine: 'pc-i440fx-10.0' },
    ram: {
      pageSize: 4096,
      total: 65536n,
      blocks: [{ name: 'pc.ram', length: 65536n, state: { normal: 4, zero: 12, seen: 16, content: 4 } }],
    },
    description: { complete: true, devices: 2 },
    issues: [],
  });
  expect(doc.records.map((r) => (r.type === 'section' ? `${r.record} ${r.name}` : r.type))).toEqual([
    'start ram',
    'part ram',
    'end ram',
    'full timer',
    'full cpu',
    'eof',
    'vmdescription',
  ]);
  const fields = doc.records.flatMap((r) => (r.type === 'section' && r.fields ? [r.fields] : []));
  expect(fields).toEqual([{ ticks: 12345 }, { regs: [1n, 2n, 3n, 0xfffffffffffffff0n], halted: true }]);
  // Records lie end to end: the last one ends where the file does.
  const last = doc.records.at(-1) as { offset: bigint; size: number };
  expect(Number(last.offset) + last.size).toBe(bytes.length);
});

test.each([0x7b, 0x7b7b])('a description whose length field holds the byte 0x7b (length %i)', async (low) => {
  let tail = m.vmdesc(m.devices);
  for (
    let pad = 0;
    pad < 70000 && (tail.readUInt32BE(1) & (low > 0xff ? 0xffff : 0xff)) !== low;
    pad += low > 0xff ? Math.max(1, low - tail.length + 5) : 1
  )
    tail = m.vmdesc(m.devices, pad + 1);
  expect(tail.readUInt32BE(1) & 0xff).toBe(0x7b);
  expect(await dump(m.sample({ tail: m.cat(m.eof, tail) }))).toMatchObject({ complete: true, description: { complete: true, devices: 2 } });
});
