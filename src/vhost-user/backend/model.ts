import type { OwnedFd } from '../../native/owned-fd.js';
import type { NativeMemory, RingLayout } from '../../native/vhost-user.js';
import type { Errno } from '../wire/status.js';

/** A ring at the moment it starts to run. */
export interface RingStart {
  index: number;
  memory: NativeMemory;
  layout: RingLayout;
  /** Descriptors stay the session's, and valid while the ring runs. */
  kick: OwnedFd;
  /** The call eventfd as it is now: it may be changed, or be absent, while the ring runs. */
  call: () => OwnedFd | undefined;
  /** The ring takes no more: its driver broke the rules. */
  onBroken: (error: Error) => void;
}

/** A running ring. */
export interface RunningRing {
  /** Another memory table. @throws SysError EFAULT where the ring does not lie in it */
  remap(memory: NativeMemory, layout: RingLayout): void;
  /** SET_VRING_CALL came while the ring runs. The descriptor stays the session's. */
  callChanged?(call: OwnedFd | undefined): void;
  /** Ends the ring when all that was taken is answered. @returns the index for GET_VRING_BASE */
  stop(): Promise<number>;
}

/** What a back-end is: features, configuration space, regions, and what runs its rings. */
export interface DeviceModel {
  readonly name: string;
  /** Virtio features it offers, without VHOST_USER_F_PROTOCOL_FEATURES. */
  readonly features: bigint;
  readonly protocol: bigint;
  readonly queues: number;
  /** Shared memory regions by id. */
  readonly regions: ReadonlyMap<number, bigint>;
  config(): Uint8Array;
  /** Takes a write to the configuration space; absent where nothing in it can be written. */
  setConfig?(offset: number, data: Uint8Array): Promise<Errno | undefined>;
  /** A ring is about to run, and no other one does: makes the device this back-end's alone. @returns why it cannot be */
  claim?(): Promise<Error | undefined>;
  /** The last ring has ended: makes durable what it wrote, and lets others have the device. Never fails: the log is told. */
  release?(): Promise<void>;
  startRing(start: RingStart): RunningRing;
  /** All rings have ended because the back-end ends: makes durable what they wrote. @throws the system's error */
  settle?(): Promise<void>;
}
