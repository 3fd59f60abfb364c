import { wrap } from '../../common/errors.js';
import { ControlClient } from '../../control/client.js';
import { type Asked, ControlServer } from '../../control/server.js';
import type { OwnedFd } from '../../native/owned-fd.js';
import { protocolError } from '../wire/channel.js';
import { served } from '../wire/listener.js';
import { prepareFile } from './file.js';
import type { EntryView, ShmemServer } from './server.js';

/** The control socket of `shmem serve`: a file travels as a descriptor and is opened with the rights of whoever asks for its mapping. */
const service = 'vhost-user shmem serve';
/** Milliseconds for an answer; a front-end that is asked for its own has them on top. */
const answerTime = 30_000;

/** 64-bit numbers travel as "0x…". */
interface WireEntry extends Omit<EntryView, 'offset' | 'len'> {
  offset: string;
  len: string;
}
export interface MapOrder {
  shmid: number;
  offset: bigint;
  file: string;
  mode: 'rw' | 'ro';
  /** How long to wait for the front-end's answer (ms). */
  wait: number;
}
export interface MapResult extends EntryView {
  warnings: string[];
}
export interface ControlState {
  /** path of the vhost-user socket */
  socket: string;
  /** a front-end is connected */
  connected: boolean;
  /** the guest's driver has started the device */
  running: boolean;
  /** regions with their sizes */
  regions: { id: number; size: bigint }[];
  /** one entry for each mapping */
  mappings: EntryView[];
}

const toWire = (e: EntryView): WireEntry => ({ ...e, offset: `0x${e.offset.toString(16)}`, len: `0x${e.len.toString(16)}` });
const fromWire = <T extends WireEntry>(e: T): T & EntryView => ({ ...e, offset: BigInt(e.offset), len: BigInt(e.len) }) as never;

/** What the server is asked about besides its mappings. */
export interface ControlSubject {
  server: ShmemServer;
  socket: string;
  state: () => { connected: boolean; running: boolean };
}

/** Serves the control socket at `path`. @throws VioError */
export const serveControl = (path: string, subject: ControlSubject): ControlServer =>
  new ControlServer(
    path,
    { name: service, requestFds: 1, handle: async (asked) => ({ result: await perform(subject, asked) }) },
    { listen: { served } },
  );

async function perform(subject: ControlSubject, { op, args, fds }: Asked): Promise<unknown> {
  const { server } = subject;
  if (op === 'list') {
    const regions = [...server.regions].map(([id, size]) => ({ id, size: `0x${size.toString(16)}` }));
    return { socket: subject.socket, ...subject.state(), regions, mappings: server.list().map(toWire) };
  }
  if (op !== 'map' && op !== 'try map' && op !== 'unmap') throw protocolError(`no order "${op}"`);
  const { shmid, offset, file, mode, wait } = args;
  if (typeof shmid !== 'number' || typeof offset !== 'string' || !/^0x[0-9a-f]{1,16}$/.test(offset))
    throw protocolError('the order has no place');
  if (op === 'unmap') return toWire(await server.remove(shmid, BigInt(offset)));
  if (typeof file !== 'string' || (mode !== 'rw' && mode !== 'ro') || typeof wait !== 'number')
    throw protocolError('the order has no file');
  const source = fds.shift();
  if (!source) throw protocolError('the order came without a descriptor');
  const prepared = await prepareFile(source, file, mode);
  if (op === 'try map') {
    server.try(shmid, BigInt(offset), file, prepared);
    return {};
  }
  const entry = server.add(shmid, BigInt(offset), file, prepared);
  return { ...toWire(await server.settled(entry, wait)), warnings: prepared.warnings };
}

/** A client of the control socket. */
export class ShmemControl {
  readonly #client: ControlClient;

  private constructor(client: ControlClient) {
    this.#client = client;
  }

  /** @throws VioError */
  static async connect(path: string): Promise<ShmemControl> {
    const options = {
      service,
      timeout: answerTime,
      unreachable: (err: unknown) => wrap(`connect ${path}`, err, { hint: 'vhost-user shmem serve --control SOCK opens it' }),
    };
    return new ShmemControl(await ControlClient.connect(path, options));
  }

  /** @param file opened for the mode; closed here */
  async map(order: MapOrder, file: OwnedFd): Promise<MapResult> {
    const { offset, ...rest } = order;
    const args = { ...rest, offset: `0x${offset.toString(16)}` };
    const { result } = await this.#client.request<WireEntry & { warnings: string[] }>('map', args, [file], answerTime + order.wait);
    return fromWire(result);
  }

  /** All checks of map(), and nothing mapped. @param file opened for the mode; closed here @throws VioError, as map() would */
  async tryMap(order: MapOrder, file: OwnedFd): Promise<void> {
    await this.#client.request('try map', { ...order, offset: `0x${order.offset.toString(16)}` }, [file], answerTime);
  }

  async unmap(shmid: number, offset: bigint): Promise<EntryView> {
    return fromWire((await this.#client.request<WireEntry>('unmap', { shmid, offset: `0x${offset.toString(16)}` })).result);
  }

  async list(): Promise<ControlState> {
    const { result } = await this.#client.request<{ regions: { id: number; size: string }[]; mappings: WireEntry[] }>('list');
    return {
      ...(result as unknown as ControlState),
      regions: result.regions.map(({ id, size }) => ({ id, size: BigInt(size) })),
      mappings: result.mappings.map(fromWire),
    };
  }

  close(): void {
    this.#client.close();
  }
}
