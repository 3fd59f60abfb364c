// Programs newer than this machine's Debian, as peers for tests: unpacked with everything they depend on, run in a
// chroot of a private mount namespace (enter.sh). Nothing is installed.
import { existsSync, mkdirSync, readdirSync, rmSync } from 'node:fs';
import path from 'node:path';
import { skip } from '../support/skip.js';
import { Suite } from '../vm/apt.js';
import { cached, cacheRoot, checkoutRoot, type Ran, run } from '../vm/cache.js';

/** The peer folders by name, with what each offers and the suites it may come from, in order of preference. */
const PEERS = {
  /**
   * QEMU 11 (qemu-system-x86_64, qemu-storage-daemon, qemu-img, qemu-io, qemu-nbd), virtiofsd 1.14, busybox. From testing
   * while sid is in the middle of a transition and cannot install them.
   */
  sid: { suites: ['sid', 'testing'], packages: ['qemu-system-x86', 'qemu-utils', 'virtiofsd', 'busybox-static'] },
  /** A small Debian that boots, for units of ours: systemd 257 or later, and what its services need. */
  systemd: {
    suites: ['trixie', 'sid'],
    packages: [
      ...['systemd', 'iproute2', 'libnss-systemd', 'libstdc++6'],
      // essential packages, which no package depends on
      ...['base-files', 'bash', 'coreutils', 'dash', 'findutils', 'grep', 'procps', 'sed', 'util-linux'],
    ],
  },
  /** The same with D-Bus, udev and the services of an NVMe host that connect by themselves (stafd, stacd). */
  stas: {
    suites: ['trixie', 'sid'],
    packages: [
      ...['nvme-stas', 'nvme-cli', 'systemd', 'dbus', 'udev', 'kmod', 'iproute2', 'libnss-systemd', 'libstdc++6'],
      ...['base-files', 'bash', 'coreutils', 'dash', 'findutils', 'grep', 'procps', 'sed', 'util-linux'],
    ],
  },
  /** tlshd 1.0, which does the handshakes of the kernel's TLS. Later ones need a socket option that Linux 6.12 lacks. */
  tlshd: { suites: ['trixie'], packages: ['ktls-utils'] },
  /** A tlshd that knows keys of SHA-384, and an nvme-cli that derives TLS keys as targets do. */
  'nvme-tls': { suites: ['sid', 'testing'], packages: ['ktls-utils', 'nvme-cli'] },
} as const satisfies Record<string, { suites: readonly string[]; packages: readonly string[] }>;

export type PeerName = keyof typeof PEERS;

/** A folder with a small Debian of its own. */
export class Peer {
  /** The folder: usr, etc, var. */
  readonly dir: string;
  constructor(dir: string) {
    this.dir = dir;
  }

  /**
   * The command line that runs `argv` inside. /tmp is shared with this machine, and so is every folder in `share`, at
   * the same paths; descriptors are inherited. The process that it becomes is the program itself: kill it by its pid.
   */
  argv(argv: readonly [string, ...string[]], share: readonly string[] = []): [string, ...string[]] {
    return ['/bin/sh', path.join(checkoutRoot(), 'test/peers/enter.sh'), this.dir, ...share, '--', ...argv];
  }

  /** Runs a program inside to its end. */
  run(argv: readonly [string, ...string[]], share: readonly string[] = []): Promise<Ran> {
    return run(this.argv(argv, share));
  }
}

/** The peer `name`; unpacked on first use. */
export async function peer(name: PeerName): Promise<Peer> {
  const { suites, packages } = PEERS[name];
  const dir = await cached(`peer-${name}`, async (part) => {
    const problems: string[] = [];
    for (const suite of suites) {
      try {
        await (await Suite.open(suite)).unpack(packages, part, { closure: true });
        break;
      } catch (e) {
        problems.push(e instanceof Error ? e.message : String(e));
        if (problems.length === suites.length) throw new Error(problems.join('\n'));
        for (const left of readdirSync(part)) rmSync(path.join(part, left), { recursive: true });
      }
    }
    for (const d of ['doc', 'man', 'locale', 'bash-completion', 'zsh']) {
      rmSync(path.join(part, 'usr/share', d), { recursive: true, force: true });
    }
    for (const d of ['root', 'var', 'etc']) mkdirSync(path.join(part, d), { recursive: true });
  });
  return new Peer(dir);
}

/**
 * The peer for a test of `npm test`: undefined, with the reason listed, when it is not in the cache yet, because plain
 * tests fetch nothing. Under VIOCTL_NO_SKIP=1 it is made.
 */
export async function peerForTest(name: PeerName, what: string): Promise<Peer | undefined> {
  if (process.env.VIOCTL_NO_SKIP !== '1' && !existsSync(path.join(cacheRoot(), `peer-${name}`))) {
    skip(what, `the ${name} peer programs are not here; get them with: npx tsx test/vm/prefetch.ts`);
    return undefined;
  }
  return peer(name);
}
