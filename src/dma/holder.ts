import { Exit, VioError } from '../common/errors.js';
import { hex64 } from '../common/units.js';
import { type Answer, ControlServer, type Request } from './channel.js';
import type { Plan } from './layout.js';
import type { Mapper, Mapping } from './mapper.js';

/** Descriptors of the device's session, by the names that LISTEN_FDNAMES carries; they stay the session's. */
export type SessionFds = ReadonlyMap<string, number>;

/** A mapping as documents show it. */
export interface MappingInfo {
  name: string;
  iova: bigint;
  size: bigint;
  pageSize: number;
  readOnly: boolean;
  file: string | undefined;
}

/** The document of `dma map`, `dma list` and VIOCTL_VFIO. */
export interface HolderInfo extends Omit<Plan, 'maps'> {
  bdf: string;
  api: string;
  /** The address space in the iommufd (cdev). */
  ioas?: number;
  maps: MappingInfo[];
}

/** The device whose mappings are held. */
export interface HeldDevice {
  bdf: string;
  api: string;
  info: { ioas: number };
}

const infoOf = ({ name, iova, size, pageSize, readOnly, file }: Mapping): MappingInfo => ({ name, iova, size, pageSize, readOnly, file });

/** What a device has mapped now. */
export function describeMaps(device: HeldDevice, mapper: Mapper): HolderInfo {
  const maps = mapper.list();
  return {
    bdf: device.bdf,
    api: device.api,
    ...(device.api === 'cdev' && { ioas: device.info.ioas }),
    ranges: mapper.layout.space.ranges,
    maps: maps.map(infoOf),
    entries: maps.length,
    memlock: mapper.locked,
  };
}

/** bigint as "0x…" and sizes as numbers, as everywhere in JSON. */
const plain = (value: unknown): Record<string, unknown> =>
  JSON.parse(
    JSON.stringify(value, (key, v: unknown) =>
      typeof v !== 'bigint' ? v : key === 'size' && v <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(v) : hex64(v),
    ),
  ) as Record<string, unknown>;

/** Shares the mappings of a device through a control socket: lists them, hands out the descriptors, unmaps on request. */
export class Holder {
  readonly #server: ControlServer;

  /** @param unmapped told after a mapping went on request */
  constructor(path: string, device: HeldDevice, mapper: Mapper, fds: SessionFds, unmapped: (name: string) => void) {
    const handle = (request: Request): { answer: Answer; fds?: readonly number[] } => {
      if (request.op === 'unmap') {
        const name = String(request.name);
        if (mapper.wasUnmapped(name)) return { answer: { ok: true, changed: false } };
        mapper.find(name);
        if (!request.dryRun) {
          mapper.unmap(name);
          unmapped(name);
        }
        return { answer: { ok: true, changed: true } };
      }
      const info = plain(describeMaps(device, mapper));
      if (request.op === 'list') return { answer: { ok: true, ...info } };
      const all = new Map([...fds, ...mapper.list().map((map): [string, number] => [`dma-${map.name}`, map.fd])]);
      return { answer: { ok: true, ...info, fds: [...all.keys()] }, fds: [...all.values()] };
    };
    this.#server = new ControlServer(path, handle);
  }

  close(): void {
    this.#server.close();
  }
}

/**
 * The answer of a holder as the document it was: addresses are bigints again.
 * @throws VioError (5) for an answer of another shape
 */
export function parseHolderInfo(answer: Record<string, unknown>): HolderInfo {
  const { bdf, api, ioas, ranges, maps, entries, memlock } = answer as unknown as HolderInfo;
  try {
    return {
      bdf,
      api,
      ...(ioas !== undefined && { ioas }),
      ranges: ranges.map(({ start, end }) => ({ start: BigInt(start), end: BigInt(end) })),
      maps: maps.map((map) => ({ ...map, iova: BigInt(map.iova), size: BigInt(map.size) })),
      entries,
      memlock,
    };
  } catch (err) {
    throw new VioError('the holder answers in an unknown form', { code: 'EPROTO', exit: Exit.damaged, cause: err });
  }
}
