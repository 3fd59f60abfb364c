import type { BlockState } from '../../native/migration.js';
import type { SectionRecord } from './format.js';
import type { Issue } from './issues.js';

/** A decoded value of a device field. bigint prints as "0x…". */
export type Value = number | bigint | string | boolean | null | Uint8Array | Value[] | { [name: string]: Value };

/** Fields of a device by name. */
export type Fields = { [name: string]: Value };

/** The configuration record. */
export interface Configuration {
  /** machine type */
  machine: string;
  /** log2 of the page size, if the stream names it */
  pageBits?: number;
  /** migration capabilities that were enabled */
  capabilities?: string[];
  /** UUID of the guest */
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
  /** kind of the record: start, part, end or full */
  record: SectionRecord;
  /** number of the section */
  id: number;
  /** name of the device */
  name: string;
  /** number among devices of this name */
  instance: number;
  /** version of the device's state */
  version: number;
  /** where the record begins */
  offset: bigint;
  /** bytes from the type byte to the end of the footer */
  size: number;
  /** the section has a footer */
  footer: boolean;
  /** with --fields: device fields by name, if the stream describes them */
  fields?: { [name: string]: Value };
  /** counters of an iterable section's part */
  detail?: Detail;
  /** how the end of the body was found */
  bounded: 'content' | 'description' | 'footer';
}

/** What a walk yields, in file order; sections before RAM whose fields need the description come late. */
export type WalkEvent =
  | {
      type: 'header';
      /** where the record begins */
      offset: bigint;
      /** version of the stream */
      version: number;
    }
  | ({
      type: 'configuration';
      offset: bigint;
      /** bytes of the record */
      size: number;
    } & Configuration)
  | SectionEvent
  | {
      type: 'command';
      offset: bigint;
      /** number of the command */
      command: number;
      /** name of the command */
      name: string;
      size: number;
      /** its decoded content */
      data?: Detail;
    }
  | { type: 'eof'; offset: bigint }
  | {
      type: 'vmdescription';
      offset: bigint;
      size: number;
      /** false: the description is cut off */
      complete: boolean;
    }
  | { type: 'trailing'; offset: bigint; size: number }
  | {
      type: 'issue';
      /** what is wrong with the stream, and where */
      issue: Issue;
    }
  | {
      type: 'progress';
      /** position reached; never printed */
      position: number;
    };

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
