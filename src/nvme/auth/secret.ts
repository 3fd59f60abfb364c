/**
 * Secrets of commands: from a file that others cannot read, a named environment variable, or a descriptor. Never from argv, which
 * every process can read. What is read is wiped by whoever takes it over (wipe).
 */
import fs from 'node:fs';
import { Exit, usage, VioError, wrap } from '../../common/errors.js';
import { printable, shellFile } from '../../common/escape.js';
import { parseJson } from '../../common/json.js';

/** Keys are short: a longer file is something else. */
export const maxSecretBytes = 65536;

/** Overwrites a secret in memory. Copies that V8 makes of strings stay out of reach: keep secrets in buffers. */
export const wipe = (...secrets: (Uint8Array | undefined)[]): void => {
  for (const secret of secrets) secret?.fill(0);
};

/**
 * Reads a secret.
 * @param from `FILE`, `env:NAME`, `fd:N`, `-` for standard input, or `nvmet:key:FILE#HOSTNQN` and `nvmet:ctrl_key:FILE#HOSTNQN` for a key in
 * a config.json of nvmetcli
 * @param what names it in errors
 * @returns its bytes without the white space around them; wipe them after use
 * @throws VioError for a file that its group or others can read (exit 6), that is too long, or that cannot be read
 */
export function readSecret(from: string, what: string, max = maxSecretBytes): Buffer {
  const nvmet = inNvmetcli(from);
  if (nvmet) return fromNvmetcli(nvmet, what);
  if (/(^|\/)(DHHC-1|NVMeTLSkey-1):/.test(from))
    throw usage(`${what}: this is a key, which every process can read; put it into a file`, 'chmod 600 FILE, then name FILE');
  if (from.startsWith('env:')) return fromEnvironment(from.slice(4), what);
  const inherited = from === '-' ? 0 : /^fd:(\d{1,9})$/.exec(from)?.[1];
  const where = inherited === undefined ? printable(from) : from === '-' ? 'stdin' : `descriptor ${inherited}`;
  let fd: number;
  try {
    fd = inherited === undefined ? fs.openSync(from, fs.constants.O_RDONLY | fs.constants.O_NONBLOCK) : Number(inherited);
  } catch (err) {
    throw wrap(`read ${what} from ${where}`, err);
  }
  const raw = Buffer.alloc(max + 1);
  try {
    if (inherited === undefined) checkMode(fd, from, what);
    let size = 0;
    for (;;) {
      const got = fs.readSync(fd, raw, size, raw.length - size, null);
      size += got;
      if (got === 0) break;
      if (size > max) throw new VioError(`${what} in ${where}: longer than ${max} bytes`, { code: 'BAD_KEY', exit: Exit.usage });
    }
    return trimmed(raw.subarray(0, size), what, where);
  } catch (err) {
    throw err instanceof VioError ? err : wrap(`read ${what} from ${where}`, err);
  } finally {
    wipe(raw);
    if (inherited === undefined) fs.closeSync(fd);
  }
}

/** Largest config.json of nvmetcli, in bytes. */
const maxNvmetBytes = 16 << 20;

interface InNvmetcli {
  kind: 'key' | 'ctrl_key';
  file: string;
  hostnqn: string;
}

/** The parts of a source that names a key in a config.json of nvmetcli. */
export function inNvmetcli(from: string): InNvmetcli | undefined {
  const [, kind, file, hostnqn] = /^nvmet:(key|ctrl_key):(.*?)#(nqn\..*)$/s.exec(from) ?? [];
  return hostnqn === undefined ? undefined : { kind: kind as InNvmetcli['kind'], file: file!, hostnqn };
}

/** Such a source. */
export const nvmetcliSource = ({ kind, file, hostnqn }: InNvmetcli): string => `nvmet:${kind}:${file}#${hostnqn}`;

/** The key of a host in a config.json of nvmetcli; undefined if it has none. */
export function nvmetcliKey(host: unknown, kind: InNvmetcli['kind']): string | undefined {
  const { dhchap, [`dhchap_${kind}`]: flat } = (host ?? {}) as { dhchap?: Record<string, unknown> } & Record<string, unknown>;
  const key = dhchap?.[kind] ?? flat;
  return typeof key === 'string' && key.trim() !== '' ? key : undefined;
}

function fromNvmetcli({ kind, file, hostnqn }: InNvmetcli, what: string): Buffer {
  const text = readSecret(file, what, maxNvmetBytes);
  try {
    const { hosts } = parseJson(text.toString(), file, Exit.usage) as { hosts?: unknown };
    const host = Array.isArray(hosts) ? hosts.find((one: { nqn?: unknown } | null) => one?.nqn === hostnqn) : undefined;
    const key = nvmetcliKey(host, kind);
    if (key === undefined) throw new VioError(`${what} in ${printable(file)}: there is none`, { code: 'BAD_KEY', exit: Exit.usage });
    return trimmed(Buffer.from(key), what, printable(file));
  } finally {
    wipe(text);
  }
}

function fromEnvironment(name: string, what: string): Buffer {
  const text = process.env[name];
  if (text === undefined) throw usage(`${what}: no environment variable ${printable(name)}`);
  delete process.env[name]; // not for children
  return trimmed(Buffer.from(text), what, `environment variable ${printable(name)}`);
}

/** Of the open file, not of its name: nobody can exchange it in between. */
function checkMode(fd: number, file: string, what: string): void {
  const { mode } = fs.fstatSync(fd);
  if ((mode & fs.constants.S_IFMT) === fs.constants.S_IFDIR)
    throw wrap(`read ${what} from ${printable(file)}`, Object.assign(new Error('is a directory'), { code: 'EISDIR' }));
  if ((mode & fs.constants.S_IFMT) !== fs.constants.S_IFREG) return; // a pipe of a process substitution, a credential
  if ((mode & 0o077) !== 0)
    throw new VioError(
      `${what} in ${printable(file)}: its group or others have access (mode ${(mode & 0o777).toString(8).padStart(4, '0')})`,
      {
        code: 'KEY_READABLE',
        exit: Exit.permission,
        hint: `chmod 600 ${shellFile(file)}`,
      },
    );
}

function trimmed(bytes: Buffer, what: string, where: string): Buffer {
  const blank = (byte: number | undefined) => byte === 0x20 || byte === 0x0a || byte === 0x0d || byte === 0x09;
  let [start, end] = [0, bytes.length];
  while (start < end && blank(bytes[start])) start++;
  while (end > start && blank(bytes[end - 1])) end--;
  if (start === end) throw new VioError(`${what} in ${where}: it is empty`, { code: 'BAD_KEY', exit: Exit.usage });
  return Buffer.from(bytes.subarray(start, end));
}
