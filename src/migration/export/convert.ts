/** Rewrites a stream as mapped-ram: pages at fixed places, which QEMU 9.0 and newer loads several times faster. */
import fs from 'node:fs';
import { Exit, VioError, wrap } from '../../common/errors.js';
import { printable } from '../../common/escape.js';
import type { Input } from '../containers/input.js';
import { damaged } from '../inspect/dump.js';
import type { ByteOrder } from '../memory/bitmap-order.js';
import { streamMagic, streamVersion, Type } from '../stream/format.js';
import type { Issue } from '../stream/issues.js';
import { type Configuration, pagesOf, type RamBlock, type WalkEvent } from '../stream/model.js';
import type { StreamReader } from '../stream/reader.js';
import { Walker } from '../walk.js';

/** QEMU rounds the pages of each block up to this. */
const align = 1n << 20n;
const eos = 0x10n;

const be32 = (v: number): Buffer => {
  const b = Buffer.alloc(4);
  b.writeUInt32BE(v);
  return b;
};
const be64 = (v: bigint): Buffer => {
  const b = Buffer.alloc(8);
  b.writeBigUInt64BE(v);
  return b;
};
const string8 = (s: string): Buffer => Buffer.concat([Buffer.from([s.length]), Buffer.from(s, 'latin1')]);
const subsection = (name: string, body: Buffer): Buffer => Buffer.concat([Buffer.from([Type.subsection]), string8(name), be32(1), body]);
const footer = (id: number): Buffer => Buffer.concat([Buffer.from([Type.footer]), be32(id)]);

/** The capabilities of the new file. */
const withMapped = ({ capabilities = [] }: Configuration): string[] => [...new Set([...capabilities, 'mapped-ram'])];

/** The configuration record with the capability added. */
function configurationRecord(c: Configuration): Buffer {
  const machine = Buffer.from(c.machine, 'utf8');
  const capabilities = withMapped(c);
  return Buffer.concat([
    Buffer.from([Type.configuration]),
    be32(machine.length),
    machine,
    ...(c.pageBits === undefined ? [] : [subsection('configuration/target-page-bits', be32(c.pageBits))]),
    subsection('configuration/capabilities', Buffer.concat([be32(capabilities.length), ...capabilities.map(string8)])),
    ...(c.uuid === undefined ? [] : [subsection('configuration/uuid', Buffer.from(c.uuid.replaceAll('-', ''), 'hex'))]),
  ]);
}

/** Where a block's parts lie in the new file. */
interface Place {
  bitmap: bigint;
  pages: bigint;
}

type Copied = Extract<WalkEvent, { offset: bigint; type: 'section' | 'command' | 'eof' }>;

export interface Converted {
  to: 'mapped-ram';
  /** the input was mapped-ram already */
  already: boolean;
  /** bytes of the output */
  size: number;
  /** RAM blocks with their pages, and the pages that have content */
  blocks: { name: string; length: bigint; pages: number; content: number }[];
  /** devices in the stream */
  devices: number;
}

class Conversion {
  readonly #fd: number;
  readonly #reader: StreamReader;
  readonly #order: ByteOrder;
  readonly #records: Copied[] = [];
  #places: Place[] = [];
  #at = 0n;
  configuration: Configuration | undefined;

  constructor(fd: number, reader: StreamReader, order: ByteOrder) {
    this.#fd = fd;
    this.#reader = reader;
    this.#order = order;
  }

  note(event: WalkEvent): void {
    if (event.type === 'section' || event.type === 'command' || event.type === 'eof') this.#records.push(event);
    if (event.type === 'configuration') this.configuration = event;
  }

  #write(bytes: Buffer, at: bigint): bigint {
    for (let done = 0; done < bytes.length; ) done += fs.writeSync(this.#fd, bytes, done, bytes.length - done, Number(at) + done);
    return at + BigInt(bytes.length);
  }

  /** Everything up to the pages, when the block list is known. */
  begin(blocks: readonly RamBlock[], pageSize: number, section: { id: number; instance: number }) {
    const { configuration } = this;
    if (!configuration)
      throw new VioError('the stream has no configuration record: machine types before 2.4 cannot be mapped-ram', {
        code: 'CONVERT',
        exit: Exit.unsupported,
      });
    if (configuration.capabilities?.includes('mapped-ram') && !this.#reader.seekable)
      throw new VioError('the stream in the pipe is mapped-ram already', { code: 'CONVERT', hint: 'cat > OUT keeps it as it is' });
    if (configuration.capabilities?.includes('x-ignore-shared'))
      throw new VioError('x-ignore-shared is set: QEMU before 11 does not have it together with mapped-ram', {
        code: 'CONVERT',
        exit: Exit.unsupported,
      });
    let at = this.#write(Buffer.concat([be32(streamMagic), be32(streamVersion), configurationRecord(configuration)]), 0n);
    for (const record of this.#records) at = this.#copy(record, at);
    this.#records.length = 0;
    const total = blocks.reduce((n, b) => n + b.length, 0n);
    at = this.#write(
      Buffer.concat([Buffer.from([Type.start]), be32(section.id), string8('ram'), be32(section.instance), be32(4), be64(total | 4n)]),
      at,
    );
    this.#places = blocks.map((block) => {
      const entry = Buffer.concat([string8(block.name), be64(block.length)]);
      const bitmap = at + BigInt(entry.length) + 28n;
      const words = (block.length / BigInt(pageSize) + 63n) / 64n;
      const pages = (bitmap + words * 8n + align - 1n) & ~(align - 1n);
      this.#write(Buffer.concat([entry, be32(1), be64(BigInt(pageSize)), be64(bitmap), be64(pages)]), at);
      at = pages + block.length;
      return { bitmap, pages };
    });
    this.#at = this.#write(Buffer.concat([be64(eos), footer(section.id)]), at);
    return { fd: this.#fd, placements: blocks.map((b, i) => ({ block: i, from: 0n, to: b.length, out: this.#places[i]!.pages })) };
  }

  /** Bytes of a record as they are in the input. */
  #copy(record: Copied, at: bigint): bigint {
    const size = record.type === 'eof' ? 1 : record.size;
    // A command without data needs no copy: on a pipe it may have gone by.
    if (record.type === 'command' && size === 5)
      return this.#write(Buffer.from([Type.command, record.command >> 8, record.command & 0xff, 0, 0]), at);
    try {
      this.#reader.seek(Number(record.offset));
    } catch (err) {
      throw new VioError('records before the RAM of a pipe cannot be copied', {
        code: 'CONVERT',
        hint: 'give the file by name',
        cause: err,
      });
    }
    for (const bytes of this.#reader.pieces(size, 'record')) at = this.#write(bytes, at);
    return at;
  }

  /** Bitmaps, then all records behind the block list, the description last. */
  finish(walker: Walker): number {
    const ram = walker.ram!;
    const blocks = ram.update();
    const lost = blocks.find((b) => !b.state.tracked);
    if (lost)
      throw new VioError(`${printable(lost.name)}: more of its pages are scattered than this program can follow`, {
        code: 'RAM_UNTRACKED',
        exit: Exit.unsupported,
      });
    for (const [i, block] of blocks.entries()) this.#bitmap(walker, i, Number(block.length / BigInt(ram.options.pageSize)));
    let at = this.#at;
    for (const record of this.#records) {
      const section = record.type === 'section' && record.name === 'ram' ? record : undefined;
      if (!section) at = this.#copy(record, at);
      else if (section.record === 'end')
        at = this.#write(Buffer.concat([Buffer.from([Type.end]), be32(section.id), be64(eos), footer(section.id)]), at);
    }
    if (walker.description?.complete) {
      const text = Buffer.from(describeCapability(walker.description.text, this.configuration!));
      at = this.#write(Buffer.concat([Buffer.from([Type.vmdescription]), be32(text.length), text]), at);
    }
    fs.ftruncateSync(this.#fd, Number(at));
    return Number(at);
  }

  /** In the order of the host that loads it: nothing in the file says which it is. */
  #bitmap(walker: Walker, index: number, pages: number): void {
    const bits = Buffer.alloc(Math.ceil(pages / 64) * 8);
    for (const [first, end] of walker.ram!.runs(index, 'content'))
      for (let page = first; page < end; page++) bits[page >> 3]! |= 1 << (page & 7);
    if (this.#order === 'big') bits.swap64();
    this.#write(bits, this.#places[index]!.bitmap);
  }
}

/** Adds the capability to the description of the configuration, where there is one (QEMU 10 and newer). */
export function describeCapability(text: string, configuration: Configuration): string {
  const parsed = JSON.parse(text) as { configuration?: { subsections?: { vmsd_name: string }[] } };
  if (!parsed.configuration) return text;
  const capabilities = withMapped(configuration);
  const fields = [
    { name: 'caps_count', type: 'uint32', size: 4 },
    ...capabilities.map((c) => ({ name: 'capabilities', type: 'capability', size: c.length + 1 })),
  ];
  const rest = (parsed.configuration.subsections ?? []).filter((s) => s.vmsd_name !== 'configuration/capabilities');
  const added = { ...parsed.configuration, subsections: [{ vmsd_name: 'configuration/capabilities', version: 1, fields }, ...rest] };
  // Only this object is written anew: lists elsewhere repeat keys, which parsing would lose.
  const from = text.indexOf('{', text.indexOf('"configuration"'));
  let depth = 0;
  let to = from;
  for (; to < text.length; to++) {
    if (text[to] === '{') depth += 1;
    if (text[to] === '}' && --depth === 0) break;
  }
  return text.slice(0, from) + JSON.stringify(added) + text.slice(to + 1);
}

/** Writes `input` as a mapped-ram file into `fd`, bitmaps in the input's `bitmapOrder` or little-endian. The stream must be whole. @throws VioError */
export async function convert(input: Input, file: string, fd: number, tick: (position: number) => void): Promise<Converted> {
  const conversion = new Conversion(fd, input.reader, input.bitmapOrder ?? 'little');
  const issues: Issue[] = [];
  let ramSection = { id: 0, instance: 0 };
  let after = 0;
  const walker: Walker = new Walker(input.reader, {
    issues: input.issues,
    onSection: (section) => {
      if (section.name === 'ram') ramSection = section;
    },
    ram: {
      check: true,
      onBlocks: (blocks) => {
        after = input.reader.position;
        const target = conversion.begin(blocks, walker.ram!.options.pageSize, ramSection);
        if (input.reader.seekable) input.reader.seek(after);
        return target;
      },
    },
  });
  let size = 0;
  try {
    for (const event of walker.walk()) {
      if (event.type === 'progress') tick(event.position);
      if (event.type === 'issue') issues.push(event.issue);
      if (!(event.type === 'section' && event.name === 'ram' && event.record === 'start')) conversion.note(event);
    }
    const whole = walker.sawEof && !issues.some((i) => i.severity === 'error');
    if (!whole) throw damaged(file, issues);
    if (!walker.ram) throw new VioError('the stream has no guest memory', { code: 'NO_RAM' });
    size = conversion.finish(walker);
  } catch (err) {
    throw wrap('convert', err);
  } finally {
    issues.push(...(await input.close()));
  }
  if (issues.some((i) => i.severity === 'error')) throw damaged(file, issues);
  const blocks = walker.ram!.update();
  return {
    to: 'mapped-ram',
    already: walker.ram!.mapped,
    size,
    blocks: blocks.map((b) => ({
      name: b.name,
      length: b.length,
      pages: pagesOf(b, walker.ram!.options.pageSize),
      content: b.state.content,
    })),
    devices: walker.devices,
  };
}
