import type { FrontEnd } from '../frontend/frontend.js';
import { Listener } from '../wire/listener.js';
import { type TraceEnd, TraceProxy, type TraceRecord } from './proxy.js';

/**
 * Serves a front-end's connection to the first VMM that connects at `path`: the back-end sees one client all the time.
 * Ends with that connection.
 * @param signal ends it early
 */
export async function handOver(
  front: FrontEnd,
  path: string,
  signal: AbortSignal,
  onRecord: (record: TraceRecord | TraceEnd) => void = () => {},
): Promise<void> {
  const listener = Listener.at(path);
  try {
    const vmm = await listener.next(signal);
    listener.close();
    const proxy = new TraceProxy(vmm, front.exchange.channel, { connection: 1, since: performance.now(), onRecord });
    const stop = (): void => proxy.close();
    signal.addEventListener('abort', stop, { once: true });
    await proxy.done;
    signal.removeEventListener('abort', stop);
  } finally {
    listener.close();
  }
}
