/**
 * The config.json of nvmetcli, which describes a target of the Linux kernel: read as it is. What it says is turned into a
 * configuration file of ours, which is checked as any other. Its numbers are text, and what a kernel does not have is missing.
 */
import { Exit, VioError } from '../../../common/errors.js';
import { printable } from '../../../common/escape.js';
import { bracketed } from '../../../common/text/place.js';
import { nvmetcliKey, nvmetcliSource } from '../../auth/secret.js';

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

const cannot = (name: string, what: string): VioError =>
  new VioError(`${printable(name)}: ${what}`, { code: 'UNSUPPORTED', exit: Exit.unsupported });

/** The states of a port's ANA groups that are not optimized. */
const anaOf = (port: Dict): { group: unknown; state: string }[] =>
  dicts(port.ana_groups)
    .map((group) => ({ group: number(group.grpid), state: word(dict(group.ana).state) }))
    .filter(({ state }) => state !== '' && state !== 'optimized');

const placeOf = ({ addr }: Dict): string => `${bracketed(word(dict(addr).traddr))}:${word(dict(addr).trsvcid) || '4420'}`;

/** States of all ports if they are the same, else of each. */
function anaOfPorts(ports: readonly Dict[]): object[] {
  const [main] = ports.map((port) => JSON.stringify(anaOf(port)));
  if (ports.every((port) => JSON.stringify(anaOf(port)) === main)) return anaOf(ports[0]!);
  return ports.flatMap((port) => anaOf(port).map((one) => ({ ...one, listener: placeOf(port) })));
}

/**
 * Where the keys of hosts are: in this file, which others must not be able to read. What save writes names it.
 * @throws VioError (2) for keys that came from standard input
 */
function keysOf(hosts: readonly Dict[], name: string, path: string | undefined): object {
  const keys = hosts.flatMap((host) => {
    const hostnqn = word(host.nqn);
    const [key, ctrl] = (['key', 'ctrl_key'] as const).map((kind) => nvmetcliKey(host, kind) !== undefined);
    if (!key && !ctrl) return [];
    if (path === undefined)
      throw new VioError(`${printable(name)}: keys of hosts are read from files alone`, { code: 'CONFIG', exit: Exit.usage });
    return [
      {
        host: hostnqn,
        ...(key && { dhchapSecretFile: nvmetcliSource({ kind: 'key', file: path, hostnqn }) }),
        ...(ctrl && { dhchapCtrlSecretFile: nvmetcliSource({ kind: 'ctrl_key', file: path, hostnqn }) }),
      },
    ];
  });
  return keys.length > 0 ? { keys } : {};
}

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
 * @param path of the file, which keys are read from; undefined for standard input
 * @throws VioError (7) for what a server of ours cannot do
 */
export function fromNvmetcli(value: unknown, name: string, path: string | undefined): Converted {
  const notes: string[] = [];
  const all = dicts(dict(value).ports);
  const ports = all.filter((port) => word(dict(port.addr).trtype) === 'tcp');
  for (const port of all.filter((one) => !ports.includes(one)))
    notes.push(`port ${word(port.portid)} is ${printable(word(dict(port.addr).trtype) || 'of no type')}, not tcp: left out`);
  const [main] = ports;
  if (!main) throw cannot(name, 'no port of type tcp');
  const key = (port: Dict): string => JSON.stringify(words(port.subsystems).sort());
  const other = ports.find((port) => key(port) !== key(main));
  if (other) throw cannot(name, `ports ${word(main.portid)} and ${word(other.portid)} differ in their subsystems; use one file each`);
  const offered = new Set(words(main.subsystems));
  const subsystems = dicts(dict(value).subsystems);
  for (const { nqn } of subsystems) if (!offered.has(word(nqn))) notes.push(`${word(nqn)} is offered by no port: left out`);
  const referrals = ports
    .flatMap((port) => dicts(port.referrals))
    .filter((referral) => !zeroOrOff(referral.enable) && word(dict(referral.addr).trtype) === 'tcp')
    .map(({ addr }) => ({ address: dict(addr).traddr, port: number(dict(addr).trsvcid) }));
  const file = {
    listen: ports.map(placeOf),
    ...(referrals.length > 0 && { referrals }),
    ...keysOf(dicts(dict(value).hosts), name, path),
    subsystems: subsystems.filter(({ nqn }) => offered.has(word(nqn))).map((one) => subsystemOf(one, anaOfPorts(ports), notes)),
  };
  return { file, notes };
}
