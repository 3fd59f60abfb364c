// Debian packages of any suite, unpacked without installing them: apt with its own lists and cache finds and fetches,
// dpkg-deb unpacks. The mirror is the one this machine uses; versions are whatever the suite has today.
import { existsSync, mkdirSync, readdirSync, statSync, utimesSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { cached, cacheRoot, must, osRelease, withLock } from './cache.js';

const KEYRING = '/usr/share/keyrings/debian-archive-keyring.gpg';

/** The URI of the Debian mirror in this machine's own apt sources. */
async function mirror(): Promise<string> {
  const format = '$(REPO_URI) $(RELEASE) $(COMPONENT)';
  const lines = (await must(['apt-get', 'indextargets', '--format', format, 'Created-By: Packages'])).split('\n');
  const release = osRelease('VERSION_CODENAME');
  const hit = lines.map((l) => l.split(' ')).find((f) => f[1] === release && f[2] === 'main');
  if (!hit?.[0]) throw new Error(`no Debian mirror for ${release} main in this machine's apt sources`);
  return hit[0];
}

/** An apt world of its own: lists of one suite, nothing installed. */
export class Suite {
  /** Name of its cache folder and lock. */
  private readonly key: string;
  private readonly dir: string;
  private readonly architecture: string | undefined;

  private constructor(key: string, dir: string, architecture: string | undefined) {
    this.key = key;
    this.dir = dir;
    this.architecture = architecture;
  }

  /**
   * Opens a suite (bookworm-backports, sid, ...), fetching its package lists when they are not there yet or old.
   * @param architecture Debian's name of another one than this machine's
   */
  static async open(name: string, architecture?: string): Promise<Suite> {
    const key = `apt-${name}${architecture ? `-${architecture}` : ''}`;
    const dir = await cached(key, async (part) => {
      for (const d of ['lists/partial', 'cache/archives/partial']) mkdirSync(path.join(part, d), { recursive: true });
      writeFileSync(path.join(part, 'status'), '');
      writeFileSync(path.join(part, 'sources.list'), `deb [signed-by=${KEYRING}] ${await mirror()} ${name} main\n`);
      await must(['apt-get', ...Suite.options(part, architecture), 'update']);
    });
    const suite = new Suite(key, dir, architecture);
    await suite.refresh();
    return suite;
  }

  /** Fetches lists again that are a day old: the archive deletes replaced versions. */
  private async refresh(): Promise<void> {
    const stamp = path.join(this.dir, 'sources.list');
    const fresh = () => Date.now() - statSync(stamp).mtimeMs < 24 * 3600 * 1000;
    if (fresh()) return;
    await withLock(this.key, async () => {
      if (fresh()) return;
      await must(['apt-get', ...this.options(), 'update']);
      utimesSync(stamp, new Date(), new Date());
    });
  }

  private options(): string[] {
    return Suite.options(this.dir, this.architecture);
  }

  private static options(dir: string, architecture: string | undefined): string[] {
    const set: Record<string, string> = {
      'Dir::State': dir,
      'Dir::State::lists': path.join(dir, 'lists'),
      'Dir::State::status': path.join(dir, 'status'),
      'Dir::Cache': path.join(dir, 'cache'),
      'Dir::Etc::sourcelist': path.join(dir, 'sources.list'),
      'Dir::Etc::sourceparts': '/dev/null',
      'Dir::Etc::preferences': '/dev/null',
      'Dir::Etc::preferencesparts': '/dev/null',
      'APT::Sandbox::User': 'root',
      'Acquire::Languages': 'none',
      'Acquire::Retries': '3',
      ...(architecture && { 'APT::Architecture': architecture, 'APT::Architectures': architecture }),
    };
    return Object.entries(set).flatMap(([k, v]) => ['-o', `${k}=${v}`]);
  }

  /** The direct dependencies of a package, virtual ones left out. */
  async depends(name: string): Promise<string[]> {
    const out = await must(['apt-cache', ...this.options(), 'depends', '--important', name]);
    return [...out.matchAll(/^ [ |](?:Pre)?Depends: ([^<\s]+)$/gm)].map((m) => m[1] as string);
  }

  /** The version this suite offers, undefined when it has no such package. */
  async version(name: string): Promise<string | undefined> {
    const out = await must(['apt-cache', ...this.options(), 'policy', name]);
    const v = /^ {2}Candidate: (\S+)$/m.exec(out)?.[1];
    return v === '(none)' ? undefined : v;
  }

  /**
   * Fetches packages (with `closure` also all they depend on, without recommendations) and unpacks them into `into`.
   * @param options `only`: patterns of tar for the files that are wanted of large packages (`./usr/lib/debug/boot/*`)
   */
  async unpack(names: readonly string[], into: string, options: { closure?: boolean; only?: readonly string[] } = {}): Promise<string[]> {
    const debs = path.join(into, '.debs');
    mkdirSync(path.join(debs, 'partial'), { recursive: true });
    const opts = this.options();
    if (options.closure) {
      // with an empty status file "install" means everything down to libc; fetching only, so nothing is installed
      const install = ['-y', '--no-install-recommends', '--download-only', 'install'];
      await withLock(this.key, () => must(['apt-get', ...opts, '-o', `Dir::Cache::archives=${debs}`, ...install, ...names]));
    } else {
      await must(['apt-get', ...opts, 'download', ...names], { cwd: debs });
    }
    const files = readdirSync(debs).filter((f) => f.endsWith('.deb'));
    // base-files first: its links /bin -> usr/bin decide where the others land
    files.sort((a, b) => Number(b.startsWith('base-files_')) - Number(a.startsWith('base-files_')) || (a < b ? -1 : 1));
    for (const f of files) {
      const deb = path.join(debs, f);
      if (!options.only) await must(['dpkg-deb', '-x', deb, into]);
      else
        await must([
          'sh',
          '-c',
          'deb=$1; to=$2; shift 2; dpkg-deb --fsys-tarfile "$deb" | tar -x -C "$to" --wildcards "$@"',
          'sh',
          deb,
          into,
          ...options.only,
        ]);
    }
    await must(['rm', '-rf', debs]);
    return files;
  }
}

/** The first of `files` that exists below `dir`; an error that names all of them otherwise. */
export function firstExisting(dir: string, files: readonly string[]): string {
  const hit = files.map((f) => path.join(dir, f)).find((f) => existsSync(f));
  if (!hit) throw new Error(`none of ${files.join(', ')} in ${dir} (cache ${cacheRoot()})`);
  return hit;
}
