/** Opening what a user named: a file or stdin; containers are recognised and unwrapped. */
import fs from 'node:fs';
import { Exit, usage, VioError, wrap } from '../../common/errors.js';
import { native } from '../../native/index.js';
import type { ByteOrder } from '../memory/bitmap-order.js';
import type { Issue } from '../stream/issues.js';
import { StreamReader } from '../stream/reader.js';
import { compressionOf, decompress, type Tool } from './decompress.js';
import { domain, domainXml, headerSize, type LibvirtHeader, libvirtMagic, magicPartial, parseHeader } from './libvirt.js';
import { Qcow2 } from './qcow2.js';

export interface InputOptions {
  /** bytes before the stream */
  offset?: number;
  /** qcow2: id or name of the internal snapshot */
  snapshot?: string;
  /** most bytes that compressed data may grow to */
  maxSize?: number;
  /** byte order of the words of mapped-ram bitmaps, where the file shall not tell */
  bitmapOrder?: ByteOrder;
}

/** What the stream was wrapped in. */
export type Container =
  | (LibvirtHeader & { domain?: string; uuid?: string })
  | { type: 'qcow2'; snapshot: string; name: string; vmStateSize: number }
  | { type: 'compressed'; format: string };

/** An opened stream; close it. */
export interface Input {
  /** as it was given, for errors */
  name: string;
  reader: StreamReader;
  container?: Container;
  /** the domain XML of a libvirt save */
  xml?: Buffer;
  /** what is wrong with the container, for the walk to report first */
  issues: Issue[];
  /** from the options or the container's own byte order, for the walk */
  bitmapOrder: ByteOrder | undefined;
  /** bytes in all, 0 where that is not known: for progress */
  size: number;
  /** Lets the decompressor end; returns what it complained of. */
  close(): Promise<Issue[]>;
}

/** Compressed data may grow to this unless --max-size says otherwise. */
export const defaultMaxSize = 2 ** 40;

const issue = (code: string, offset: number, message: string, more: Partial<Issue> = {}): Issue => ({
  severity: 'error',
  code,
  offset: BigInt(offset),
  path: '',
  message,
  ...more,
});

/** Reads exactly `size` bytes of a descriptor in order, fewer at its end. */
function readExactly(fd: number, size: number): Buffer {
  const bytes = Buffer.alloc(size);
  let done = 0;
  while (done < size) {
    try {
      const got = fs.readSync(fd, bytes, done, size - done, null);
      if (got === 0) break;
      done += got;
    } catch (err) {
      if ((err as NodeJS.ErrnoException).code === 'EOF') break;
      if ((err as NodeJS.ErrnoException).code !== 'EAGAIN') throw err;
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 5); // stdin that someone made non-blocking
    }
  }
  return bytes.subarray(0, done);
}

/** One opening: what has been found out so far. */
class Opening {
  readonly #name: string;
  readonly #fd: number;
  readonly #options: InputOptions;
  readonly #seekable: boolean;
  readonly #issues: Issue[] = [];
  #container: Container | undefined;
  #xml: Buffer | undefined;
  /** byte order of the host, where the container says it */
  #hostOrder: ByteOrder | undefined;
  #tool: ReturnType<typeof decompress> | undefined;

  constructor(name: string, fd: number, options: InputOptions) {
    const stat = fs.fstatSync(fd);
    if (stat.isDirectory()) throw Object.assign(new Error('a directory'), { code: 'EISDIR' });
    this.#name = name;
    this.#fd = fd;
    this.#options = options;
    this.#seekable = stat.isFile() || stat.isBlockDevice();
    if (!this.#seekable && options.offset) throw usage('--offset needs a file, not a pipe');
  }

  open(): Input {
    const reader = this.#reader();
    const { fd: toolFd, ended } = this.#tool ?? {};
    const own = this.#fd > 0 ? this.#fd : undefined;
    return {
      name: this.#name,
      reader,
      ...(this.#container && { container: this.#container }),
      ...(this.#xml && { xml: this.#xml }),
      issues: this.#issues,
      bitmapOrder: this.#options.bitmapOrder ?? this.#hostOrder,
      size: reader.size,
      close: async () => {
        reader.close();
        if (toolFd !== undefined) fs.closeSync(toolFd);
        if (own !== undefined) fs.closeSync(own);
        const said = await ended;
        return said === undefined ? [] : [issue('decompress', 0, said)];
      },
    };
  }

  #reader(): StreamReader {
    const start = this.#options.offset ?? 0;
    if (!this.#seekable) {
      const head = readExactly(this.#fd, 16);
      const magic = head.toString('latin1');
      if (magic === libvirtMagic || magic === magicPartial) {
        const rest = readExactly(this.#fd, headerSize - 16);
        return this.#libvirt(Buffer.concat([head, rest]), 0, (size) => readExactly(this.#fd, size));
      }
      const format = compressionOf(head);
      if (format === 'gzip') return this.#compressed(format, 0, head);
      if (format) {
        throw new VioError(`stdin is compressed with ${format}`, {
          code: 'COMPRESSED',
          exit: Exit.usage,
          hint: `${format} -dc | vioctl migration …`,
        });
      }
      return new StreamReader(native().migration.openSource({ fd: this.#fd, kind: 'pipe', start: 0, prefix: head }));
    }
    const head = Buffer.alloc(headerSize);
    const bytes = head.subarray(0, fs.readSync(this.#fd, head, 0, headerSize, start));
    const magic = bytes.toString('latin1', 0, 16);
    if (magic === libvirtMagic || magic === magicPartial) {
      return this.#libvirt(bytes, start, (size, at) => {
        const data = Buffer.alloc(size);
        return data.subarray(0, fs.readSync(this.#fd, data, 0, size, at));
      });
    }
    if (bytes.toString('latin1', 0, 4) === 'QFI\xfb') return this.#qcow2();
    if (this.#options.snapshot !== undefined) throw usage('--snapshot needs a qcow2 image');
    const format = compressionOf(bytes);
    if (format) {
      this.#container = { type: 'compressed', format };
      return this.#compressed(format, start);
    }
    return this.#plain(start);
  }

  #plain(start: number): StreamReader {
    const kind = this.#seekable ? 'file' : 'pipe';
    return new StreamReader(native().migration.openSource({ fd: this.#fd, kind, start }), this.#seekable ? this.#fd : -1);
  }

  /** @param data reads the bytes behind the header */
  #libvirt(head: Buffer, start: number, data: (size: number, at: number) => Buffer): StreamReader {
    const header = parseHeader(head);
    if ('error' in header) throw new VioError(header.error, { code: 'LIBVIRT', exit: Exit.damaged });
    this.#hostOrder = header.bigEndian ? 'big' : 'little';
    const behind = data(header.dataLength, start + headerSize);
    this.#xml = domainXml(behind);
    const { name, uuid } = domain(this.#xml);
    this.#container = { ...header, ...(name !== undefined && { domain: name }), ...(uuid !== undefined && { uuid }) };
    if (behind.length < header.dataLength) {
      this.#issues.push(
        issue('truncated', start + headerSize + behind.length, 'libvirt header data', {
          expected: `${header.dataLength} bytes`,
          found: String(behind.length),
        }),
      );
    }
    if (!header.finished) {
      this.#issues.push(
        issue('libvirt-partial', start, 'libvirt marked this save as incomplete: it was interrupted', {
          expected: libvirtMagic,
          found: magicPartial,
        }),
      );
    }
    const at = start + headerSize + header.dataLength;
    if (header.format === 'raw' || header.format === 'sparse') return this.#plain(at);
    return this.#compressed(header.format, at);
  }

  /** Compressed data at `start` of a file or at the present position of a pipe. Positions count decompressed bytes. */
  #compressed(format: Tool | 'gzip', start: number, prefix?: Buffer): StreamReader {
    const kind = this.#seekable ? 'file' : 'pipe';
    let source: ReturnType<ReturnType<typeof native>['migration']['openSource']>;
    if (format === 'gzip') {
      source = native().migration.openSource({
        fd: this.#fd,
        kind,
        start: this.#seekable ? start : 0,
        gzip: true,
        ...(prefix && { prefix }),
      });
    } else {
      if (this.#seekable) native().migration.seekFd(this.#fd, start);
      this.#tool = decompress(format, this.#fd);
      source = native().migration.openSource({ fd: this.#tool.fd, kind: 'pipe', start: 0 });
    }
    const reader = new StreamReader(source);
    reader.cap(this.#options.maxSize ?? defaultMaxSize);
    return reader;
  }

  #qcow2(): StreamReader {
    const image = new Qcow2(this.#fd);
    const snapshot = image.pick(this.#options.snapshot);
    this.#container = { type: 'qcow2', snapshot: snapshot.id, name: snapshot.name, vmStateSize: Number(snapshot.vmStateSize) };
    const { extents, unreadable } = image.vmState(snapshot);
    for (const { at, length, why } of unreadable)
      this.#issues.push(issue('qcow2-cluster', at, `${length} bytes of the VM state cannot be read (${why})`));
    return new StreamReader(native().migration.openSource({ fd: this.#fd, kind: 'extents', start: 0, extents }));
  }
}

/** Opens a migration stream. @throws VioError */
export function openInput(file: string, options: InputOptions = {}): Input {
  let fd = 0;
  if (file !== '-') {
    try {
      fd = fs.openSync(file, 'r');
    } catch (err) {
      throw wrap(`open ${file}`, err);
    }
  }
  try {
    return new Opening(file, fd, options).open();
  } catch (err) {
    if (fd > 0) fs.closeSync(fd);
    throw wrap(`open ${file === '-' ? 'stdin' : file}`, err);
  }
}
