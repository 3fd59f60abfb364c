/**
 * Reads the log of the kernel's dm-log-writes (Documentation/admin-guide/device-mapper/log-writes.rst): all writes of a device
 * in the order in which they became durable. A write enters the log when the flush that covers it has ended, or with FUA at
 * once; so the first N entries are what is left after a power cut.
 */

/** Flags of an entry (drivers/md/dm-log-writes.c). */
const Log = { flush: 1, fua: 2, discard: 4, mark: 8 } as const;
const MAGIC = 0x6a736677736872n;
/** Fields of the super block and of an entry, of 8 bytes each. */
const [VERSION_AT, SECTOR_SIZE_AT] = [8, 24];
const [COUNT_AT, FLAGS_AT, LENGTH_AT, ENTRY_SIZE] = [8, 16, 24, 32];

export interface LogEntry {
  /** Bytes. */
  at: number;
  /** Empty for a discard, a mark or a flush without data. */
  data: Buffer;
  size: number;
  flush: boolean;
  discard: boolean;
  /** Text of `dmsetup message DEVICE 0 mark TEXT`. */
  mark: string | undefined;
}

/**
 * The entries of a log whose device was zeroed before. The count in the super block is older than the log after a crash: the
 * first block that is no entry ends it. @throws Error if it is no log
 */
export function* logEntries(log: Buffer): Generator<LogEntry> {
  if (log.readBigUInt64LE(0) !== MAGIC || log.readBigUInt64LE(VERSION_AT) !== 1n) throw new Error('no log of dm-log-writes');
  const block = log.readUInt32LE(SECTOR_SIZE_AT);
  for (let at = block; at + block <= log.length; ) {
    const count = Number(log.readBigUInt64LE(at + COUNT_AT));
    const flags = Number(log.readBigUInt64LE(at + FLAGS_AT));
    if (flags === 0 && count === 0) return;
    const [discard, mark] = [(flags & Log.discard) !== 0, (flags & Log.mark) !== 0];
    const size = count * block;
    const data = at + block;
    const end = data + (discard ? 0 : size);
    if (end > log.length) return;
    yield {
      at: Number(log.readBigUInt64LE(at)) * block,
      data: log.subarray(data, end),
      size,
      flush: (flags & (Log.flush | Log.fua)) !== 0,
      discard,
      mark: mark ? log.toString('latin1', at + ENTRY_SIZE, at + ENTRY_SIZE + Number(log.readBigUInt64LE(at + LENGTH_AT))) : undefined,
    };
    at = end;
  }
}
