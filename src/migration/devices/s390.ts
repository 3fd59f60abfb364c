/** Storage keys of an s390x guest (QEMU hw/s390x/s390-skeys.c; z/Architecture Principles of Operation, "Storage Key"). */
import type { Fields } from '../stream/model.js';
import { BadForm, Cursor, hex } from './cursor.js';

const eos = 1n;
const keysFollow = 2n;
const failed = 4n;
const page = 4096n;

/** Runs of equal keys that are listed; a guest with more of them has its counts alone. */
const maxRuns = 4096;
/** Ranges of memory that one guest has. */
const maxRanges = 1024;

/** Parts of a key. */
const keyParts = (key: number): Fields => ({
  key: hex(key, 2),
  access: key >> 4,
  fetchProtected: (key & 0x08) !== 0,
  referenced: (key & 0x04) !== 0,
  changed: (key & 0x02) !== 0,
});

function keysOf(address: bigint, keys: Buffer): Fields {
  const counts = new Map<number, number>();
  const runs: Fields[] = [];
  let more = 0;
  for (let at = 0; at < keys.length; ) {
    const key = keys[at]!;
    let end = at + 1;
    while (end < keys.length && keys[end] === key) end++;
    counts.set(key, (counts.get(key) ?? 0) + end - at);
    if (key !== 0 && runs.length < maxRuns) runs.push({ address: address + BigInt(at) * page, pages: end - at, ...keyParts(key) });
    else if (key !== 0) more += 1;
    at = end;
  }
  const byKey = Object.fromEntries([...counts].sort(([a], [b]) => a - b).map(([key, pages]) => [hex(key, 2), pages]));
  return { address, pages: keys.length, byKey, runs, ...(more > 0 && { moreRuns: more }) };
}

/**
 * The body of a section `s390-skeys`: ranges of memory with a byte for each page, up to EOS. Runs of key 0 are left out.
 * @returns undefined where the bytes have another form
 */
export function storageKeys(bytes: Buffer): Fields | undefined {
  const c = new Cursor(bytes);
  const ranges: Fields[] = [];
  try {
    for (;;) {
      const word = c.be64();
      const flags = word & (page - 1n);
      if ((flags & (eos | failed)) !== 0n) {
        if (c.left > 0) return undefined;
        return { storageKeys: ranges, ...((flags & failed) !== 0n && { storageKeysFailed: true }) };
      }
      const pages = c.be64();
      if (flags !== keysFollow || pages > BigInt(c.left) || ranges.length === maxRanges) return undefined;
      ranges.push(keysOf(word - flags, c.take(Number(pages))));
    }
  } catch (err) {
    if (!(err instanceof BadForm) && !(err instanceof RangeError)) throw err;
    return undefined;
  }
}
