import type { BlockState } from '../../native/migration.js';
import type { SectionRecord } from './format.js';
import type { Issue } from './issues.js';

/** A decoded value of a device field. bigint prints as "0x…". */
export type Value = number | bigint | string | boolean | null | Uint8Array | Value[] | { [name: string]: Value };

/** Fields of a device by name. */
export type Fields = { [name: string]: Value };

/** The configuration record. */
export interface Configuration {
  machine: string;
  /** log2 of the target page, where the stream says so */
  pageBits?: number;
  capabilities?: string[];
  uuid?: string;
}

/** A RAM block as MEM_SIZE lists it, and what the walk counted in it. */
export interface RamBlock {
  name: string;
  /** used length in bytes */
  length: bigint;
  /** page size of its backing, where the stream says so (postcopy) */
  pageSize?: bigint;
  /** guest-physical address, where the stream says so (x-ignore-shared) */
  gpa?: bigint;
  /** true: the block is shared and its pages are not in the file */
  shared?: boolean;
  /** mapped-ram: file offsets */
  bitmapOffset?: bigint;
  pagesOffset?: bigint;
  state: BlockState;
}

/** Pages of a block; the last one may be a part of one. */
export const pagesOf = (block: Pick<RamBlock, 'length'>, pageSize: number): number => Math.ceil(Number(block.length) / pageSize);

/** Counters of one section part: type-specific. */
export interface Detail {
  [name: string]: Value;
}

export interface SectionEvent {
  type: 'section';
  record: SectionRecord;
  id: number;
  name: string;
  instance: number;
  version: number;
  offset: bigint;
  /** bytes from the type byte to the end of the footer */
  size: number;
  footer: boolean;
  /** device fields by name, where they were asked for and described */
  fields?: { [name: string]: Value };
  /** counters of an iterable section's part */
  detail?: Detail;
  /** how the end of the body was found */
  bounded: 'content' | 'description' | 'footer';
}

/** What a walk yields, in file order; sections before RAM whose fields need the description come late. */
export type WalkEvent =
  | { type: 'header'; offset: bigint; version: number }
  | ({ type: 'configuration'; offset: bigint; size: number } & Configuration)
  | SectionEvent
  | { type: 'command'; offset: bigint; command: number; name: string; size: number; data?: Detail }
  | { type: 'eof'; offset: bigint }
  | { type: 'vmdescription'; offset: bigint; size: number; complete: boolean }
  | { type: 'trailing'; offset: bigint; size: number }
  | { type: 'issue'; issue: Issue }
  /** position reached; for progress only */
  | { type: 'progress'; position: number };

/** A section of the stream while it is walked. */
export interface Section {
  id: number;
  name: string;
  instance: number;
  version: number;
  offset: number;
  /** it began with START */
  iterable: boolean;
  /** its END came, or it has none */
  ended: boolean;
}

/** A section before RAM whose bytes wait for the description. */
export interface PendingSection {
  event: SectionEvent;
  body: Buffer;
}
