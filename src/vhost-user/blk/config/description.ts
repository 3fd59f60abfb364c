/**
 * The configuration file of `vhost-user serve blk`, key by key. The JSON Schema and vioctl-vhost-user(5) are made from these types and
 * their comments; the checks of read.ts must name exactly these keys, or they do not compile.
 */
import type { SourceEntry } from '../../../storage/config/entry.js';

/** Who may connect to a socket. */
export interface AccessEntry {
  /** permissions of the socket file, octal, such as "0660"; default: 0600. @pattern ^0?[0-7]{3}$ */
  socketMode?: string;
  /** owner of the socket file, name or number; default: the user of the server */
  socketOwner?: string;
  /** group of the socket file, name or number */
  socketGroup?: string;
}

/** The whole file. Only `disks` is required. Keys of sockets, and queues, hold for disks that have none of their own. */
export interface BlkConfigFile extends AccessEntry {
  /** path of the JSON Schema, for editors; ignored */
  $schema?: string;
  /** path of the control socket for vhost-user ctl */
  control?: string;
  /** folder that remembers the identities of sources */
  stateDir?: string;
  /** engine for I/O that can block: uring (io_uring), sync (threads with system calls), or auto: uring if it works; default: auto */
  engine?: 'auto' | 'uring' | 'sync';
  /** busy-poll time of a queue before it sleeps, in µs; default: 30. @minimum 0 @maximum 1000000 */
  spinMicroseconds?: number;
  /**
   * patterns of the sources that vhost-user ctl may add, such as /srv/images/*.img, /dev/vg0/* or ram:*; default: all. Symbolic links
   * are followed first. `*` matches no slash, `**` matches everything. Files, folders and addresses in the options of a
   * source must match too
   */
  sources?: string[];
  /** virtqueues of a disk at most; each that a VMM uses has a thread; default: 64, or the number of CPUs here if larger. @minimum 1 @maximum 256 */
  queues?: number;
  /** what is served */
  disks: DiskEntry[];
}

/** A disk. */
export interface DiskEntry extends SourceEntry, AccessEntry {
  /** path of the socket for the VMM; a relative one starts in the folder of the file */
  socket: string;
  /** serial number, up to 20 bytes; default: made from the source. @maxLength 20 */
  serial?: string;
  /** virtqueues at most. @minimum 1 @maximum 256 */
  queues?: number;
}
