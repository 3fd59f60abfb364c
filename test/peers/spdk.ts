/**
 * SPDK's NVMe/TCP target and load generator. No distribution has them: VIOCTL_SPDK names a source tree that was built
 * (`configure && make`).
 */
import { spawn, spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { endsWithTests } from '../support/children.js';

const tree = process.env.VIOCTL_SPDK ?? '';
const bin = (name: string): string => path.join(tree, 'build', 'bin', name);
// its scripts are for the distribution's Python
const env = { ...process.env, PATH: `/usr/bin:${process.env.PATH}` };

/** Why SPDK cannot be used, if it cannot. */
export const noSpdk = (): string | undefined =>
  tree === '' ? 'needs VIOCTL_SPDK, a tree of SPDK that was built' : fs.existsSync(bin('nvmf_tgt')) ? undefined : `no ${bin('nvmf_tgt')}`;

export const spdkNqn = 'nqn.2016-06.io.spdk:vioctl';

/** A target whose namespace 1 has 512-byte blocks, of a file or of so many MiB of memory, on a port of loopback. */
export class SpdkTarget {
  readonly #dir: string;
  readonly #disk: string | number;
  readonly port: number;
  #child: ReturnType<typeof spawn> | undefined;

  constructor(dir: string, disk: string | number, port: number) {
    this.#dir = dir;
    this.#disk = disk;
    this.port = port;
  }

  rpc(...args: string[]): string {
    const socket = path.join(this.#dir, 'spdk.sock');
    const argv = [path.join(tree, 'scripts', 'rpc.py'), '-s', socket, '-t', '20', ...args];
    const { status, stdout, stderr } = spawnSync('python3', argv, { encoding: 'utf8', env });
    if (status !== 0)
      throw new Error(
        `rpc ${args.join(' ')}: ${stdout}${stderr}\n${fs.readFileSync(path.join(this.#dir, 'spdk.log'), 'utf8').slice(-1000)}`,
      );
    return stdout;
  }

  async start(): Promise<void> {
    const log = fs.openSync(path.join(this.#dir, 'spdk.log'), 'a');
    const argv = ['--no-huge', '-s', '1024', '-m', '0x1', '--no-pci', '-r', path.join(this.#dir, 'spdk.sock')];
    this.#child = endsWithTests(spawn(bin('nvmf_tgt'), argv, { stdio: ['ignore', log, log] }));
    fs.closeSync(log);
    for (let tries = 0; ; tries++)
      try {
        this.rpc('spdk_get_version');
        break;
      } catch (err) {
        if (tries === 300 || this.#child.exitCode !== null) throw err;
        await sleep(200);
      }
    this.rpc('nvmf_create_transport', '-t', 'TCP', '-q', '256');
    if (typeof this.#disk === 'number') this.rpc('bdev_malloc_create', String(this.#disk), '512', '-b', 'disk');
    else this.rpc('bdev_aio_create', this.#disk, 'disk', '512');
    this.rpc('nvmf_create_subsystem', spdkNqn, '-a');
    // its own identifiers are new at each start: a host does not take such a namespace for the one before
    this.rpc(
      'nvmf_subsystem_add_ns',
      spdkNqn,
      'disk',
      '-u',
      '6ba7b810-9dad-41d1-80b4-00c04fd430c8',
      '-g',
      '6BA7B8109DAD41D180B400C04FD430C8',
    );
    this.listener('add');
  }

  /** Removing it ends all connections. */
  listener(what: 'add' | 'remove'): void {
    this.rpc(`nvmf_subsystem_${what}_listener`, spdkNqn, '-t', 'tcp', '-a', '127.0.0.1', '-s', `${this.port}`);
  }

  get pid(): number {
    return this.#child!.pid!;
  }

  /** It polls: one that has nothing to do takes a processor from all others. */
  pause(on: boolean): void {
    this.#child!.kill(on ? 'SIGSTOP' : 'SIGCONT');
  }

  async kill(): Promise<void> {
    const child = this.#child;
    if (!child || child.exitCode !== null || child.signalCode !== null) return;
    const gone = new Promise((resolve) => child.once('exit', resolve));
    child.kill('SIGKILL');
    await gone;
  }
}

/** Runs spdk_nvme_perf against a target on loopback. @returns what it printed @throws Error if it fails */
export function spdkPerf(port: number, nqn: string, ...args: string[]): string {
  const where = `trtype:TCP adrfam:IPv4 traddr:127.0.0.1 trsvcid:${port} subnqn:${nqn}`;
  const argv = ['--no-huge', '-s', '256', '-c', '0x1', ...args, '-r', where];
  const { status, stdout, stderr } = spawnSync(bin('spdk_nvme_perf'), argv, { encoding: 'utf8', timeout: 120_000 });
  if (status !== 0) throw new Error(`spdk_nvme_perf ${args.join(' ')}: status ${status}: ${stdout}${stderr}`);
  return stdout;
}
