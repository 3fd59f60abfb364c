/**
 * A server over a disk that fails at random, restarted at random, under hosts whose requests have random kinds and sizes. Everything
 * that is read must be explained by what was acknowledged (storage-model.ts).
 */
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Background } from './background.js';
import { plainEnv, program, vioctl } from './cli.js';
import type { FaultDisk, Faults } from './fault-disk.js';
import { NvmeDisk, type Outcome, RingDisk, type ServedDisk } from './served-disk.js';
import { Region, SECTOR, stamped, ZERO } from './storage-model.js';

export type Kind = 'nvmf' | 'vhost-user';

export interface StormOptions {
  kind: Kind;
  engine: 'uring' | 'sync';
  /** Behind the source: `,direct=on`. */
  suffix?: string;
  /** Folder for sockets. */
  dir: string;
  disk: FaultDisk;
  /** Serve a loop device over the disk: writes are cached by the kernel, and no transfer is short. */
  loop?: boolean;
  seconds: number;
  seed: number;
  /** Of the server. */
  env?: Record<string, string>;
}

/** What a storm did, and how the longest-lived server ended compared to its beginning. */
export interface StormReport {
  requests: number;
  failed: number;
  lives: { term: number; kill: number; cut: number };
  /** Times that a failed sync was seen, and that `ctl reopen` mended it. */
  latches: number;
  reopens: number;
  grown: { seconds: number; rss: number; fds: number; threads: number };
  errors: Record<string, number>;
}

/** Bytes of the disk that a storm uses. */
export const STORM_SIZE = 8 << 20;
const LANES = 8;
const LANE_SECTORS = STORM_SIZE / SECTOR / LANES;
/** Largest request in sectors: 128 KiB. */
const LARGEST = 256;
/** An executor keeps idle threads for ten seconds. */
const LINGER = 12_000;
/** Exit statuses (CLI.md): a last flush that failed, and a device that somebody else still has. */
const [LOST, REFUSED] = [1, 3];
/** Messages of a server that is broken itself. */
const BROKEN = /INTERNAL|Assertion|Sanitizer|runtime error/;
/** Longest time that requests of a killed server may keep a device. */
const CLAIM = 20_000;

const profiles: Faults['random'][] = [
  {},
  { read_short: 0.2, write_short: 0.2 },
  { read_slow: 0.02, write_slow: 0.02, sync_slow: 0.1 },
  { read_eio: 0.03, write_eio: 0.03 },
  { write_enospc: 0.05, write_edquot: 0.05, write_short: 0.1 },
  { sync_eio: 0.1 },
  { punch_eio: 0.1, write_slow: 0.01 },
  {
    read_eio: 0.01,
    write_eio: 0.01,
    write_enospc: 0.01,
    read_short: 0.05,
    write_short: 0.05,
    read_slow: 0.01,
    sync_slow: 0.05,
    sync_eio: 0.02,
  },
];
/** Whether a request may fail. */
const failing = (profile: Faults['random']): boolean => Object.keys(profile ?? {}).some((name) => !/_(short|slow)$/.test(name));
/** Whether a sync may have failed below a server. On a device, every write is done by a sync. */
const mayLose = (profile: Faults['random'], loop: boolean): boolean =>
  Object.keys(profile ?? {}).some((name) => name.endsWith('_eio') || (loop && !/_(short|slow)$/.test(name)));
/** A loop device fills a short read with zeroes, and fails a short write. */
const withoutShort = (profile: Faults['random']): Faults['random'] =>
  Object.fromEntries(Object.entries(profile ?? {}).filter(([name]) => !name.endsWith('_short')));

/** A server of one life, with the disks of two hosts. */
interface Served {
  server: Background;
  disks: ServedDisk[];
  control: string;
}

const usage = (pid: number) => {
  const status = fs.readFileSync(`/proc/${pid}/status`, 'utf8');
  const value = (name: string): number => Number(new RegExp(`^${name}:\\s+(\\d+)`, 'm').exec(status)![1]);
  return { rss: value('VmRSS') * 1024, threads: value('Threads'), fds: fs.readdirSync(`/proc/${pid}/fd`).length };
};

class Storm {
  readonly options: StormOptions;
  readonly regions = Array.from({ length: LANES }, (_, i) => new Region(i * LANE_SECTORS, LANE_SECTORS));
  readonly report: StormReport = {
    ...{ requests: 0, failed: 0, lives: { term: 0, kill: 0, cut: 0 }, latches: 0, reopens: 0 },
    ...{ grown: { seconds: 0, rss: 0, fds: 0, threads: 0 }, errors: {} },
  };
  #stamp = 1;
  #state: number;
  #served!: Served;
  #sockets = 0;
  /** A failed flush was seen: every later one must fail. */
  #latched = false;
  /** Rises with every failed flush that is seen. */
  #losses = 0;
  /** The disk injects errors, or did while a request was under way. */
  #failing = false;
  #ending = false;
  #paused = false;
  #source: string;

  constructor(options: StormOptions) {
    this.options = options;
    this.#state = options.seed >>> 0 || 1;
    this.#source = options.disk.file;
  }

  /** Whether writes end in the page cache of a device, which is written back at any time. */
  get #cached(): boolean {
    return this.options.loop === true && !this.options.suffix?.includes('direct');
  }

  /** Uniform in [0, n). */
  #random(n: number): number {
    this.#state ^= this.#state << 13;
    this.#state ^= this.#state >>> 17;
    this.#state ^= this.#state << 5;
    return (this.#state >>> 0) % n;
  }
  #chance(p: number): boolean {
    return this.#random(1 << 20) < p * (1 << 20);
  }

  // ---- the server
  async #serve(): Promise<void> {
    const { kind, engine, suffix = '', dir, env } = this.options;
    const source = `${this.#source}${suffix}`;
    const socket = path.join(dir, `s${this.#sockets++}`);
    const listen = ['nvmf', 'serve', source, '--listen', '127.0.0.1:0', '--discovery-port', 'none', '--control', socket];
    const argv = kind === 'nvmf' ? listen : ['vhost-user', 'serve', 'blk', `${socket}=${source}`, '--control', `${socket}.ctl`];
    const [server, document] = await this.#start([...argv, '--engine', engine, '--json'], plainEnv(env));
    this.#latched = false;
    const ready = JSON.parse(document) as { listen?: { port: number }[]; subsystems?: { nqn: string }[] };
    if (kind === 'nvmf') {
      const open = () => NvmeDisk.open(ready.listen![0]!.port, ready.subsystems![0]!.nqn);
      this.#served = { server, disks: [await open(), await open()], control: socket };
    } else {
      const disk = await RingDisk.open(socket, { eventIdx: true, packed: this.#chance(0.5), num: 64 });
      this.#served = { server, disks: [disk, disk], control: `${socket}.ctl` };
    }
  }

  /** A device stays claimed by a killed server until its last request has ended. */
  async #start(argv: string[], env: NodeJS.ProcessEnv): Promise<[Background, string]> {
    for (const end = performance.now() + CLAIM; ; await sleep(100)) {
      const server = new Background([process.execPath, program, ...argv], env);
      try {
        return [server, (await server.sees(/^\{[\s\S]*\n\}\n/, 60_000))[0]];
      } catch (err) {
        if (!server.stderr.includes('IN_USE') || performance.now() > end) throw err;
        await this.#ended(server, 'SIGTERM', [REFUSED]); // has ended by itself
      }
    }
  }

  /** Ends a server, and judges how it went: nobody else looks at one that crashes while it is told to end. */
  async #ended(server: Background, signal: 'SIGTERM' | 'SIGKILL', allowed: readonly number[] = [0]): Promise<number> {
    const status = await server.stop(signal);
    const { signalCode } = server.child;
    const right = signal === 'SIGKILL' ? signalCode === signal : signalCode === null && allowed.includes(status);
    if (right && !BROKEN.test(server.stderr)) return status;
    throw new Error(
      `${signal}: ended with ${signalCode ?? `status ${status}`}, allowed ${allowed.join(', ')}:\n${server.stderr.slice(-2000)}`,
    );
  }

  #close(): void {
    for (const disk of new Set(this.#served.disks)) disk.close();
  }

  // ---- one request
  /** Whether a failure is explained: by the latch, by errors of the disk, or by the end of the server. */
  #count(what: string, outcome: Outcome, explained: boolean): void {
    this.report.requests++;
    if (outcome === 'ok') return;
    this.report.failed++;
    this.report.errors[`${what} ${outcome}`] = (this.report.errors[`${what} ${outcome}`] ?? 0) + 1;
    if (this.#ending || (outcome !== 'gone' && explained)) return;
    throw new Error(`${what}: ${outcome}, although the disk has not failed:\n${this.#served.server.stderr.slice(-2000)}`);
  }

  #lost(): void {
    this.#losses++;
    if (!this.#latched) this.report.latches++;
    this.#latched = true;
    for (const region of this.regions) region.syncFailed();
  }

  /** A request that makes data durable. @returns whether it did */
  async #durable(what: string, run: () => Promise<Outcome>): Promise<boolean> {
    const latched = this.#latched;
    const outcome = await run();
    this.#count(what, outcome, this.#failing || this.#latched);
    if (outcome === 'ok' && latched && this.#latched) throw new Error(`${what} succeeded after a sync had failed`);
    return outcome === 'ok';
  }

  async #flush(region: Region, disk: ServedDisk): Promise<boolean> {
    let outcome: Outcome = 'ok';
    const done = await this.#durable('flush', async () => (outcome = await disk.flush()));
    if (done) region.flushed();
    else if ((outcome as Outcome) !== 'gone') this.#lost();
    return done;
  }

  async #write(region: Region, disk: ServedDisk, kind: 'write' | 'zero' | 'discard'): Promise<void> {
    const count = this.#chance(0.1) ? 1 + this.#random(LARGEST) : 1 + this.#random(16);
    const at = this.#random(LANE_SECTORS - count);
    const stamp = kind === 'write' ? this.#stamp++ : ZERO;
    const [place, size] = [(region.first + at) * SECTOR, count * SECTOR];
    // A driver without FUA flushes: what it is told then may be the flush's error.
    const durable = kind === 'write' && this.#chance(0.1);
    const losses = this.#losses;
    region.begin(at, count, stamp);
    if (kind === 'discard') {
      this.#count(kind, await disk.discard(place, size), this.#failing);
      return; // a hint: zeroes, or what was there
    }
    if (durable) {
      let outcome: Outcome = 'ok';
      const data = stamped(region.first + at, count, stamp);
      const done = await this.#durable('durable write', async () => (outcome = await disk.write(place, data, true)));
      if (done) region.done(at, count, stamp, true, false);
      else if ((outcome as Outcome) !== 'gone') for (const one of this.regions) one.syncFailed();
      return;
    }
    const outcome = kind === 'zero' ? await disk.zero(place, size) : await disk.write(place, stamped(region.first + at, count, stamp));
    this.#count(kind, outcome, this.#failing);
    if (outcome === 'ok') region.done(at, count, stamp, false, losses !== this.#losses);
  }

  /** @returns what is wrong, although a lost write would explain it */
  async #read(region: Region, disk: ServedDisk): Promise<string | undefined> {
    const count = this.#chance(0.1) ? 1 + this.#random(LARGEST) : 1 + this.#random(16);
    const at = this.#random(LANE_SECTORS - count);
    const into = Buffer.alloc(count * SECTOR);
    const outcome = await disk.read((region.first + at) * SECTOR, into);
    this.#count('read', outcome, this.#failing);
    return outcome === 'ok' ? this.#verify(region, at, into) : undefined;
  }

  #verify(region: Region, at: number, data: Buffer): string | undefined {
    const wrong = region.wrong(at, data);
    if (!wrong) return undefined;
    const text = `sector ${wrong.sector} holds ${wrong.found}, allowed ${wrong.allowed.join(', ')}`;
    if (!wrong.volatile) throw new Error(text);
    return text;
  }

  /** What one user does until the phase ends. */
  async #lane(index: number): Promise<void> {
    const region = this.regions[index]!;
    const disk = this.#served.disks[index % 2]!;
    while (!this.#paused) {
      const dice = this.#random(100);
      if (dice < 45) await this.#write(region, disk, 'write');
      else if (dice < 75) {
        const suspect = await this.#read(region, disk);
        // a failed sync that nobody has been told of yet: whoever asks next must be
        if (suspect !== undefined && !this.#latched && (await this.#flush(region, disk))) throw new Error(`${suspect}; a flush succeeds`);
      } else if (dice < 93) await this.#flush(region, disk);
      else await this.#write(region, disk, dice < 97 ? 'zero' : 'discard');
      if (disk instanceof RingDisk && disk.failure) throw disk.failure;
    }
  }

  async #phase(random: Faults['random'], ms: number): Promise<void> {
    const unit = this.options.suffix?.includes('direct') ? SECTOR : 16;
    await this.options.disk.set({ random: random ?? {}, unit, slow: 0.2 });
    this.#failing = failing(random);
    this.#paused = false;
    const lanes = Promise.all(this.regions.map((_, i) => this.#lane(i)));
    lanes.catch(() => {
      this.#paused = true;
    });
    await Promise.race([sleep(ms), lanes.catch(() => {})]);
    this.#paused = true;
    await lanes;
    await this.options.disk.set({ random: {} });
    this.#failing = false;
  }

  /** After a failed sync: every host is told, and only opening the source anew ends it. */
  async #latch(again = false): Promise<void> {
    const { disks, control } = this.#served;
    for (let i = 0; i < 2; i++)
      for (const disk of disks) if ((await disk.flush()) === 'ok') throw new Error('a flush succeeds after a failed one');
    if (this.#chance(0.5)) return;
    const { kind } = this.options;
    const { status, stderr } = vioctl([kind, 'ctl', control, 'reopen', ...(kind === 'nvmf' ? ['1'] : [])], { timeout: 60_000 });
    if (status !== 0) throw new Error(`reopen: ${stderr}`);
    this.#latched = false;
    this.report.reopens++;
    for (const disk of disks) {
      if ((await disk.flush()) === 'ok') continue;
      // Pages that hosts wrote behind the failed sync may have failed in the background. A new description begins before an error that no
      // description was told of (errseq_sample), so its first sync tells of it, and thereby marks it as told: the next one does not.
      // Nothing fails any more by now, and without a page cache nothing is written in the background.
      if (!this.#cached || again) throw new Error(`a flush fails although the source was opened anew${again ? ' twice' : ''}`);
      this.#lost();
      return this.#latch(true);
    }
    for (const region of this.regions) region.flushed();
  }

  #profile(): Faults['random'] {
    const profile = profiles[this.#random(profiles.length)];
    return this.options.loop ? withoutShort(profile) : profile;
  }

  /** One server from its start to its end. @param ms 0: the rest of the time */
  async #life(ms: number): Promise<void> {
    await this.#serve();
    const began = performance.now();
    const { pid } = this.#served.server.child;
    let first: { at: number; usage: ReturnType<typeof usage> } | undefined;
    for (let left = ms; left > 0; left = ms - (performance.now() - began)) {
      const profile = this.#profile();
      await this.#phase(profile, Math.min(left, 300 + this.#random(1500)));
      // a request that made nothing durable for its host may have lost the data of others: they hear of it now
      if (!this.#latched && (await this.#served.disks[0]!.flush()) !== 'ok') {
        if (!mayLose(profile, this.options.loop === true))
          throw new Error(`a flush fails after ${JSON.stringify(profile)}: ${this.#served.server.stderr.slice(-2000)}`);
        this.#lost();
      }
      if (this.#latched) await this.#latch();
      if (!first && performance.now() - began > ms / 4) first = { at: performance.now(), usage: usage(pid!) };
    }
    if (first && ms > this.report.grown.seconds * 1000 && ms >= LINGER) {
      await sleep(LINGER);
      const last = usage(pid!);
      const { rss, fds, threads } = first.usage;
      this.report.grown = { seconds: ms / 1000, rss: last.rss - rss, fds: last.fds - fds, threads: last.threads - threads };
    }
    await this.#end();
  }

  async #end(): Promise<void> {
    const how = (['term', 'kill', 'cut'] as const)[this.#random(3)]!;
    this.report.lives[how]++;
    const latched = this.#latched;
    // the end comes while requests are under way
    this.#ending = true;
    this.#paused = false;
    const lanes = Promise.all(this.regions.map((_, i) => this.#lane(i)));
    lanes.catch(() => {});
    await sleep(this.#random(100));
    // a server that may not call its last flush done says so
    const ended = this.#ended(this.#served.server, how === 'term' ? 'SIGTERM' : 'SIGKILL', [latched ? LOST : 0]);
    ended.catch(() => {});
    this.#paused = true;
    await ended;
    for (const disk of new Set(this.#served.disks)) if (disk instanceof RingDisk) disk.lose();
    await lanes;
    this.#close();
    this.#ending = false;
    if (how === 'kill') {
      // what the kernel has not written yet may fail, and nobody is left to be told
      if (this.options.loop) for (const region of this.regions) region.syncFailed();
      return;
    }
    // what ended in order has flushed everything
    if (how === 'term' && !latched) for (const region of this.regions) region.flushed();
    await this.options.disk.powerCut();
    for (const region of this.regions) region.powerCut();
  }

  /** Reads everything, undisturbed. */
  async #verifyAll(): Promise<void> {
    if (this.options.loop) {
      // pages of a device that failed when nobody was there any more: the kernel tells the next one that syncs, and only that one
      await this.#serve();
      await this.#ended(this.#served.server, 'SIGTERM', this.#cached ? [0, LOST] : [0]);
      this.#close();
    }
    await this.#serve();
    const into = Buffer.alloc(LARGEST * SECTOR);
    for (const region of this.regions)
      for (let at = 0; at < LANE_SECTORS; at += LARGEST) {
        const outcome = await this.#served.disks[0]!.read((region.first + at) * SECTOR, into);
        const wrong = outcome === 'ok' ? this.#verify(region, at, into) : outcome;
        if (wrong !== undefined) throw new Error(`at the end: ${wrong}`);
      }
    await this.#ended(this.#served.server, 'SIGTERM');
    this.#close();
  }

  async run(): Promise<StormReport> {
    const { disk, seed, loop } = this.options;
    await disk.set({ seed });
    if (!loop) return this.#lives();
    const { stdout, stderr, status } = spawnSync('losetup', ['-f', '--show', disk.file], { encoding: 'utf8' });
    if (status !== 0) throw new Error(`losetup: ${stderr}`);
    this.#source = stdout.trim();
    try {
      return await this.#lives();
    } finally {
      spawnSync('losetup', ['-d', this.#source]);
    }
  }

  async #lives(): Promise<StormReport> {
    const ms = this.options.seconds * 1000;
    // short lives, then a long one, whose resources are compared
    const end = performance.now() + ms / 2;
    try {
      while (performance.now() < end)
        await this.#life(Math.min(200 + this.#random(Math.max(1, ms / 10)), Math.max(200, end - performance.now())));
      await this.#life(ms / 2);
      await this.#verifyAll();
    } finally {
      this.#paused = true;
      await this.#served?.server.stop('SIGKILL');
      this.#close();
    }
    return this.report;
  }
}

/** Runs a storm. Throws if data is not what it may be, a flush lies, or a request fails without a reason. */
export const storm = (options: StormOptions): Promise<StormReport> => new Storm(options).run();
