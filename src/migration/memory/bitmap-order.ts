import { maxPeek } from '../../native/migration.js';
import { report } from '../stream/issues.js';
import { pagesOf, type RamBlock, type WalkEvent } from '../stream/model.js';
import type { StreamReader } from '../stream/reader.js';

/** Byte order of the host that wrote a mapped-ram file: nothing in the file says it. */
export type ByteOrder = 'little' | 'big';

/** The byte order of the bitmaps of one mapped-ram file: given, or told from what is in it. */
export class BitmapOrder {
  readonly #given: ByteOrder | undefined;
  readonly #pageSize: number;
  /** the order was given, and pages have been looked at that speak for or against it */
  #compared = false;
  /** undefined while nothing has told it */
  order: ByteOrder | undefined;

  constructor(given: ByteOrder | undefined, pageSize: number) {
    this.#given = this.order = given;
    this.#pageSize = pageSize;
  }

  /**
   * Finds out in which byte order the bitmap at the present position is written, unless that is known: by bits behind the
   * last page, or by the pages on which the two readings differ, since those with content are the ones whose bits are set.
   * Where nothing differs, the order does not matter. An order that was given stays, with a warning if the pages of a file
   * contradict it.
   */
  *tell(reader: StreamReader, block: RamBlock): Generator<WalkEvent> {
    const given = this.#given;
    if (this.order && (!given || this.#compared || !reader.seekable)) return;
    const at = reader.position;
    const pageSize = this.#pageSize;
    const pages = pagesOf(block, pageSize);
    const bitmap = reader.peek(Math.min(maxPeek, Math.ceil(pages / 64) * 8));
    const filled = (page: number): boolean => {
      reader.seek(Number(block.pagesOffset) + page * pageSize);
      return reader.take(pageSize).bytes.some((b) => b !== 0);
    };
    // Pages that only one order has, of which there are as many in the other: with content, and behind the end.
    const little = { filled: 0, spare: 0, looked: 0 };
    const big = { filled: 0, spare: 0, looked: 0 };
    for (let i = 0; i < bitmap.length; i++) {
      // By whole words, in which both orders have as many.
      if (i % 8 === 0 && little.looked + big.looked >= 64) break;
      const mirror = bitmap[(i & ~7) + 7 - (i & 7)] ?? 0;
      for (let bit = 0; bitmap[i] !== mirror && bit < 8; bit++) {
        const own = (bitmap[i]! >> bit) & 1;
        if (own === ((mirror >> bit) & 1)) continue;
        const order = own ? little : big;
        const page = i * 8 + bit;
        if (page >= pages) order.spare += 1;
        else if (reader.seekable) {
          order.looked += 1;
          if (filled(page)) order.filled += 1;
        }
      }
    }
    if (reader.seekable) reader.seek(at);
    if (given) {
      if (little.filled === big.filled) return;
      this.#compared = true;
      const other = little.filled > big.filled ? 'little' : 'big';
      if (other === given) return;
      const text = `mapped-ram bitmaps read as of a ${given}-endian host: their content speaks for ${other}`;
      yield report('warning', 'bitmap-order', at, `ram/${block.name}`, text, { recovered: 'read as told' });
      return;
    }
    if (little.filled !== big.filled) this.order = little.filled > big.filled ? 'little' : 'big';
    else if (little.spare !== big.spare) this.order = little.spare < big.spare ? 'little' : 'big';
    if (this.order === 'big') yield this.note(block);
  }

  /** That the bitmaps are read as big-endian although nobody said so. */
  note(block: RamBlock): WalkEvent {
    const how = { recovered: 'read so; --bitmap-endian little reads them the other way' };
    const text = 'mapped-ram bitmaps of a big-endian host, by their content';
    return report('note', 'bitmap-order', block.bitmapOffset ?? 0n, `ram/${block.name}`, text, how);
  }
}
