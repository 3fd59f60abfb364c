import fs from 'node:fs';
import { usage, wrap } from '../../common/errors.js';
import { readReserved } from '../../dma/aperture.js';
import { describeMaps, type HolderInfo } from '../../dma/holder.js';
import type { LockLimit } from '../../dma/lock-limit.js';
import { Mapper } from '../../dma/mapper.js';
import type { MapSpec } from '../../dma/spec.js';
import type { Census } from '../census/census.js';
import { findDevice } from '../devices/select.js';
import { type Api, cdevOf, openSession } from './open.js';
import type { Session } from './session.js';
import { tokenFor, tokenOwner } from './token.js';

export interface HoldOptions {
  /** Hand the devices over without binding them to the iommufd. */
  untouched?: boolean;
  /** VF token for the devices that take one. */
  token?: string | undefined;
}

const takesToken = (census: Census, bdf: string): boolean => tokenOwner(census, findDevice(census.root, bdf)) !== undefined;

/** Devices that share one set of mappings, open and mapped; close() undoes it all in order. */
export class Hold {
  readonly sessions: Session[] = [];
  readonly mapper: Mapper | undefined;
  /** By the names of LISTEN_FDNAMES; they stay the sessions'. */
  readonly fds = new Map<string, number>();
  readonly #raw: number[] = [];

  /**
   * Opens the devices and maps. With cdev and nothing to map the device is handed over untouched, not yet bound to the
   * iommufd: a program such as QEMU does that itself.
   * @throws VioError; whatever was opened is closed
   */
  constructor(census: Census, bdfs: readonly string[], api: Api, specs: readonly MapSpec[], limit: LockLimit, options: HoldOptions = {}) {
    try {
      if (options.untouched) {
        this.#openRaw(census, bdfs);
        return;
      }
      const takers = options.token === undefined ? [] : bdfs.filter((bdf) => takesToken(census, bdf));
      if (options.token !== undefined && takers.length === 0) tokenFor(census, findDevice(census.root, bdfs[0] ?? ''), options.token);
      for (const bdf of bdfs) {
        const token = takers.includes(bdf) ? options.token : undefined;
        this.sessions.push(openSession(census, bdf, this.sessions[0] ? chosen(this.sessions[0]) : api, this.sessions, token));
      }
      const [first] = this.sessions;
      if (!first) throw usage('no device');
      this.fds.set(first.api === 'cdev' ? 'iommufd' : 'vfio-container', first.info.container);
      this.sessions.forEach(({ info }, i) => {
        if (info.group >= 0) this.fds.set(i === 0 ? 'vfio-group' : `vfio-group-${i}`, info.group);
        this.fds.set(i === 0 ? 'vfio-device' : `vfio-device-${i}`, info.device);
      });
      if (first.api === 'noiommu' && specs.length === 0) return;
      this.mapper = new Mapper(first.handle, first.aperture(readReserved(census.root, first.bdf)), census.root);
      this.mapper.map(specs, limit);
    } catch (err) {
      this.close();
      throw err;
    }
  }

  #openRaw(census: Census, bdfs: readonly string[]): void {
    const open = (name: string, path: string) => {
      try {
        const fd = fs.openSync(census.root.path(path), fs.constants.O_RDWR);
        this.#raw.push(fd);
        this.fds.set(name, fd);
      } catch (err) {
        throw wrap(`open ${path}`, err, { hint: 'is another program using the device?' });
      }
    };
    open('iommufd', '/dev/iommu');
    bdfs.forEach((bdf, i) => {
      open(i === 0 ? 'vfio-device' : `vfio-device-${i}`, cdevOf(census, findDevice(census.root, bdf)));
    });
  }

  /** Descriptors with those of the mappings' memory. */
  allFds(): Map<string, number> {
    return new Map([...this.fds, ...(this.mapper?.list() ?? []).map((map): [string, number] => [`dma-${map.name}`, map.fd])]);
  }

  /** The document of what is held. */
  describe(bdfs: readonly string[]): HolderInfo & { devices: string[] } {
    const [first] = this.sessions;
    const empty = { bdf: bdfs[0] ?? '', api: first?.api ?? 'cdev', ranges: [], maps: [], entries: 0, memlock: 0 };
    const info = first && this.mapper ? describeMaps(first, this.mapper) : empty;
    return { ...info, devices: [...bdfs] };
  }

  /** Unmaps, then closes the devices, the first one last. The first failure is thrown when all is done. */
  close(): void {
    let failure: unknown;
    const attempt = (work: () => void) => {
      try {
        work();
      } catch (err) {
        failure ??= err;
      }
    };
    attempt(() => this.mapper?.close());
    for (const session of this.sessions.splice(0).reverse()) attempt(() => session.close());
    for (const fd of this.#raw.splice(0)) attempt(() => fs.closeSync(fd));
    if (failure !== undefined) throw failure;
  }
}

/** Further devices come through the same API as the first. */
const chosen = (first: Session): Api => (first.api === 'cdev' ? 'cdev' : 'group');
