import type { OwnedFd } from '../../native/owned-fd.js';
import { connect } from '../wire/channel.js';
import { Listener } from '../wire/listener.js';
import { type TraceEnd, TraceProxy, type TraceRecord } from './proxy.js';

export interface TracingOptions {
  listen: string;
  socket: string;
  /** The VMM serves `socket`, and the back-end connects to `listen`; else it is the other way round. */
  vmmServes: boolean;
  once: boolean;
  device: string | undefined;
  signal: AbortSignal;
  onListen: () => void;
  /** Nobody answered at `socket` for one that came. */
  onRefused: (error: Error) => void;
  /** Must not throw: the messages pass in any case. */
  onRecord: (record: TraceRecord | TraceEnd) => void;
}

/** Traces one connection after the other until the signal; several at a time are told apart by their number. */
export async function traceConnections(options: TracingOptions): Promise<void> {
  const listener = Listener.at(options.listen);
  const open = new Set<TraceProxy>();
  const since = performance.now();
  const serve = async (connection: number): Promise<void> => {
    const guest = await listener.next(options.signal);
    let host: OwnedFd;
    try {
      host = await connect(options.socket, 5000, options.signal);
    } catch (err) {
      guest.close();
      if (options.once) throw err;
      options.onRefused(err as Error);
      return;
    }
    const [vmm, backEnd] = options.vmmServes ? [host, guest] : [guest, host];
    const proxy = new TraceProxy(vmm, backEnd, {
      connection,
      since,
      device: options.device,
      onRecord: options.onRecord,
    });
    open.add(proxy);
    proxy.done.then(() => open.delete(proxy));
    if (options.once) await proxy.done;
  };
  options.onListen();
  const loop = async (): Promise<void> => {
    for (let connection = 1; !options.signal.aborted; connection++) {
      await serve(connection);
      if (options.once) return;
    }
  };
  const aborted = new Promise<void>((resolve) => options.signal.addEventListener('abort', () => resolve(), { once: true }));
  try {
    await Promise.race([
      loop().catch((err) => {
        if (!options.signal.aborted) throw err;
      }),
      aborted,
    ]);
  } finally {
    listener.close();
    for (const proxy of open) proxy.close();
  }
}
