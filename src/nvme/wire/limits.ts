/** Limits of our target, which its engine (native/nvme) and its controllers share. */

/** Bytes of data in a command capsule, by kind of queue. */
export const inCapsule = { admin: 8192, io: 16384 } as const;
/** Data of a transfer, as a power of two of 4 KiB pages (MDTS): 1 MiB. */
export const mdts = 8;
/** Most bytes that one command moves. */
export const maxTransfer = 4096 << mdts;
/**
 * What one Write Zeroes covers, as a power of two of 4 KiB pages (WZSL): as much as NLB can count in blocks of 512 bytes. A host that
 * takes a larger value at its word sends a number of blocks that NLB does not hold, and zeroes less than it believes.
 */
export const wzsl = 13;
/** Most bytes that one Write Zeroes covers. */
export const maxZeroes = 4096 * 2 ** wzsl;
/** Most data of one H2CData PDU (MAXH2CDATA of ICResp). */
export const maxH2cData = 1 << 20;
/** Entries of a queue. */
export const maxQueueSize = 1024;
/** Source ranges of a Copy command. */
export const copyRanges = 128;
/** Ranges of a Dataset Management command. */
export const dsmRanges = 256;
