/** A proxy between hosts and a target: cuts the streams into PDUs, tells each, injects faults, passes them on. */
import net, { type AddressInfo } from 'node:net';
import { reason } from '../../common/errors.js';
import { listenError } from '../../common/listen.js';
import { native } from '../../native/index.js';
import { type PduRecord, Tracker } from './decode.js';
import { act, applies, type FaultRule } from './faults.js';
import type { Capture, CapturedConnection } from './pcapng.js';

/** What happens besides PDUs. */
export interface ConnectionRecord {
  event: 'opened' | 'closed' | 'passing';
  /** seconds since the proxy started */
  time: number;
  /** number of the connection, from 1 */
  connection: number;
  /** address of the host */
  peer?: string;
  /** closed: why it ended; passing: why its bytes are forwarded without decoding */
  why?: string;
}
export type ProxyRecord = PduRecord | ConnectionRecord;

export interface ProxyOptions {
  listen: { address: string; port: number };
  to: { address: string; port: number };
  faults: FaultRule[];
  /** Opens what takes the traffic that is passed on, once the proxy listens. */
  capture?: (() => Promise<Capture>) | undefined;
  /** Takes each record; must not throw. */
  tell: (record: ProxyRecord) => void;
}

/** A PDU longer than this is not cut out any more: the rest of the stream is passed on as it is. */
const longest = 16 << 20;

/** Cuts a stream into PDUs by PLEN alone. `passing`: what follows a PLEN that cannot be. */
async function* cut(socket: net.Socket): AsyncGenerator<{ bytes: Buffer; passing: boolean }> {
  let parts: Buffer[] = [];
  let size = 0;
  let need = 8;
  let passing = false;
  for await (const chunk of socket as AsyncIterable<Buffer>) {
    if (passing) {
      yield { bytes: chunk, passing };
      continue;
    }
    parts.push(chunk);
    size += chunk.length;
    while (size >= need && size > 0) {
      let bytes = parts.length === 1 ? parts[0]! : Buffer.concat(parts);
      if (bytes.length >= 8) {
        const plen = bytes.readUInt32LE(4);
        if (plen < 8 || plen > longest) {
          passing = true;
          yield { bytes, passing };
          parts = [];
          size = 0;
          break;
        }
        need = plen;
      }
      if (bytes.length < need) {
        parts = [bytes];
        break;
      }
      yield { bytes: Buffer.from(bytes.subarray(0, need)), passing: false };
      bytes = bytes.subarray(need);
      parts = bytes.length > 0 ? [bytes] : [];
      size = bytes.length;
      need = 8;
    }
  }
  if (size > 0) yield { bytes: Buffer.concat(parts), passing: true };
}

export class NvmeProxy {
  readonly #options: ProxyOptions;
  readonly #server: net.Server;
  readonly #sockets = new Set<net.Socket>();
  readonly #started = performance.now();
  #connections = 0;
  #capture: Promise<Capture> | undefined;

  private constructor(options: ProxyOptions) {
    this.#options = options;
    this.#server = net.createServer({ noDelay: true }, (host) => void this.#serve(host));
  }

  /** Listens, and opens the capture. @throws VioError when it cannot */
  static async start(options: ProxyOptions): Promise<NvmeProxy> {
    const proxy = new NvmeProxy(options);
    const { address, port } = options.listen;
    await new Promise<void>((resolve, reject) => {
      proxy.#server.once('error', (err) => reject(listenError(address, port, err)));
      proxy.#server.listen(port, address, () => {
        proxy.#capture = options.capture?.();
        resolve();
      });
    });
    try {
      await proxy.#capture;
    } catch (err) {
      await proxy.close();
      throw err;
    }
    return proxy;
  }

  /** The port that is listened on. */
  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  /** Ends all connections. */
  async close(): Promise<void> {
    const closed = new Promise((resolve) => this.#server.close(resolve));
    for (const socket of this.#sockets) socket.destroy();
    await closed;
  }

  #time(): number {
    return Math.round((performance.now() - this.#started) * 1000) / 1e6;
  }

  async #serve(host: net.Socket): Promise<void> {
    const connection = ++this.#connections;
    const target = net.connect({ host: this.#options.to.address, port: this.#options.to.port, noDelay: true });
    const tracker = new Tracker(connection, this.#started);
    for (const socket of [host, target]) {
      this.#sockets.add(socket);
      socket.on('close', () => this.#sockets.delete(socket));
      socket.on('error', () => {}); // the pumps find it in socket.errored, whenever it came
    }
    const { tell } = this.#options;
    const capture = await this.#capture?.catch(() => undefined);
    const captured = capture?.connection(
      { address: host.remoteAddress ?? '0.0.0.0', port: host.remotePort ?? 0 },
      { address: host.localAddress ?? '0.0.0.0', port: host.localPort ?? 0 },
    );
    await captured?.opened();
    tell({ event: 'opened', time: this.#time(), connection, peer: `${host.remoteAddress} port ${host.remotePort}` });
    const ways = await Promise.allSettled([
      this.#pump('h2c', host, target, tracker, captured),
      this.#pump('c2h', target, host, tracker, captured),
    ]);
    host.destroy();
    target.destroy();
    await captured?.closed();
    const failure = ways.find((way) => way.status === 'rejected');
    tell({ event: 'closed', time: this.#time(), connection, ...(failure && { why: reason(failure.reason) }) });
  }

  /** One direction: PDU by PDU, in order, at the speed of its receiver. Its end ends the other's receiver. */
  async #pump(
    dir: 'h2c' | 'c2h',
    from: net.Socket,
    to: net.Socket,
    tracker: Tracker,
    captured: CapturedConnection | undefined,
  ): Promise<void> {
    const { faults, tell } = this.#options;
    const { crc32c } = native().common;
    let told = false;
    try {
      for await (const { bytes, passing } of cut(from)) {
        let note: string | undefined;
        if (passing) {
          if (!told) tell({ event: 'passing', time: this.#time(), connection: tracker.connection, why: `${dir}: PLEN cannot be` });
          told = true;
        } else {
          const record = tracker.describe(dir, bytes);
          let delay: number | undefined = 0;
          for (const rule of faults) {
            if (!applies(rule, record, bytes.readUInt8(1))) continue;
            record.faults = [...(record.faults ?? []), rule.text];
            const held = act(rule.action, bytes, crc32c);
            delay = held === undefined || delay === undefined ? undefined : delay + held;
          }
          tell(record);
          if (record.faults) note = `fault: ${record.faults.join(', ')}`;
          if (delay === undefined) continue;
          if (delay > 0) await new Promise((resolve) => setTimeout(resolve, delay));
        }
        await captured?.passed(dir, bytes, note);
        if (!to.write(bytes) && !to.destroyed)
          await new Promise<void>((resolve) => {
            const go = () => {
              to.off('drain', go).off('close', go);
              resolve();
            };
            to.on('drain', go).on('close', go);
          });
      }
      to.end();
    } finally {
      // An error in one direction ends both.
      if (from.errored) to.destroy();
    }
  }
}

export { type FaultRule, parseFault } from './faults.js';
