/** What is served, for documents and people. */

import { printable } from '../../../common/escape.js';
import { placeText } from '../../../common/text/place.js';
import { formatSize } from '../../../common/units.js';
import { type LimitsReport, limitsReport } from '../../../storage/limits.js';
import type { Subsystem } from '../subsystem.js';
import type { Target } from '../target.js';

/** What is served, as `nvmf serve --json` prints it. */
export interface ServeReport {
  /** addresses where hosts connect */
  listen: { address: string; port: number }[];
  /** addresses where only discovery is answered; absent without such a listener */
  discovery?: { address: string; port: number }[];
  /** Where metrics are served: address and port, or path. */
  metrics?: { address?: string; port?: number; path?: string };
  /** subsystems with their namespaces */
  subsystems: SubsystemReport[];
}
export interface SubsystemReport {
  /** NQN of the subsystem */
  nqn: string;
  /** namespaces of the subsystem */
  namespaces: NamespaceReport[];
}
export interface NamespaceReport {
  nsid: number;
  source: string;
  size: number;
  blockSize: number;
  nguid: string;
  readOnly: boolean;
  /** ANA group. */
  group: number;
  /** Hosts that see it; left out: all that may use the subsystem. */
  hosts?: string[];
  /** limits of the source, and the numbers of requests delayed now and so far */
  limits?: LimitsReport;
  /** errno name of a failed sync: flushes fail until the source is opened again */
  syncError?: string;
}

/** One subsystem with its namespaces. */
export const reportSubsystem = (subsystem: Subsystem): SubsystemReport => ({
  nqn: subsystem.nqn,
  namespaces: subsystem.nsids().map((nsid) => {
    const namespace = subsystem.namespaces.get(nsid)!;
    const { source, size, blockSize, ids, readonly, group, hosts } = namespace;
    const syncError = subsystem.syncError(namespace);
    const report = { nsid, source, size, blockSize, nguid: ids.nguid.toString('hex'), readOnly: readonly, group };
    const limits = limitsReport(namespace.store);
    return { ...report, ...(hosts && { hosts: [...hosts] }), ...(limits && { limits }), ...(syncError !== undefined && { syncError }) };
  }),
});

/** Addresses of the listeners of both kinds. */
export function reportListeners({ listeners }: Target): Pick<ServeReport, 'listen' | 'discovery'> {
  const of = (only: boolean) =>
    listeners.filter((l) => (l.discoveryOnly ?? false) === only).map(({ address, port }) => ({ address, port }));
  const discovery = of(true);
  return { listen: of(false), ...(discovery.length > 0 && { discovery }) };
}

/** @param metrics where they are served */
export const report = (target: Target, metrics?: ServeReport['metrics']): ServeReport => ({
  ...reportListeners(target),
  ...(metrics && { metrics }),
  subsystems: [...target.subsystems.values()].map(reportSubsystem),
});

/** The ready line: where, what. */
export const readyLine = ({ listen, discovery, subsystems }: ServeReport): string => {
  const places = (list: ServeReport['listen']) => list.map(placeText).join(', ');
  const what = subsystems.map(({ nqn, namespaces }) => {
    const list = namespaces.map((ns) => `${ns.nsid}: ${printable(ns.source)} ${formatSize(ns.size)}${ns.readOnly ? ' read-only' : ''}`);
    return `${printable(nqn)} (${list.join(', ') || 'no namespaces'})`;
  });
  return `serving ${what.join('; ') || 'no subsystem yet'} on ${places(listen) || 'no address'}${discovery ? `, discovery on ${places(discovery)}` : ''}`;
};
