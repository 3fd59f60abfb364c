/** Data of COMMAND records (QEMU migration/savevm.c). */
import type { Detail, Value } from './model.js';
import { BadForm, Cursor } from './types/cursor.js';

/** RAM_DISCARD: version, block name with a NUL behind it, then ranges of the block that will come again. */
function ramDiscard(c: Cursor): Detail {
  const version = c.u8();
  if (version !== 0) throw new BadForm(`version ${version}`);
  const block = c.take(c.u8()).toString('latin1');
  if (c.u8() !== 0) throw new BadForm('no NUL behind the block name');
  const ranges: Value[] = [];
  while (c.left > 0) ranges.push({ start: c.be64(), length: c.be64() });
  return { block, ranges };
}

const readers: Readonly<Record<number, (c: Cursor) => Detail>> = {
  2: (c) => ({ value: c.be32() }),
  // Without data where only dirty bitmaps are sent later.
  3: (c) => (c.left === 0 ? {} : { pageSizes: c.be64(), targetPage: c.be64() }),
  6: ramDiscard,
  7: (c) => ({ packaged: c.be32() }),
  10: (c) => ({ block: c.take(c.u8()).toString('latin1') }),
};

/** What the data of a command means; nothing for a command without. @throws BadForm when it has not the form that it should have */
export function commandDetail(command: number, data: Buffer): Detail {
  const read = readers[command];
  if (!read) return {};
  const c = new Cursor(data);
  const detail = read(c);
  if (c.left > 0) throw new BadForm(`${c.left} bytes too many`);
  return detail;
}
