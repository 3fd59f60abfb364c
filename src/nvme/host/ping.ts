/** Round trips on the admin queue. */
import type { Controller } from './controller.js';

export interface Ping {
  /** number of the round trip, from 1 */
  seq: number;
  command: 'keep-alive' | 'property-get';
  /** duration of the round trip */
  microseconds: number;
}

/** Sends one command after the other. @param count 0 is without end; @param interval in milliseconds */
export async function* pings(controller: Controller, count: number, interval: number, signal: AbortSignal): AsyncGenerator<Ping, void> {
  const command = controller.identify.kas > 0 ? 'keep-alive' : 'property-get';
  for (let seq = 1; !signal.aborted; seq++) {
    yield { seq, command, microseconds: Math.round((await controller.roundTrip()) / 1000) };
    if (seq === count) return;
    await new Promise<void>((resolve) => {
      const done = () => {
        clearTimeout(timer);
        signal.removeEventListener('abort', done);
        resolve();
      };
      const timer = setTimeout(done, interval);
      signal.addEventListener('abort', done);
    });
  }
}

/** Count, least, mean and greatest of the times. */
export function pingSummary(times: number[]): { count: number; min: number; avg: number; max: number } {
  const sum = times.reduce((a, b) => a + b, 0);
  const finite = (value: number) => (times.length === 0 ? 0 : value);
  return {
    count: times.length,
    min: finite(Math.min(...times)),
    avg: finite(Math.round(sum / (times.length || 1))),
    max: finite(Math.max(...times)),
  };
}
