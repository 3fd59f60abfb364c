import fs from 'node:fs';
import path from 'node:path';
import { openInput } from '../../../../src/migration/containers/input.js';
import { extract } from '../../../../src/migration/export/extract.js';
import { StreamEnd, StreamReader } from '../../../../src/migration/stream/reader.js';
import { Walker } from '../../../../src/migration/walk.js';
import { native } from '../../../../src/native/index.js';
import * as m from '../../../support/migration.js';

// A mapped file that another process truncates: touching what is gone raises SIGBUS, which would end the process.
const PAGES = 64;
const stream = m.sample({
  ram: m.ramSections(
    m.cat(...Array.from({ length: PAGES }, (_, i) => m.page(i * m.PAGE, m.pattern(i + 1), i === 0 ? 'pc.ram' : undefined))),
    m.blockList(['pc.ram', PAGES * m.PAGE]),
  ),
});

test('a file that shrinks while it is mapped: an I/O error, and no value from the zeros that stand in', () =>
  m.inFolder((dir) => {
    const file = path.join(dir, 'f');
    fs.writeFileSync(file, Buffer.alloc(1 << 20, 0x5a));
    const fd = fs.openSync(file, 'r+');
    const reader = new StreamReader(native().migration.openSource({ fd, kind: 'file', start: 0 }), fd);
    expect(reader.u8('first')).toBe(0x5a);
    fs.ftruncateSync(fd, 8192);
    reader.seek(500_000);
    expect(reader.take(4)).toMatchObject({ ok: false, end: { kind: 'io', errno: 'EIO', at: 8192, have: 0 } });
    // It stays broken: nothing that is read later can be told from what was lost.
    expect(() => reader.u8('next')).toThrow(StreamEnd);
    expect(reader.peek(4).length).toBe(0);
    expect(reader.findFooter(1)).toBeUndefined();
    fs.closeSync(fd);
  }));

test.each([
  ['walked', false],
  ['extracted', true],
])('a stream that is cut while it is %s: a read error with its place, nothing made up', (_how, extracted) =>
  m.inFolder(async (dir) => {
    const file = path.join(dir, 'f');
    fs.writeFileSync(file, stream);
    const size = 100_000;
    // The file is cut when its blocks are known, that is before its pages are read.
    const input = openInput(file);
    const codes: string[] = [];
    if (extracted) {
      const out = fs.openSync(path.join(dir, 'out'), 'w+');
      const cut = { cutting: false };
      const watched = new Proxy(input, {
        get(target, key) {
          if (key === 'issues' && !cut.cutting) {
            cut.cutting = true;
            input.reader.peek(1 << 16); // the window is mapped
            fs.truncateSync(file, size);
          }
          return Reflect.get(target, key) as unknown;
        },
      });
      const done = await extract(watched, out, { as: 'sparse' }, () => {});
      fs.closeSync(out);
      expect(done.complete).toBe(false);
      codes.push(...done.issues.map((i) => i.code));
      const memory = fs.readFileSync(path.join(dir, 'out'));
      for (let i = 0; i < 23; i++) expect(memory.subarray(i * m.PAGE, (i + 1) * m.PAGE).equals(m.pattern(i + 1))).toBe(true);
    } else {
      for (const event of new Walker(input.reader, { ram: { onBlocks: () => void fs.truncateSync(file, size) } }).walk()) {
        if (event.type !== 'issue') continue;
        codes.push(event.issue.code);
        expect(Number(event.issue.offset)).toBeLessThanOrEqual(size);
      }
      await input.close();
    }
    expect(codes.some((c) => c === 'truncated-ram' || c === 'read-error')).toBe(true);
    expect(codes.filter((c) => c === 'ram-flags' || c === 'ram-outside')).toEqual([]);
  }),
);
