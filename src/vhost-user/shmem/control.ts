import { Exit, type ExitStatus, VioError } from '../../common/errors.js';
import { Channel, connect, type Message, protocolError } from '../wire/channel.js';
import { Exchange } from '../wire/exchange.js';
import { closeAll, type OwnedFd } from '../wire/fds.js';
import type { Listener } from '../wire/listener.js';
import { encodeMessage, Flag } from '../wire/messages.js';
import { prepareFile } from './file.js';
import type { EntryView, ShmemServer } from './server.js';

/**
 * The control socket of `shmem serve`: the framing of vhost-user with JSON payloads, so that a file travels as a descriptor
 * and is opened with the rights of whoever asks for its mapping.
 */
const Op = { map: 1, unmap: 2, list: 3 } as const;
const MAX_PAYLOAD = 1 << 20;

/** 64-bit numbers travel as "0x…". */
interface WireEntry extends Omit<EntryView, 'offset' | 'len'> {
  offset: string;
  len: string;
}
interface WireError {
  error: { message: string; code: string; exit: number; hint?: string };
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
  socket: string;
  connected: boolean;
  running: boolean;
  regions: { id: number; size: bigint }[];
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

/** Serves the control socket. @returns ends it */
export function serveControl(listener: Listener, subject: ControlSubject): () => void {
  const open = new Set<Channel>();
  listener.start((fd) => {
    const channel = new Channel(fd, { peer: 'control client', maxPayload: MAX_PAYLOAD, maxQueued: 4 * MAX_PAYLOAD });
    open.add(channel);
    channel.start(
      (message) => void answer(channel, subject, message),
      () => open.delete(channel),
    );
  });
  return () => {
    listener.close();
    for (const channel of open) channel.close();
  };
}

async function answer(channel: Channel, subject: ControlSubject, message: Message): Promise<void> {
  let reply: unknown;
  try {
    reply = await perform(subject, message);
  } catch (err) {
    const { message: text, code, exit, hint } = err instanceof VioError ? err : new VioError((err as Error).message, { code: 'INTERNAL' });
    reply = { error: { message: text, code, exit, ...(hint !== undefined && { hint }) } } satisfies WireError;
  } finally {
    closeAll(message.fds);
  }
  channel.send(encodeMessage(message.id, Flag.version | Flag.reply, Buffer.from(JSON.stringify(reply))));
}

async function perform(subject: ControlSubject, message: Message): Promise<unknown> {
  const { server } = subject;
  let order: Record<string, unknown>;
  try {
    order = JSON.parse(message.payload.toString('utf8')) as Record<string, unknown>;
  } catch {
    throw protocolError('the order is no JSON');
  }
  if (message.id === Op.list) {
    const regions = [...server.regions].map(([id, size]) => ({ id, size: `0x${size.toString(16)}` }));
    return { socket: subject.socket, ...subject.state(), regions, mappings: server.list().map(toWire) };
  }
  const { shmid, offset, file, mode, wait } = order;
  if (typeof shmid !== 'number' || typeof offset !== 'string' || !/^0x[0-9a-f]{1,16}$/.test(offset))
    throw protocolError('the order has no place');
  if (message.id === Op.unmap) return toWire(await server.remove(shmid, BigInt(offset)));
  if (message.id !== Op.map) throw protocolError(`no order ${message.id}`);
  if (typeof file !== 'string' || (mode !== 'rw' && mode !== 'ro') || typeof wait !== 'number')
    throw protocolError('the order has no file');
  const source = message.fds.shift();
  if (!source) throw protocolError('the order came without a descriptor');
  const prepared = await prepareFile(source, file, mode);
  const entry = server.add(shmid, BigInt(offset), file, prepared);
  return { ...toWire(await server.settled(entry, wait)), warnings: prepared.warnings };
}

/** A client of the control socket. */
export class ControlClient {
  readonly #exchange: Exchange;
  readonly #timeout: number;

  private constructor(fd: OwnedFd, timeout: number) {
    this.#exchange = new Exchange(new Channel(fd, { peer: 'server', maxPayload: MAX_PAYLOAD }));
    this.#timeout = timeout;
  }

  /** @throws VioError */
  static async connect(path: string, timeout = 30_000): Promise<ControlClient> {
    return new ControlClient(await connect(path, timeout), timeout);
  }

  /** @param file opened for the mode; becomes the channel's */
  async map(order: MapOrder, file: OwnedFd): Promise<MapResult> {
    const { offset, ...rest } = order;
    return fromWire(
      (await this.#ask(Op.map, { ...rest, offset: `0x${offset.toString(16)}` }, [file])) as WireEntry & { warnings: string[] },
    );
  }

  async unmap(shmid: number, offset: bigint): Promise<EntryView> {
    return fromWire((await this.#ask(Op.unmap, { shmid, offset: `0x${offset.toString(16)}` })) as WireEntry);
  }

  async list(): Promise<ControlState> {
    const state = (await this.#ask(Op.list, {})) as { regions: { id: number; size: string }[]; mappings: WireEntry[] };
    return {
      ...(state as unknown as ControlState),
      regions: state.regions.map(({ id, size }) => ({ id, size: BigInt(size) })),
      mappings: state.mappings.map(fromWire),
    };
  }

  close(): void {
    this.#exchange.close();
  }

  async #ask(id: number, order: unknown, fds: OwnedFd[] = []): Promise<unknown> {
    this.#exchange.channel.send(encodeMessage(id, Flag.version, Buffer.from(JSON.stringify(order))), fds);
    const message = await this.#exchange.expect('control', this.#timeout);
    closeAll(message.fds);
    let reply: unknown;
    try {
      reply = JSON.parse(message.payload.toString('utf8'));
    } catch {
      throw protocolError('the server answers no JSON');
    }
    const { error } = reply as Partial<WireError>;
    if (error) throw new VioError(error.message, { code: error.code, exit: (error.exit ?? Exit.failed) as ExitStatus, hint: error.hint });
    return reply;
  }
}
