/** Internal snapshots of a qcow2 image (QEMU docs/interop/qcow2): the VM state lies behind the end of the virtual disk. */
import fs from 'node:fs';
import { VioError } from '../../common/errors.js';
import { printable } from '../../common/escape.js';

export interface Snapshot {
  id: string;
  name: string;
  /** bytes of VM state; 0 for a snapshot of the disk alone */
  vmStateSize: bigint;
  /** size of the disk when the snapshot was made, where the image says so */
  diskSize?: bigint;
  l1Offset: bigint;
  l1Size: number;
}

/** A piece of the VM state: position in the stream, length, offset in the file (-1 zeros, -2 unreadable). */
export type Piece = [at: bigint, length: bigint, file: bigint];

const damaged = (message: string): VioError => new VioError(message, { code: 'QCOW2', exit: 5 });

/** Reads exactly so many bytes. @throws VioError (5) */
function at(fd: number, offset: bigint, size: number, what: string): Buffer {
  if (size > 64 << 20) throw damaged(`qcow2: ${what} of ${size} bytes`);
  const bytes = Buffer.alloc(size);
  const got = offset < 0n || offset > 1n << 62n ? 0 : fs.readSync(fd, bytes, 0, size, offset);
  if (got < size) throw damaged(`qcow2: ${what} at 0x${offset.toString(16)} lies behind the end of the file`);
  return bytes;
}

/** An opened image. */
export class Qcow2 {
  readonly #fd: number;
  readonly #clusterBits: number;
  readonly snapshots: Snapshot[];

  constructor(fd: number) {
    this.#fd = fd;
    const head = at(fd, 0n, 72, 'header');
    const version = head.readUInt32BE(4);
    if (version !== 2 && version !== 3) throw damaged(`qcow2: version ${version}`);
    this.#clusterBits = head.readUInt32BE(20);
    if (this.#clusterBits < 9 || this.#clusterBits > 21) throw damaged(`qcow2: cluster size of 2^${this.#clusterBits}`);
    if (head.readUInt32BE(32) !== 0) throw new VioError('qcow2: encrypted images are not read', { code: 'QCOW2_ENCRYPTED', exit: 7 });
    if (version === 3 && (at(fd, 72n, 8, 'features').readBigUInt64BE() & 0x4n) !== 0n) {
      throw new VioError('qcow2: the clusters are in an external data file', { code: 'QCOW2_EXTERNAL', exit: 7 });
    }
    this.snapshots = this.#table(head.readUInt32BE(60), head.readBigUInt64BE(64));
  }

  #table(count: number, offset: bigint): Snapshot[] {
    if (count > 65536) throw damaged(`qcow2: ${count} snapshots`);
    const list: Snapshot[] = [];
    let from = offset;
    for (let i = 0; i < count; i++) {
      const entry = at(this.#fd, from, 40, `snapshot ${i}`);
      const idSize = entry.readUInt16BE(12);
      const nameSize = entry.readUInt16BE(14);
      const extraSize = entry.readUInt32BE(36);
      if (extraSize > 1024) throw damaged(`qcow2: snapshot ${i} has ${extraSize} bytes of extra data`);
      const rest = at(this.#fd, from + 40n, extraSize + idSize + nameSize, `snapshot ${i}`);
      list.push({
        id: rest.toString('utf8', extraSize, extraSize + idSize),
        name: rest.toString('utf8', extraSize + idSize),
        vmStateSize: extraSize >= 8 ? rest.readBigUInt64BE(0) : BigInt(entry.readUInt32BE(32)),
        ...(extraSize >= 16 && { diskSize: rest.readBigUInt64BE(8) }),
        l1Offset: entry.readBigUInt64BE(0),
        l1Size: entry.readUInt32BE(8),
      });
      from += BigInt((40 + extraSize + idSize + nameSize + 7) & ~7);
    }
    return list;
  }

  /** The snapshot of that id or name; without one, the only snapshot that has a VM state. @throws VioError */
  pick(wanted: string | undefined): Snapshot {
    const live = this.snapshots.filter((s) => s.vmStateSize > 0n);
    const names = live.map((s) => `${printable(s.id)} (${printable(s.name)})`).join(', ') || 'none';
    if (wanted === undefined) {
      if (live.length === 1) return live[0]!;
      throw new VioError(`the image has ${live.length} snapshots with a VM state`, {
        code: 'SNAPSHOT',
        exit: 2,
        hint: `--snapshot ID; there are: ${names}`,
      });
    }
    const found = this.snapshots.find((s) => s.id === wanted) ?? this.snapshots.find((s) => s.name === wanted);
    if (!found) throw new VioError(`no snapshot "${printable(wanted)}"`, { code: 'SNAPSHOT', exit: 2, hint: `there are: ${names}` });
    if (found.vmStateSize === 0n)
      throw new VioError(`snapshot ${printable(wanted)} has no VM state`, { code: 'SNAPSHOT', hint: `with one: ${names}` });
    return found;
  }

  /** Where the VM state of a snapshot lies. */
  pieces(snapshot: Snapshot): Piece[] {
    const cluster = 1n << BigInt(this.#clusterBits);
    const perL2 = cluster / 8n;
    // The VM state begins at the first L1 entry behind those that the disk needs: at the disk's size, rounded up.
    const disk = snapshot.diskSize ?? at(this.#fd, 24n, 8, 'disk size').readBigUInt64BE();
    const first = (disk + cluster * perL2 - 1n) / (cluster * perL2);
    const fileSize = BigInt(fs.fstatSync(this.#fd).size);
    const l1 = at(this.#fd, snapshot.l1Offset, snapshot.l1Size * 8, 'L1 table of the snapshot');
    const pieces: Piece[] = [];
    const add = (from: bigint, length: bigint, file: bigint) => {
      const last = pieces.at(-1);
      const follows = last && last[0] + last[1] === from && (file < 0n ? last[2] === file : last[2] >= 0n && last[2] + last[1] === file);
      if (follows) last[1] += length;
      else pieces.push([from, length, file]);
    };
    for (let done = 0n, index = first; done < snapshot.vmStateSize; index++) {
      const entry = index < BigInt(snapshot.l1Size) ? l1.readBigUInt64BE(Number(index) * 8) & 0x00fffffffffffe00n : undefined;
      const span = cluster * perL2;
      if (entry === undefined || entry === 0n || entry + cluster > fileSize) {
        const length = span < snapshot.vmStateSize - done ? span : snapshot.vmStateSize - done;
        add(done, length, entry === 0n ? -1n : -2n);
        done += length;
        continue;
      }
      const l2 = at(this.#fd, entry, Number(cluster), 'L2 table');
      for (let i = 0; i < Number(perL2) && done < snapshot.vmStateSize; i++) {
        const word = l2.readBigUInt64BE(i * 8);
        const left = snapshot.vmStateSize - done;
        const length = cluster < left ? cluster : left;
        const where = word & 0x00fffffffffffe00n;
        const compressed = (word & (1n << 62n)) !== 0n;
        const zero = (word & 1n) !== 0n || where === 0n;
        add(done, length, compressed || where + length > fileSize ? -2n : zero ? -1n : where);
        done += length;
      }
    }
    return pieces;
  }
}
