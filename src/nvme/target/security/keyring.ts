/** The keys of hosts, and where they come from. All files are read before the first key changes. */
import { Exit, usage, VioError } from '../../../common/errors.js';
import { printable } from '../../../common/escape.js';
import type { ChapKeys } from '../../auth/controller.js';
import { type Key, sameKey } from '../../auth/keys.js';
import { readChapKey, readTlsKey } from '../../auth/read.js';
import { wipe } from '../../auth/secret.js';
import { checkHostNqn } from '../names.js';

/** Where the keys of a host are: a file, `env:NAME` or `fd:N` each. */
export interface KeySources {
  /** Host NQN; left out: every host that is not named. */
  nqn?: string;
  /** What the host proves to know (DHHC-1). */
  dhchapSecretFile?: string;
  /** What we prove to know, to hosts that ask (DHHC-1). */
  dhchapCtrlSecretFile?: string;
  /** Configured PSK of TLS (NVMeTLSkey-1). */
  tlsKeyFile?: string;
}

/** Keys that were read and are not in use yet. One of the two ends it. */
export interface FreshKeys {
  /** The hosts whose keys are others, or that have none any more; `*` for every host. */
  readonly changed: string[];
  /** Whether there are keys, and whether there are some for TLS. */
  readonly any: boolean;
  readonly tls: boolean;
  /** Puts them to use. Associations go on; the next authentication or handshake uses them. Cannot fail. */
  use(): void;
  /** Wipes them, if they are not in use. */
  drop(): void;
}

interface HostKeys {
  chap: ChapKeys | undefined;
  tls: Key | undefined;
}

/** Key of the map for hosts that are not named. */
const anyHost = '';

/** Whether a source of a key is a file, which can be read again. */
export const rereadable = (from: string): boolean => from !== '-' && !/^(env:|fd:)/.test(from);

const files = ['dhchapSecretFile', 'dhchapCtrlSecretFile', 'tlsKeyFile'] as const;

/** The files that sources of keys name. */
export const keyFiles = (sources: readonly KeySources[]): string[] =>
  sources.flatMap((one) => files.map((kind) => one[kind]).filter((from) => from !== undefined && rereadable(from)) as string[]);

export class KeyRing {
  #sources: readonly KeySources[];
  #keys: Map<string, HostKeys>;

  /** @throws VioError: what is wrong with which file; never a byte of a key */
  constructor(sources: readonly KeySources[]) {
    this.#sources = sources;
    this.#keys = load(sources, () => undefined);
  }

  /** Where the keys are. */
  get sources(): readonly KeySources[] {
    return this.#sources;
  }

  /** Whether hosts have to authenticate. */
  get chap(): boolean {
    return [...this.#keys.values()].some(({ chap }) => chap !== undefined);
  }

  /** Whether there are keys for TLS. */
  get tls(): boolean {
    return hasTls(this.#keys);
  }

  /** Keys of a host for DH-HMAC-CHAP, its own or those of every host. */
  chapKeys(hostnqn: string): ChapKeys | undefined {
    return this.#keys.get(hostnqn)?.chap ?? this.#keys.get(anyHost)?.chap;
  }

  /** The configured PSK of a host: its own, or that of every host, which a host with its own does not answer to. */
  tlsKeys(hostnqn: string): Key[] {
    const key = this.#keys.get(hostnqn)?.tls ?? this.#keys.get(anyHost)?.tls;
    return key ? [key] : [];
  }

  /**
   * Reads all files, without changing anything yet.
   * @param sources where the keys are from then on
   * @throws VioError
   */
  read(sources: readonly KeySources[] = this.#sources): FreshKeys {
    const before = this.#keys;
    const fresh = load(sources, (nqn, kind, from) => {
      if (this.#sources.find((one) => (one.nqn ?? anyHost) === nqn)?.[kind] === from) return keyOf(before.get(nqn), kind);
      throw new VioError(`${hostName(nqn)}: a key cannot come from ${from} while the target runs`, {
        code: 'FIXED',
        exit: Exit.refused,
        hint: 'put the key into a file: chmod 600 FILE',
      });
    });
    const changed = [...new Set([...before.keys(), ...fresh.keys()])].filter((nqn) => !sameKeys(fresh.get(nqn), before.get(nqn)));
    return {
      changed: changed.map((nqn) => nqn || '*'),
      any: [...fresh.values()].some((keys) => keysOf(keys).length > 0),
      tls: hasTls(fresh),
      use: () => {
        const gone = this.#keys;
        this.#keys = fresh;
        this.#sources = sources;
        wipeBut(gone, fresh);
      },
      drop: () => wipeBut(fresh, this.#keys),
    };
  }

  /**
   * Reads all files again. Associations go on; the next authentication or handshake uses the new keys.
   * @returns the hosts whose keys are others now, `*` for every host
   * @throws VioError; then all keys are as before
   */
  rotate(): string[] {
    const fresh = this.read();
    fresh.use();
    return fresh.changed;
  }

  /** What rotate() would change, without changing it. @throws VioError */
  check(): string[] {
    const fresh = this.read();
    fresh.drop();
    return fresh.changed;
  }

  /** Wipes all keys. */
  close(): void {
    wipeBut(this.#keys, new Map());
    this.#keys = new Map();
  }
}

const keysOf = ({ chap, tls }: HostKeys): Key[] => [chap?.host, chap?.controller, tls].filter((key) => key !== undefined);

/** @param kept whose keys stay: those that cannot be read again are in both */
function wipeBut(gone: ReadonlyMap<string, HostKeys>, kept: ReadonlyMap<string, HostKeys>): void {
  if (gone === kept) return;
  const stay = new Set([...kept.values()].flatMap(keysOf));
  for (const key of [...gone.values()].flatMap(keysOf)) if (!stay.has(key)) wipe(key.bytes);
}

const hasTls = (keys: ReadonlyMap<string, HostKeys>): boolean => [...keys.values()].some(({ tls }) => tls !== undefined);

const sameKeys = (a: HostKeys | undefined, b: HostKeys | undefined): boolean =>
  sameKey(a?.chap?.host, b?.chap?.host) && sameKey(a?.chap?.controller, b?.chap?.controller) && sameKey(a?.tls, b?.tls);

function keyOf(keys: HostKeys | undefined, kind: (typeof files)[number]): Key | undefined {
  if (kind === 'tlsKeyFile') return keys?.tls;
  return kind === 'dhchapSecretFile' ? keys?.chap?.host : keys?.chap?.controller;
}

/** @param kept the key that came from a source that cannot be read again; undefined: it is read */
function load(
  sources: readonly KeySources[],
  kept: (nqn: string, kind: (typeof files)[number], from: string) => Key | undefined,
): Map<string, HostKeys> {
  const fresh = new Map<string, HostKeys>();
  const made: Key[] = [];
  try {
    for (const { nqn = anyHost, ...from } of sources) {
      if (fresh.has(nqn)) throw usage(`keys of ${hostName(nqn)} are given twice`);
      if (from.dhchapCtrlSecretFile !== undefined && from.dhchapSecretFile === undefined)
        throw usage('a key of the controller needs a key of the host', '--dhchap-secret-file FILE');
      const [host, controller, tls] = files.map((kind) => {
        const file = from[kind];
        if (file === undefined) return undefined;
        const old = rereadable(file) ? undefined : kept(nqn, kind, file);
        if (old) return old;
        const key = readOne(file, kind, nqn);
        made.push(key);
        return key;
      });
      if (sameKey(host, controller) && host) throw usage(`keys of ${hostName(nqn)}: host and controller must not have the same key`);
      fresh.set(nqn, { chap: host && { host, controller }, tls });
    }
    return fresh;
  } catch (err) {
    for (const { bytes } of made) wipe(bytes);
    throw err;
  }
}

const hostName = (nqn: string): string => (nqn === anyHost ? 'every host' : `host ${printable(nqn)}`);

function readOne(from: string, kind: (typeof files)[number], nqn: string): Key {
  const what = kind === 'tlsKeyFile' ? 'TLS key' : kind === 'dhchapSecretFile' ? 'DH-HMAC-CHAP key' : "controller's DH-HMAC-CHAP key";
  return (kind === 'tlsKeyFile' ? readTlsKey : readChapKey)(from, nqn === anyHost ? what : `${what} of ${printable(nqn)}`);
}

/**
 * Sources of keys from options, each `FILE` for every host or `NQN=FILE` for one. @throws usage error for two of a kind
 */
export function keySources(options: { readonly [Kind in (typeof files)[number]]?: readonly string[] | undefined }): KeySources[] {
  const found = new Map<string, KeySources>();
  for (const kind of files)
    for (const option of options[kind] ?? []) {
      const match = /^(nqn\.[^=]*)=(.+)$/s.exec(option);
      const [nqn, file] = match ? [checkHostNqn(match[1]!), match[2]!] : [undefined, option];
      const entry: KeySources = found.get(nqn ?? anyHost) ?? (nqn === undefined ? {} : { nqn });
      if (entry[kind] !== undefined) throw usage(`two keys of a kind for ${hostName(nqn ?? anyHost)}: ${printable(file)}`);
      entry[kind] = file;
      found.set(nqn ?? anyHost, entry);
    }
  return [...found.values()];
}
