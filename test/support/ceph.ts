/** A Ceph cluster of the tests on this host: one monitor, one manager, OSDs on loopback. */
import { spawn, spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { freePort } from '../vm/devices.js';
import { which } from './skip.js';

/** A program of a cluster that is not installed, if any. */
export const cephMissing = (): string | undefined =>
  ['ceph-mon', 'ceph-mgr', 'ceph-osd', 'rbd'].find((program) => which(program) === undefined);

/** Without the runtime of the sanitiser: Ceph's programs are not to be looked at. */
const env = (): NodeJS.ProcessEnv => ({ ...process.env, LD_PRELOAD: '' });
// benches are ES modules, tests and soak tests CommonJS
const script = path.resolve(import.meta.dirname ?? __dirname, 'programs', 'ceph-one-node.sh');

export interface CephOptions {
  /** Each has a copy of everything. Default: 1. */
  osds?: 1 | 3;
  /** Where OSDs keep data: in memory, lost with the process, or in a file that outlives kill -9. Default: memory. */
  store?: 'memstore' | 'bluestore';
}

/** A daemon of a cluster. */
export type Daemon = 'mon' | 'mgr' | 'osd' | 'osd1' | 'osd2';

export class Ceph {
  readonly dir: string;
  readonly daemons: readonly Daemon[];

  private constructor(dir: string, osds: number) {
    this.dir = dir;
    this.daemons = ['osd', ...(osds === 3 ? (['osd1', 'osd2'] as const) : []), 'mgr', 'mon'];
  }

  /** A cluster with the pool `rbd`, whose image `disk` has 64 MiB. @throws Error with what its programs said */
  static async start({ osds = 1, store = 'memstore' }: CephOptions = {}): Promise<Ceph> {
    const ceph = new Ceph(fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-ceph-')), osds);
    const port = await freePort();
    const child = spawn('bash', [script, ceph.dir, `${port}`, `${osds}`, store], {
      ...{ env: env(), stdio: ['ignore', 'ignore', 'pipe'], timeout: 280_000 },
    });
    let said = '';
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      said += text;
    });
    // its daemons keep the script's standard error open
    const status = await new Promise((resolve) => child.once('exit', resolve));
    child.stderr.destroy();
    if (status === 0) return ceph;
    ceph.stop();
    throw new Error(`no cluster: status ${status}: ${said}`);
  }

  get conf(): string {
    return path.join(this.dir, 'ceph.conf');
  }

  /** Runs `rbd` or `ceph`. @returns its standard output @throws Error if it fails */
  run(program: 'rbd' | 'ceph', ...args: string[]): string {
    const result = spawnSync(program, ['-c', this.conf, ...args], { env: env(), encoding: 'utf8', timeout: 30_000 });
    if (result.status !== 0) throw new Error(`${program} ${args.join(' ')}: ${result.stderr}`);
    return result.stdout;
  }

  /** Adds the client that holds the lock of an image to the blocklist. */
  fence(image: string): void {
    this.run('ceph', 'osd', 'blocklist', 'add', this.run('rbd', 'lock', 'ls', image).trim().split(/\s+/).at(-1)!);
  }

  signal(name: NodeJS.Signals, ...daemons: readonly Daemon[]): void {
    for (const daemon of daemons) process.kill(Number(fs.readFileSync(path.join(this.dir, `${daemon}.p`), 'utf8')), name);
  }

  /** Starts an OSD that was killed. One in memory comes back empty. */
  restart(daemon: Exclude<Daemon, 'mon' | 'mgr'>): void {
    const child = spawn('bash', [path.join(this.dir, `${daemon}.sh`)], { env: env(), stdio: 'ignore' });
    fs.writeFileSync(path.join(this.dir, `${daemon}.p`), String(child.pid));
  }

  /** Kills what runs and removes the folder. */
  stop(): void {
    for (const daemon of this.daemons)
      try {
        this.signal('SIGKILL', daemon);
      } catch {
        // it was never started, or has ended
      }
    fs.rmSync(this.dir, { recursive: true, force: true, maxRetries: 5 });
  }
}
