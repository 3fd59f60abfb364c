/** Log pages in the words of nvme-cli: `smart-log`, `error-log`, `fw-log`, `effects-log`, `ana-log`, `changed-ns-list-log`. */
import { printable } from '../../common/escape.js';
import {
  allNamespaces,
  anaStateNames,
  commandName,
  decodeAnaLog,
  decodeNamespaceList,
  effectsLog,
  errorEntry,
  firmwareLog,
  Lid,
  smartLog,
  statusText,
} from '../wire/index.js';
import type { Controller } from './controller.js';
import { readDiscoveryLog } from './discovery.js';

/** The logs that can be asked for. */
export const logNames = ['smart', 'error', 'fw', 'effects', 'ana', 'changed-ns', 'discovery'] as const;
export type LogName = (typeof logNames)[number];

export interface LogPage {
  raw: Buffer;
  json: Record<string, unknown>;
}

const plain = (value: unknown): unknown => (typeof value === 'bigint' && value <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(value) : value);
const plainAll = (values: Record<string, unknown>): Record<string, unknown> =>
  Object.fromEntries(Object.entries(values).map(([key, value]) => [key, plain(value)]));

/** Largest ANA log that is asked for. */
const anaLimit = 1 << 20;

async function smart(controller: Controller, nsid: number): Promise<LogPage> {
  const raw = await controller.getLog(Lid.smart, smartLog.size, { nsid });
  return { raw, json: plainAll(smartLog.decode(raw)) };
}

async function errors(controller: Controller): Promise<LogPage> {
  const count = controller.identify.elpe + 1;
  const raw = await controller.getLog(Lid.error, count * errorEntry.size, { nsid: 0 });
  const entries = Array.from({ length: count }, (_, i) => errorEntry.decode(raw, i * errorEntry.size));
  return { raw, json: { errors: entries.filter((entry) => entry.error_count > 0n).map(plainAll) } };
}

async function firmware(controller: Controller): Promise<LogPage> {
  const raw = await controller.getLog(Lid.firmware, firmwareLog.size, { nsid: 0 });
  const { afi, ...slots } = firmwareLog.decode(raw);
  const used = Object.entries(slots).filter(([, revision]) => revision !== '');
  return {
    raw,
    json: {
      'Active Firmware Slot (afi)': afi,
      ...Object.fromEntries(used.map(([key, text]) => [`Firmware Rev Slot ${key.at(-1)}`, text.trimEnd()])),
    },
  };
}

async function effects(controller: Controller): Promise<LogPage> {
  const raw = await controller.getLog(Lid.effects, effectsLog.size, { nsid: 0 });
  const { acs, iocs } = effectsLog.decode(raw);
  const named = (values: number[], prefix: string) =>
    Object.fromEntries(
      values.flatMap((value, i) =>
        value === 0 ? [] : [[`${prefix}_${i} (${commandName(i, 0xff, prefix === 'ACS' ? 'admin' : 'io')})`, value]],
      ),
    );
  return { raw, json: { admin_cmd_support: named(acs, 'ACS'), io_cmd_support: named(iocs, 'IOCS') } };
}

async function ana(controller: Controller): Promise<LogPage> {
  const { nanagrpid, mnan, nn } = controller.identify;
  const size = Math.min(anaLimit, 16 + 32 * nanagrpid + 4 * (mnan || nn));
  const raw = await controller.getLog(Lid.ana, Math.ceil(size / 4) * 4, { nsid: 0 });
  const { chgcnt, groups } = decodeAnaLog(raw);
  const list = groups.map(({ grpid, nsids, chgcnt: changes, state }) => ({
    grpid,
    nnsids: nsids.length,
    chgcnt: plain(changes),
    state: anaStateNames.get(state) ?? `reserved ${state}`,
    nsids,
  }));
  return { raw, json: { chgcnt: plain(chgcnt), ngrps: groups.length, 'ANA DESC LIST': list } };
}

async function changed(controller: Controller): Promise<LogPage> {
  const raw = await controller.getLog(Lid.changedNamespaces, 4096, { nsid: 0 });
  const all = raw.readUInt32LE(0) === allNamespaces;
  return { raw, json: { changed: all ? 'all' : decodeNamespaceList(raw) } };
}

async function discovery(controller: Controller): Promise<LogPage> {
  const { raw, genctr, records } = await readDiscoveryLog(controller);
  return { raw, json: { genctr, records } };
}

/** Reads a log page. @param nsid of the SMART log; the controller's own unless given */
export function readLog(controller: Controller, name: LogName, nsid?: number): Promise<LogPage> {
  if (name === 'smart') return smart(controller, nsid ?? allNamespaces);
  return { error: errors, fw: firmware, effects, ana, 'changed-ns': changed, discovery }[name](controller);
}

/** Lines for people: `key : value`, indented below lists. Untrusted text is escaped. */
export function describeLog({ json }: LogPage, indent = ''): string[] {
  return Object.entries(json).flatMap(([key, value]) => {
    if (Array.isArray(value) && value.some((item) => typeof item === 'object'))
      return value.flatMap((item, i) => [`${indent}${key} ${i}`, ...describeLog({ json: item, raw: Buffer.alloc(0) }, `${indent}  `)]);
    if (value !== null && typeof value === 'object' && !Array.isArray(value))
      return [`${indent}${key}`, ...describeLog({ json: value as Record<string, unknown>, raw: Buffer.alloc(0) }, `${indent}  `)];
    let shown = printable(Array.isArray(value) ? value.join(' ') || 'none' : String(value));
    if (key === 'temperature' || key.startsWith('temperature_sensor')) shown += ` K (${Number(value) - 273} °C)`;
    if (key === 'status_field') shown += ` (${statusText({ sct: (Number(value) >> 8) & 7, sc: Number(value) & 0xff })})`;
    return [`${indent}${printable(key).padEnd(26)} : ${shown}`];
  });
}
