import { Exit, VioError } from '../../common/errors.js';
import { native } from '../../native/index.js';
import { OwnedFd } from '../../native/owned-fd.js';
import type { BackEndSession } from '../backend/session.js';
import { MapFlag } from '../wire/messages.js';
import { statusText } from '../wire/status.js';
import type { MapFile } from './file.js';
import { checkRange, isPowerOfTwo, pageSize, qemuRegions } from './regions.js';

/** Mappings that QEMU 11.1 takes without CONFIGURE_MEM_SLOTS: each is an entry of its eight-entry memory table. */
export const maxWithoutSlots = 6;

/**
 * - `queued`: waits for the guest's driver to start the device
 * - `mapped`: the front-end has acknowledged it
 * - `kept`: mapped before the device stopped, and the front-end refused to map it anew: the old one stands
 * - `failed`: the front-end refused it
 */
export type EntryState = 'queued' | 'mapped' | 'kept' | 'failed';

export interface Entry {
  readonly shmid: number;
  readonly offset: bigint;
  readonly len: bigint;
  readonly file: string;
  readonly how: MapFile['how'];
  readonly fd: OwnedFd;
  /** Keeps other servers from the file. */
  readonly lock: OwnedFd | undefined;
  state: EntryState;
  error: string | undefined;
  /** Acknowledged on this connection, before the device last stopped. */
  before: boolean;
  removing: boolean;
}

/** What is known of a mapping, for lists. */
export interface EntryView {
  /** region */
  shmid: number;
  /** offset in the region */
  offset: bigint;
  /** bytes */
  len: bigint;
  /** the mapped file */
  file: string;
  /** shared: the file itself; sealed-copy: a private copy */
  how: MapFile['how'];
  /** queued until the guest's driver starts the device, then mapped; kept: an earlier mapping stays; failed */
  state: EntryState;
  /** why the front-end refused it */
  error?: string;
}

interface Place {
  shmid: number;
  offset: bigint;
  len: bigint;
}

/** The regions that a back-end may announce. @throws VioError (refused) for what QEMU 11.1 does not survive */
export function checkRegions(regions: ReadonlyMap<number, bigint>, force: boolean): void {
  const total = [...regions.values()].reduce((sum, size) => sum + size, 0n);
  if (regions.size === 0) throw new VioError('no region', { code: 'USAGE', exit: Exit.usage, hint: '--region 0=64M' });
  for (const [id, size] of regions)
    if (size % pageSize() !== 0n)
      throw new VioError(`region ${id}: its size is no multiple of ${pageSize()}`, { code: 'USAGE', exit: Exit.usage });
  if (force) return;
  const hint = 'QEMU 11.1 would crash; --any-regions allows it for other front-ends';
  if (regions.size > qemuRegions)
    throw new VioError(`${regions.size} regions: at most ${qemuRegions} are safe`, { code: 'REGIONS', exit: Exit.refused, hint });
  if (!isPowerOfTwo(total))
    throw new VioError(`the regions add up to ${total} bytes, not a power of two`, { code: 'REGIONS', exit: Exit.refused, hint });
}

/**
 * Mappings as the user wants them, brought to whatever front-end is connected: sent when the device runs, sent again when it
 * runs again after a reset, and after a reconnect the ones that the last connection left behind are unmapped first.
 */
export class ShmemServer {
  readonly regions: ReadonlyMap<number, bigint>;
  readonly #onLog: (text: string) => void;
  readonly #slots: boolean;
  readonly #entries: Entry[] = [];
  /** Mappings that a front-end which went away may still have. */
  #stale: Place[] = [];
  #session: BackEndSession | undefined;
  #syncing: Promise<void> | undefined;
  #changed: (() => void)[] = [];

  /** @param slots whether the device offers CONFIGURE_MEM_SLOTS */
  constructor(regions: ReadonlyMap<number, bigint>, onLog: (text: string) => void = () => {}, slots = false) {
    this.regions = regions;
    this.#slots = slots;
    this.#onLog = onLog;
  }

  /** All checks of add(), and nothing done. Closes the file. @throws VioError */
  try(shmid: number, offset: bigint, file: string, mapped: MapFile): void {
    try {
      this.#check(shmid, offset, file, mapped.len);
    } finally {
      mapped.fd.close();
      mapped.lock?.close();
    }
  }

  /** Adds a mapping and takes the file; it is sent at once if the device runs. @throws VioError; then the file is closed */
  add(shmid: number, offset: bigint, file: string, mapped: MapFile): Entry {
    try {
      this.#check(shmid, offset, file, mapped.len);
    } catch (err) {
      mapped.fd.close();
      mapped.lock?.close();
      throw err;
    }
    const { fd, len, how, lock } = mapped;
    const entry: Entry = { shmid, offset, len, file, how, fd, lock, state: 'queued', error: undefined, before: false, removing: false };
    this.#entries.push(entry);
    void this.sync();
    return entry;
  }

  /** Takes a mapping away, from the guest first. @throws VioError (ENOENT, or the front-end's refusal) */
  async remove(shmid: number, offset: bigint): Promise<EntryView> {
    const entry = this.#entries.find((e) => e.shmid === shmid && e.offset === offset);
    if (!entry) throw new VioError(`no mapping at ${shmid}:0x${offset.toString(16)}`, { code: 'ENOENT' });
    entry.removing = true;
    await this.sync();
    if (this.#entries.includes(entry)) {
      entry.removing = false;
      throw new VioError(`unmap ${shmid}:0x${offset.toString(16)}: ${entry.error ?? 'the device stopped meanwhile'}`, { code: 'REFUSED' });
    }
    return view(entry);
  }

  list(): EntryView[] {
    return this.#entries.map(view);
  }

  get entries(): readonly Entry[] {
    return this.#entries;
  }

  /** Waits until a mapping is no longer queued, or `timeout` ms have passed. */
  async settled(entry: Entry, timeout: number): Promise<EntryView> {
    const end = performance.now() + timeout;
    while (entry.state === 'queued' && performance.now() < end) {
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, Math.max(1, end - performance.now()));
        this.#changed.push(() => {
          clearTimeout(timer);
          resolve();
        });
      });
    }
    return view(entry);
  }

  /** The session whose front-end gets the mappings. The last one's are stale from now on. */
  attach(session: BackEndSession): void {
    this.#session = session;
  }

  /** To be told of the session's ends: nothing can be sent any more, and the front-end may keep what it had. */
  detach(session: BackEndSession): void {
    if (this.#session !== session) return;
    this.#session = undefined;
    for (const entry of this.#entries) {
      if (entry.state === 'mapped' || entry.state === 'kept' || entry.before)
        this.#stale.push({ shmid: entry.shmid, offset: entry.offset, len: entry.len });
      entry.before = false;
      entry.state = 'queued';
    }
  }

  /** To be told when the device runs or stops. A stop may be a reset, which takes the mappings away; the next start tells. */
  running(running: boolean): void {
    if (running) {
      void this.sync();
      return;
    }
    for (const entry of this.#entries) {
      entry.before = entry.before || entry.state === 'mapped' || entry.state === 'kept';
      entry.state = 'queued';
    }
  }

  close(): void {
    for (const entry of this.#entries) closeEntry(entry);
    this.#entries.length = 0;
  }

  /** Brings the front-end to what is wanted; one run at a time. */
  sync(): Promise<void> {
    this.#syncing ??= this.#sync().finally(() => {
      this.#syncing = undefined;
    });
    return this.#syncing;
  }

  #check(shmid: number, offset: bigint, file: string, len: bigint): void {
    const size = this.regions.get(shmid);
    if (size === undefined)
      throw new VioError(`no region ${shmid}`, { code: 'ENOENT', hint: `regions: ${[...this.regions.keys()].join(', ')}` });
    const bad = checkRange({ shmid, fdOffset: 0n, shmOffset: offset, len, flags: MapFlag.readWrite }, 'map');
    if (bad) throw new VioError(`map ${file}: offset and size must be multiples of ${pageSize()}`, { code: bad });
    if (len > size || offset > size - len)
      throw new VioError(`map ${file}: ${len} bytes do not fit into region ${shmid} there`, { code: 'ERANGE' });
    const other = this.#entries.find((e) => e.shmid === shmid && offset < e.offset + e.len && e.offset < offset + len);
    if (other) throw new VioError(`map ${file}: ${other.file} is mapped there`, { code: 'EEXIST' });
    const slots = this.#session ? this.#session.has('CONFIGURE_MEM_SLOTS') : this.#slots;
    if (this.#entries.length >= maxWithoutSlots && !slots)
      throw new VioError(`map ${file}: more than ${maxWithoutSlots} mappings need memory slots`, {
        code: 'ENOSPC',
        hint: 'start "shmem serve" with --slots',
      });
  }

  async #sync(): Promise<void> {
    for (let step = this.#next(); step; step = this.#next()) {
      await step();
      for (const changed of this.#changed.splice(0)) changed();
    }
  }

  /** The next thing to do: stale mappings away, unwanted ones away, wanted ones in. */
  #next(): (() => Promise<void>) | undefined {
    const gone = this.#entries.find((e) => e.removing && e.state !== 'mapped' && e.state !== 'kept');
    if (gone)
      return async () => {
        if (gone.before) this.#stale.push({ shmid: gone.shmid, offset: gone.offset, len: gone.len });
        this.#drop(gone);
      };
    const session = this.#session;
    if (!session?.running || !session.back || session.back.closed || !session.has('SHMEM')) return undefined;
    const stale = this.#stale.shift();
    if (stale)
      return async () => {
        // It may be gone already: then the front-end refuses, and that is as good.
        await this.#request(session, 'BACKEND_SHMEM_UNMAP', stale).catch((err: Error) => this.#onLog(err.message));
      };
    const unwanted = this.#entries.find((e) => e.removing && e.error === undefined);
    if (unwanted) return () => this.#unmap(session, unwanted);
    const wanted = this.#entries.find((e) => e.state === 'queued' && !e.removing);
    if (wanted) return () => this.#map(session, wanted);
    return undefined;
  }

  async #map(session: BackEndSession, entry: Entry): Promise<void> {
    try {
      const status = await this.#request(session, 'BACKEND_SHMEM_MAP', entry, new OwnedFd(native().vhostUser.dup(entry.fd.fd)));
      if (!session.running || this.#session !== session) {
        if (status === 0n) entry.before = true; // acknowledged, and then the device stopped
        return;
      }
      entry.state = status === 0n ? 'mapped' : entry.before ? 'kept' : 'failed';
      entry.error = entry.state === 'failed' ? statusText(status) : undefined;
      entry.before = false;
      this.#onLog(`map ${entry.shmid}:0x${entry.offset.toString(16)} ${entry.file}: ${entry.error ?? entry.state}`);
    } catch (err) {
      entry.state = 'failed';
      entry.error = (err as Error).message;
    }
  }

  async #unmap(session: BackEndSession, entry: Entry): Promise<void> {
    try {
      const status = await this.#request(session, 'BACKEND_SHMEM_UNMAP', entry);
      // A mapping that was taken to be still there may not have been: gone is gone.
      if (status === 0n || entry.state === 'kept') this.#drop(entry);
      else entry.error = statusText(status);
    } catch (err) {
      entry.error = (err as Error).message;
    }
  }

  #drop(entry: Entry): void {
    this.#entries.splice(this.#entries.indexOf(entry), 1);
    closeEntry(entry);
  }

  #request(session: BackEndSession, name: string, at: Place, fd?: OwnedFd): Promise<bigint> {
    const values = { shmid: at.shmid, fdOffset: 0n, shmOffset: at.offset, len: at.len, flags: fd ? MapFlag.readWrite : 0n };
    return session.back!.request(name, values, fd);
  }
}

function closeEntry(entry: Entry): void {
  entry.fd.close();
  entry.lock?.close();
}

const view = (e: Entry): EntryView => ({
  shmid: e.shmid,
  offset: e.offset,
  len: e.len,
  file: e.file,
  how: e.how,
  state: e.state,
  ...(e.error !== undefined && { error: e.error }),
});
