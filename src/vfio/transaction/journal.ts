import fs from 'node:fs';
import path from 'node:path';
import { makeFolder, syncFile, writeDurably } from '../../common/durable-file.js';
import { codeOf, Exit, VioError, wrap } from '../../common/errors.js';
import type { Sysroot } from '../../common/sysroot.js';

/** What vioctl changes about a device and puts back. */
export interface DeviceState {
  driver: string | undefined;
  override: string | undefined;
  /** Number of virtual functions switched on. */
  numVfs: number;
  /** Virtual functions of it are offered to drivers; undefined without SR-IOV. */
  autoprobe?: boolean | undefined;
}

/** What a device is called while a host driver has it. */
export interface Names {
  serials: string[];
  /** Permanent addresses of its interfaces, in lower case. */
  macs: string[];
  /** Network interfaces and block devices. */
  nets: string[];
  blocks: string[];
}

/** One device of a transaction. */
export interface JournalDevice {
  bdf: string;
  vendor: number;
  device: number;
  before: DeviceState;
  after: DeviceState;
  /** The last step that was begun; `none` before the first write. */
  step: string;
  /** MAC addresses that virtual functions had, by their index, and the interface that sets them. */
  macs?: { link: string; before: [vf: number, mac: string][] } | undefined;
  /** Virtual functions that the change takes away: their states, and the records of those that were bound. */
  vfs?: { bdf: string; state: DeviceState; record?: BoundRecord | undefined }[] | undefined;
  /** What it is called, if it leaves a host driver. */
  names?: Names | undefined;
}

/** A transaction that has not ended. It is on disk before the first write and goes away with the last. */
export interface Journal {
  version: 1;
  id: string;
  operation: 'bind' | 'unbind' | 'sriov';
  pid: number;
  /** Start time of the process, field 22 of /proc/PID/stat: a pid that was given out again is told apart. */
  started: string;
  boot: string;
  devices: JournalDevice[];
}

/** A device that vioctl bound, and what unbind gives back. */
export interface BoundRecord {
  version: 1;
  boot: string;
  bdf: string;
  vendor: number;
  device: number;
  before: DeviceState;
  after: DeviceState;
  /** What it was called before. */
  names?: Names | undefined;
}

const stateFolder = '/run/vioctl/vfio';
const journalFolder = `${stateFolder}/journal`;
const claimFolder = `${stateFolder}/claims`;
const boundFolder = `${stateFolder}/bound`;

/** Claims of runs that died which one run takes away for a device. */
const claimTries = 8;

/** Start time of a process; undefined when there is none (or it is a zombie). */
export function startTime(root: Sysroot, pid: number): string | undefined {
  const stat = root.attr(`/proc/${pid}/stat`);
  if (stat === undefined) return undefined;
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return fields[0] === 'Z' || fields[0] === 'X' ? undefined : fields[19];
}

/** The journals and records below /run/vioctl/vfio. Every write is atomic. */
export class Store {
  readonly #root: Sysroot;

  constructor(root: Sysroot) {
    this.#root = root;
  }

  get boot(): string {
    return this.#root.attr('/proc/sys/kernel/random/boot_id') ?? '';
  }

  #write(file: string, value: unknown): void {
    const target = this.#root.path(file);
    try {
      // undefined members are written as null, so that a record says that there was no driver
      writeDurably(target, `${JSON.stringify(value, (_key, v) => (v === undefined ? null : v), 2)}\n`);
    } catch (err) {
      throw wrap(`write the journal ${file}`, err, { hint: 'nothing is changed without a journal; /run/vioctl must be writable' });
    }
  }

  #read<T extends { version: number }>(file: string): T | undefined {
    const text = this.#root.attr(file);
    if (text === undefined) return undefined;
    try {
      const value = JSON.parse(text, (_key, v) => (v === null ? undefined : v)) as T;
      if (value.version !== 1) throw new Error(`version ${value.version}`);
      return value;
    } catch (err) {
      throw new VioError(`${file} is damaged: ${(err as Error).message}`, {
        code: 'JOURNAL_DAMAGED',
        exit: Exit.damaged,
        hint: `look at it, put the device back by hand (vioctl vfio show), and remove ${file}`,
      });
    }
  }

  #remove(file: string): void {
    try {
      fs.rmSync(this.#root.path(file), { force: true });
      const dir = this.#root.path(path.dirname(file));
      if (fs.existsSync(dir)) syncFile(dir);
    } catch (err) {
      throw wrap(`remove ${file}`, err);
    }
  }

  /** Writes a journal; called before each step. */
  save(journal: Journal): void {
    this.#write(`${journalFolder}/${journal.id}.json`, journal);
  }

  /** All journals. @throws VioError JOURNAL_DAMAGED (5) */
  journals(): Journal[] {
    return this.#root
      .list(journalFolder)
      .filter((name) => name.endsWith('.json'))
      .flatMap((name) => this.#read<Journal>(`${journalFolder}/${name}`) ?? []);
  }

  /** True while the process that wrote a journal runs. */
  alive(journal: Pick<Journal, 'pid' | 'started'>): boolean {
    return journal.started !== '' && startTime(this.#root, journal.pid) === journal.started;
  }

  /** Ends a journal: the transaction is complete or undone. */
  end(journal: Journal): void {
    this.#remove(`${journalFolder}/${journal.id}.json`);
    this.release(journal.devices);
  }

  /** Ends the journal of a run that was killed, with the next step that it was writing beside it. */
  endKilled(journal: Journal): void {
    this.#remove(`${journalFolder}/${journal.id}.json.new`);
    this.end(journal);
  }

  /** Gives up claims of a run that wrote no journal. */
  release(devices: readonly Pick<JournalDevice, 'bdf'>[]): void {
    for (const { bdf } of devices) this.#remove(`${claimFolder}/${bdf}`);
  }

  /**
   * Reserves a device for a transaction, so that two runs cannot change it at once.
   * @throws VioError BUSY (1) while another run works on it, INTERRUPTED (1) when one was cut short and left a journal
   */
  claim(bdf: string, journal: Journal): void {
    const claim = `${claimFolder}/${bdf}`;
    const file = this.#root.path(claim);
    const own = `${file}.${journal.id}`; // a pid is not unique: containers may share the folder
    try {
      makeFolder(path.dirname(file));
      // a claim appears with its text: who finds it empty would take it for one that nobody holds
      fs.writeFileSync(own, `${journal.pid} ${journal.started} ${journal.id}\n`);
      for (let attempt = 0; ; attempt++) {
        try {
          fs.linkSync(own, file);
          return;
        } catch (err) {
          if (codeOf(err) !== 'EEXIST' || attempt >= claimTries) throw err;
        }
        this.#clear(bdf, claim, own);
      }
    } catch (err) {
      if (err instanceof VioError) throw err;
      throw wrap(`claim ${bdf} in ${claimFolder}`, err);
    } finally {
      fs.rmSync(own, { force: true });
    }
  }

  /** The journal of a run that was cut short while it changed a device; undefined if none was. */
  interrupted(bdf: string): string | undefined {
    const [pid = '0', started = '', id = ''] = (this.#root.attr(`${claimFolder}/${bdf}`) ?? '').split(' ');
    const left = id !== '' && !this.alive({ pid: Number(pid), started }) && this.#root.exists(`${journalFolder}/${id}.json`);
    return left ? id : undefined;
  }

  /** Takes away what runs left that died before they had a journal. */
  sweep(): void {
    for (const name of this.#root.list(claimFolder)) {
      const claim = `${claimFolder}/${name}`;
      const bdf = name.slice(0, name.indexOf('.') + 2); // files of a run have its name behind the address
      if (name !== bdf) {
        const [pid, started] = (this.#root.attr(claim) ?? '').split(' ');
        // an empty one is just being written
        if (started !== undefined && !this.alive({ pid: Number(pid), started })) this.#remove(claim);
        continue;
      }
      try {
        this.#clear(bdf, claim, this.#root.path(`${claim}.sweep-${process.pid}`));
      } catch (err) {
        // one that somebody works on, or that a journal tells of
        if (!(err instanceof VioError)) throw wrap(`remove ${claim}`, err);
      }
    }
  }

  /** Takes away a claim whose run died before it wrote a journal. @throws VioError BUSY, INTERRUPTED */
  #clear(bdf: string, claim: string, own: string): void {
    const text = this.#root.attr(claim);
    if (text === undefined) return; // it has just gone
    const [pid = '0', started = '', id = ''] = text.split(' ');
    if (this.alive({ pid: Number(pid), started }))
      throw new VioError(`${bdf}: another run of vioctl (pid ${pid}) is changing this device: EBUSY`, { code: 'BUSY' });
    if (this.#root.exists(`${journalFolder}/${id}.json`))
      throw new VioError(`${bdf}: an interrupted run (pid ${pid}) left this device half changed`, {
        code: 'INTERRUPTED',
        hint: 'vioctl vfio restore',
      });
    // Between the look and the removal another run may have done the same and claimed: its claim is put back.
    const aside = `${own}.old`;
    try {
      fs.renameSync(this.#root.path(claim), aside);
    } catch (err) {
      if (codeOf(err) === 'ENOENT') return;
      throw err;
    }
    try {
      if (fs.readFileSync(aside, 'utf8').trim() !== text) fs.linkSync(aside, this.#root.path(claim));
      else if (id !== '')
        for (const file of [`${claim}.${id}`, `${claim}.${id}.old`, `${journalFolder}/${id}.json.new`]) this.#remove(file);
    } catch (err) {
      if (!['EEXIST', 'ENOENT'].includes(codeOf(err) ?? '')) throw err;
    } finally {
      fs.rmSync(aside, { force: true });
    }
  }

  record(bdf: string): BoundRecord | undefined {
    const record = this.#read<BoundRecord>(`${boundFolder}/${bdf}.json`);
    return record?.boot === this.boot ? record : undefined;
  }

  records(): BoundRecord[] {
    return this.#root.list(boundFolder).flatMap((name) => (name.endsWith('.json') ? (this.record(name.slice(0, -5)) ?? []) : []));
  }

  keep(record: BoundRecord): void {
    this.#write(`${boundFolder}/${record.bdf}.json`, record);
  }

  forget(bdf: string): void {
    this.#remove(`${boundFolder}/${bdf}.json`);
  }
}
