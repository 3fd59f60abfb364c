import { usage } from '../../../common/errors.js';
import { printable } from '../../../common/escape.js';
import { formatSize, parseDecimal } from '../../../common/units.js';
import { unchangedLines } from '../../../control/view.js';
import { limitsText, limitWords } from '../../../storage/limits.js';
import { parseSource } from './config.js';
import { type ControlList, type ControllerStats, type ControlRequest, control } from './control.js';
import type { SubsystemReport } from './report.js';

export type ControlAction = ControlRequest['op'];

/** Options of `nvmf ctl` by the names of its flags. */
export interface ControlFlags {
  nqn?: string | undefined;
  host?: string | undefined;
  cntlid?: number | undefined;
  'allow-host'?: string[] | undefined;
  'block-size'?: number | undefined;
  'read-only'?: boolean | undefined;
  force?: boolean | undefined;
  'dry-run'?: boolean | undefined;
  timeout: number;
}

const numberOf = (text: string | undefined, what: string): number => {
  const value = parseDecimal(text);
  if (value === undefined) throw usage(`${what} is a number: "${text ?? ''}"`);
  return value;
};

/** The request of a command line. @throws usage error */
export function controlRequest(action: ControlAction, operands: readonly string[], flags: ControlFlags): ControlRequest {
  const request = bareRequest(action, operands, flags);
  return flags['dry-run'] && request.op !== 'list' && request.op !== 'stats' ? { ...request, dryRun: true } : request;
}

function bareRequest(action: ControlAction, operands: readonly string[], flags: ControlFlags): ControlRequest {
  const most = { list: 0, add: 1, remove: 1, resize: 1, reopen: 1, limits: 3, ana: 2, kick: 0, stats: 0 }[action];
  if (operands.length > most) throw usage(`${action}: too many operands: "${operands[most]}"`);
  const nqn = flags.nqn === undefined ? {} : { nqn: flags.nqn };
  const [first, second] = operands;
  switch (action) {
    case 'list':
    case 'stats':
      return { op: action };
    case 'add': {
      if (first === undefined && !flags['allow-host']) throw usage('add: no source', 'vioctl nvmf ctl SOCK add FILE');
      const defaults = {
        ...(flags['block-size'] && { blockSize: flags['block-size'] }),
        ...(flags['read-only'] && { readonly: true }),
        ...(flags.force && { force: true }),
      };
      return {
        op: 'add',
        ...nqn,
        ...(first !== undefined && { namespace: parseSource(first, defaults) }),
        ...(flags['allow-host'] && { allowHosts: flags['allow-host'] }),
      };
    }
    case 'remove':
      if (first === undefined && flags.nqn === undefined) throw usage('remove: which namespace, or --nqn which subsystem?');
      return { op: 'remove', ...nqn, ...(first !== undefined && { nsid: numberOf(first, 'NSID') }) };
    case 'resize':
    case 'reopen':
      return { op: action, ...nqn, nsid: numberOf(first, 'NSID') };
    case 'limits':
      return { op: 'limits', ...nqn, nsid: numberOf(first, 'NSID'), limits: limitWords(operands.slice(1)) };
    case 'ana':
      if (second === undefined) throw usage('ana: GROUP and STATE are needed', 'vioctl nvmf ctl SOCK ana 1 inaccessible');
      return { op: 'ana', ...nqn, group: numberOf(first, 'GROUP'), state: second };
    default:
      if (flags.host === undefined && flags.cntlid === undefined) throw usage('kick: whom?', '--host NQN or --cntlid N');
      return {
        op: 'kick',
        ...(flags.host !== undefined && { host: flags.host }),
        ...(flags.cntlid !== undefined && { cntlid: flags.cntlid }),
      };
  }
}

const subsystemLines = ({ nqn, namespaces }: SubsystemReport): string[] => [
  printable(nqn),
  ...namespaces.map(
    (ns) =>
      `  ${String(ns.nsid).padStart(4)}  ${formatSize(ns.size).padStart(6)}  ${ns.blockSize}${ns.readOnly ? ' ro' : ''}  ${printable(ns.source)}` +
      limitsText(ns.limits ?? {}) +
      (ns.syncError === undefined ? '' : `  data may be lost (${ns.syncError})`),
  ),
];

function listLines(list: ControlList): string[] {
  const lines = list.listen.map(({ address, port }) => `listening on ${address} port ${port}`);
  for (const { address, port } of list.discovery ?? []) lines.push(`discovery on ${address} port ${port}`);
  for (const subsystem of list.subsystems) {
    lines.push(...subsystemLines(subsystem));
    for (const { group, state } of subsystem.ana) if (state !== 'optimized') lines.push(`  ANA group ${group} is ${state}`);
    if (subsystem.allowHosts) lines.push(...subsystem.allowHosts.map((host) => `  allowed: ${printable(host)}`));
  }
  for (const c of list.controllers)
    lines.push(`controller ${c.cntlid}: ${printable(c.hostnqn)} from ${c.peer} uses ${printable(c.nqn)}, ${c.queues} I/O queues`);
  return lines;
}

const statsLines = ({ connections, controllers }: { connections: number; controllers: ControllerStats[] }): string[] => [
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
    if (unchanged && (action !== 'kick' || flags['dry-run'])) return unchanged;
    switch (action) {
      case 'list':
        return listLines(document as ControlList);
      case 'stats':
        return statsLines(document as Parameters<typeof statsLines>[0]);
      case 'kick':
        return [`${(document as { ended: number }).ended} associations ended`];
      case 'ana':
        return [`ANA group ${operands[0]} is ${operands[1]}`];
      default:
        return subsystemLines(document as SubsystemReport);
    }
  };
  return { document, view };
}
