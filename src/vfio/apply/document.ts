import { Exit, usage, VioError } from '../../common/errors.js';
import { printable } from '../../common/escape.js';
import { parseJson } from '../../common/json.js';
import { type CheckName, checkNames } from '../checks/finding.js';
import { parseMac } from '../sriov/macs.js';

/** What one entry of a file declares about the devices that it names. Members that are undefined are left as they are. */
export interface Declared {
  /** Address or selector. */
  device: string;
  /** `vendor:device` that the device must have, and its function number: together with a serial number they name one function. */
  expect: string | undefined;
  function: number | undefined;
  /** The selector may match several. */
  all: boolean;
  /** It is no failure if nothing matches. */
  optional: boolean;
  /** `vfio`: the VFIO driver that suits best; `host`: back to the driver from before; else a driver's name. */
  driver: string | undefined;
  /** Owner of the VFIO nodes. */
  owner: string | undefined;
  /** Bind, and set the virtual functions, at every boot too. */
  persist: boolean | undefined;
  allow: CheckName[];
  /** Number of virtual functions. */
  vfs: number | undefined;
  vfDriver: string | undefined;
  macs: string[];
  autoprobe: boolean | undefined;
  /** Runtime power management: `on` keeps the device awake, `auto` lets it sleep (power/control). */
  power: 'on' | 'auto' | undefined;
  /** The device may be switched off in its sleep (d3cold_allowed). */
  d3cold: boolean | undefined;
  /** Ways to reset it, in the order in which the kernel tries them (reset_method). */
  resetMethod: string | undefined;
}

const keys = [
  'device',
  'expect',
  'function',
  'all',
  'optional',
  'driver',
  'owner',
  'persist',
  'allow',
  'vfs',
  'vfDriver',
  'macs',
  'autoprobe',
  'power',
  'd3cold',
  'resetMethod',
];

/** Entries that one file may have. */
const mostEntries = 10_000;

const wrong = (where: string, what: string): VioError => usage(`${where}: ${what}`, 'man vioctl-vfio-apply describes the file');

/** Readers of values. YAML gives every scalar as text, JSON as its own type. */
const read = {
  text(where: string, value: unknown): string {
    if (typeof value !== 'string' || value === '') throw wrong(where, 'not a text');
    return value;
  },
  id(where: string, value: unknown): string {
    const text = read.text(where, value).toLowerCase();
    if (!/^[0-9a-f]{4}:[0-9a-f]{4}$/.test(text)) throw wrong(where, 'not a vendor:device pair');
    return text;
  },
  methods(where: string, value: unknown): string {
    const words = read.list(where, value).flatMap((text) => text.trim().split(/\s+/));
    if (words.some((word) => !/^[a-z_]{1,32}$/.test(word))) throw wrong(where, 'not names of reset methods');
    return words.join(' ');
  },
  flag(where: string, value: unknown): boolean {
    const word = String(value).toLowerCase();
    if (typeof value === 'object' || !['true', 'false', 'yes', 'no'].includes(word)) throw wrong(where, 'not true or false');
    return word === 'true' || word === 'yes';
  },
  count(where: string, value: unknown): number {
    const text = typeof value === 'number' ? String(value) : typeof value === 'string' ? value : '';
    if (!/^\d{1,5}$/.test(text)) throw wrong(where, 'not a number');
    return Number(text);
  },
  list(where: string, value: unknown): string[] {
    const items = Array.isArray(value) ? value : [value];
    return items.map((item, i) => read.text(`${where}[${i}]`, item));
  },
};

function entryOf(where: string, value: unknown): Declared {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw wrong(where, 'not an entry with keys');
  const fields = value as Record<string, unknown>;
  for (const key of Object.keys(fields))
    if (!keys.includes(key)) throw wrong(`${where}.${printable(key)}`, `no such key; there are ${keys.join(', ')}`);
  const get = <T>(key: string, reader: (where: string, value: unknown) => T): T | undefined =>
    fields[key] === undefined || fields[key] === null ? undefined : reader(`${where}.${key}`, fields[key]);
  const allow = get('allow', read.list) ?? [];
  for (const check of allow)
    if (!checkNames.includes(check as CheckName))
      throw wrong(`${where}.allow`, `no such check "${printable(check)}"; there are ${checkNames.join(', ')}`);
  const power = get('power', read.text);
  if (power !== undefined && power !== 'on' && power !== 'auto') throw wrong(`${where}.power`, 'not on or auto');
  const entry: Declared = {
    device: read.text(`${where}.device`, fields.device),
    expect: get('expect', read.id),
    function: get('function', read.count),
    all: get('all', read.flag) ?? false,
    optional: get('optional', read.flag) ?? false,
    driver: get('driver', read.text),
    owner: get('owner', read.text),
    persist: get('persist', read.flag),
    allow: allow as CheckName[],
    vfs: get('vfs', read.count),
    vfDriver: get('vfDriver', read.text),
    macs: (get('macs', read.list) ?? []).map(parseMac),
    autoprobe: get('autoprobe', read.flag),
    power,
    d3cold: get('d3cold', read.flag),
    resetMethod: get('resetMethod', read.methods),
  };
  if (entry.vfs === undefined && (entry.vfDriver !== undefined || entry.macs.length > 0 || entry.autoprobe !== undefined))
    throw wrong(where, 'vfDriver, macs and autoprobe need vfs');
  const hosts = entry.driver === undefined || entry.driver === 'host';
  if (entry.owner !== undefined && hosts) throw wrong(where, 'owner and persist need a VFIO driver');
  if (entry.persist && hosts && entry.vfs === undefined)
    throw wrong(where, 'owner and persist need a VFIO driver; persist goes with vfs too');
  return entry;
}

/** Checks a document: `{devices: [entry, …]}`. @param name of its file @throws VioError (usage) with the path of what is wrong */
export function checkDocument(value: unknown, name: string): Declared[] {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw wrong(printable(name), 'no document with the key devices');
  const { devices, version, ...rest } = value as Record<string, unknown>;
  const [extra] = Object.keys(rest);
  if (extra !== undefined) throw wrong(printable(extra), 'no such key; there are version and devices');
  if (version !== undefined && String(version) !== '1') throw wrong('version', 'not 1');
  if (!Array.isArray(devices)) throw wrong('devices', 'not a list');
  if (devices.length > mostEntries) throw wrong('devices', `more than ${mostEntries} entries`);
  return devices.map((entry, i) => entryOf(`devices[${i}]`, entry));
}

/**
 * Reads a declaration, JSON or YAML.
 * @throws VioError (usage) with the place of what is wrong
 */
export async function parseDeclaration(text: string, name: string): Promise<Declared[]> {
  let value: unknown;
  if (/^\s*\{/.test(text)) {
    value = parseJson(text, name, Exit.damaged);
  } else {
    const { load } = await import('../../common/text/yaml.js');
    value = load(text, name);
  }
  return checkDocument(value, name);
}
