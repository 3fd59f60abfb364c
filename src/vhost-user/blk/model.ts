import type { Engine } from '../../common/engines.js';
import type { Log } from '../../common/text/log.js';
import type { OwnedFd } from '../../native/owned-fd.js';
import type { BlkStats } from '../../native/vhost-user.js';
import type { Source } from '../../storage/open.js';
import type { SourceOptions } from '../../storage/source.js';
import type { SourceWatch } from '../../storage/watch.js';
import type { SocketAccess } from '../wire/listener.js';
import type { BlkConfigFile } from './config/description.js';

/** One disk: where it is served, and what from. */
export interface DiskOptions extends SocketAccess {
  /** Path of the socket file; without it, `fd` is a connected socket. */
  socket: string | undefined;
  fd?: number | undefined;
  /** The socket listens already, and this is it: the service manager has opened it. */
  listener?: OwnedFd | undefined;
  source: SourceOptions;
  /** At most 20 bytes; made from the source unless given. */
  serial?: string | undefined;
  /** Virtqueues at most; those of the server unless given. */
  queues?: number | undefined;
}

/** Printed when the socket listens. */
export interface BlkReady {
  /** path of the socket; absent with --fd */
  socket: string | undefined;
  /** source of the disk */
  file: string;
  /** bytes of the disk */
  size: number;
  /** writes are rejected */
  readonly: boolean;
  /** virtqueues at most */
  queues: number;
}

/** What a configuration file says, with full paths. */
export interface BlkConfig {
  control?: string;
  stateDir?: string;
  engine?: Engine;
  spinMicroseconds?: number;
  sources?: string[];
  disks: (DiskOptions & { socket: string })[];
}

/** What a configuration wants served, and its `sources`. */
export type WantedDisks = Pick<BlkConfig, 'disks' | 'sources'>;

/** Everything that `serve blk` is told. */
export interface BlkServing {
  disks: DiskOptions[];
  /** Virtqueues of a disk, at most. */
  queues: number;
  /** Of sockets whose disk does not say otherwise. */
  access?: SocketAccess | undefined;
  /** Path of the control socket. */
  control?: string | undefined;
  /** Patterns of the sources that the control socket may open; every source when left out. */
  sources?: readonly string[] | undefined;
  /** Where the names of sources are kept. */
  stateDir?: string | undefined;
  engine: Engine;
  /** Busy-poll time of a queue before it sleeps, in µs. */
  spinMicroseconds: number;
  /** Takes the function that changes what is served to what a configuration says. It gives what it has changed. */
  onReload?: (reload: (wanted: WantedDisks) => Promise<string[]>) => Promise<void>;
  onReady: (ready: BlkReady[]) => Promise<void>;
  onLog: Log;
}

/** A served disk, as the control socket needs it. */
export interface ControlledDisk {
  readonly options: DiskOptions;
  readonly source: Source;
  /** Undefined for an inherited connection. */
  readonly socket: string | undefined;
  readonly queues: number;
  /** Whether a front-end is connected, and whether its rings run. */
  state(): { connected: boolean; running: boolean };
  /** Of its whole life. */
  stats(): BlkStats;
  /** Tells the front-end of a new size. */
  readonly watch: SourceWatch;
}

/** The disks of a server, as its control socket needs them. */
export interface DiskSet {
  /** @returns what to open @throws VioError (3) for a source that the control socket may not open */
  allow(source: SourceOptions): SourceOptions;
  readonly disks: readonly ControlledDisk[];
  /** The disk that is served at a path. */
  find(socket: string): ControlledDisk | undefined;
  /** Options with those of the server where the disk has none. @throws usage error for an engine that the server does not have */
  complete<T extends DiskOptions>(options: T): T & { queues: number };
  /** What is served now, as a file that --config reads. */
  save(): BlkConfigFile;
  /**
   * Serves what a configuration says that came over the control socket.
   * @returns what was changed; with dryRun, what would be
   * @throws VioError
   */
  load(wanted: BlkConfig, dryRun: boolean): Promise<string[]>;
  /** Resolves when no reload runs. @throws VioError (EBUSY) if one does not end in time */
  idle(): Promise<void>;
  /** All checks of add(), and nothing done. @throws VioError */
  try(options: DiskOptions): Promise<void>;
  /** Serves one more disk. @throws VioError */
  add(options: DiskOptions): Promise<ControlledDisk>;
  /** Ends a disk: what was taken is finished and made durable, its socket goes. Also twice. @throws what failed; it is gone all the same */
  remove(disk: ControlledDisk): Promise<void>;
}
