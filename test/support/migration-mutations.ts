/** Mutated migration streams of many kinds: what may be in them is read to its end, soon, in little memory, and errors are where the change is. */
import fs from 'node:fs';
import path from 'node:path';
import zlib from 'node:zlib';
import { VioError } from '../../src/common/errors.js';
import { openInput } from '../../src/migration/containers/input.js';
import { convert } from '../../src/migration/export/convert.js';
import { extract } from '../../src/migration/export/extract.js';
import { against } from '../../src/migration/inspect/against.js';
import { compare } from '../../src/migration/inspect/diff.js';
import { collect } from '../../src/migration/inspect/dump.js';
import { statistics } from '../../src/migration/inspect/stat.js';
import { verify } from '../../src/migration/inspect/verify.js';
import type { Issue } from '../../src/migration/stream/issues.js';
import { Walker } from '../../src/migration/walk.js';
import * as m from './migration.js';
import { qcow2 } from './migration-qcow2.js';

/** Deterministic numbers (xorshift32), so that a failure can be repeated. */
export function random(seed: number): (below: number) => number {
  let x = seed || 1;
  return (below) => {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    return (x >>> 0) % below;
  };
}

/** A stream that is mutated. */
interface Seed {
  name: string;
  bytes: Buffer;
  /** the bytes are the stream: offsets of errors are those of the file */
  plain: boolean;
}

const G = 1n << 30n;

/** ACPI tables with the memory of a DIMM and of an NVDIMM, in the block that QEMU keeps them in. */
function acpi(): Buffer {
  const table = (signature: string, body: Buffer): Buffer => {
    const head = Buffer.alloc(36);
    head.write(signature);
    head.writeUInt32LE(36 + body.length, 4);
    return m.cat(head, body);
  };
  const affinity = (address: bigint, length: bigint, flags: number): Buffer => {
    const b = Buffer.alloc(40);
    b.set([1, 40]);
    b.writeBigUInt64LE(address, 8);
    b.writeBigUInt64LE(length, 16);
    b.writeUInt32LE(flags, 28);
    return b;
  };
  const range = Buffer.alloc(56);
  range.writeUInt16LE(0, 0);
  range.writeUInt16LE(56, 2);
  range.writeBigUInt64LE(4n * G, 32);
  range.writeBigUInt64LE(BigInt(4 * m.PAGE), 40);
  const srat = table('SRAT', m.cat(Buffer.alloc(12), affinity(0n, 65536n, 1), affinity(4n * G, BigInt(4 * m.PAGE), 7)));
  const bytes = m.cat(srat, table('NFIT', m.cat(Buffer.alloc(4), range)));
  return m.cat(bytes, Buffer.alloc(m.PAGE - (bytes.length % m.PAGE)));
}

/** A stream with a DIMM and tables that place it, and the CMOS of a PC. */
function hotplugged(): Buffer {
  const tables = acpi();
  const pages = (name: string, bytes: Buffer) =>
    m.cat(
      ...Array.from({ length: bytes.length / m.PAGE }, (_, i) =>
        m.page(i * m.PAGE, bytes.subarray(i * m.PAGE, (i + 1) * m.PAGE), i === 0 ? name : undefined),
      ),
    );
  const list = m.blockList(['pc.ram', 16 * m.PAGE], ['nv', 4 * m.PAGE], ['/rom@etc/acpi/tables', tables.length], ['pc.bios', m.PAGE]);
  const records = m.cat(
    ...[pages('pc.ram', m.sampleRam()), pages('nv', m.cat(...[1, 2, 3, 4].map(m.pattern)))],
    ...[pages('/rom@etc/acpi/tables', tables), pages('pc.bios', m.pattern(7))],
  );
  const cmos = m.device('mc146818rtc', [{ name: 'cmos_data', type: 'buffer', size: 128 }]);
  return m.sample({
    ram: m.ramSections(records, list),
    devices: m.cat(m.full(0, 'mc146818rtc', 1, Buffer.alloc(128)), m.full(3, 'cpu', 1, m.cpuBody)),
    tail: m.cat(m.eof, m.vmdesc([cmos, m.devices[1]!])),
  });
}

/** Devices of virtio, and the CPU and the storage keys of s390x, all described. */
function classes(): Buffer {
  const states: [string, Buffer][] = [
    [
      'virtio-net',
      m.cat(
        Buffer.alloc(6, 2),
        m.be32(1),
        m.be32(1),
        m.be16(3),
        m.u8(1, 0),
        m.be32(1),
        Buffer.alloc(6 + 512, 1),
        m.be32(1),
        Buffer.alloc(7),
        m.be64(3),
      ),
    ],
    ['virtio-blk', m.u8(0)],
    ['virtio-console', m.cat(m.be16(80), m.be16(25), m.be32(31), m.be32(1), m.be32(1), m.be32(0), m.u8(1, 0), m.be32(0))],
    ['virtio-balloon', m.cat(m.be32(1), m.be32(2), m.subsection('virtio-balloon-device/page-poison', 1, m.be32(3)))],
    ['virtio-mem', m.cat(m.be64(1 << 30), m.be64(1 << 21))],
  ];
  const bodies = states.map(([name, state]) => [`0000:00:04.0/${name}`, name, m.virtioField(state, { features: 4n, queues: 1 })] as const);
  const keys = m.cat(m.be64(0x10000 | 2), m.be64(300), Buffer.alloc(300, 0x96), m.be64(1));
  const described = [
    ...bodies.map(([name, vmsd, body]) => m.device(name, [{ name: 'virtio', type: 'virtio', size: body.length }], { vmsd_name: vmsd })),
    m.device('s390-skeys', [{ name: 'data', type: 'buffer', size: keys.length }]),
  ];
  const attributes = m.cat(
    m.start(20, 's390-storage_attributes', 1, m.be64(1)),
    m.part(20, m.cat(m.be64(0x20000 | 2), m.be64(5), m.u8(0, 1, 2, 3, 0x41), m.be64(1))),
    m.end(20, m.be64(8)),
  );
  return m.sample({
    devices: m.cat(attributes, ...bodies.map(([name, , body], i) => m.full(30 + i, name, 1, body)), m.full(50, 's390-skeys', 1, keys)),
    tail: m.cat(m.eof, m.vmdesc(described)),
  });
}

const note = m.cat(
  ...[
    Buffer.from([11, 0, 0, 0, 37, 0, 0, 0, 0, 0, 0, 0]),
    Buffer.from('VMCOREINFO\0\0'),
    Buffer.from('OSRELEASE=6.12.1\nPAGESIZE=4096\nX=12345\n'),
  ],
);
const withNote = (): Buffer =>
  m.sample({
    ram: m.ramSections(m.cat(m.page(0, m.cat(note, Buffer.alloc(m.PAGE - note.length)), 'pc.ram'), m.zeros(m.PAGE, 16 * m.PAGE))),
  });

/** Without configuration and footers, as before 2.4. */
const old = (): Buffer => {
  const open = (type: 1 | 4, id: number, name: string, body: Buffer) => m.section(type, id, name, name === 'ram' ? 4 : 1, body);
  const records = m.cat(...Array.from({ length: 16 }, (_, i) => m.page(i * m.PAGE, m.pattern(i), i === 0 ? 'pc.ram' : undefined)));
  const ram = m.cat(open(1, 2, 'ram', m.cat(m.blockList(['pc.ram', 16 * m.PAGE]), m.EOS)), m.u8(3), m.be32(2), records, m.EOS);
  return m.cat(m.header(), ram, open(4, 0, 'timer', m.timerBody), open(4, 3, 'cpu', m.cpuBody), m.eof, m.vmdesc(m.devices));
};

const libvirt = (stream: Buffer): Buffer => {
  const xml = Buffer.from('<domain><name>vm7</name></domain>\0<cookie/>\0');
  const head = Buffer.alloc(92);
  head.write('LibvirtQemudSave');
  for (const [i, v] of [2, xml.length, 1, 0].entries()) head.writeUInt32LE(v, 16 + 4 * i);
  return m.cat(head, xml, stream);
};

const mapped = [
  { name: 'pc.ram', pages: 6, set: [0, 3] },
  { name: 'rom', pages: 3, set: [1] },
];
const vfio = (...words: bigint[]) => m.cat(...words.map((w) => m.be64(0xffffffffef100000n | w)));

export const seeds: Seed[] = (
  [
    ['hot-plugged memory', hotplugged()],
    ['virtio classes, storage keys and attributes', classes()],
    ['VMCOREINFO in memory', withNote()],
    ['a machine before 2.4', old()],
    ['multifd, main channel', m.sample({ ram: m.ramSections(m.cat(m.be64(0x200), m.be64(0x200))) })],
    [
      'shared memory',
      m.sample({
        configuration: m.configuration('pc', m.capabilities('x-ignore-shared')),
        ram: m.ramSections(m.zeros(0, 0), m.blockList(['sh', 65536, m.be64(0)])),
      }),
    ],
    ['names twice', m.sample({ devices: m.cat(m.full(0, 'isa-ide', 1, m.timerBody), m.full(3, 'isa-ide', 1, m.timerBody)) })],
    [
      'a VFIO device',
      m.sample({
        devices: m.cat(m.start(8, '0000:00:03.0/vfio', 1, vfio(3n, 1n)), m.end(8, vfio(5n, 1n)), m.full(0, 'timer', 1, m.timerBody)),
      }),
    ],
    ['mapped-ram', m.mappedRam(mapped)],
    ['mapped-ram of a big-endian host', m.mappedRam(mapped, { bigEndian: true })],
    ['plain', m.sample()],
  ] as [string, Buffer][]
)
  .map(([name, bytes]): Seed => ({ name, bytes, plain: true }))
  .concat([
    { name: 'a libvirt save', bytes: libvirt(m.sample()), plain: false },
    { name: 'qcow2 with subclusters', bytes: qcow2(m.sample(), { extended: true, clusterBits: 14 }), plain: false },
    { name: 'qcow2', bytes: qcow2(m.sample(), { clusterBits: 12 }), plain: false },
    { name: 'gzip', bytes: zlib.gzipSync(hotplugged()), plain: false },
  ]);

/** One change. @returns the bytes and the first that is another */
function change(bytes: Buffer, at: number, next: (below: number) => number): Buffer {
  const out = Buffer.from(bytes);
  switch (next(7)) {
    case 0:
      out[at] = next(256);
      return out;
    case 1:
      out.fill(0xff, at, Math.min(out.length, at + 1 + next(8)));
      return out;
    case 2:
      out.fill(0, at, Math.min(out.length, at + 1 + next(8)));
      return out;
    case 3:
      return out.subarray(0, at);
    case 4:
      return m.cat(out.subarray(0, at), out.subarray(Math.min(out.length, at + 1 + next(64))));
    case 5:
      return m.cat(out.subarray(0, at), out.subarray(at, at + 1 + next(300)), out.subarray(at));
    default:
      out[at] = (out[at] ?? 0) ^ (1 << next(8));
      return out;
  }
}

/** Most of the bytes are pages: two thirds of the changes go where the records are. */
function place(length: number, next: (below: number) => number): number {
  const which = next(3);
  if (which === 0) return next(Math.min(length, 300));
  return which === 1 ? length - 1 - next(Math.min(length, 1500)) : next(length);
}

const firstDifference = (a: Buffer, b: Buffer): number => {
  for (let i = 0; i < Math.min(a.length, b.length); i++) if (a[i] !== b[i]) return i;
  return Math.min(a.length, b.length);
};

/** Where the records of a seed begin, and where its description does: it comes last, and what it says of devices is about what lies before. */
async function outline(file: string): Promise<{ records: number[]; description: number }> {
  const input = openInput(file);
  const dump = await collect(input, new Walker(input.reader));
  const at = (offset: bigint | undefined) => (offset === undefined ? Number.MAX_SAFE_INTEGER : Number(offset));
  return { records: [0, ...dump.records.map((r) => Number(r.offset))], description: at(dump.description?.offset) };
}

/** What the commands do with an input, one after the other in turn. */
const uses: ((file: string, original: string, out: string) => Promise<readonly Issue[]>)[] = [
  async (file) => {
    const input = openInput(file);
    return (await collect(input, new Walker(input.reader, { fields: true, ram: { check: true } }))).issues;
  },
  async (file) => (await statistics(openInput(file), true, () => {})).issues,
  async (file, original) => {
    const choice = { ram: true, ignore: [], structure: false };
    return (await compare(openInput(file), openInput(original), choice, () => {})).issues.a;
  },
  async (file, original) => {
    const choice = { ram: false, ignore: [], structure: true };
    return (await compare(openInput(file), openInput(original), choice, () => {})).issues.a;
  },
  async (file, original) => {
    await against(openInput(file), original, {}, () => {});
    return [];
  },
  ...(['elf', 'sparse', 'lime'] as const).map((as) => async (file: string, _original: string, out: string) => {
    const fd = fs.openSync(out, 'w+');
    try {
      return (await extract(openInput(file), fd, { as, rom: true, machine: 'pc' }, () => {})).issues;
    } finally {
      fs.closeSync(fd);
    }
  }),
  async (file, _original, out) => {
    const fd = fs.openSync(out, 'w+');
    try {
      await convert(openInput(file), file, fd, () => {});
      return [];
    } finally {
      fs.closeSync(fd);
    }
  },
];

/** Most that one input may take, on a slow machine too. */
const SOON = 5000;

export interface Mutated {
  inputs: number;
  /** verdicts, and errors that no verdict came of */
  verdicts: Record<string, number>;
  slowest: number;
  rss: number;
}

/**
 * Reads mutated inputs `from` to `to` of this seed, each with `verify` and one other use.
 * @throws Error that names the input which did not behave
 */
export async function mutations(dir: string, seed: number, from: number, to: number): Promise<Mutated> {
  const result: Mutated = { inputs: 0, verdicts: {}, slowest: 0, rss: 0 };
  const [file, out] = [path.join(dir, 'f'), path.join(dir, 'out')];
  const originals = await Promise.all(
    seeds.map(async ({ bytes, plain }, i) => {
      const original = path.join(dir, `seed-${i}`);
      fs.writeFileSync(original, bytes);
      return { original, outline: plain ? await outline(original) : undefined };
    }),
  );
  for (let i = from; i < to; i++) {
    const next = random((seed * 1_000_003 + i * 7919) | 0);
    for (let n = 0; n < 4; n++) next(2); // the first numbers of near seeds are near
    const which = i % seeds.length;
    const { bytes, name } = seeds[which]!;
    const { original, outline } = originals[which]!;
    const single = next(2) === 0;
    let mutated = bytes;
    for (let n = single ? 1 : 2 + next(4); n > 0 && mutated.length > 0; n--) mutated = change(mutated, place(mutated.length, next), next);
    fs.writeFileSync(file, mutated);
    fs.rmSync(out, { force: true });
    const what = `seed ${seed}, input ${i} (${name})`;
    const began = performance.now();
    let end = 'verdict';
    const issues: Issue[] = [];
    for (const use of ['verify', 'other'] as const) {
      try {
        if (use === 'verify') {
          const verified = await verify(openInput(file), () => {});
          end = verified.verdict;
          issues.push(...verified.issues);
        } else issues.push(...(await uses[Math.floor(i / seeds.length) % uses.length]!(file, original, out)));
      } catch (err) {
        if (!(err instanceof VioError)) {
          fs.writeFileSync('/tmp/vioctl-mutation-failure', mutated);
          throw new Error(`${what}: ${(err as Error).stack}`);
        }
        if (use === 'verify') end = err.code;
      }
    }
    const took = performance.now() - began;
    if (took > SOON) throw new Error(`${what}: took ${took.toFixed(0)} ms`);
    result.slowest = Math.max(result.slowest, took);
    if (outline) {
      const at = firstDifference(bytes, mutated);
      const record = outline.records.filter((r) => r <= at).at(-1)!;
      for (const issue of issues) {
        const offset = Number(issue.offset);
        // What a changed description says is about the devices in front of it.
        const early = issue.severity === 'error' && at < outline.description && offset < record;
        if (offset > mutated.length || early)
          throw new Error(
            `${what}: changed at ${at} in the record at ${record}, ${mutated.length} bytes: ${issue.code} at ${offset}: ${issue.message}`,
          );
      }
    }
    result.verdicts[end] = (result.verdicts[end] ?? 0) + 1;
    result.inputs += 1;
    if (i % 20 === 0) {
      await new Promise(setImmediate); // the addon's handles are let go between events
      result.rss = Math.max(result.rss, process.memoryUsage.rss());
    }
  }
  return result;
}
