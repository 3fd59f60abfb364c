/** A stream's source: mapped file, pipe, pieces of a file, gzip over any of these. Opaque. */
export interface NativeSource {
  readonly __source: never;
}
/** A walk over `ram` sections. Opaque. */
export interface NativeRam {
  readonly __ram: never;
}

// The tables of this file are generated for C++: native/migration/shared.h.

/** Why the last read of a source came short. */
export const sourceEnds = ['none', 'eof', 'io', 'limit'] as const;
export type NativeEnd = (typeof sourceEnds)[number];
/** The most bytes that peek() gives: the largest page with its header, or a compressed one. */
export const maxPeek = 128 << 10;
/** Why a walk over RAM records stopped: `eos`: part over; `budget`: more to come; `memSize`: a block list follows; `bad`: a record that
 * cannot be passed, the last issue; `end`: the source ended. */
export const ramStops = ['eos', 'budget', 'memSize', 'bad', 'end'] as const;
/** In which order the bytes of a bitmap's words are read. `either`: nobody knows, and the pages come by only once. */
export const bitmapOrders = ['little', 'big', 'either'] as const;
export type BitmapOrder = (typeof bitmapOrders)[number];

export interface SourceState {
  position: number;
  end: NativeEnd;
  /** errno name of an `io` end */
  errno: string;
  seekable: boolean;
}

export interface RamStep {
  stop: (typeof ramStops)[number];
  position: number;
  end: NativeEnd;
  errno: string;
  /** memSize: total bytes; end: bytes of a page that were there */
  value: bigint;
  /** where the last record begins */
  record: number;
  page: bigint;
  /** index of the block that the last record named, -1 for none */
  block: number;
}

/** What a walk counted in one block: records, except where said otherwise. */
export interface BlockState {
  zero: number;
  normal: number;
  xbzrle: number;
  compressed: number;
  /** records of a page that an earlier record had given */
  resent: number;
  /** bytes of the stream */
  bytes: number;
  /** pages whose content could not be made */
  undecodable: number;
  /** records whose hash found no room */
  unhashed: number;
  /** pages that a record gave, or that a whole bitmap and file have */
  seen: number;
  /** pages that are not zeros in the end */
  content: number;
  /** false when the file is too large to note every page: `seen` and `content` are then lower bounds */
  tracked: boolean;
}

export interface RamIssue {
  /** index into ramFaults */
  fault: number;
  offset: number;
  block: number;
  page: bigint;
  value: bigint;
}

/** What can be wrong with a page record, and the value that comes with it. */
export const ramFaultTable = [
  ['flags', 'a combination that no QEMU writes; value: the word'],
  ['no-block', 'CONTINUE before any name'],
  ['unknown-block', 'a name that MEM_SIZE did not list'],
  ['outside', "page address at or behind the block's end; value: the address"],
  ['fill', 'ZERO record with a fill byte other than 0; value: the byte'],
  ['xbzrle-header', 'encoding byte is not 1 or the length is above the page size; value: encoding << 16 | length'],
  ['xbzrle', 'runs do not fit the page; value: length'],
  ['xbzrle-base', 'no earlier content to apply the delta to'],
  ['zlib-length', 'length above what a page can need; value: length'],
  ['zlib', 'does not inflate to one page; value: bytes made'],
  ['spare-bits', 'a mapped-ram bitmap has bits behind the last page; value: how many'],
  ['untracked', 'a mapped-ram bitmap has more scattered pages than the maps have room for'],
  ['order', 'a mapped-ram bitmap is big-endian, which came out behind pages that Readings had no room for'],
] as const;
export type RamFault = (typeof ramFaultTable)[number][0];
/** Their names by the number that the addon gives. */
export const ramFaults: readonly RamFault[] = ramFaultTable.map(([name]) => name);

/** native/migration: byte sources and the loop over RAM records. */
export interface MigrationNative {
  /** The descriptor stays the caller's and must stay open. `extents`: triples of position, length, file offset (-1 zeros, -2 unreadable). */
  openSource(options: {
    fd: number;
    kind: 'file' | 'pipe' | 'extents';
    start: number;
    extents?: BigInt64Array;
    gzip?: boolean;
    /** pipe: bytes that were read before, at most 64 KiB */
    prefix?: Uint8Array;
  }): NativeSource;
  /** pipe2(2), both ends close-on-exec; the caller owns them. */
  pipe(): [read: number, write: number];
  /** O_NONBLOCK on a descriptor. */
  setNonblocking(fd: number): void;
  /** posix_fallocate(3) of the first `size` bytes. */
  allocate(fd: number, size: number): void;
  /** lseek(2): where a child that gets the descriptor begins to read. */
  seekFd(fd: number, position: number): void;
  sourceState(source: NativeSource): SourceState;
  /** Up to `size` bytes; fewer at an end. */
  read(source: NativeSource, size: number): Buffer;
  /** The next bytes (at most maxPeek) without taking them. */
  peek(source: NativeSource, size: number): Buffer;
  /** The next `size` (at most 6) bytes as a big-endian number, taken or not; -1 where there are fewer, of which none is taken. */
  nextNumber(source: NativeSource, size: number, take: boolean): number;
  position(source: NativeSource): number;
  /** Where the source ends; 0 where that is not known. */
  sourceSize(source: NativeSource): number;
  /** Bytes that were there to skip. */
  skip(source: NativeSource, size: number): number;
  seek(source: NativeSource, position: number): void;
  /** No byte at or behind `end` is given out; -1 takes the limit away. */
  setLimit(source: NativeSource, end: number): void;
  /** Moves to the next footer of section `id` with a plausible record behind it; bytes passed, or -1 if there is none within `most`. */
  findFooter(source: NativeSource, id: number, most: number): number;
  /** `pageMaps`: bytes that the notes of which page came may take (24 MiB). */
  newRam(options: { pageSize: number; check?: boolean; hash?: boolean; seed?: bigint; pageMaps?: number }): NativeRam;
  /** The name as Latin-1 text. */
  addBlock(ram: NativeRam, name: string, length: bigint): number;
  stepRam(ram: NativeRam, source: NativeSource, budget: number): RamStep;
  /** False at an end. After `either`, for a pipe, settleBitmap must follow when the pages have gone by. */
  readBitmap(ram: NativeRam, source: NativeSource, block: number, order: BitmapOrder): boolean;
  /** Decides for the order whose pages had content and takes back what the other brought; `either` where nothing tells. */
  settleBitmap(ram: NativeRam, block: number): BitmapOrder;
  /** Hashes and extracts pages of a mapped-ram block from page `from` on; `fd` of the file itself lets the kernel copy. */
  mappedPages(
    ram: NativeRam,
    source: NativeSource,
    block: number,
    at: number,
    from: number,
    budget: number,
    fd: number,
  ): { next: number; ended: boolean; record: number };
  /** Takes back the pages of a mapped-ram block that are not whole within its first `available` bytes. */
  cutMapped(ram: NativeRam, block: number, available: number): void;
  /** Sends pages to a file from now on: quadruples of block, from, to (bytes of the block), offset in the file. */
  extractTo(ram: NativeRam, fd: number, placements: BigInt64Array): void;
  blockStates(ram: NativeRam): BlockState[];
  /** Runs [first, end) of pages, at most `most` of them, from page `from` on. */
  pageRuns(ram: NativeRam, block: number, kind: 'seen' | 'missing' | 'content', from: number, most: number): [number, number][];
  /** Hash of each page's last content: 0 zeros, even not known. */
  pageHashes(ram: NativeRam, block: number): BigUint64Array;
  /** Issues since the last call, at most 64; so far: how many found no room, and the MULTIFD_FLUSH words. */
  ramIssues(ram: NativeRam): { issues: RamIssue[]; lost: number; flushes: number };
}

/** Names of the exports, for the test that compares this interface with the addon. */
export const migrationExports = [
  'openSource',
  'pipe',
  'seekFd',
  'allocate',
  'setNonblocking',
  'sourceState',
  'read',
  'peek',
  'nextNumber',
  'position',
  'sourceSize',
  'skip',
  'seek',
  'setLimit',
  'findFooter',
  'newRam',
  'addBlock',
  'stepRam',
  'readBitmap',
  'settleBitmap',
  'mappedPages',
  'cutMapped',
  'extractTo',
  'blockStates',
  'pageRuns',
  'pageHashes',
  'ramIssues',
] as const satisfies (keyof MigrationNative)[];
