import { Exit, VioError, wrap } from '../common/errors.js';
import { hex64 } from '../common/units.js';
import { ask, type Reply } from '../control/client.js';
import { type Answer, type Asked, ControlServer } from '../control/server.js';
import { closeAll } from '../native/owned-fd.js';
import type { Plan } from './layout.js';
import type { Mapper, Mapping } from './mapper.js';

/** Descriptors of the device's session, by the names that LISTEN_FDNAMES carries; they stay the session's. */
export type SessionFds = ReadonlyMap<string, number>;

const service = 'dma map';

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
  /** PCI address */
  bdf: string;
  /** group (container) or cdev (iommufd) */
  api: string;
  /** address space in the iommufd (with cdev) */
  ioas?: number;
  /** one entry for each mapping, with its address */
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
    const handle = ({ op, args }: Asked): Answer => {
      switch (op) {
        case 'unmap': {
          const name = String(args.name);
          if (mapper.wasUnmapped(name)) return { result: { changed: false } };
          mapper.find(name);
          if (args.dryRun !== true) {
            mapper.unmap(name);
            unmapped(name);
          }
          return { result: { changed: true } };
        }
        case 'list':
          return { result: plain(describeMaps(device, mapper)) };
        case 'attach': {
          const all = new Map([...fds, ...mapper.list().map((map): [string, number] => [`dma-${map.name}`, map.fd])]);
          return { result: { ...plain(describeMaps(device, mapper)), fds: [...all.keys()] }, fds: [...all.values()] };
        }
        default:
          throw new VioError(`unknown operation "${op}"`, { code: 'EPROTO', exit: Exit.damaged });
      }
    };
    this.#server = new ControlServer(path, { name: service, handle });
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

const request = <T>(path: string, op: 'list' | 'attach' | 'unmap', args: object = {}): Promise<Reply<T>> => {
  const hint = 'vioctl dma map --listen SOCK serves this socket';
  return ask<T>(path, { service, unreachable: (err) => wrap(`connect ${path}`, err, { hint }) }, op, args);
};

/** What a holder has mapped. @throws VioError: the holder's own error, or that nobody answers */
export async function listHolder(path: string): Promise<HolderInfo> {
  return parseHolderInfo((await request<Record<string, unknown>>(path, 'list')).result);
}

/**
 * Lets a holder unmap.
 * @param dryRun only tell what would change
 * @returns whether the mapping was still there @throws VioError
 */
export async function unmapInHolder(path: string, name: string, dryRun: boolean): Promise<boolean> {
  return (await request<{ changed?: unknown }>(path, 'unmap', { name, dryRun })).result.changed === true;
}

/** What a holder has mapped, and the descriptors of its session by name, which the caller owns. @throws VioError */
export async function attachToHolder(path: string): Promise<{ info: HolderInfo; fds: Map<string, number> }> {
  const { result, fds } = await request<Record<string, unknown> & { fds?: string[] }>(path, 'attach');
  try {
    const names = result.fds ?? [];
    if (names.length !== fds.length)
      throw new VioError(`${path}: ${fds.length} descriptors came for ${names.length} names`, { code: 'EPROTO', exit: Exit.damaged });
    const info = parseHolderInfo(result);
    return { info, fds: new Map(names.map((name, i) => [name, fds[i]!.take()])) };
  } finally {
    closeAll(fds);
  }
}
