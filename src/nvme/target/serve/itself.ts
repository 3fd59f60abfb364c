/** A target that is asked to serve itself before it listens; once it does, its stamp tells (native/nvme/host/stamp.h). */
import { networkInterfaces } from 'node:os';
import { Exit, VioError } from '../../../common/errors.js';
import { printable } from '../../../common/escape.js';
import { kindOf, parseNvme } from '../../../storage/uri.js';
import { defaultListen } from '../config/listeners.js';
import type { TargetConfig } from './config.js';
import { parseListen } from './listen.js';

/** Addresses at which a listener answers that has this one. */
function answering(address: string): Set<string> {
  const all = address === '0.0.0.0' || address === '::';
  const own = Object.values(networkInterfaces()).flatMap((list) => (list ?? []).map((one) => one.address));
  const loopback = ['localhost', 'ip6-localhost'];
  if (all) return new Set([...own, ...loopback]);
  return new Set([address, ...(address === '127.0.0.1' || address === '::1' ? loopback : [])]);
}

/** @throws VioError (3) for a source that is a namespace of the target that is to serve it */
export function refuseItself(config: Pick<TargetConfig, 'listen' | 'subsystems'>): void {
  const own = new Set(config.subsystems.map(({ nqn }) => nqn));
  const places = (config.listen ?? defaultListen).map(parseListen);
  for (const { source } of config.subsystems.flatMap(({ namespaces }) => namespaces)) {
    if (kindOf(source) !== 'nvme') continue;
    const { host, port, nqn } = parseNvme(source);
    if (own.has(nqn) && places.some((place) => place.port === port && answering(place.address).has(host)))
      throw new VioError(`${printable(source)}: this target would serve itself`, { code: 'ELOOP', exit: Exit.refused });
  }
}
