/** A file system of attributes, like configfs, by the kernel's FUSE protocol (linux/fuse.h, version 7.31). */
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import { promisify } from 'node:util';

/** A number of errno(3) as the answer to a request. */
export class Errno extends Error {
  readonly errno: number;
  constructor(name: keyof typeof errnos, why = '') {
    super(`${name} ${why}`);
    this.errno = errnos[name];
  }
}
const errnos = { EPERM: 1, ENOENT: 2, EIO: 5, EACCES: 13, EEXIST: 17, EINVAL: 22, ENOSYS: 38, ENOTEMPTY: 39 };

/** A file that reads as a line and is written as a whole. */
export interface Attribute {
  get(): string;
  /** Resolves when the value is in use. Left out: the file cannot be written. */
  set?(value: string): Promise<void> | void;
}

export interface Link {
  link: string;
}

/** A folder. What is not there cannot be done in it. */
export class Folder {
  readonly entries: Map<string, Entry>;
  /** mkdir(2): gives the folder that comes. */
  made?: (name: string) => Folder;
  /** Behind symlink(2), unlink(2) and rmdir(2) in this folder. */
  changed?: () => Promise<void> | void;
  /** Whether symlink(2) may be used here. */
  links = false;
  /** Behind a look into the folder: what is in it may change by itself. */
  look?: () => Promise<void>;
  readonly #own: Set<string>;

  /** @param entries that come and go with it */
  constructor(entries: Record<string, Entry> = {}) {
    this.entries = new Map(Object.entries(entries));
    this.#own = new Set(this.entries.keys());
  }

  /** One more of the entries that come and go with it. */
  provide(name: string, entry: Entry): void {
    this.#own.add(name);
    this.entries.set(name, entry);
  }

  /** Whether an entry came with the folder. */
  owns(name: string): boolean {
    return this.#own.has(name);
  }

  /** Whether rmdir(2) of it fails: somebody made an entry in it, or in a folder that came with it. */
  get used(): boolean {
    return [...this.entries].some(([name, entry]) => !this.owns(name) || (entry instanceof Folder && entry.used));
  }
}

export type Entry = Attribute | Link | Folder;

const read = promisify(fs.read);
/** Bytes of fuse_in_header and of fuse_write_in. */
const header = 40;
const writeHeader = 40;
const attributeSize = 4096;

/** Mounts a folder and serves it until the process ends. */
export class Fuse {
  readonly #fd = fs.openSync('/dev/fuse', 'r+');
  readonly #entries: Entry[] = [];
  readonly #numbers = new Map<Entry, bigint>();

  constructor(at: string, root: Folder) {
    this.#number(root);
    const options = 'fd=3,rootmode=40000,user_id=0,group_id=0,allow_other';
    const { status, stderr } = spawnSync('mount', ['-i', '-t', 'fuse', '-o', options, 'nvmet', at], {
      stdio: ['ignore', 'ignore', 'pipe', this.#fd],
      encoding: 'utf8',
    });
    if (status !== 0) throw new Error(`mount ${at}: ${stderr}`);
    void this.#serve();
  }

  #number(entry: Entry): bigint {
    const known = this.#numbers.get(entry);
    if (known !== undefined) return known;
    this.#entries.push(entry);
    const number = BigInt(this.#entries.length); // the root is 1
    this.#numbers.set(entry, number);
    return number;
  }

  async #serve(): Promise<void> {
    for (;;) {
      const request = Buffer.alloc(1 << 18);
      const { bytesRead } = await read(this.#fd, request, 0, request.length, null);
      void this.#answer(request.subarray(0, bytesRead));
    }
  }

  async #answer(request: Buffer): Promise<void> {
    const opcode = request.readUInt32LE(4);
    if ([2, 36, 42].includes(opcode)) return; // FORGET, INTERRUPT and BATCH_FORGET have no answer
    let body = Buffer.alloc(0);
    let error = 0;
    try {
      body = (await this.#do(
        opcode,
        this.#entries[Number(request.readBigUInt64LE(16)) - 1],
        request.subarray(header),
      )) as Buffer<ArrayBuffer>;
    } catch (err) {
      if (!(err instanceof Errno)) console.error(err);
      error = err instanceof Errno ? err.errno : errnos.EIO;
    }
    const head = Buffer.alloc(16);
    head.writeUInt32LE(16 + body.length, 0);
    head.writeInt32LE(-error, 4);
    request.copy(head, 8, 8, 16);
    fs.writeSync(this.#fd, Buffer.concat([head, body]));
  }

  async #do(opcode: number, entry: Entry | undefined, body: Buffer): Promise<Buffer> {
    if (opcode === 26) return init(body);
    if (!entry) throw new Errno('ENOENT');
    switch (opcode) {
      case 1: // LOOKUP
        return this.#entryOut(child(await looked(entry), text(body)));
      case 3: // GETATTR
      case 4: // SETATTR: O_TRUNC of a shell's redirection
        return Buffer.concat([Buffer.alloc(16), this.#attr(entry)]);
      case 5: // READLINK
        return Buffer.from((entry as Link).link);
      case 6: // SYMLINK
        return this.#symlink(entry, body);
      case 9: // MKDIR
        return this.#mkdir(entry, text(body.subarray(8)));
      case 10: // UNLINK
        return await unlink(entry, text(body));
      case 11: // RMDIR
        return await rmdir(entry, text(body));
      case 14: // OPEN: each read and write comes here
        return numbers([0n, 1n]);
      case 27: // OPENDIR
        await looked(entry);
        return numbers([0n, 0n]);
      case 15: // READ
        return Buffer.from(`${(entry as Attribute).get()}\n`).subarray(Number(body.readBigUInt64LE(8)));
      case 16: // WRITE
        return await write(entry as Attribute, body);
      case 28: // READDIR
        return this.#list(entry as Folder, Number(body.readBigUInt64LE(8)), body.readUInt32LE(16));
      case 18: // RELEASE, FLUSH and RELEASEDIR
      case 25:
      case 29:
        return Buffer.alloc(0);
      case 8: // MKNOD and CREATE: attributes are there or not
      case 35:
        throw new Errno('EACCES');
      default:
        throw new Errno('ENOSYS');
    }
  }

  #attr(entry: Entry): Buffer {
    const out = Buffer.alloc(88);
    out.writeBigUInt64LE(this.#number(entry), 0);
    out.writeBigUInt64LE(BigInt(attributeSize), 8);
    out.writeUInt32LE(modeOf(entry), 60);
    out.writeUInt32LE(1, 64);
    out.writeUInt32LE(attributeSize, 80);
    return out;
  }

  /** Valid for no time at all: a name may be another entry the next time. */
  #entryOut(entry: Entry): Buffer {
    return Buffer.concat([numbers([this.#number(entry), 0n, 0n, 0n, 0n]), this.#attr(entry)]);
  }

  #mkdir(entry: Entry, name: string): Buffer {
    const folder = asFolder(entry);
    if (!folder.made) throw new Errno('EPERM');
    if (folder.entries.has(name)) throw new Errno('EEXIST');
    const fresh = folder.made(name);
    folder.entries.set(name, fresh);
    return this.#entryOut(fresh);
  }

  async #symlink(entry: Entry, body: Buffer): Promise<Buffer> {
    const folder = asFolder(entry);
    const [name, link] = body.toString().split('\0') as [string, string];
    if (!folder.links) throw new Errno('EPERM');
    if (folder.entries.has(name)) throw new Errno('EEXIST');
    const fresh = { link };
    folder.entries.set(name, fresh);
    try {
      await folder.changed?.();
    } catch (err) {
      folder.entries.delete(name);
      throw err;
    }
    return this.#entryOut(fresh);
  }

  #list(folder: Folder, from: number, room: number): Buffer {
    const parts: Buffer[] = [];
    for (const [at, [name, entry]] of [...folder.entries].entries()) {
      if (at < from) continue;
      const bytes = Buffer.from(name);
      const one = Buffer.alloc(24 + Math.ceil(bytes.length / 8) * 8);
      one.writeBigUInt64LE(this.#number(entry), 0);
      one.writeBigUInt64LE(BigInt(at + 1), 8);
      one.writeUInt32LE(bytes.length, 16);
      one.writeUInt32LE(modeOf(entry) >> 12, 20);
      bytes.copy(one, 24);
      room -= one.length;
      if (room < 0) break;
      parts.push(one);
    }
    return Buffer.concat(parts);
  }
}

const text = (body: Buffer): string => body.toString('utf8', 0, body.indexOf(0));

function numbers(values: readonly bigint[]): Buffer {
  const out = Buffer.alloc(8 * values.length);
  for (const [i, value] of values.entries()) out.writeBigUInt64LE(value, 8 * i);
  return out;
}

/** The smallest version that both sides have, and requests of 64 KiB. */
function init(body: Buffer): Buffer {
  const out = Buffer.alloc(64);
  out.writeUInt32LE(7, 0);
  out.writeUInt32LE(Math.min(31, body.readUInt32LE(4)), 4);
  out.writeUInt16LE(12, 16);
  out.writeUInt16LE(9, 18);
  out.writeUInt32LE(65_536, 20);
  out.writeUInt32LE(1, 24);
  return out;
}

function modeOf(entry: Entry): number {
  if (entry instanceof Folder) return 0o40755;
  if ('link' in entry) return 0o120777;
  return 0o100000 | (entry.set ? 0o644 : 0o444);
}

function asFolder(entry: Entry): Folder {
  if (entry instanceof Folder) return entry;
  throw new Errno('EINVAL', 'not a folder');
}

async function looked(entry: Entry): Promise<Folder> {
  const folder = asFolder(entry);
  await folder.look?.();
  return folder;
}

function child(folder: Folder, name: string): Entry {
  const found = folder.entries.get(name);
  if (!found) throw new Errno('ENOENT');
  return found;
}

async function unlink(entry: Entry, name: string): Promise<Buffer> {
  const folder = asFolder(entry);
  if (!('link' in child(folder, name))) throw new Errno('EPERM');
  folder.entries.delete(name);
  await folder.changed?.();
  return Buffer.alloc(0);
}

async function rmdir(entry: Entry, name: string): Promise<Buffer> {
  const parent = asFolder(entry);
  const folder = asFolder(child(parent, name));
  if (parent.owns(name)) throw new Errno('EPERM');
  if (folder.used) throw new Errno('ENOTEMPTY');
  parent.entries.delete(name);
  await parent.changed?.();
  return Buffer.alloc(0);
}

async function write(attribute: Attribute, body: Buffer): Promise<Buffer> {
  if (!attribute.set) throw new Errno('EACCES');
  const size = body.readUInt32LE(16);
  await attribute.set(body.toString('utf8', writeHeader, writeHeader + size).trim());
  return numbers([BigInt(size)]);
}
