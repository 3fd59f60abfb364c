/** 32-bit words of a submission queue entry. */
export const words = 16;

/** Word 4 and 5: the address of the request's memory. */
export const addressWord = 4;

/** Words 8 and 9, user_data, are the ring's own. */
export const userData = 8;

const wide = (sqe: Uint32Array, at: number, value: number | bigint): void => {
  if (typeof value === 'bigint') {
    sqe[at] = Number(value & 0xffff_ffffn);
    sqe[at + 1] = Number((value >> 32n) & 0xffff_ffffn);
  } else {
    sqe[at] = value;
    sqe[at + 1] = Math.floor(value / 0x1_0000_0000);
  }
};

/**
 * Writes every word of an entry (struct io_uring_sqe of linux/io_uring.h) but its user_data.
 * @param at its first word
 * @param head opcode, flags from bit 8 on, ioprio from bit 16 on
 * @param fileIndex slot + 1, ALLOC, or 0
 */
export function putEntry(
  sqe: Uint32Array,
  at: number,
  head: number,
  fd: number,
  offset: number | bigint,
  address: number | bigint,
  length: number,
  opFlags: number,
  bufIndex: number,
  fileIndex: number,
  addr3: number | bigint,
): void {
  sqe[at] = head;
  sqe[at + 1] = fd;
  wide(sqe, at + 2, offset);
  wide(sqe, at + 4, address);
  sqe[at + 6] = length;
  sqe[at + 7] = opFlags;
  sqe[at + 10] = bufIndex;
  sqe[at + 11] = fileIndex;
  wide(sqe, at + 12, addr3);
  sqe[at + 14] = 0;
  sqe[at + 15] = 0;
}
