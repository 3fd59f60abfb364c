import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';

/** Pieces of migration streams, written by the format's description: for tests that need a file with one thing wrong. */
export const PAGE = 4096;

export const u8 = (...v: number[]): Buffer => Buffer.from(v);
export const be16 = (v: number): Buffer => {
  const b = Buffer.alloc(2);
  b.writeUInt16BE(v);
  return b;
};
export const be32 = (v: number): Buffer => {
  const b = Buffer.alloc(4);
  b.writeUInt32BE(v >>> 0);
  return b;
};
export const be64 = (v: bigint | number): Buffer => {
  const b = Buffer.alloc(8);
  b.writeBigUInt64BE(BigInt.asUintN(64, BigInt(v)));
  return b;
};
export const str8 = (s: string): Buffer => Buffer.concat([u8(s.length), Buffer.from(s, 'latin1')]);
const cat = (...parts: (Buffer | string | undefined)[]): Buffer =>
  Buffer.concat(parts.map((p) => (p === undefined ? Buffer.alloc(0) : typeof p === 'string' ? Buffer.from(p, 'latin1') : p)));

export const header = (version = 3): Buffer => cat('QEVM', be32(version));
export const subsection = (name: string, version: number, body: Buffer): Buffer => cat(u8(5), str8(name), be32(version), body);
export const configuration = (machine = 'pc-i440fx-10.0', ...subs: Buffer[]): Buffer => cat(u8(7), be32(machine.length), machine, ...subs);
export const capabilities = (...names: string[]): Buffer =>
  subsection('configuration/capabilities', 1, cat(be32(names.length), ...names.map(str8)));
export const footer = (id: number): Buffer => cat(u8(0x7e), be32(id));
export const section = (type: 1 | 4, id: number, name: string, version: number, body: Buffer, instance = 0): Buffer =>
  cat(u8(type), be32(id), str8(name), be32(instance), be32(version), body);
export const start = (id: number, name: string, version: number, body: Buffer): Buffer =>
  cat(section(1, id, name, version, body), footer(id));
export const full = (id: number, name: string, version: number, body: Buffer, instance = 0): Buffer =>
  cat(section(4, id, name, version, body, instance), footer(id));
export const part = (id: number, body: Buffer): Buffer => cat(u8(2), be32(id), body, footer(id));
export const end = (id: number, body: Buffer): Buffer => cat(u8(3), be32(id), body, footer(id));
export const command = (id: number, data: Buffer = Buffer.alloc(0)): Buffer => cat(u8(8), be16(id), be16(data.length), data);
export const eof = u8(0);

export const EOS = be64(0x10);
/** MEM_SIZE and its list. */
export const blockList = (...blocks: [name: string, length: number | bigint, more?: Buffer][]): Buffer =>
  cat(be64(blocks.reduce((n, b) => n + BigInt(b[1]), 0n) | 4n), ...blocks.flatMap(([n, l, more]) => [str8(n), be64(l), more]));
/** A page record; without a name it continues the last block. */
export const page = (addr: number | bigint, content: Buffer, name?: string): Buffer =>
  cat(be64(BigInt(addr) | (name === undefined ? 0x28n : 0x08n)), name === undefined ? undefined : str8(name), content);
export const zero = (addr: number | bigint, name?: string, fill = 0): Buffer =>
  cat(be64(BigInt(addr) | (name === undefined ? 0x22n : 0x02n)), name === undefined ? undefined : str8(name), u8(fill));
/** Zero records of the pages from address `from` to `to` of the last block: those of a whole stream that nothing else is said of. */
export function zeros(from: number, to: number): Buffer {
  const out = Buffer.alloc(((to - from) / PAGE) * 9);
  for (let i = 0; from + i * PAGE < to; i++) out.writeBigUInt64BE(BigInt(from + i * PAGE) | 0x22n, i * 9);
  return out;
}
export const xbzrle = (addr: number, delta: Buffer, length = delta.length, encoding = 1): Buffer =>
  cat(be64(addr | 0x60), u8(encoding), be16(length), delta);
export const compressed = (addr: number, data: Buffer, length = data.length): Buffer => cat(be64(addr | 0x120), be32(length), data);
/** A page whose words tell its number. */
export function pattern(n: number): Buffer {
  const b = Buffer.alloc(PAGE);
  for (let i = 0; i < PAGE; i += 8) b.writeBigUInt64LE(BigInt(n) * 0x100000001n + BigInt(i), i);
  return b;
}

export interface TestField {
  name: string;
  type: string;
  size: number;
  [key: string]: unknown;
}
export const device = (name: string, fields: TestField[], more: object = {}): object => ({
  name,
  instance_id: 0,
  vmsd_name: name,
  version: 1,
  fields,
  ...more,
});
export const vmdesc = (devices: object[], pad = 0): Buffer => {
  const json = JSON.stringify({ page_size: PAGE, devices, ...(pad > 0 && { pad: 'x'.repeat(pad) }) });
  return cat(u8(6), be32(json.length), json);
};

/** A `virtio` field of a device on the MMIO bus, with this state of its class. */
export function virtioField(state: Buffer, { features = 0n, queues = 2 }: { features?: bigint; queues?: number } = {}): Buffer {
  const low = Number(features & 0xffffffffn);
  const common = cat(be32(0), be32(0), be32(12), u8(15, 1), be16(0), be32(low), be32(4), u8(9, 9, 9, 9), be32(queues));
  const queue = cat(be32(256), be32(4096), be64(0x1000), be16(7));
  const high = subsection('virtio/64bit_features', 1, be64(features));
  return cat(common, ...Array.from({ length: queues }, () => queue), state, high);
}

/** The two devices of `sample()`. */
export const devices = [
  device('timer', [{ name: 'ticks', type: 'int64', size: 8 }]),
  device('cpu', [
    { name: 'regs', type: 'uint64', size: 8, array_len: 4 },
    { name: 'halted', type: 'bool', size: 1 },
  ]),
];
export const timerBody = be64(12345);
export const cpuBody = cat(be64(1), be64(2), be64(3), be64(0xfffffffffffffff0n), u8(1));

/** A whole small stream: 64 KiB of pc.ram with every fourth page a pattern, two devices, a description. */
export function sample(change: Partial<Record<'header' | 'configuration' | 'ram' | 'devices' | 'tail', Buffer>> = {}): Buffer {
  return cat(
    change.header ?? header(),
    change.configuration ?? configuration(),
    change.ram ?? ramSections(),
    change.devices ?? cat(full(0, 'timer', 1, timerBody), full(3, 'cpu', 1, cpuBody)),
    change.tail ?? cat(eof, vmdesc(devices)),
  );
}
export function ramSections(records?: Buffer, list: Buffer = blockList(['pc.ram', 16 * PAGE])): Buffer {
  const pages =
    records ??
    cat(
      ...Array.from({ length: 16 }, (_, i) => (i % 4 === 0 ? page(i * PAGE, pattern(i), i === 0 ? 'pc.ram' : undefined) : zero(i * PAGE))),
    );
  return cat(start(2, 'ram', 4, cat(list, EOS)), part(2, cat(pages, EOS)), end(2, EOS));
}
/** What `sample()` has in its RAM. */
export const sampleRam = (): Buffer => cat(...Array.from({ length: 16 }, (_, i) => (i % 4 === 0 ? pattern(i) : Buffer.alloc(PAGE))));

/** A block of `mappedRam()`: pages with a bit have a pattern, the others are zeros, or `stale`. */
export interface MappedBlock {
  name: string;
  pages: number;
  set: readonly number[];
  stale?: number;
  /** what the header says otherwise */
  wrong?: { version?: number; page?: number; bitmap?: number; pages?: number };
}
/** Content of a block of `mappedRam()`. */
export const mappedContent = ({ pages, set }: MappedBlock): Buffer =>
  cat(...Array.from({ length: pages }, (_, i) => (set.includes(i) ? pattern(i + 1) : Buffer.alloc(PAGE))));
/** A stream of mapped-ram that begins `at` bytes into its file, pages aligned to `align`. Offsets in it are those of the file. */
export function mappedRam(blocks: readonly MappedBlock[], { at = 0, bigEndian = false, align = PAGE } = {}): Buffer {
  let out = cat(header(), configuration('pc-i440fx-10.0', capabilities('mapped-ram')), u8(1), be32(2), str8('ram'), be32(0), be32(4));
  out = cat(out, be64(BigInt(blocks.reduce((n, b) => n + b.pages * PAGE, 0)) | 4n));
  for (const block of blocks) {
    const { name, pages, set, stale = 0, wrong = {} } = block;
    out = cat(out, str8(name), be64(pages * PAGE));
    const bitmap = Buffer.alloc(Math.ceil(pages / 64) * 8);
    for (const page of set) bitmap[page >> 3]! |= 1 << (page & 7);
    if (bigEndian) bitmap.swap64();
    const bitmapAt = at + out.length + 28;
    const pagesAt = Math.ceil((bitmapAt + bitmap.length) / align) * align;
    const head = [be32(wrong.version ?? 1), be64(wrong.page ?? PAGE), be64(wrong.bitmap ?? bitmapAt), be64(wrong.pages ?? pagesAt)];
    const memory = Buffer.alloc(pages * PAGE, stale);
    for (const page of set) pattern(page + 1).copy(memory, page * PAGE);
    out = cat(out, ...head, bitmap, Buffer.alloc(pagesAt - bitmapAt - bitmap.length), memory);
  }
  const behind = [EOS, footer(2), part(2, EOS), end(2, EOS), full(0, 'timer', 1, timerBody), full(3, 'cpu', 1, cpuBody)];
  return cat(out, ...behind, eof, vmdesc(devices));
}

/** Runs `use` with a folder that is removed after. */
export async function inFolder<T>(use: (dir: string) => T | Promise<T>): Promise<T> {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-mig-'));
  try {
    return await use(dir);
  } finally {
    fs.rmSync(dir, { recursive: true, force: true });
  }
}
export { cat };
