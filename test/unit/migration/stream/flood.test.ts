import fs from 'node:fs';
import path from 'node:path';
import { openInput } from '../../../../src/migration/containers/input.js';
import { parseCutJson } from '../../../../src/migration/devices/vmdesc.js';
import { compare } from '../../../../src/migration/inspect/diff.js';
import { verify } from '../../../../src/migration/inspect/verify.js';
import * as m from '../../../support/migration.js';

// Files of about a megabyte that are all headers: work that grows with their square would not end within a test.
const many = (n: number, make: (i: number) => Buffer): Buffer => Buffer.concat(Array.from({ length: n }, (_, i) => make(i)));
const blocks = 40_000;
const name = (i: number): string => `b${i.toString(36)}`;
const floods: [what: string, bytes: Buffer, verdict: string][] = [
  [
    'RAM blocks, and pages that name one each',
    m.sample({
      ram: m.ramSections(
        many(blocks, (i) => m.zero(0, name((i * 7919) % blocks))),
        m.cat(
          m.be64((blocks * m.PAGE) | 4),
          many(blocks, (i) => m.cat(m.str8(name(i)), m.be64(m.PAGE))),
        ),
      ),
    }),
    'complete',
  ],
  [
    'sections',
    m.cat(
      m.header(),
      m.configuration(),
      m.ramSections(),
      many(40_000, (i) => m.full(i + 3, 'd', 1, m.u8(), i)),
      m.eof,
    ),
    'complete-without-description',
  ],
  ['PARTs of unknown sections', m.sample({ devices: many(120_000, (i) => m.cat(m.u8(2), m.be32(0x10000 + i))) }), 'damaged'],
  ['unknown records between footers', m.sample({ devices: many(120_000, () => m.cat(m.u8(0x55), m.footer(2))) }), 'damaged'],
  [
    'brackets in a description that was cut off',
    m.sample({
      tail: m.cat(
        m.eof,
        m.u8(6),
        m.be32(2_000_000),
        '{"page_size":4096,"devices":[{"a":[',
        many(300_000, () => Buffer.from('{},')),
      ),
    }),
    'complete-without-description',
  ],
  [
    'elements without bytes',
    m.sample({
      devices: many(2000, (i) => m.full(10 + i, 'timer', 1, m.u8(), i)),
      tail: m.cat(
        m.eof,
        m.vmdesc(
          Array.from({ length: 2000 }, (_, i) =>
            m.device(
              'timer',
              [{ name: 'f', type: 'struct', size: 0, array_len: 1e12, struct: { vmsd_name: 's', version: 1, fields: [] } }],
              {
                instance_id: i,
              },
            ),
          ),
        ),
      ),
    }),
    'complete',
  ],
  [
    'subsections in each other',
    m.sample({
      tail: m.cat(
        m.eof,
        ((json: string) => m.cat(m.u8(6), m.be32(json.length), json))(
          `{"page_size":4096,"devices":[{"name":"timer","instance_id":0,${'"subsections":[{"vmsd_name":"",'.repeat(30_000)}"fields":[]${'}]'.repeat(30_000)}}]}`,
        ),
      ),
    }),
    'complete',
  ],
  [
    'what looks like descriptions',
    m.sample({
      tail: m.cat(
        m.eof,
        many(30_000, () => m.cat(m.u8(6), m.be32(0xffffff), '{"page_size":{"a":[')),
        m.vmdesc(m.devices),
      ),
    }),
    'complete-without-description',
  ],
];

test.each(floods)('a flood of %s', (_what, bytes, verdict) =>
  m.inFolder(async (dir) => {
    const file = path.join(dir, 'f');
    fs.writeFileSync(file, bytes);
    expect((await verify(openInput(file), () => {})).verdict).toBe(verdict);
  }),
);

test('hashes of pages far out in many blocks: bounded, and what has none is not taken for equal', () =>
  m.inFolder(async (dir) => {
    const length = 16 * 2 ** 30;
    const names = Array.from({ length: 6 }, (_, i) => name(i));
    const far = (n: number) => many(names.length, (i) => m.page(length - m.PAGE, m.pattern(n), names[i]!));
    const files = [1, 2].map((n) => {
      const file = path.join(dir, String(n));
      fs.writeFileSync(file, m.sample({ ram: m.ramSections(far(n), m.blockList(...names.map((b) => [b, length] as [string, number]))) }));
      return file;
    });
    const result = await compare(openInput(files[0]!), openInput(files[1]!), { ram: true, ignore: [] }, () => {});
    expect(result.ram!.map((r) => r.changed + r.unknown)).toEqual(names.map(() => 1));
    expect(result.ram!.filter((r) => r.unknown > 0).length).toBeGreaterThan(0);
  }));

test('a description that was cut off: the devices that are whole', () => {
  const text = JSON.stringify({
    page_size: 4096,
    configuration: { subsections: [{ fields: [{}] }] },
    devices: [
      { name: 'a"}]{\\', fields: [{ x: [1] }] },
      { name: 'b', fields: [] },
    ],
  });
  const [first, second] = [text.indexOf(',{"name":"b"'), text.length - 2];
  for (let size = 0; size <= text.length; size++) {
    const cut = parseCutJson(text.slice(0, size)) as { devices: unknown[] } | undefined;
    expect({ size, devices: cut?.devices.length }).toEqual({ size, devices: size < first ? undefined : size < second ? 1 : 2 });
  }
});
