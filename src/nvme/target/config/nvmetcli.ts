/**
 * The config.json of nvmetcli, which describes a target of the Linux kernel: read as it is. What it says is turned into a
 * configuration file of ours, which is checked as any other. Its numbers are text, and what a kernel does not have is missing.
 */
import { Exit, VioError } from '../../../common/errors.js';
import { printable } from '../../../common/escape.js';

type Dict = Readonly<Record<string, unknown>>;

const dict = (v: unknown): Dict => (typeof v === 'object' && v !== null && !Array.isArray(v) ? (v as Dict) : {});
const dicts = (v: unknown): Dict[] => (Array.isArray(v) ? v.map(dict) : []);
const words = (v: unknown): string[] => (Array.isArray(v) ? v.filter((one) => typeof one === 'string') : []);
const word = (v: unknown): string => (typeof v === 'string' || typeof v === 'number' ? String(v) : '');
/** A number as nvmetcli writes it; anything else as it is, so that the check of the key names it. */
const number = (v: unknown): unknown => (/^\d{1,9}$/.test(word(v)) ? Number(word(v)) : v);
/** An identifier that is set: the kernel shows one of zeroes where there is none. */
const identifier = (v: unknown): string | undefined => (/[1-9a-f]/i.test(word(v)) ? word(v) : undefined);
const zeroOrOff = (v: unknown): boolean => ['0', 'false'].includes(word(v));

/** Whether a document is one of nvmetcli's: it has ports or hosts, which ours never have. */
export const isNvmetcli = (value: unknown): boolean => Array.isArray(dict(value).ports) || Array.isArray(dict(value).hosts);

/** What a file of nvmetcli says. */
export interface Converted {
  /** In the form of our file. */
  file: object;
  /** What was left out, for the log. */
  notes: string[];
}

const bracketed = (address: string): string => (address.includes(':') ? `[${address}]` : address);

const cannot = (name: string, what: string): VioError =>
  new VioError(`${printable(name)}: ${what}`, { code: 'UNSUPPORTED', exit: Exit.unsupported });

/** The state of a port's ANA groups, as text for a comparison. */
const anaOf = (port: Dict): { group: unknown; state: string }[] =>
  dicts(port.ana_groups)
    .map((group) => ({ group: number(group.grpid), state: word(dict(group.ana).state) }))
    .filter(({ state }) => state !== '' && state !== 'optimized');

function namespaceOf(ns: Dict): object {
  const device = dict(ns.device);
  const group = ns.ana_grpid ?? dict(ns.ana).grpid;
  const [nguid, uuid] = [identifier(device.nguid)?.replaceAll('-', ''), identifier(device.uuid)];
  return {
    nsid: number(ns.nsid),
    source: device.path,
    ...(group !== undefined && { group: number(group) }),
    ...(nguid !== undefined && { nguid }),
    ...(uuid !== undefined && { uuid }),
  };
}

function subsystemOf(subsystem: Dict, ana: readonly object[], notes: string[]): object {
  const attr = dict(subsystem.attr);
  const { serial, model, cntlid_min: first, cntlid_max: last } = attr;
  const any = word(attr.allow_any_host) === '1';
  const namespaces = dicts(subsystem.namespaces);
  const enabled = namespaces.filter(({ enable }) => !zeroOrOff(enable));
  for (const ns of namespaces.filter((one) => !enabled.includes(one)))
    notes.push(`namespace ${word(ns.nsid)} of ${word(subsystem.nqn)} is not enabled: left out`);
  return {
    nqn: subsystem.nqn,
    ...(serial !== undefined && { serial }),
    ...(model !== undefined && { model }),
    ...(first !== undefined && last !== undefined && { cntlids: `${word(first)}-${Math.min(Number(word(last)), 65519)}` }),
    ...(!any && { allowHosts: words(subsystem.allowed_hosts) }),
    ...(ana.length > 0 && { ana }),
    namespaces: enabled.map(namespaceOf),
  };
}

/**
 * Turns a file of nvmetcli into one of ours.
 * @param name of the file, for errors
 * @throws VioError (7) for what a server of ours cannot do
 */
export function fromNvmetcli(value: unknown, name: string): Converted {
  const notes: string[] = [];
  const all = dicts(dict(value).ports);
  const ports = all.filter((port) => word(dict(port.addr).trtype) === 'tcp');
  for (const port of all.filter((one) => !ports.includes(one)))
    notes.push(`port ${word(port.portid)} is ${printable(word(dict(port.addr).trtype) || 'of no type')}, not tcp: left out`);
  const [main] = ports;
  if (!main) throw cannot(name, 'no port of type tcp');
  const key = (port: Dict): string => JSON.stringify([words(port.subsystems).sort(), anaOf(port)]);
  const other = ports.find((port) => key(port) !== key(main));
  if (other)
    throw cannot(name, `ports ${word(main.portid)} and ${word(other.portid)} differ in their subsystems or ANA states; use one file each`);
  const offered = new Set(words(main.subsystems));
  const subsystems = dicts(dict(value).subsystems);
  for (const { nqn } of subsystems) if (!offered.has(word(nqn))) notes.push(`${word(nqn)} is offered by no port: left out`);
  const referrals = ports
    .flatMap((port) => dicts(port.referrals))
    .filter((referral) => !zeroOrOff(referral.enable) && word(dict(referral.addr).trtype) === 'tcp')
    .map(({ addr }) => ({ address: dict(addr).traddr, port: number(dict(addr).trsvcid) }));
  const file = {
    listen: ports.map(({ addr }) => `${bracketed(word(dict(addr).traddr))}:${word(dict(addr).trsvcid) || '4420'}`),
    ...(referrals.length > 0 && { referrals }),
    subsystems: subsystems.filter(({ nqn }) => offered.has(word(nqn))).map((one) => subsystemOf(one, anaOf(main), notes)),
  };
  return { file, notes };
}
