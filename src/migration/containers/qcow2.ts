/** Internal snapshots of a qcow2 image (QEMU docs/interop/qcow2): the VM state lies behind the end of the virtual disk. */
import fs from 'node:fs';
import { Exit, VioError } from '../../common/errors.js';
import { printable, printableNames } from '../../common/escape.js';
import { limits } from '../stream/format.js';

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

/** Where a VM state lies. */
export interface VmState {
  /** triples of position in the stream, length, offset in the file (-1 zeros, -2 unreadable) */
  extents: BigInt64Array;
  unreadable: { at: number; length: number; why: string }[];
}
const zeros = -1;
const unreadablePiece = -2;

/** Incompatible feature bit: extended L2 entries (QEMU docs/interop/qcow2.txt). */
const extendedL2 = 0x10n;
const subclusters = 32;

/** Bytes of the table of snapshots, as QEMU reads them at most (block/qcow2.h). */
const tableMost = 64n << 20n;
/** Bytes of L2 tables that are read: those of 1 TiB in clusters of 64 KiB. */
const l2Most = 128 << 20;

/** Pieces that are kept: 128 GiB in clusters of 64 KiB of which no two follow each other. */
const maxPieces = 1 << 21;

const damaged = (message: string): VioError => new VioError(message, { code: 'QCOW2', exit: Exit.damaged });

/** Reads exactly `size` bytes. @throws VioError (5) */
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
  /** L2 entries have 16 bytes: the second eight say for each of 32 subclusters whether it is allocated or reads as zeros */
  readonly #extended: boolean;
  readonly snapshots: Snapshot[];

  constructor(fd: number) {
    this.#fd = fd;
    const head = at(fd, 0n, 72, 'header');
    const version = head.readUInt32BE(4);
    if (version !== 2 && version !== 3) throw damaged(`qcow2: version ${version}`);
    this.#clusterBits = head.readUInt32BE(20);
    if (this.#clusterBits < 9 || this.#clusterBits > 21) throw damaged(`qcow2: cluster size of 2^${this.#clusterBits}`);
    if (head.readUInt32BE(32) !== 0)
      throw new VioError('qcow2: encrypted images are not read', { code: 'QCOW2_ENCRYPTED', exit: Exit.unsupported });
    const features = version === 3 ? at(fd, 72n, 8, 'features').readBigUInt64BE() : 0n;
    if ((features & 0x4n) !== 0n)
      throw new VioError('qcow2: the clusters are in an external data file', { code: 'QCOW2_EXTERNAL', exit: Exit.unsupported });
    this.#extended = (features & extendedL2) !== 0n;
    if (this.#extended && this.#clusterBits < 14) throw damaged(`qcow2: subclusters in clusters of 2^${this.#clusterBits} bytes`);
    // Dirty, corrupt and the compression type do not change where clusters lie; what may come does.
    const others = features & ~(0xbn | extendedL2);
    if (others !== 0n) {
      const what = `incompatible features 0x${others.toString(16)} are not read`;
      throw new VioError(`qcow2: ${what}`, { code: 'QCOW2_FEATURES', exit: Exit.unsupported });
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
      if (from - offset > tableMost) throw damaged(`qcow2: the table of ${count} snapshots has more than ${tableMost} bytes`);
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
    const names = printableNames(live.map((s) => `${s.id} (${s.name})`)) || 'none';
    if (wanted === undefined) {
      if (live.length === 1) return live[0]!;
      throw new VioError(`the image has ${live.length} snapshots with a VM state`, {
        code: 'SNAPSHOT',
        exit: Exit.usage,
        hint: `--snapshot ID; there are: ${names}`,
      });
    }
    const named = this.snapshots.filter((s) => s.name === wanted);
    const found = this.snapshots.find((s) => s.id === wanted) ?? named[0];
    if (named.length > 1 && found === named[0] && found?.id !== wanted) {
      const ids = printableNames(named.map((s) => s.id));
      throw new VioError(`${named.length} snapshots are named "${printable(wanted)}"`, {
        code: 'SNAPSHOT',
        exit: Exit.usage,
        hint: `--snapshot ID; they have the ids ${ids}`,
      });
    }
    if (!found)
      throw new VioError(`no snapshot "${printable(wanted)}"`, { code: 'SNAPSHOT', exit: Exit.usage, hint: `there are: ${names}` });
    if (found.vmStateSize === 0n)
      throw new VioError(`snapshot ${printable(wanted)} has no VM state`, { code: 'SNAPSHOT', hint: `with one: ${names}` });
    return found;
  }

  /** Where the VM state of a snapshot lies. @throws VioError */
  vmState(snapshot: Snapshot): VmState {
    const cluster = 1 << this.#clusterBits;
    const entry = this.#extended ? 16 : 8;
    const span = BigInt(cluster) * BigInt(cluster / entry);
    // The VM state begins at the first L1 entry behind those that the disk needs: at the disk's size, rounded up.
    const disk = snapshot.diskSize ?? at(this.#fd, 24n, 8, 'disk size').readBigUInt64BE();
    const first = (disk + span - 1n) / span;
    const fileSize = BigInt(fs.fstatSync(this.#fd).size);
    const l1 = at(this.#fd, snapshot.l1Offset, snapshot.l1Size * 8, 'L1 table of the snapshot');
    const pieces: number[] = [];
    const unreadable: VmState['unreadable'] = [];
    let done = 0n;
    const add = (length: bigint, file: number, why = '') => {
      const size = Number(length < snapshot.vmStateSize - done ? length : snapshot.vmStateSize - done);
      const from = Number(done);
      done += BigInt(size);
      const last = unreadable.at(-1);
      if (why && last?.why === why && last.at + last.length === from) last.length += size;
      else if (why && unreadable.length < limits.issues) unreadable.push({ at: from, length: size, why });
      const n = pieces.length;
      const follows = n > 0 && (file < 0 ? pieces[n - 1] === file : pieces[n - 1]! >= 0 && pieces[n - 1]! + pieces[n - 2]! === file);
      if (follows) pieces[n - 2]! += size;
      else if (pieces.push(from, size, file) > 3 * maxPieces) {
        throw new VioError(`qcow2: the VM state lies in more than ${maxPieces} pieces`, { code: 'QCOW2', exit: Exit.unsupported });
      }
    };
    const tables = new Set<bigint>();
    const empty = Buffer.alloc(cluster);
    for (let index = first; done < snapshot.vmStateSize; index++) {
      if (index >= BigInt(snapshot.l1Size)) {
        add(snapshot.vmStateSize - done, unreadablePiece, 'behind the end of the L1 table');
        break;
      }
      const table = l1.readBigUInt64BE(Number(index) * 8) & 0x00fffffffffffe00n;
      if (table === 0n) add(span, zeros);
      else if (table + BigInt(cluster) > fileSize) add(span, unreadablePiece, 'L2 table outside of the file');
      else if (tables.has(table)) add(span, unreadablePiece, 'L2 table that is used twice');
      else {
        tables.add(table);
        if (tables.size * cluster > l2Most)
          throw new VioError(`qcow2: the VM state has more than ${l2Most} bytes of L2 tables`, { code: 'QCOW2', exit: Exit.unsupported });
        const l2 = at(this.#fd, table, cluster, 'L2 table');
        if (l2.equals(empty)) {
          add(span, zeros);
          continue;
        }
        for (let i = 0; i < cluster && done < snapshot.vmStateSize; i += entry) {
          const word = l2.readBigUInt64BE(i);
          const where = word & 0x00fffffffffffe00n;
          if ((word & (1n << 62n)) !== 0n) {
            add(BigInt(cluster), unreadablePiece, 'compressed');
            continue;
          }
          // Without subclusters bit 0 says that all of the cluster reads as zeros.
          const allocated = this.#extended ? l2.readUInt32BE(i + 12) : (word & 1n) !== 0n ? 0 : 1;
          const zero = this.#extended ? l2.readUInt32BE(i + 8) : 0;
          const parts = this.#extended ? subclusters : 1;
          const size = BigInt(cluster / parts);
          for (let part = 0; part < parts && done < snapshot.vmStateSize; part++) {
            const at = where + BigInt(part) * size;
            const left = snapshot.vmStateSize - done;
            const bit = 1 << part;
            if ((allocated & zero & bit) !== 0) add(size, unreadablePiece, 'a subcluster that is both allocated and zero');
            else if ((allocated & bit) === 0 || where === 0n) add(size, zeros);
            else if (at + (left < size ? left : size) > fileSize) add(size, unreadablePiece, 'outside of the file');
            else add(size, Number(at));
          }
        }
      }
    }
    return { extents: BigInt64Array.from(pieces, BigInt), unreadable };
  }
}
