import { spawn } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { openInput } from '../../../src/migration/containers/input.js';
import { collect } from '../../../src/migration/inspect/dump.js';
import { StreamReader } from '../../../src/migration/stream/reader.js';
import { Walker } from '../../../src/migration/walk.js';
import { native } from '../../../src/native/index.js';
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

test('a long RAM section through a pipe tells its progress every few megabytes', () =>
  m.inFolder(async (dir) => {
    const file = path.join(dir, 'f');
    const pages = 3_000_000; // 27 MB of records
    const records = Buffer.alloc(9 * pages);
    for (let i = 0; i < pages; i++) records.writeBigUInt64BE(BigInt(i * m.PAGE) | 0x22n, 9 * i);
    const ram = m.ramSections(m.cat(m.zero(0, 'pc.ram'), records), m.blockList(['pc.ram', pages * m.PAGE]));
    fs.writeFileSync(file, m.sample({ ram }));
    const [readEnd, writeEnd] = native().migration.pipe();
    const child = spawn('cat', [file], { stdio: ['ignore', writeEnd, 'inherit'] });
    const ended = new Promise((resolve) => child.once('exit', resolve));
    fs.closeSync(writeEnd);
    const reader = new StreamReader(native().migration.openSource({ fd: readEnd, kind: 'pipe', start: 0 }));
    const positions = [...new Walker(reader).walk()].flatMap((e) => (e.type === 'progress' ? [e.position] : []));
    fs.closeSync(readEnd);
    await ended;
    const steps = [0, ...positions, records.length].map((p, i, all) => p - (all[i - 1] ?? 0));
    expect(Math.max(...steps)).toBeLessThan(10_000_000);
  }));

test('pages of a target that always has 8 KiB: the stream does not say so, its description does', async () => {
  const content = m.cat(m.pattern(1), m.pattern(2));
  const ram = m.ramSections(
    m.cat(m.page(0, content, 'or1k.ram'), m.zero(8192), m.page(16384, content), m.zero(24576)),
    m.blockList(['or1k.ram', 32768]),
  );
  const tail = m.cat(m.eof, Buffer.from(m.vmdesc(m.devices).toString('latin1').replace('"page_size":4096', '"page_size":8192'), 'latin1'));
  const bytes = m.sample({ configuration: m.configuration('or1k-sim'), ram, tail });
  expect(await dump(bytes)).toMatchObject({
    complete: true,
    issues: [],
    ram: { pageSize: 8192, blocks: [{ state: { normal: 2, zero: 2, seen: 4 } }] },
  });
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
