/** What a command line says of a vhost-user socket. */
export interface Claim {
  path: string;
  /** Device type; null where the command line does not tell. */
  device: string | null;
  /** The program is a back-end, or a VMM that uses one. */
  role: 'server' | 'user';
}

/** Splits `a=b,c=d,,e` as QEMU does: a doubled comma is a comma. A first word without `=` has the key ''. */
function keyValues(text: string): Map<string, string> {
  const parts: string[] = [];
  let part = '';
  for (let i = 0; i < text.length; i++) {
    if (text[i] !== ',' || text[i + 1] === ',') {
      part += text[i];
      if (text[i] === ',') i++;
    } else {
      parts.push(part);
      part = '';
    }
  }
  parts.push(part);
  return new Map(parts.map(keyValue));
}
function keyValue(part: string, index: number): [string, string] {
  const at = part.indexOf('=');
  return at < 0 ? [index === 0 ? '' : part, index === 0 ? part : ''] : [part.slice(0, at), part.slice(at + 1)];
}

/** An option of QEMU in either form: `key=value,…`, or JSON whose nested keys are joined by dots. */
function optionOf(text: string): Map<string, string> {
  if (!text.startsWith('{')) return keyValues(text);
  const out = new Map<string, string>();
  const walk = (value: unknown, key: string): void => {
    if (value !== null && typeof value === 'object' && !Array.isArray(value))
      for (const [name, inner] of Object.entries(value)) walk(inner, key === '' ? name : `${key}.${name}`);
    else out.set(key, String(value));
  };
  try {
    walk(JSON.parse(text), '');
  } catch {
    // A word that only looks like JSON claims nothing.
  }
  return out;
}

/** Device type of a driver's name: `vhost-user-blk-pci`, `vhost-user-test-device-pci`; undefined where it is not vhost-user. */
function driverDevice(driver: string): string | null | undefined {
  const match = /^vhost-user-(.+?)(-pci|-device|-ccw)?(-(non-)?transitional)?$/.exec(driver);
  if (!match) return undefined;
  return match[1] === 'test-device' || match[1] === 'device' ? null : match[1]!;
}

/** QEMU: -chardev names the socket, -netdev, -device or -object says what it is for. */
function qemuClaims(argv: readonly string[]): Claim[] {
  const sockets = new Map<string, string>();
  const uses: [chardev: string, device: string | null][] = [];
  argv.forEach((word, i) => {
    const name = /^--?(chardev|netdev|device|object)$/.exec(word)?.[1];
    const next = argv[i + 1];
    if (name === undefined || next === undefined) return;
    const option = optionOf(next);
    const get = (...keys: string[]): string => keys.map((key) => option.get(key)).find((value) => value !== undefined) ?? '';
    const chardev = get('chardev');
    if (name === 'chardev') {
      const path = get('path', 'backend.data.addr.data.path', 'backend.data.addr.path');
      if (path !== '' && get('', 'backend', 'backend.type') === 'socket') sockets.set(get('id'), path);
    } else if (name === 'netdev') {
      if (get('', 'type') === 'vhost-user') uses.push([chardev, 'net']);
    } else if (name === 'device') {
      const device = driverDevice(get('', 'driver'));
      if (device !== undefined) uses.push([chardev, device]);
    } else if (get('', 'qom-type') === 'cryptodev-vhost-user') {
      uses.push([chardev, 'crypto']);
    }
  });
  return uses.flatMap(([id, device]) => {
    const path = sockets.get(id);
    return path === undefined ? [] : [{ path, device, role: 'user' as const }];
  });
}

/** qemu-storage-daemon, and whatever else takes `--export type=vhost-user-blk,addr.path=…`. */
function exportClaims(argv: readonly string[]): Claim[] {
  return argv.flatMap((word, i) => {
    const text = /^--?export$/.test(word) ? argv[i + 1] : /^--export=(.*)$/s.exec(word)?.[1];
    if (text === undefined) return [];
    const option = optionOf(text);
    const device = driverDevice(option.get('type') ?? option.get('') ?? '');
    const path = option.get('addr.path');
    return device === undefined || path === undefined ? [] : [{ path, device, role: 'server' as const }];
  });
}

/** Our own servers. */
function ownClaims(argv: readonly string[]): Claim[] {
  const at = argv.findIndex((word, i) => word === 'vhost-user' && /^(serve|shmem)$/.test(argv[i + 1] ?? ''));
  if (at < 0) return [];
  const rest = argv.slice(at + 1);
  const device = rest[0] === 'serve' ? (rest[1] ?? null) : rest.includes('--pmem') ? 'pmem' : null;
  if (rest[0] === 'shmem' && rest[1] !== 'serve') return [];
  // Every word that could be the socket: one that is not, is no socket that the process holds either.
  const named = rest.slice(2).flatMap((word, i) => {
    if (rest[i + 1] === '--control' || word.startsWith('--control=')) return [];
    return [word.replace(/^--socket-path=/, ''), word.split('=', 1)[0]!];
  });
  return named.map((path) => ({ path, device, role: 'server' }));
}

/**
 * Whether a process is a server of ours whose sockets are not all in its command line: those of a configuration file, and those that
 * vhost-user ctl has added. @returns its control socket, which speaks something else, and its configuration file
 */
export function ownServer(argv: readonly string[]): { control: string | undefined; config: string | undefined } | undefined {
  const at = argv.findIndex((word, i) => word === 'vhost-user' && argv[i + 1] === 'serve' && argv[i + 2] === 'blk');
  if (at < 0) return undefined;
  const option = (name: string): string | undefined => {
    const i = argv.findIndex((word) => word === name || word.startsWith(`${name}=`));
    return i < 0 ? undefined : argv[i] === name ? argv[i + 1] : argv[i]!.slice(name.length + 1);
  };
  return { control: option('--control'), config: option('--config') };
}

/** The control socket that the text of a configuration file names, JSON or YAML; undefined where there is none. */
export const controlIn = (text: string): string | undefined =>
  /^[\s{,]*["']?control["']?\s*:\s*["']?([^"',}\n]+?)["']?\s*[,}]?\s*$/m.exec(text)?.[1] ??
  /["']control["']\s*:\s*"([^"]+)"/.exec(text)?.[1];

/** passt, with which libvirt connects guests to the network: vhost-user only if it is told so. */
function passtClaims(argv: readonly string[], exe: string | null): Claim[] {
  const passt = /(?:^|\/)passt[\w.-]*$/;
  if (!passt.test(argv[0] ?? '') && !passt.test(exe ?? '')) return [];
  if (!argv.includes('--vhost-user')) return [];
  return argv.flatMap((word, i) => {
    const path = /^(?:--socket|-s)$/.test(word) ? argv[i + 1] : /^(?:--socket=|-s)(.+)$/s.exec(word)?.[1];
    return path === undefined ? [] : [{ path, device: 'net', role: 'server' as const }];
  });
}

/** A program that speaks vhost-user on the socket that its command line names, and the device in its name. */
const dedicatedPrograms = /(?:^|\/)(?:rust-)?(virtiofsd|vhost-(?:user|device)-([a-z0-9]+))[\w.-]*$/;
/** Words of options of other back-ends and VMMs that stand beside the socket. */
const serverWords = /vhost-user-blk|dpdkvhostuser|net_vhost|eth_vhost|vhost-user-net|vhost-user-fs/;
const userWords = /vhost_user=(on|true)|type=vhost-user|^--(fs|generic-vhost-user|vhost-user(-\w+)?|vhost-user-fs)\b|virtio_user/;
const deviceWords: readonly [RegExp, string][] = [
  [/vhost-user-blk|^--(disk|block)\b/, 'blk'],
  [/vhost-user-net|^--net\b|net_vhost|eth_vhost|virtio_user|dpdkvhostuser/, 'net'],
  [/vhost-user-fs|^--fs\b/, 'fs'],
];

/** Options whose socket is something else although the program speaks vhost-user: vsock's side of the host, control sockets. */
const otherSockets = /(^|[,-])(uds-path|control|api-socket|admin|metrics)\b/;

/** Every other program: the option that holds the path decides. */
function otherClaims(argv: readonly string[], exe: string | null): Claim[] {
  const dedicated = dedicatedPrograms.exec(argv[0] ?? '') ?? dedicatedPrograms.exec(exe ?? '');
  const claims: Claim[] = [];
  let option = '';
  argv.slice(1).forEach((word) => {
    if (word.startsWith('-')) option = word;
    const context = word === option ? word : `${option} ${word}`;
    for (const [, key, path] of word.matchAll(/(?:^|,)([\w-]*[a-z]=)?([^,]+)/g)) {
      const beside = `${word.startsWith('-') ? '' : option},${key ?? word.split('=')[0]}`;
      if (otherSockets.test(beside)) continue;
      const server = dedicated !== null || serverWords.test(context);
      if (!server && !userWords.test(context)) continue;
      const byWords = deviceWords.find(([pattern]) => pattern.test(context))?.[1];
      const device = dedicated
        ? dedicated[1] === 'virtiofsd'
          ? 'fs'
          : (dedicated[2] ?? null)
        : (byWords ?? /\btype=(\w+)/.exec(context)?.[1] ?? null);
      claims.push({ path: path!, device, role: server ? 'server' : 'user' });
    }
  });
  return claims;
}

/**
 * The vhost-user sockets that a command line names. QEMU's other sockets (monitors, consoles) are none of them, nor are the
 * sockets of a back-end that are for something else.
 * @param exe the program, where it is known
 */
export function claimsOf(argv: readonly string[], exe: string | null = null): Claim[] {
  const own = ownClaims(argv);
  if (own.length > 0) return own;
  const passt = passtClaims(argv, exe);
  if (passt.length > 0) return passt;
  const exported = exportClaims(argv);
  if (exported.length > 0) return exported;
  if (argv.some((word) => /^--?(chardev|netdev)$/.test(word)) && !argv.some((word) => /vhost_user=/.test(word))) return qemuClaims(argv);
  return otherClaims(argv, exe);
}
