import fs from 'node:fs';
import path from 'node:path';
import zlib from 'node:zlib';
import { VioError } from '../../../../src/common/errors.js';
import { openInput } from '../../../../src/migration/containers/input.js';
import { extract } from '../../../../src/migration/export/extract.js';
import { verify } from '../../../../src/migration/inspect/verify.js';
import { effort } from '../../../support/effort.js';
import * as m from '../../../support/migration.js';
import { seeds as kinds, mutations, random } from '../../../support/migration-mutations.js';

const bodies = m.cat(
  m.page(0, m.pattern(0), 'pc.ram'),
  m.xbzrle(0, m.u8(3, 1, 7)),
  m.compressed(m.PAGE, zlib.deflateSync(m.pattern(5))),
  m.zero(2 * m.PAGE),
);
const seeds = [
  m.sample(),
  m.sample({ ram: m.ramSections(bodies) }),
  m.sample({ configuration: m.configuration('pc', m.capabilities('mapped-ram', 'x-ignore-shared')) }),
  m.sample({
    devices: m.cat(
      m.command(7, m.be32(m.full(0, 'timer', 1, m.timerBody).length)),
      m.full(0, 'timer', 1, m.timerBody),
      m.start(9, 'dirty-bitmap', 1, m.u8(1)),
      m.start(8, '0000:00:03.0/vfio', 1, m.be64(0xffffffffef100001n)),
    ),
  }),
  m.cat(Buffer.from('LibvirtQemudSave'), Buffer.from([2, 0, 0, 0, 8, 0, 0, 0, 1, 0, 0, 0]), Buffer.alloc(64 + 8), m.sample()),
  zlib.gzipSync(m.sample()),
  ...[false, true].map((bigEndian) =>
    m.mappedRam(
      [
        { name: 'pc.ram', pages: 6, set: [0, 3] },
        { name: 'rom', pages: 3, set: [1] },
      ],
      { bigEndian },
    ),
  ),
];

/** Changes that find what a parser believes too easily. */
function mutate(bytes: Buffer, next: (below: number) => number): Buffer {
  let out = Buffer.from(bytes);
  for (let i = 0, times = 1 + next(4); i < times; i++) {
    // Most of the bytes are pages: half of the changes go where the records are.
    const at = next(2) ? next(Math.min(out.length, 200)) : out.length - 1 - next(Math.min(out.length, 700));
    switch (next(6)) {
      case 0:
        out[at] = next(256);
        break;
      case 1:
        out.set([0xff, 0xff, 0xff, 0xff].slice(0, out.length - at), at);
        break;
      case 2:
        out = out.subarray(0, at);
        break;
      case 3:
        out = Buffer.concat([out.subarray(0, at), out.subarray(Math.min(out.length, at + next(64)))]);
        break;
      case 4:
        out = Buffer.concat([out.subarray(0, at), out.subarray(at, at + next(300)), out.subarray(at)]);
        break;
      default:
        out[at] = (out[at] ?? 0) ^ (1 << next(8));
    }
    if (out.length === 0) break;
  }
  return out;
}

test('mutated streams: always a verdict or a plain error, soon, in little memory', async () => {
  await m.inFolder(async (dir) => {
    const next = random(20250731);
    const file = path.join(dir, 'f');
    const before = process.memoryUsage.rss();
    const verdicts = new Map<string, number>();
    const end = Date.now() + effort(3000, 12_000);
    let runs = 0;
    for (; runs < 1500 && (runs <= 100 || Date.now() < end); runs++) {
      const bytes = mutate(seeds[runs % seeds.length]!, next);
      fs.writeFileSync(file, bytes);
      const started = Date.now();
      try {
        const { verdict } = await verify(openInput(file), () => {});
        verdicts.set(verdict, (verdicts.get(verdict) ?? 0) + 1);
        if (runs % 4 === 0) {
          const fd = fs.openSync(path.join(dir, 'out'), 'w+');
          try {
            await extract(openInput(file), fd, { as: 'sparse', block: 'pc.ram' }, () => {});
          } finally {
            fs.closeSync(fd);
          }
        }
      } catch (err) {
        // What is no stream at all, or has no memory, is a plain error.
        if (!(err instanceof VioError)) {
          fs.writeFileSync('/tmp/vioctl-fuzz-failure', bytes);
          throw err;
        }
      }
      expect(Date.now() - started).toBeLessThan(30_000);
      if (runs % 50 === 0) await new Promise(setImmediate); // the addon's handles are let go between events
    }
    // The sanitised addon keeps what was freed for a while (quarantine), up to 256 MB.
    const kept = process.env.VIOCTL_ADDON?.includes('asan') ? 256 << 20 : 0;
    expect(process.memoryUsage.rss() - before).toBeLessThan((100 << 20) + kept);
    // The mutations are neither all harmless nor all deadly.
    for (const verdict of ['complete', 'damaged', 'truncated']) expect(verdicts.get(verdict) ?? 0).toBeGreaterThan(5);
  });
});

test('mutated streams of every kind through every command: errors lie where the change is', async () => {
  await m.inFolder(async (dir) => {
    const done = await mutations(dir, 22, 0, kinds.length * 20);
    expect(done.inputs).toBe(kinds.length * 20);
    for (const verdict of ['complete', 'damaged', 'truncated']) expect(done.verdicts[verdict] ?? 0).toBeGreaterThan(5);
  });
});
