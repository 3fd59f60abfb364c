declare const sessionBrand: unique symbol;
declare const memoryBrand: unique symbol;
/** An open device with all that belongs to it; closed in the right order by closing it, or with its last reference. */
export interface NativeSession {
  readonly [sessionBrand]: true;
}
/** Memory that can be mapped for a device. */
export interface NativeMemory {
  readonly [memoryBrand]: true;
}

export interface NativeInfo {
  api: 'group' | 'cdev' | 'noiommu';
  /** VFIO_DEVICE_FLAGS_*: 1 reset, 2 PCI */
  flags: number;
  regions: number;
  irqs: number;
  /** Bitmap of the IOMMU's page sizes; 0 without IOMMU. */
  pages: bigint;
  /** Pairs of first and last address. */
  ranges: BigUint64Array;
  /** Descriptors; they stay the session's. group is -1 with cdev; container is /dev/iommu then. */
  device: number;
  group: number;
  container: number;
  ioas: number;
}

export interface NativeRegion {
  index: number;
  /** VFIO_REGION_INFO_FLAG_*: 1 read, 2 write, 4 mmap, 8 caps */
  flags: number;
  size: bigint;
  sparse: boolean;
  msixMappable: boolean;
  /** Pairs of offset and size of what may be mapped. */
  areas: BigUint64Array;
  type: number;
  subtype: number;
}

// Generated for C++: native/vfio/shared.h.

/** Words of one request of mapDma(): va, iova, size, access. */
export const dmaRequestWords = 4;
/** Bits of the access. */
export const DmaAccess = { deviceReads: 1n, deviceWrites: 2n } as const;

/** native/vfio. Offsets are numbers or bigints. */
export interface VfioNative {
  /**
   * @param name PCI address, with ` vf_token=UUID` behind it where the kernel asks for one
   * @param shared a device whose container, and with it whose mappings, this one joins
   */
  openGroup(container: string, group: string, name: string, noiommu: boolean, shared?: NativeSession): NativeSession;
  /** @param token the 16 bytes of a VF token; kernels before 6.17 check none here */
  openDevice(iommu: string, device: string, shared?: NativeSession, token?: Uint8Array): NativeSession;
  /** A device that another process opened and passed on; group is -1 with iommufd. The descriptors stay the caller's. */
  adopt(container: number, group: number, device: number, ioas: number): NativeSession;
  close(session: NativeSession): void;
  info(session: NativeSession): NativeInfo;
  /** DMA entries left, -1 where there is no limit. */
  available(session: NativeSession): number;
  region(session: NativeSession, index: number): NativeRegion;
  irq(session: NativeSession, index: number): { index: number; flags: number; count: number };
  /** Fills the bytes. @throws EIO for a short read */
  read<T extends Uint8Array>(session: NativeSession, region: number, offset: number | bigint, bytes: T): T;
  write(session: NativeSession, region: number, offset: number | bigint, bytes: Uint8Array): void;
  /** One access of 1, 2, 4 or 8 bytes, through the mapped BAR if there is one. */
  load(session: NativeSession, region: number, offset: number | bigint, width: number): bigint;
  store(session: NativeSession, region: number, offset: number | bigint, width: number, value: number | bigint): void;
  /** Maps what may be mapped of a BAR. @returns bytes */
  mapRegion(session: NativeSession, region: number): number;
  /** Requests of dmaRequestWords each. Stops at the first error. */
  mapDma(session: NativeSession, requests: BigUint64Array): { done: number; error?: Error };
  /** @returns bytes unmapped */
  unmapDma(session: NativeSession, iova: bigint, size: bigint): bigint;
  /** Eventfds, one per vector; they stay the session's. */
  enableIrq(session: NativeSession, index: number, start: number, count: number): number[];
  disableIrq(session: NativeSession, index: number): void;
  maskIrq(session: NativeSession, index: number, mask: boolean): void;
  /** Sets the token that virtual functions of this physical function ask for. @throws ENOTTY without SR-IOV */
  setVfToken(session: NativeSession, token: Uint8Array): void;
  reset(session: NativeSession): void;
  resetPeers(session: NativeSession): { group: number; segment: number; bus: number; devfn: number }[];
  hotReset(session: NativeSession, groups: number[]): void;
  /** New zeroed memory whose address is `phase` modulo `align`; huge: size of its hugepages or 0. */
  newMemory(name: string, size: bigint, huge: bigint, align: bigint, phase: bigint): NativeMemory;
  fileMemory(path: string, size: bigint, writable: boolean, align: bigint, phase: bigint): NativeMemory;
  /**
   * Takes the pages of a range (MADV_POPULATE_WRITE, or _READ, which leaves a file's times alone).
   * @throws ENOMEM, EFAULT where there is no page to be had, EINVAL before Linux 5.14
   */
  populate(memory: NativeMemory, offset: number | bigint, size: number | bigint, write: boolean): void;
  /** The descriptor stays the memory's. */
  memoryInfo(memory: NativeMemory): { va: bigint; size: bigint; fd: number; writable: boolean };
  /** One access of 1, 2, 4 or 8 bytes, aligned. @throws EINVAL, ERANGE, EIO */
  loadMemory(memory: NativeMemory, offset: number | bigint, width: number): bigint;
  readMemory<T extends Uint8Array>(memory: NativeMemory, offset: number | bigint, bytes: T): T;
  writeMemory(memory: NativeMemory, offset: number | bigint, bytes: Uint8Array): void;
  closeMemory(memory: NativeMemory): void;
  /** Walks a chain of struct vfio_info_cap_header. @throws EPROTO */
  chain(buffer: Uint8Array, fixed: number, first: number): { id: number; version: number; offset: number; size: number }[];
  /** RLIMIT_MEMLOCK in bytes; Infinity for none. */
  memlock(): { soft: number; hard: number };
  setMemlock(bytes: number): void;
  /** Replaces this process; the descriptors become 3, 4, …  @throws what execve says */
  exec(file: string, argv: string[], env: string[], fds: number[], user: { uid: number; gid: number } | undefined): never;
}

export const vfioExports = [
  'openGroup',
  'openDevice',
  'adopt',
  'close',
  'info',
  'available',
  'region',
  'irq',
  'read',
  'write',
  'load',
  'store',
  'mapRegion',
  'mapDma',
  'unmapDma',
  'enableIrq',
  'disableIrq',
  'maskIrq',
  'setVfToken',
  'reset',
  'resetPeers',
  'hotReset',
  'newMemory',
  'fileMemory',
  'populate',
  'memoryInfo',
  'loadMemory',
  'readMemory',
  'writeMemory',
  'closeMemory',
  'chain',
  'memlock',
  'setMemlock',
  'exec',
] as const satisfies (keyof VfioNative)[];
