import path from 'node:path';
import { usage } from '../common/errors.js';
import { parseDuration, parseSize } from '../common/units.js';

/** Kinds of sources by what they are opened with. */
export type SourceKind = 'file' | 'ram' | 'nbd' | 'rbd' | 'nvme' | 'qcow2';

const prefixes: readonly [SourceKind, RegExp][] = [
  ['ram', /^ram:/],
  ['nbd', /^nbds?(?:\+unix)?:\/\//],
  ['rbd', /^rbd:/],
  ['nvme', /^nvme\+tcp:\/\//],
  ['qcow2', /^qcow2:/],
];

/** How the kinds of sources are written, for hints. */
export const sourceForms = 'FILE, ram:SIZE, rbd:POOL/IMAGE, nbd://HOST/EXPORT, nvme+tcp://HOST/NQN/NSID and qcow2:FILE';

/** The kind of a source. Everything that begins like no other kind is a file: `./rbd:x` is one. */
export const kindOf = (source: string): SourceKind =>
  source.startsWith('/') ? 'file' : (prefixes.find(([, begin]) => begin.test(source))?.[0] ?? 'file');

/** Whether others have the data, or a program of its own opens it: it is asked with time-outs. */
export const isRemote = (source: string): boolean => !['file', 'ram'].includes(kindOf(source));

/** Whether the source is named by the path of a file. */
export const isFile = (source: string): boolean => kindOf(source) === 'file';

/** The parts of `rbd:POOL[/NAMESPACE]/IMAGE[@SNAP]`. */
export interface RbdName {
  pool: string;
  namespace: string;
  image: string;
  snapshot: string | undefined;
}

const rbdForm = 'rbd:POOL[/NAMESPACE]/IMAGE[@SNAPSHOT]';

/** @throws usage error */
export function parseRbd(source: string): RbdName {
  const match = /^rbd:([^/@]+)\/(?:([^/@]+)\/)?([^/@]+)(?:@([^/@]+))?$/.exec(source);
  if (!match) throw usage(`${source}: must be ${rbdForm}`);
  return { pool: match[1]!, namespace: match[2] ?? '', image: match[3]!, snapshot: match[4] };
}

/** Ports of NVMe/TCP targets and of their discovery services, if none is given. */
const ports = { target: 4420, discovery: 8009 };

/** `HOST[:PORT]`, an IPv6 address in brackets; undefined if it is none. */
function hostPort(text: string, usual: number): { host: string; port: number } | undefined {
  const match = /^(\[[^\]/]+\]|[^:/[\]]+)(?::(\d{1,5}))?$/.exec(text);
  const port = Number(match?.[2] ?? usual);
  return match && port >= 1 && port <= 65_535 ? { host: match[1]!.replace(/^\[|\]$/g, ''), port } : undefined;
}

/** The parts of `nvme+tcp://HOST[:PORT]/NQN/NSID`. */
export interface NvmeName {
  host: string;
  port: number;
  nqn: string;
  nsid: number;
}

/** @throws usage error */
export function parseNvme(source: string): NvmeName {
  const match = /^nvme\+tcp:\/\/([^/]+)\/(.+)\/(\d{1,10})$/.exec(source);
  const at = match && hostPort(match[1]!, ports.target);
  const nsid = Number(match?.[3]);
  if (!at || nsid < 1 || nsid > 0xffff_fffe) throw usage(`${source}: must be nvme+tcp://HOST[:PORT]/NQN/NSID`);
  return { ...at, nqn: match[2]!, nsid };
}

/** The parameters that a URI of NBD may have (the NBD project's doc/uri.md; TLS as libnbd spells it). */
const nbdParameters = ['socket', 'tls-certificates', 'tls-psk-file', 'tls-verify-peer'];

/** An NBD URI, checked. Passwords are refused: an argument list is no secret. @throws usage error */
export function parseNbd(source: string): string {
  let url: URL;
  try {
    url = new URL(source.replace(/^nbds?(\+unix)?:/, 'http:').replace(/^http:\/\/([^/@]*@)?\//, 'http://$1unix/'));
  } catch {
    throw usage(`${source}: not an NBD URI`);
  }
  if (url.password !== '') throw usage('nbd: a URI must not have a password: use tls-psk-file= or tls-certificates=');
  for (const name of url.searchParams.keys())
    if (!nbdParameters.includes(name))
      throw usage(`${source}: "${name}" is no parameter of an NBD URI; known are ${nbdParameters.join(', ')}`);
  const unix = /^nbds?\+unix:/.test(source);
  if (unix !== url.searchParams.has('socket')) throw usage(`${source}: ${unix ? 'socket=PATH is missing' : 'socket= needs nbd+unix://'}`);
  if (/^nbd[:+]/.test(source) && [...url.searchParams.keys()].some((name) => name.startsWith('tls-')))
    throw usage(`${source}: TLS needs nbds:// or nbds+unix://`);
  return source;
}

/**
 * A source as it is kept: `ram:BYTES`, the full path of a file, a URI that is well formed.
 * @param folder that paths are relative to
 * @throws usage error
 */
export function canonicalSource(source: string, folder = '.'): string {
  switch (kindOf(source)) {
    case 'ram':
      return `ram:${parseSize(source.slice(4))}`;
    case 'nbd':
      return parseNbd(source);
    case 'rbd':
      parseRbd(source);
      return source;
    case 'nvme':
      parseNvme(source);
      return source;
    case 'qcow2':
      if (source === 'qcow2:') throw usage('qcow2: a file is missing: qcow2:FILE');
      return `qcow2:${path.resolve(folder, source.slice('qcow2:'.length))}`;
    default:
      return path.resolve(folder, source);
  }
}

/** What only remote sources are told. Which ones an option belongs to, `remoteOptions` says. */
export interface RemoteOptions {
  /** Milliseconds that a request waits for a source that does not answer, or is away. */
  timeout?: number;
  /** Ceph: configuration file, name of the client without `client.`, its keyring. */
  conf?: string;
  id?: string;
  keyring?: string;
  /** Folder that the backing and data files of a qcow2 image must lie in. */
  backing?: string;
  /** Host NQN; digests; I/O queues. */
  hostnqn?: string;
  hdgst?: boolean;
  ddgst?: boolean;
  queues?: number;
  /** Files with the DH-HMAC-CHAP keys of the host and of the controller, and with the TLS key of the host. */
  dhchapSecretFile?: string;
  dhchapCtrlSecretFile?: string;
  tlsKeyFile?: string;
  /** Connect by TLS: so it is wherever there is a key. */
  tls?: boolean;
  /** More addresses of the same subsystem, and discovery services that name some. */
  paths?: { host: string; port: number }[];
  discovery?: { host: string; port: number }[];
}

/** Those that name files and folders. */
export const fileOptions = ['conf', 'keyring', 'backing', 'dhchapSecretFile', 'dhchapCtrlSecretFile', 'tlsKeyFile'] as const;

const maxTimeout = 600_000;

function text(name: string, value: string | undefined): string {
  if (value === undefined || value === '') throw usage(`${name}=: a value is missing`);
  return value;
}
const file = (name: string, value: string | undefined): string => path.resolve(text(name, value));
function flag(name: string, value: string | undefined): boolean {
  if (value === undefined || value === 'on') return true;
  if (value === 'off') return false;
  throw usage(`${name}=${value}: must be on or off`);
}
function timeout(value: string | undefined): number {
  const ms = parseDuration(text('timeout', value));
  if (ms < 100 || ms > maxTimeout) throw usage(`timeout=${value}: must be 100ms to 10m`);
  return ms;
}
function queues(value: string | undefined): number {
  const number = Number(value);
  if (!/^\d{1,3}$/.test(value ?? '') || number < 1 || number > 64) throw usage(`queues=${value ?? ''}: must be a number from 1 to 64`);
  return number;
}

type Setter = (options: RemoteOptions, value: string | undefined) => void;
/** An address more, each time that the option is given. */
const add =
  (key: 'paths' | 'discovery', name: string, port: number): Setter =>
  (options, value) => {
    const at = hostPort(value ?? '', port);
    if (!at) throw usage(`${name}=${value ?? ''}: must be HOST[:PORT]`);
    options[key] = [...(options[key] ?? []), at];
  };
const set =
  <K extends keyof RemoteOptions>(key: K, parse: (value: string | undefined) => NonNullable<RemoteOptions[K]>): Setter =>
  (options, value) => {
    options[key] = parse(value);
  };
const secretFile = (key: 'dhchapSecretFile' | 'dhchapCtrlSecretFile' | 'tlsKeyFile', name: string): Setter =>
  set(key, (v) => file(name, v));
const waits = { timeout: set('timeout', timeout) };

/** Options of each kind of remote source, by the names that users write. @throws usage error of a value */
export const remoteOptions: Readonly<Record<SourceKind, Readonly<Record<string, Setter>>>> = {
  file: {},
  ram: {},
  nbd: waits,
  rbd: {
    ...waits,
    conf: set('conf', (v) => file('conf', v)),
    id: set('id', (v) => text('id', v)),
    keyring: set('keyring', (v) => file('keyring', v)),
  },
  nvme: {
    ...waits,
    hostnqn: set('hostnqn', (v) => text('hostnqn', v)),
    hdgst: set('hdgst', (v) => flag('hdgst', v)),
    ddgst: set('ddgst', (v) => flag('ddgst', v)),
    queues: set('queues', queues),
    path: add('paths', 'path', ports.target),
    discovery: add('discovery', 'discovery', ports.discovery),
    'dhchap-secret-file': secretFile('dhchapSecretFile', 'dhchap-secret-file'),
    'dhchap-file': secretFile('dhchapSecretFile', 'dhchap-file'),
    'dhchap-ctrl-secret-file': secretFile('dhchapCtrlSecretFile', 'dhchap-ctrl-secret-file'),
    tls: set('tls', (v) => flag('tls', v)),
    'tls-key-file': secretFile('tlsKeyFile', 'tls-key-file'),
  },
  qcow2: { ...waits, backing: set('backing', (v) => file('backing', v)) },
};

/** Whether options belong together that do not make sense alone. @throws usage error */
export function checkRemote({ dhchapSecretFile, dhchapCtrlSecretFile, tls, tlsKeyFile }: RemoteOptions): void {
  if (dhchapCtrlSecretFile !== undefined && dhchapSecretFile === undefined)
    throw usage('dhchap-ctrl-secret-file= needs dhchap-secret-file=');
  if (tls === true && tlsKeyFile === undefined) throw usage('tls needs tls-key-file=');
  if (tls === false && tlsKeyFile !== undefined) throw usage('tls-key-file= is for TLS, which tls=off forbids');
}
