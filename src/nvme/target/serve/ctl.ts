import { printable } from '../../../common/escape.js';
import { toJson } from '../../../common/json.js';
import { formatSize } from '../../../common/units.js';
import { type LoadReport, loadLines } from '../../../control/load-report.js';
import { unchangedLines } from '../../../control/view.js';
import { limitsText } from '../../../storage/limits.js';
import { tlsText } from '../security/tls.js';
import type * as answers from './answers.js';
import type { ControlList, GroupState } from './answers.js';
import { control } from './control.js';
import type { SubsystemReport } from './report.js';
import { type ControlAction, type ControlFlags, controlRequest } from './verbs.js';

const subsystemLines = ({ nqn, namespaces }: SubsystemReport): string[] => [
  printable(nqn),
  ...namespaces.flatMap((ns) => [
    `  ${String(ns.nsid).padStart(4)}  ${formatSize(ns.size).padStart(6)}  ${ns.blockSize}${ns.readOnly ? ' ro' : ''}  ${printable(ns.source)}` +
      limitsText(ns.limits ?? {}) +
      (ns.syncError === undefined ? '' : `  data may be lost (${ns.syncError})`),
    ...(ns.hosts ? [`        seen by ${ns.hosts.map(printable).join(', ') || 'no host'}`] : []),
  ]),
];

const placeText = ({ address, port }: { address: string; port: number }): string => `${address} port ${port}`;

/** Groups that are not simply optimized: `ANA group 1 is inaccessible`. */
const anaLines = (groups: readonly GroupState[], where = ''): string[] =>
  groups.filter(({ state }) => state !== 'optimized').map(({ group, state }) => `  ANA group ${group} is ${state}${where}`);

const numbers = (limits: object): string =>
  Object.entries(limits)
    .map(([name, value]) => `${name}=${value}`)
    .join(' ');

const listenerLines = ({ listeners }: Pick<ControlList, 'listeners'>): string[] =>
  listeners.flatMap((listener) => [
    `${listener.discoveryOnly ? 'discovery' : 'listening'} on ${placeText(listener)}` +
      (listener.advertise ? `, advertised as ${placeText(listener.advertise)}` : '') +
      (listener.tls ? `, ${tlsText(listener.tls)}` : ''),
    ...listener.ana.flatMap(({ nqn, groups }) => anaLines(groups, listener.ana.length > 1 ? ` (${printable(nqn)})` : '')),
  ]);

const referralLines = ({ referrals }: Pick<ControlList, 'referrals'>): string[] =>
  referrals.map((one) => `referral to ${placeText(one)}${one.nqn === undefined ? '' : ` (${printable(one.nqn)})`}`);

const hostLines = ({ anyHost, allowHosts = [] }: Pick<ControlList['subsystems'][number], 'anyHost' | 'allowHosts'>): string[] => [
  ...(anyHost ? [allowHosts.length > 0 ? '  any host is allowed, whatever the list says' : '  any host is allowed'] : []),
  ...(!anyHost && allowHosts.length === 0 ? ['  no host is allowed'] : []),
  ...allowHosts.map((host) => `  allowed: ${printable(host)}`),
];

function listLines(list: ControlList): string[] {
  const lines = [...listenerLines(list), ...referralLines(list)];
  for (const subsystem of list.subsystems) {
    lines.push(...subsystemLines(subsystem));
    if (subsystem.draining) lines.push('  draining: no host is admitted');
    if (subsystem.allowHosts) lines.push(...hostLines(subsystem));
  }
  for (const { host, ...limits } of list.hostLimits) lines.push(`host ${printable(host)}: ${numbers(limits)}`);
  for (const c of list.controllers) {
    const at = c.listener ? ` at ${placeText(c.listener)}` : '';
    lines.push(`controller ${c.cntlid}: ${printable(c.hostnqn)} from ${c.peer} uses ${printable(c.nqn)}${at}, ${c.queues} I/O queues`);
    lines.push(...anaLines(c.ana));
  }
  return lines;
}

const statsLines = ({ connections, controllers }: answers.StatsAnswer): string[] => [
  `${connections} connections`,
  ...controllers.map(
    (c) =>
      `controller ${c.cntlid} ${printable(c.hostnqn)}: ${c.queues} queues, ${c.reads} reads (${formatSize(c.readBytes)}), ` +
      `${c.writes} writes (${formatSize(c.writtenBytes)}), ${c.flushes} flushes, ${c.others} other, ${c.errors} errors`,
  ),
];

/** Sends the request of a command line; gives the answer and how people see it. @throws VioError */
export async function runControl(
  socket: string,
  action: ControlAction,
  operands: readonly string[],
  flags: ControlFlags,
): Promise<{ document: object; view: () => string[] }> {
  const request = controlRequest(action, operands, flags);
  const document = await control<object>(socket, request, flags.timeout);
  const view = () => {
    const unchanged = unchangedLines(document);
    if (unchanged && action !== 'load' && (action !== 'kick' || flags['dry-run'])) return unchanged;
    switch (action) {
      case 'save':
        return toJson(document, 2, true).split('\n');
      case 'load':
        return loadLines(document as LoadReport);
      case 'list':
        return listLines(document as ControlList);
      case 'stats':
        return statsLines(document as answers.StatsAnswer);
      case 'keys':
        return (document as answers.KeysAnswer).hosts.map((one) => `new keys of ${one === '*' ? 'every host' : printable(one)}`);
      case 'kick':
        return [`${(document as answers.KickAnswer).ended} associations ended`];
      case 'host':
        return hostLines(document as answers.HostAnswer).map((line) => line.trimStart());
      case 'listener':
        return listenerLines(document as answers.ListenerAnswer);
      case 'referral':
        return referralLines(document as answers.ReferralAnswer);
      case 'drain':
        return (document as answers.DrainAnswer).subsystems.map(
          ({ nqn, draining }) => `${printable(nqn)} ${draining ? 'is idle' : 'admits hosts'}`,
        );
      case 'limits':
        if ('limits' in document) return [numbers(document.limits as object)];
        if ('hostLimits' in document) return [numbers(document.hostLimits as object) || 'no limits'];
        return subsystemLines(document as SubsystemReport);
      case 'ana':
        return [`ANA group ${operands[0]} is ${operands[1]}`];
      default:
        return subsystemLines(document as SubsystemReport);
    }
  };
  return { document, view };
}
