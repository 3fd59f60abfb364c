/** Addresses of a subsystem that discovery services name, for a source that follows them (nvme.ts). */
import { isIP } from 'node:net';
import { reason, VioError } from '../../common/errors.js';
import { printable } from '../../common/escape.js';
import { placeText } from '../../common/text/place.js';
import { native } from '../../native/index.js';
import type { Store } from '../../native/storage.js';
import { type ControllerOptions, discover } from '../../nvme/host/index.js';
import type { DiscoveryRecord } from '../../nvme/wire/index.js';
import { note } from './news.js';

export interface PathAddress {
  host: string;
  port: number;
}

/** Services that are asked at a time, referrals included. */
const maxServices = 16;
/** Addresses that are believed: as many as a source has paths (kMaxPaths of native/nvme/host/engine/engine.h). */
export const maxPaths = 32;
/** Records of one service that are believed. */
const maxRecords = 1024;
/** How long one service may take, and when no more of those that others refer to are asked, in milliseconds. */
const serviceTime = 10_000;
const roundTime = 20_000;
/** How often a source looks whether it should ask, and how often it asks although all its paths are there, in milliseconds. */
const lookTime = 2000;
const askTime = 60_000;
/** Longest pause between two questions while no path at all is there, in milliseconds. */
const lonelyTime = 10_000;
/** A line of the log comes again after this time at the earliest, in milliseconds, and there are no more lines in it than these. */
const sayTime = 60_000;
const maxLines = 16;

/** The address of a record that is a path of the subsystem, or leads to another discovery service; undefined for any other. */
function addressOf(record: DiscoveryRecord, subtype: DiscoveryRecord['subtype']): PathAddress | undefined {
  const { trtype, traddr, trsvcid } = record;
  const port = /^\d{1,5}$/.test(trsvcid) ? Number(trsvcid) : 0;
  if (record.subtype !== subtype || trtype !== 'tcp' || port < 1 || port > 65_535) return undefined;
  if (isIP(traddr) === 0 || traddr === '0.0.0.0' || traddr === '::') return undefined;
  return { host: traddr, port };
}

const keyOf = ({ host, port }: PathAddress): string => placeText({ address: host, port });

/** What discovery services say of a subsystem. */
export interface Named {
  paths: PathAddress[];
  /** Of services that did not answer. */
  errors: string[];
  /** One has answered. */
  answered: boolean;
}

/**
 * Asks discovery services for the addresses of a subsystem, and those that they refer to.
 * @param optionsOf how to connect to a service
 */
export async function namedPaths(
  services: readonly PathAddress[],
  subnqn: string,
  optionsOf: (service: PathAddress) => ControllerOptions,
): Promise<Named> {
  const paths = new Map<string, PathAddress>();
  const errors: string[] = [];
  const asked = new Set<string>();
  let answered = false;
  const end = performance.now() + roundTime;
  for (let next = [...services]; next.length > 0 && performance.now() < end; ) {
    const now = [...new Map(next.map((one) => [keyOf(one), one]))].filter(([key]) => !asked.has(key)).slice(0, maxServices - asked.size);
    for (const [key] of now) asked.add(key);
    next = [];
    await Promise.all(
      now.map(async ([key, service]) => {
        const options = optionsOf(service);
        try {
          const { records } = await discover(options, { within: serviceTime, records: maxRecords });
          answered = true;
          for (const record of records) {
            const referral = addressOf(record, 'discovery subsystem referral');
            if (referral) next.push(referral);
            const at = record.subnqn === subnqn ? addressOf(record, 'nvme subsystem') : undefined;
            // TLS that is required cannot be spoken without a key.
            if (at && (options.tls || !record.treq.startsWith('required')) && paths.size < maxPaths) paths.set(keyOf(at), at);
          }
        } catch (err) {
          const text = err instanceof VioError ? err.message : reason(err);
          errors.push(`discovery: ${key}: ${printable(text.replace(`${key}: `, ''))}`);
        }
      }),
    );
  }
  // not in the order of the answers: the same errors are no news
  return { paths: [...paths.values()], errors: errors.sort(), answered };
}

/** Lines that a source has said of late: what services answer, and how often, must not fill the log. */
class Lines {
  readonly #store: Store;
  /** When each was said. */
  readonly #said = new Map<string, number>();

  constructor(store: Store) {
    this.#store = store;
  }

  say(line: string): void {
    const now = performance.now();
    for (const [text, at] of this.#said) if (now - at >= sayTime) this.#said.delete(text);
    if (this.#said.has(line) || this.#said.size >= maxLines) return;
    this.#said.set(line, now);
    note(this.#store, line);
  }
}

/**
 * Lets a source follow what discovery services say, as long as it is open: they are asked again while a path is away, in pauses that
 * grow, and from time to time. Without an answer, the source keeps its paths.
 */
export function followPaths(store: Store, ask: () => Promise<Named>, known: Named): void {
  const lines = new Lines(store);
  let last = performance.now();
  let pause = lookTime;
  let asking = false;
  let said = new Set(known.errors);
  let names = textOf(known);
  const look = async (): Promise<void> => {
    if (asking) return;
    const { live, all } = native().nvmeHost.hostPaths(store);
    if (live === all) pause = lookTime;
    const most = live > 0 ? askTime : lonelyTime;
    if (performance.now() - last < (live === all ? askTime : Math.min(pause, most))) return;
    asking = true;
    if (live !== all) pause = Math.min(2 * pause, askTime);
    try {
      const named = await ask();
      for (const line of named.errors) if (!said.has(line)) lines.say(line);
      said = new Set(named.errors);
      if (!named.answered) return;
      if (textOf(named) !== names) lines.say(`discovery names these addresses: ${textOf(named) || 'none'}`);
      names = textOf(named);
      native().nvmeHost.hostPaths(store, named.paths);
    } finally {
      last = performance.now();
      asking = false;
    }
  };
  const timer = setInterval(() => look().catch(() => clearInterval(timer)), lookTime); // the source is closed
  timer.unref();
}

const textOf = ({ paths }: Named): string => paths.map(keyOf).sort().join(', ');
