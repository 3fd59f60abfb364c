/** Addresses of a subsystem that discovery services name, for a source that follows them (nvme.ts). */
import { isIP } from 'node:net';
import { reason } from '../../common/errors.js';
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
/** How often a source looks whether it should ask, and how often it asks although all its paths are there, in milliseconds. */
const lookTime = 2000;
const askTime = 60_000;

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
  for (let now = [...services]; now.length > 0; ) {
    now = now.filter((one) => !asked.has(keyOf(one))).slice(0, maxServices - asked.size);
    for (const one of now) asked.add(keyOf(one));
    const next: PathAddress[] = [];
    await Promise.all(
      now.map(async (service) => {
        const options = optionsOf(service);
        try {
          const { records } = await discover(options);
          answered = true;
          for (const record of records) {
            const referral = addressOf(record, 'discovery subsystem referral');
            if (referral) next.push(referral);
            const at = record.subnqn === subnqn ? addressOf(record, 'nvme subsystem') : undefined;
            // TLS that is required cannot be spoken without a key.
            if (at && (options.tls || !record.treq.startsWith('required')) && paths.size < maxPaths) paths.set(keyOf(at), at);
          }
        } catch (err) {
          errors.push(`discovery: ${printable(reason(err))}`);
        }
      }),
    );
    now = next;
  }
  return { paths: [...paths.values()], errors, answered };
}

/**
 * Lets a source follow what discovery services say, as long as it is open: they are asked again while a path is away, and from time to
 * time. Without an answer, the source keeps its paths.
 */
export function followPaths(store: Store, ask: () => Promise<Named>, known: Named): void {
  let last = performance.now();
  let asking = false;
  let said = known.errors.join();
  let names = textOf(known);
  const look = async (): Promise<void> => {
    if (asking) return;
    const { live, all } = native().nvmeHost.hostPaths(store);
    if (live === all && performance.now() - last < askTime) return;
    asking = true;
    try {
      const named = await ask();
      const errors = named.errors.join();
      if (errors !== said) for (const line of named.errors) note(store, line);
      said = errors;
      if (!named.answered) return;
      if (textOf(named) !== names) note(store, `discovery names these addresses: ${textOf(named) || 'none'}`);
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
