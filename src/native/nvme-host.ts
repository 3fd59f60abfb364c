/** What to run: see native/nvme/initiator.h. The association is the caller's. */
export interface LoadOptions {
  address: string;
  port: number;
  hostnqn: string;
  subnqn: string;
  /** 16 bytes */
  hostid: Uint8Array;
  cntlid: number;
  queues: number;
  threads: number;
  /** Commands outstanding on each queue; less than `entries`. */
  depth: number;
  entries: number;
  headerDigest: boolean;
  dataDigest: boolean;
  flowControl: boolean;
  nsid: number;
  blockSize: number;
  ioBlocks: number;
  inCapsule: number;
  first: bigint;
  blocks: bigint;
  readPercent: number;
  random: boolean;
  durationMs: number;
  warmupMs: number;
  timeoutMs: number;
  spinUs: number;
  seed: number;
}

/** What was measured. */
export interface LoadResult {
  reads: number;
  writes: number;
  errors: number;
  /** Status field of the first failed command. */
  firstError: number;
  seconds: number;
  minNs: number;
  meanNs: number;
  maxNs: number;
  /** 50, 90, 95, 99, 99.9 and 99.99 % */
  percentilesNs: Float64Array;
}

/** native/nvme, the host's side */
export interface NvmeHostNative {
  /** Starts the load in threads of its own. Rejects with a system error; `stop` ends it early with what there is. */
  loadRun(options: LoadOptions): { done: Promise<LoadResult>; stop: () => void };
}

export const nvmeHostExports = ['loadRun'] as const satisfies (keyof NvmeHostNative)[];
