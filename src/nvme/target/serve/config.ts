import fs from 'node:fs';
import path from 'node:path';
import { type Engine, engineAliases, engines } from '../../../common/engines.js';
import { Exit, usage, VioError, wrap } from '../../../common/errors.js';
import { parseJson } from '../../../common/json.js';
import type { Sysroot } from '../../../common/sysroot.js';
import { machineName } from '../../../storage/identity.js';
import { parseRate } from '../../../storage/limits.js';
import { decimal, parseSourceText, type SourceOption, sourcePath } from '../../../storage/source.js';
import { parseId, uuidOf, uuidText } from '../identity.js';
import { maxNamespaces, type NamespaceOptions } from '../model.js';
import { type CntlidRange, checkAscii, checkHostNqn, checkSubsystemNqn, modelSize, parseCntlidRange, serialSize } from '../names.js';

/** Everything that `nvmf serve` is told: by its command line or by a file. */
export interface TargetConfig {
  /** `ADDRESS:PORT`, `[ADDRESS]:PORT`, `:PORT` */
  listen: string[];
  subsystems: SubsystemConfig[];
  referrals: { address: string; port: number; nqn?: string }[];
  /** Port for discovery alone on every address that is listened on; 8009 where free and not asked for. */
  discoveryPort?: number | 'none';
  /** Path of the control socket. */
  control?: string;
  /** Where the names of sources are kept. */
  stateDir?: string;
  threads?: number;
  spinMicroseconds?: number;
  maxConnections?: number;
  /** Who does the I/O that waits for a device; auto: threads. */
  engine?: Engine;
  headerDigest?: boolean;
  dataDigest?: boolean;
}

export interface SubsystemConfig {
  nqn: string;
  serial?: string;
  model?: string;
  /** Identifiers for its controllers. */
  cntlids?: CntlidRange;
  /** Host NQNs; every host when left out. */
  allowHosts?: string[];
  namespaces: NamespaceOptions[];
}

/** Port for discovery alone, or `none`. @throws usage error */
export function parseDiscoveryPort(text: string): number | 'none' {
  if (text === 'none') return text;
  if (/^\d{1,5}$/.test(text) && Number(text) <= 65535) return Number(text);
  throw usage(`not a port: "${text}"`, '--discovery-port 8009, 0 for a free one, or none');
}

/** Options of a source that only namespaces have. */
const namespaceOptions: Readonly<Record<string, SourceOption<NamespaceOptions>>> = {
  nsid: (o, value) => {
    o.nsid = decimal(value, 'nsid');
  },
  group: (o, value) => {
    o.group = decimal(value, 'group');
  },
  uuid: (o, value) => {
    o.ids = { ...o.ids, uuid: parseId('uuid', value) };
  },
  nguid: (o, value) => {
    o.ids = { ...o.ids, nguid: parseId('nguid', value) };
  },
};

/**
 * What to serve, as the command line has it: `FILE`, `ram:SIZE`, each with `,ro`, `,bs=4096`, `,nsid=N`, `,group=N` behind it.
 * @param defaults of the whole command line
 * @throws usage error
 */
export const parseSource = (text: string, defaults: Partial<NamespaceOptions> = {}): NamespaceOptions =>
  parseSourceText(text, defaults, namespaceOptions);

/** The NQN of a target that was given none: the same for the same machine and sources. */
export function defaultNqn(sysroot: Sysroot, sources: readonly string[]): string {
  return `nqn.2014-08.org.nvmexpress:uuid:${uuidText(uuidOf([machineName(sysroot), ...sources].join('\0')))}`;
}

type Check = (value: unknown, at: string) => unknown;
const bad = (at: string, what: string): VioError => new VioError(`${at}: ${what}`, { code: 'CONFIG', exit: Exit.usage });
const text: Check = (v, at) => {
  if (typeof v !== 'string' || v === '') throw bad(at, 'must be a text');
  return v;
};
/** A text that another function checks, and perhaps turns into something else. */
const checked =
  (check: (value: string) => unknown): Check =>
  (v, at) => {
    try {
      return check(text(v, at) as string);
    } catch (err) {
      if (err instanceof VioError && err.code === 'USAGE') throw bad(at, err.message.replace(/^[a-z0-9]+=[^:]*: /, '')); // the key says it
      throw err;
    }
  };
const flag: Check = (v, at) => {
  if (typeof v !== 'boolean') throw bad(at, 'must be true or false');
  return v;
};
const oneOf =
  (...values: string[]): Check =>
  (v, at) => {
    if (!values.includes(v as string)) throw bad(at, `must be ${values.join(' or ')}`);
    return v;
  };
const engineCheck: Check = (v, at) => engineAliases.get(v as string) ?? oneOf(...engines)(v, at);
const portOrNone: Check = (v, at) => {
  if (v !== 'none' && !(Number.isInteger(v) && (v as number) >= 0 && (v as number) <= 65535)) throw bad(at, 'must be a port, or "none"');
  return v;
};
const number =
  (min: number, max: number): Check =>
  (v, at) => {
    if (!Number.isInteger(v) || (v as number) < min || (v as number) > max) throw bad(at, `must be a number from ${min} to ${max}`);
    return v;
  };
/** A number, or a text as behind a source. */
const rateCheck =
  (name: 'iops' | 'bps'): Check =>
  (v, at) =>
    checked((value) => parseRate(name, value))(typeof v === 'number' ? String(v) : v, at);
const list =
  (check: Check): Check =>
  (v, at) => {
    if (!Array.isArray(v)) throw bad(at, 'must be a list');
    return v.map((item, i) => check(item, `${at}[${i}]`));
  };
const object =
  (keys: Record<string, Check>, required: string[]): Check =>
  (v, at) => {
    if (typeof v !== 'object' || v === null || Array.isArray(v)) throw bad(at, 'must be an object');
    for (const key of required) if (!(key in v)) throw bad(at, `"${key}" is missing`);
    return Object.fromEntries(
      Object.entries(v).map(([key, value]) => {
        const check = keys[key];
        if (!check) throw bad(`${at}.${key}`, `is not known; known are ${Object.keys(keys).join(', ')}`);
        return [key, check(value, `${at}.${key}`)];
      }),
    );
  };

const namespaceCheck = object(
  {
    source: text,
    nsid: number(1, maxNamespaces),
    blockSize: number(512, 65536),
    readOnly: flag,
    force: flag,
    format: oneOf('raw'),
    shared: flag,
    direct: flag,
    zero: oneOf('unmap', 'off'),
    iops: rateCheck('iops'),
    bps: rateCheck('bps'),
    group: number(1, 32),
    nguid: checked((v) => parseId('nguid', v)),
    eui64: checked((v) => parseId('eui64', v)),
    uuid: checked((v) => parseId('uuid', v)),
  },
  ['source'],
);
const configCheck = object(
  {
    listen: list(text),
    discoveryPort: portOrNone,
    control: text,
    stateDir: text,
    threads: number(1, 64),
    spinMicroseconds: number(0, 1_000_000),
    maxConnections: number(1, 65535),
    engine: engineCheck,
    headerDigest: flag,
    dataDigest: flag,
    referrals: list(object({ address: text, port: number(1, 65535), nqn: checked(checkHostNqn) }, ['address', 'port'])),
    subsystems: list(
      object(
        {
          nqn: checked(checkSubsystemNqn),
          serial: checked((v) => checkAscii(v, 'serial number', serialSize)),
          model: checked((v) => checkAscii(v, 'model', modelSize)),
          cntlids: checked(parseCntlidRange),
          allowHosts: list(checked(checkHostNqn)),
          namespaces: list(namespaceCheck),
        },
        ['nqn', 'namespaces'],
      ),
    ),
  },
  ['subsystems'],
);

/** Reads a configuration. Relative sources are relative to `folder`. @throws VioError naming the wrong key */
export function parseConfig(json: string, name: string, folder: string): TargetConfig {
  const raw = parseJson(json, name, Exit.usage);
  type Raw = Omit<SubsystemConfig, 'namespaces'> & { namespaces: Record<string, unknown>[] };
  const config = configCheck(raw, name) as Omit<TargetConfig, 'subsystems'> & { subsystems: Raw[] };
  const subsystems = config.subsystems.map((subsystem) => ({
    ...subsystem,
    namespaces: subsystem.namespaces.map(({ source, readOnly, nguid, eui64, uuid, ...rest }) => ({
      ...rest,
      source: sourcePath(source as string, folder),
      ...(readOnly !== undefined && { readonly: readOnly }),
      ids: { ...(nguid !== undefined && { nguid }), ...(eui64 !== undefined && { eui64 }), ...(uuid !== undefined && { uuid }) },
    })) as NamespaceOptions[],
  }));
  return { ...config, listen: config.listen ?? [], referrals: config.referrals ?? [], subsystems };
}

/** Reads a configuration file, or standard input (`-`), whose sources are relative to the current folder. @throws VioError */
export function readConfig(file: string): TargetConfig {
  let json: string;
  try {
    json = fs.readFileSync(file === '-' ? 0 : file, 'utf8');
  } catch (err) {
    throw wrap(file === '-' ? 'stdin' : `read ${file}`, err);
  }
  return parseConfig(json, file === '-' ? 'stdin' : file, file === '-' ? '.' : path.dirname(path.resolve(file)));
}
