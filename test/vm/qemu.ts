// The QEMU builds of the lab: 10 from bookworm-backports, unpacked beside the installed 7.2 whose libraries it uses, and others.
import { existsSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { peer } from '../peers/peers.js';
import { skip, which } from '../support/skip.js';
import { Suite } from './apt.js';
import { cached, cacheRoot, checkoutRoot } from './cache.js';

const INSTALLED = '/usr/bin/qemu-system-x86_64';

/** How to start programs of one QEMU build. */
export interface QemuBuild {
  /** The command line of a program of this build, for example qemu-system-x86_64 or qemu-storage-daemon. */
  argv(program: string, args?: readonly string[]): [string, ...string[]];
  /** Environment additions. */
  env: Record<string, string>;
  /** Where the program sees this machine's root file system. */
  hostRoot: string;
  /** A path whose inode and time change with the build. */
  identity: string;
}

/**
 * The builds by the name tests use. 7.2 is the installed one (its emulation can upset busy guests); 11 runs in the sid
 * peer's root, where it sees /tmp, the cache and the checkout at their own paths.
 */
export type QemuName = '7.2' | '10' | '11';

/** QEMU 10: about 15 MB fetched, 98 MB in the cache. */
async function qemu10(): Promise<QemuBuild> {
  const dir = await cached('qemu-10', async (part) => {
    const suite = await Suite.open('bookworm-backports');
    const names = ['qemu-system-x86', 'qemu-system-common', 'qemu-system-data', 'qemu-utils', 'seabios'];
    await suite.unpack(names, part);
  });
  const firmware = [path.join(dir, 'usr/share/qemu'), path.join(dir, 'usr/share/seabios'), '/usr/share/qemu'];
  return {
    argv: (program, args = []) => [
      path.join(dir, 'usr/bin', program),
      ...(program.startsWith('qemu-system-') ? firmware.flatMap((f) => ['-L', f]) : []),
      ...args,
    ],
    env: { QEMU_MODULE_DIR: path.join(dir, 'usr/lib/x86_64-linux-gnu/qemu') },
    hostRoot: '/',
    identity: dir,
  };
}

/** QEMU 11 of the sid peer. */
async function qemu11(): Promise<QemuBuild> {
  const sid = await peer('sid');
  const share = [cacheRoot(), checkoutRoot(), tmpdir()].filter((d) => d !== '/tmp' && !d.startsWith('/tmp/'));
  return { argv: (program, args = []) => sid.argv([program, ...args], share), env: {}, hostRoot: '/host', identity: sid.dir };
}

/** Packages with the programs for other machines than x86. */
const FOREIGN = ['qemu-system-arm', 'qemu-system-ppc', 'qemu-system-s390x'];

/** The folder with a build's programs for other machines (15 MB fetched, 120 MB in the cache): few tests want them. */
const foreignDir = (name: '10' | '11'): Promise<string> =>
  cached(`qemu-${name}-foreign`, async (part) => {
    const problems: string[] = [];
    for (const suite of name === '10' ? ['bookworm-backports'] : ['sid', 'testing']) {
      try {
        await (await Suite.open(suite)).unpack(FOREIGN, part);
        rmSync(path.join(part, 'usr/share/doc'), { recursive: true, force: true });
        return;
      } catch (e) {
        problems.push(e instanceof Error ? e.message : String(e));
      }
    }
    throw new Error(problems.join('\n'));
  });

/** Of QEMU 10 alone (10 MB fetched, 60 MB in the cache). */
const RISCV = 'qemu-system-riscv64';
const riscvDir = (): Promise<string> =>
  cached('qemu-10-riscv', async (part) => {
    await (await Suite.open('bookworm-backports')).unpack(['qemu-system-riscv'], part);
    for (const d of ['doc', 'man']) rmSync(path.join(part, 'usr/share', d), { recursive: true, force: true });
  });
const isRiscv = (name: QemuName, program?: string): boolean => name === '10' && program === RISCV;

/**
 * The programs of a build for other machines: qemu-system-aarch64, qemu-system-ppc64, qemu-system-s390x. Those of 10 and 11
 * use libraries and firmware of the x86 build.
 * @param program qemu-system-riscv64 of QEMU 10 comes alone
 */
export async function foreignQemu(name: QemuName, program?: string): Promise<QemuBuild> {
  const base = await qemu(name);
  if (name === '7.2') return base;
  const dir = isRiscv(name, program) ? await riscvDir() : await foreignDir(name);
  const root = name === '11' ? '/host' : '/';
  const firmware = ['usr/share/qemu', 'usr/share/seabios'].flatMap((d) => ['-L', path.join(root, d)]);
  if (name === '11') {
    const prefix = base.argv('true').slice(0, -1);
    return {
      ...base,
      argv: (program, args = []) => [prefix[0]!, ...prefix.slice(1), path.join(dir, 'usr/bin', program), ...firmware, ...args],
    };
  }
  return { ...base, argv: (program, args = []) => [path.join(dir, 'usr/bin', program), ...firmware, ...args] };
}

/** Runs programs of s390x, the one big-endian architecture of Debian. */
const EMULATOR = 'qemu-s390x-static';
const BIG_ENDIAN = 'qemu-big-endian';

/**
 * A QEMU 10 (or newer) that is itself a big-endian program, with qemu-system-x86_64, qemu-system-s390x and qemu-img: Debian's for s390x with
 * its libraries (38 MB fetched, 160 MB in the cache), run by the user emulation of `.ci/packages`.
 */
export async function bigEndianQemu(): Promise<QemuBuild> {
  const emulator = which(EMULATOR);
  if (!emulator) throw new Error(`${EMULATOR} is not installed; the lab needs the packages that .ci/packages names`);
  const dir = await cached(BIG_ENDIAN, async (part) => {
    const packages = ['qemu-system-x86', 'qemu-system-s390x', 'qemu-utils'];
    // A mirror may lack packages that its index names, for an architecture that few ask for; sid has others.
    const unpack = async (suite: string) => (await Suite.open(suite, 's390x')).unpack(packages, part, { closure: true });
    await unpack('trixie').catch((err: unknown) => {
      console.error(`big-endian QEMU from sid: ${String(err).slice(-200)}`);
      return unpack('sid');
    });
    for (const d of ['doc', 'man', 'locale']) rmSync(path.join(part, 'usr/share', d), { recursive: true, force: true });
    // The loader's path; base-files, which has such links, is no dependency.
    symlinkSync('usr/lib', path.join(part, 'lib'));
  });
  const firmware = ['usr/share/qemu', 'usr/share/seabios'].flatMap((d) => ['-L', path.join(dir, d)]);
  return {
    argv: (program, args = []) => [
      ...([emulator, '-L', dir, path.join(dir, 'usr/bin', program)] as const),
      ...(program.startsWith('qemu-system-') ? firmware : []),
      ...args,
    ],
    env: {},
    hostRoot: '/',
    identity: dir,
  };
}

/** The build called `name`. Rejects when the packages of .ci/packages that it needs are not installed. */
export async function qemu(name: QemuName = '10'): Promise<QemuBuild> {
  if (name === '11') return qemu11();
  if (!existsSync(INSTALLED)) {
    throw new Error('QEMU is not installed; the lab needs the packages that .ci/packages names');
  }
  if (name === '10') return qemu10();
  return { argv: (program, args = []) => [path.join('/usr/bin', program), ...args], env: {}, hostRoot: '/', identity: INSTALLED };
}

/**
 * A build for a test of `npm test`: undefined, with the reason listed, when it is not here, because plain tests fetch
 * nothing. Under VIOCTL_NO_SKIP=1 it is made.
 */
export async function qemuForTest(name: QemuName, what: string): Promise<QemuBuild | undefined> {
  const missing = whyNot(name, false);
  if (missing) skip(what, missing);
  return missing ? undefined : qemu(name);
}

/** As qemuForTest, for a program of another machine than x86. */
export async function foreignQemuForTest(name: QemuName, program: string, what: string): Promise<QemuBuild | undefined> {
  const missing =
    name === '7.2' && !existsSync(path.join('/usr/bin', program)) ? `${program} is not installed` : whyNot(name, true, program);
  if (missing) skip(what, missing);
  return missing ? undefined : foreignQemu(name, program);
}

/** As qemuForTest, for the big-endian build. */
export async function bigEndianQemuForTest(what: string): Promise<QemuBuild | undefined> {
  const missing = !which(EMULATOR)
    ? `${EMULATOR} is not installed`
    : existsSync(path.join(cacheRoot(), BIG_ENDIAN))
      ? undefined
      : 'the big-endian QEMU is not here; get it with: npx tsx test/vm/prefetch.ts';
  if (!missing || process.env.VIOCTL_NO_SKIP === '1') return bigEndianQemu();
  skip(what, missing);
  return undefined;
}

/** Why a build cannot be used in a plain test: it is not here, and nothing may be fetched. */
function whyNot(name: QemuName, foreign: boolean, program?: string): string | undefined {
  const needed = {
    '7.2': INSTALLED,
    '10': path.join(cacheRoot(), 'qemu-10'),
    '11': path.join(cacheRoot(), 'peer-sid'),
  };
  const how = name === '7.2' ? 'install the packages that .ci/packages names' : 'get it with: npx tsx test/vm/prefetch.ts';
  const files = [
    needed[name],
    ...(foreign && name !== '7.2' ? [path.join(cacheRoot(), isRiscv(name, program) ? 'qemu-10-riscv' : `qemu-${name}-foreign`)] : []),
  ];
  if (process.env.VIOCTL_NO_SKIP === '1' || files.every((f) => existsSync(f))) return undefined;
  return `QEMU ${name}${foreign ? ' for other machines' : ''} is not here; ${how}`;
}
