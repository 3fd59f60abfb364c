import { Exit, VioError } from '../../common/errors.js';
import type { ValuesOf } from '../../common/struct.js';
import { native } from '../../native/index.js';
import { closeAll, OwnedFd } from '../../native/owned-fd.js';
import { Channel, connect, protocolError } from '../wire/channel.js';
import { Exchange } from '../wire/exchange.js';
import { protocolBit, VirtioF } from '../wire/features.js';
import { config, encodeMessage, Flag, type MessageDef, messageByName, none, number, shmemConfig } from '../wire/messages.js';
import { statusText } from '../wire/status.js';

/** What a request brought. The caller owns the descriptors. */
export interface Reply {
  payload: Buffer;
  fds: OwnedFd[];
  /** From the request's last byte sent to the answer's last byte received (ms). */
  latency: number;
}

export interface FrontEndOptions {
  timeout?: number;
  /** Ends a wait for an answer. Requests that begin afterwards, to bring things to an end, have lastTimeout each. */
  signal?: AbortSignal;
}

/** Milliseconds that a request after the end was asked for may wait for its answer. */
const lastTimeout = 1000;

/** A front-end: speaks to one back-end, one request at a time. */
export class FrontEnd {
  readonly exchange: Exchange;
  /** Feature words offered and acknowledged so far. */
  features = 0n;
  protocol = 0n;
  ackedProtocol = 0n;
  readonly #timeout: number;
  readonly #signal: AbortSignal | undefined;
  #last: Promise<unknown> = Promise.resolve();

  constructor(fd: OwnedFd, options: FrontEndOptions = {}) {
    this.#timeout = options.timeout ?? 5000;
    this.#signal = options.signal;
    this.exchange = new Exchange(new Channel(fd, { peer: 'back-end', maxPayload: 65536, stall: this.#timeout }));
  }

  /** @throws VioError */
  static async connect(path: string, options: FrontEndOptions = {}): Promise<FrontEnd> {
    return new FrontEnd(await connect(path, options.timeout, options.signal), options);
  }

  /** Who serves the socket, as the kernel tells it. */
  peer(): { pid: number; uid: number; gid: number } {
    return native().vhostUser.peer(this.exchange.channel.fd);
  }

  has(feature: string): boolean {
    return (this.ackedProtocol & protocolBit(feature)) !== 0n;
  }

  /**
   * Sends a request. Waits for its reply, or for the acknowledgement where REPLY_ACK was negotiated.
   * @param fds become the channel's @throws VioError
   */
  request(name: string, values: Record<string, unknown> = {}, fds: OwnedFd[] = []): Promise<Reply | undefined> {
    const def = messageByName('main', name);
    const payload = (def.request ?? none).encode(values as never);
    const run = this.#last.then(() => this.#exchange(def, payload, fds));
    this.#last = run.catch(() => {});
    return run;
  }

  /** A request whose answer is one u64. */
  async number(name: string): Promise<bigint> {
    const reply = await this.request(name);
    closeAll(reply!.fds);
    return number.decode(reply!.payload).value;
  }

  /** Reads the feature words and acknowledges `want` of the protocol features. */
  async negotiate(want: bigint): Promise<void> {
    this.features = await this.number('GET_FEATURES');
    if ((this.features & VirtioF.protocolFeatures) === 0n) return;
    this.protocol = await this.number('GET_PROTOCOL_FEATURES');
    const acked = this.protocol & want;
    await this.request('SET_PROTOCOL_FEATURES', { value: acked });
    this.ackedProtocol = acked;
  }

  /** Configuration space; undefined where the back-end answers that it has none there. */
  async config(offset: number, size: number): Promise<Uint8Array | undefined> {
    const reply = await this.request('GET_CONFIG', { offset, size, flags: 0, data: new Uint8Array(size) });
    closeAll(reply!.fds);
    return reply!.payload.length === 0 ? undefined : config.decode(reply!.payload).data;
  }

  /** Shared memory regions by id. @throws WireError, VioError (EPROTO) for a configuration that contradicts itself */
  async shmemConfig(): Promise<Map<number, bigint>> {
    const reply = await this.request('GET_SHMEM_CONFIG');
    closeAll(reply!.fds);
    return regionsOf(shmemConfig.decode(reply!.payload));
  }

  close(): void {
    this.exchange.close();
  }

  async #exchange(def: MessageDef, payload: Uint8Array, fds: OwnedFd[]): Promise<Reply | undefined> {
    const own = def.reply !== undefined && def.replyIf === undefined;
    const ack = !own && this.has('REPLY_ACK');
    this.exchange.channel.send(encodeMessage(def.id, Flag.version | (ack ? Flag.needReply : 0), payload), fds);
    const sent = performance.now();
    if (!own && !ack) return undefined;
    const message = this.#signal?.aborted
      ? await this.exchange.expect(def.name, Math.min(this.#timeout, lastTimeout))
      : await this.exchange.expect(def.name, this.#timeout, this.#signal);
    const { flags, id } = message;
    if (id !== def.id || (flags & (Flag.versionMask | Flag.reply)) !== (Flag.version | Flag.reply)) {
      closeAll(message.fds);
      const error = protocolError(`${def.name}: the answer has request ${id} and flags 0x${flags.toString(16)}`);
      this.exchange.channel.close(error);
      throw error;
    }
    if (ack) {
      closeAll(message.fds);
      const { value } = number.decode(message.payload);
      if (value !== 0n)
        throw new VioError(`${def.name}: the back-end answers ${statusText(value)}`, {
          code: 'REFUSED',
          exit: Exit.failed,
          details: { status: value },
        });
    }
    return { payload: message.payload, fds: ack ? [] : message.fds, latency: message.at - sent };
  }
}

/** Region sizes of a GET_SHMEM_CONFIG reply. @throws VioError (EPROTO) where the count is not that of the sizes */
export function regionsOf(reply: ValuesOf<typeof shmemConfig>): Map<number, bigint> {
  const sizes = new Map(reply.sizes.flatMap((size, id) => (size === 0n ? [] : [[id, size] as const])));
  if (sizes.size !== reply.count) throw protocolError(`GET_SHMEM_CONFIG counts ${reply.count} regions and gives ${sizes.size} sizes`);
  for (const [id, size] of sizes)
    if (size % 4096n !== 0n) throw protocolError(`GET_SHMEM_CONFIG: size ${size} of region ${id} is no multiple of the page size`);
  return sizes;
}
