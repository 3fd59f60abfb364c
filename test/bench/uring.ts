// npx tsx test/bench/uring.ts [PART...]: what registered files and batching save, each against a named peer in the same run.
// Ratios count; times are of the machine and of what else runs on it. Files lie in $VIOCTL_BENCH_DIR or /var/tmp (not
// tmpfs: io_uring hands reads of tmpfs to kernel threads). On a busy machine VIOCTL_BENCH_PREFIX='chrt -r 1' gives both
// sides of each comparison the processor when they want it.
import { spawn, spawnSync } from 'node:child_process';
import fs from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { Sysroot } from '../../src/common/sysroot.js';
import { syncFiles } from '../../src/uring/bulk/sync.js';
import { median, peer, program, quick, root, rounds, tell } from './support/bench.js';

/** As it is published: in one file, functions are called without a look into their module. */
const { FileTable, Op, Ring } = createRequire(import.meta.url)(
  path.join(root, 'dist', 'uring.cjs'),
) as typeof import('../../src/uring/index.js');

const dir = fs.mkdtempSync(path.join(process.env.VIOCTL_BENCH_DIR ?? '/var/tmp', 'vioctl-bench-'));
const prefix = (process.env.VIOCTL_BENCH_PREFIX ?? '').split(' ').filter((word) => word !== '');

/** CPU and wall of each way, one value of each round. */
type Both = Record<string, { cpu: number[]; wall: number[] }>;

const spread = (values: number[], digits = 2): string =>
  `${median(values).toFixed(digits)} (${Math.min(...values).toFixed(digits)}..${Math.max(...values).toFixed(digits)})`;

/** A row of the table, and what else is known about it. */
function judge(what: string, ratios: number[], goal: number, text: string): void {
  tell({ what, values: ratios, unit: 'x', ...(goal > 0 && { goal: { atLeast: Number(goal.toPrecision(3)) } }) });
  console.log(`       ${text}`);
}

/** CPU and wall microseconds per operation of each way, all ways in every round (and a first that does not count). */
async function perOp(ways: Record<string, () => Promise<void>>, ops: number): Promise<Both> {
  const results: Both = Object.fromEntries(Object.keys(ways).map((name) => [name, { cpu: [], wall: [] }]));
  for (let round = -1; round < rounds; round++) {
    for (const [name, run] of Object.entries(ways)) {
      const start = performance.now();
      const before = process.cpuUsage();
      await run();
      const { user, system } = process.cpuUsage(before);
      if (round < 0) continue;
      results[name]!.cpu.push((user + system) / ops);
      results[name]!.wall.push(((performance.now() - start) * 1000) / ops);
    }
  }
  return results;
}

/** What a way through the ring saves against node:fs: CPU, and wall. */
function judgeBoth(what: string, name: string, result: Both, goal: number): void {
  for (const measure of ['cpu', 'wall'] as const) {
    const [theirs, ours] = [result.fs![measure], result.fixed![measure]];
    const ratios = theirs.map((value, i) => value / ours[i]!);
    const label = measure === 'cpu' ? 'CPU' : measure;
    judge(
      `${what}, ${label} against ${name}`,
      ratios,
      goal,
      `rounds ${spread(ratios)}; ${label}/op: ${name} ${spread(theirs)} us, ring ${spread(ours)} us`,
    );
  }
}

/** Cached 4 KiB reads and writes from JavaScript: node:fs with callbacks against the ring, at a queue depth. */
async function cachedBlocks(): Promise<void> {
  // How the page cache holds a file follows how it was written (ext4 since 6.16). Written at once, as a copy is, it lies in folios of up to 2 MiB:
  // a read finds its page sooner (0.2 us), but a write of 4 KiB walks all buffer heads of its folio (5 us), whoever asks. A file that programs
  // overwrite in blocks was written in blocks.
  const size = 16 << 20;
  const [whole, inBlocks] = [size, 4096].map((step) => {
    const fd = fs.openSync(path.join(dir, `cached-${step}`), 'w+');
    for (let at = 0; at < size; at += step) fs.writeSync(fd, Buffer.alloc(step, 1), 0, step, at);
    return fd;
  }) as [number, number];
  const ring = new Ring({ entries: 64 });
  const table = new FileTable(ring);
  table.register([whole, inBlocks]);
  const memory = Buffer.alloc(32 * 4096); // the same buffers for every way
  ring.registerBuffers([memory]);
  const buffers = Array.from({ length: 32 }, (_, i) => memory.subarray(i * 4096, (i + 1) * 4096));
  const ops = 20000;
  type Start = (buffer: Buffer, offset: number, done: () => void) => void;
  const drive = (depth: number, start: Start): Promise<void> =>
    new Promise((resolve) => {
      let left = ops;
      let active = 0;
      const next = (buffer: Buffer): void => {
        left--;
        active++;
        start(buffer, ((left * 7919) % 4096) * 4096, () => {
          active--;
          if (left > 0) next(buffer);
          else if (active === 0) resolve();
        });
      };
      for (let i = 0; i < depth; i++) next(buffers[i]!);
    });
  const plain: Start = (buffer, offset, done) => fs.read(whole, buffer, 0, 4096, offset, done);
  const [toRead, toWrite] = [table.slot(0), table.slot(1)];
  const onRing: Start = (buffer, offset, done) => ring.read(toRead, buffer, offset, done);
  const fixed: Start = (buffer, offset, done) => ring.readFixed(toRead, buffer, 0, offset, done);
  const nothing: Start = (_, __, done) => ring.push({ opcode: Op.nop }, done);
  const inLine = async (): Promise<void> => {
    for (let i = 0; i < ops; i++) fs.readSync(whole, buffers[i % 32]!, 0, 4096, ((i * 7919) % 4096) * 4096);
  };
  for (const depth of [32, 1]) {
    const ways = { fs: plain, ring: onRing, fixed, nop: nothing };
    const runs = Object.entries(ways).map(([name, start]) => [name, () => drive(depth, start)] as const);
    const result = await perOp({ ...Object.fromEntries(runs), sync: inLine }, ops);
    judgeBoth(`cached 4 KiB reads, QD${depth}`, 'fs.read', result, depth === 1 ? 6 : 4);
    const { ring, sync, nop } = result as Record<string, { cpu: number[] }>;
    console.log(
      `       CPU/op: without registered buffers ${spread(ring!.cpu)} us; fs.readSync ${spread(sync!.cpu)} us; a NOP through the ring ${spread(nop!.cpu)} us: the rest is the kernel's read`,
    );
  }
  const writes: Record<string, Start> = {
    fs: (buffer, offset, done) => fs.write(inBlocks, buffer, 0, 4096, offset, done),
    fixed: (buffer, offset, done) => ring.writeFixed(toWrite, buffer, 0, offset, done),
  };
  for (const depth of [32, 1]) {
    const runs = Object.entries(writes).map(([name, start]) => [name, () => drive(depth, start)] as const);
    const sync = async (): Promise<void> => {
      for (let i = 0; i < ops; i++) fs.writeSync(inBlocks, buffers[i % 32]!, 0, 4096, ((i * 7919) % 4096) * 4096);
    };
    const result = await perOp({ ...Object.fromEntries(runs), sync }, ops);
    judgeBoth(`4 KiB writes, QD${depth}`, 'fs.write', result, 2);
    const floor = result.fs!.cpu.map((value, i) => value / result.sync!.cpu[i]!);
    console.log(
      `       CPU/op of fs.writeSync ${spread(result.sync!.cpu)} us: the write(2) of fs.writeSync alone leaves a ratio of ${spread(floor)}`,
    );
  }
  ring.close();
  fs.closeSync(whole);
  fs.closeSync(inBlocks);
}

/** Runs a shell script; wall milliseconds. */
function timed(script: string): number {
  const start = performance.now();
  const [command = 'sh', ...words] = [...prefix, 'sh', '-c', script];
  const { status, stderr } = spawnSync(command, words, { cwd: dir, encoding: 'utf8', maxBuffer: 1 << 28 });
  if (status !== 0) throw new Error(`${script}: ${status} ${stderr}`);
  return performance.now() - start;
}

/** Files of 4 KiB in folders of 100; their names, NUL-separated, in `${name}.list`. */
function makeFiles(name: string, count: number): void {
  const names: string[] = [];
  for (let i = 0; i < count; i++) {
    const folder = path.join(name, String(i % 100));
    if (i < 100) fs.mkdirSync(path.join(dir, folder), { recursive: true });
    names.push(path.join(folder, String(i)));
    fs.writeFileSync(path.join(dir, names[i]!), Buffer.alloc(4096, `${i} `));
  }
  fs.writeFileSync(path.join(dir, `${name}.list`), `${names.join('\0')}\0`);
}

const python =
  'import os,sys\nfor n in open(sys.argv[1],"rb").read().split(b"\\0"):\n  if n:\n    f=os.open(n,os.O_RDONLY); os.posix_fadvise(f,0,0,os.POSIX_FADV_DONTNEED); os.close(f)';
/** Drops the files' data from the page cache (their inodes stay). */
const cool = (name: string): void => {
  const { status, stderr } = spawnSync('python3', ['-c', python, `${name}.list`], { cwd: dir, encoding: 'utf8' });
  if (status !== 0) throw new Error(stderr);
};

const vioctl = `"${process.execPath}" "${program}" uring`;
/** What any program in node pays before its first line runs. */
const nodeStart = (): number => timed(`"${process.execPath}" -e 0`);
/** A ratio as it is, and with node's start taken off our side: what a long list tends to. */
function judgeWall(what: string, ours: number[], theirs: number[], starts: number[], goal: number): void {
  const ratios = theirs.map((value, i) => value / ours[i]!);
  const without = theirs.map((value, i) => value / (ours[i]! - median(starts)));
  const text = `rounds ${spread(ratios)}; ${spread(ours, 0)} ms against ${spread(theirs, 0)} ms`;
  judge(what, ratios, goal, `${text}; less node's start (${spread(starts, 0)} ms): ${spread(without)}x`);
}

/** CPU and wall milliseconds of a script and all that it starts, and of its other way, in turns. */
function paired(ways: Record<string, string>, before = (): void => {}): Both {
  const results: Both = Object.fromEntries(Object.keys(ways).map((name) => [name, { cpu: [], wall: [] }]));
  for (let round = 0; round < rounds; round++)
    for (const [name, script] of Object.entries(ways)) {
      before();
      // times(1) of the shell: its own and its children's, user and system
      const [command = 'bash', ...words] = [...prefix, 'bash', '-c', `{ ${script}\n} >&2; times`];
      const start = performance.now();
      const { status, stdout, stderr } = spawnSync(command, words, { cwd: dir, encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] });
      if (status !== 0) throw new Error(`${script}: ${status} ${stderr}`);
      results[name]!.wall.push(performance.now() - start);
      results[name]!.cpu.push(
        [...stdout.matchAll(/(\d+)m([\d.]+)s/g)].reduce(
          (sum, [, minutes, seconds]) => sum + Number(minutes) * 60_000 + Number(seconds) * 1000,
          0,
        ),
      );
    }
  return results;
}

/** How much more a peer takes than we do; `goal` below 1 allows us to take more. */
function against(what: string, result: Both, peer: string, measure: 'cpu' | 'wall', goal: number): void {
  const [ours, theirs] = [result.ours![measure], result[peer]![measure]];
  const ratios = theirs.map((value, i) => value / ours[i]!);
  judge(`${what}: ${measure} of ${peer}`, ratios, goal, `rounds ${spread(ratios)}; ${spread(ours, 0)} ms against ${spread(theirs, 0)} ms`);
}

/** Large files: BLAKE3 of many and of one, and cat. */
function largeFiles(): void {
  fs.mkdirSync(path.join(dir, 'large'));
  for (let i = 0; i < 100; i++) fs.writeFileSync(path.join(dir, 'large', String(i)), Buffer.alloc(8_000_000, `${i} `));
  const many = paired({ ours: `${vioctl} sum -a blake3 large/*`, b3sum: 'b3sum large/*' });
  against('blake3 of 100 files of 8 MB', many, 'b3sum', 'cpu', 1 / 1.5);
  against('blake3 of 100 files of 8 MB', many, 'b3sum', 'wall', 1 / 1.5);
  fs.rmSync(path.join(dir, 'large'), { recursive: true });
  timed('head -c 4000000000 /dev/zero | tr "\\0" x >huge');
  // One file is summed by one thread here.
  const one = paired({ ours: `${vioctl} sum -a blake3 huge`, b3sum: 'b3sum --num-threads 1 huge', 'b3sum of all threads': 'b3sum huge' });
  against('blake3 of one file of 4 GB, one thread', one, 'b3sum', 'cpu', 1 / 1.5);
  against('blake3 of one file of 4 GB, one thread', one, 'b3sum', 'wall', 1 / 1.5);
  against('blake3 of one file of 4 GB', one, 'b3sum of all threads', 'wall', 0);
  timed('truncate -s 3000000000 huge');
  for (const to of ['>/dev/null', '| cat >/dev/null']) {
    const result = paired({ ours: `${vioctl} cat huge ${to}`, cat: `cat huge ${to}` });
    against(`cat of 3 GB ${to}`, result, 'cat', 'cpu', 1 / 1.3);
    against(`cat of 3 GB ${to}`, result, 'cat', 'wall', 0);
  }
  fs.rmSync(path.join(dir, 'huge'));
}

/** 20,000 small files that are not in the page cache: sums, and lists that are checked. */
function coldLists(): void {
  makeFiles('chilly', 20000);
  timed('xargs -0 sha256sum <chilly.list >chilly.sums; sync');
  const sums = paired(
    {
      ours: `${vioctl} sum -0 <chilly.list`,
      sha256sum: 'xargs -0 sha256sum <chilly.list',
      b3sum: 'xargs -0 b3sum <chilly.list',
      'xargs -P': 'xargs -0 -P 8 -n 250 sha256sum <chilly.list',
    },
    () => cool('chilly'),
  );
  against('20,000 cold files', sums, 'sha256sum', 'wall', 3);
  for (const peer of ['b3sum', 'xargs -P']) against('20,000 cold files', sums, peer, 'wall', 1.3);
  const checks = paired({ ours: `${vioctl} sum --check --quiet chilly.sums`, 'sha256sum -c': 'sha256sum -c --quiet chilly.sums' }, () =>
    cool('chilly'),
  );
  against('--check of 20,000 cold files', checks, 'sha256sum -c', 'wall', 3);
  for (const peer of ['sha256sum', 'b3sum']) against('20,000 cold files', sums, peer, 'cpu', 0);
}

function coldSums(): void {
  makeFiles('cold', 10000);
  timed('sync');
  const ways: Record<string, string> = {
    sum: `${vioctl} sum -0 <cold.list >sum.out`,
    sha256sum: 'xargs -0 sha256sum <cold.list >xargs.out',
    cat: 'xargs -0 cat <cold.list >cat.out',
  };
  const wall: Record<string, number[]> = { sum: [], sha256sum: [], cat: [] };
  for (let round = 0; round < rounds; round++)
    for (const [name, script] of Object.entries(ways)) {
      cool('cold');
      wall[name]!.push(timed(script));
    }
  timed('sort sum.out >a; sort xargs.out >b; cmp a b');
  const starts = wall.sum!.map(nodeStart);
  for (const peer of ['sha256sum', 'cat'])
    judgeWall(`10,000 cold 4 KiB files: uring sum against xargs ${peer}`, wall.sum!, wall[peer]!, starts, 3);
  const warm = wall.sum!.map(() => timed(ways.sha256sum!) / timed(ways.sum!));
  console.log(`       the same files cached: ${spread(warm)}x (below 1: coreutils is faster)`);
}

/** The same work inside a running process: what a service that uses the engine sees. Wall milliseconds. */
async function syncHere(): Promise<number> {
  const names = fs
    .readFileSync(path.join(dir, 'dirty.list'), 'utf8')
    .split('\0')
    .filter((name) => name !== '');
  const source = (async function* () {
    yield names.map((name) => path.join(dir, name));
  })();
  const options = { engine: 'uring', depth: 256, data: false, ordered: false, sysroot: new Sysroot(), note: () => {} } as const;
  const start = performance.now();
  for await (const batch of syncFiles(source, options)) for (const { error } of batch) if (error !== undefined) throw new Error(error);
  return performance.now() - start;
}

async function syncs(): Promise<void> {
  makeFiles('dirty', 3000);
  timed('sync');
  const touch = (): void => {
    for (const name of fs.readFileSync(path.join(dir, 'dirty.list'), 'utf8').split('\0')) {
      if (name !== '') fs.appendFileSync(path.join(dir, name), 'dirty');
    }
  };
  const perFile = `${vioctl} sync -0 <dirty.list`;
  const xargs = 'xargs -0 sync <dirty.list';
  const measured = (scripts: string[]): number[][] => {
    const times: number[][] = scripts.map(() => []);
    for (let round = 0; round < rounds; round++)
      scripts.forEach((script, i) => {
        touch();
        times[i]!.push(timed(script));
      });
    return times;
  };
  const [ours, theirs, whole] = measured([perFile, xargs, `${vioctl} sync -0 --filesystem <dirty.list`]) as [number[], number[], number[]];
  const here: number[] = [];
  for (let round = 0; round < rounds; round++) {
    touch();
    here.push(await syncHere());
  }
  const starts = ours.map(nodeStart);
  judgeWall('3,000 dirty files: uring sync against xargs sync', ours, theirs, starts, 5);
  console.log(`       inside a running process: ${spread(here, 0)} ms, ${spread(theirs.map((value, i) => value / here[i]!))}x`);
  judgeWall('3,000 dirty files: uring sync --filesystem against xargs sync', whole, theirs, starts, 5);
  // Most hosts have somebody else who commits the journal.
  const other = `const fd = fs.openSync(${JSON.stringify(path.join(dir, 'other'))}, 'w'); for (;;) { fs.writeSync(fd, 'x'); fs.fsyncSync(fd); }`;
  const neighbour = spawn(process.execPath, ['-e', other], { stdio: 'ignore', timeout: 600_000 });
  try {
    const [busy, busyTheirs] = measured([perFile, xargs]) as [number[], number[]];
    judgeWall('3,000 dirty files beside a program that appends and fsyncs', busy, busyTheirs, starts, 5);
  } finally {
    neighbour.kill('SIGKILL');
  }
}

function manyFiles(): void {
  makeFiles('many', 50000);
  const script = `${vioctl} sum -0 --ndjson <many.list >many.out & pid=$!; most=0; mem=0
    while kill -0 $pid 2>/dev/null; do n=$(ls /proc/$pid/fd 2>/dev/null | wc -l); m=$(awk '/VmRSS/{print $2}' /proc/$pid/status 2>/dev/null)
    [ "\${n:-0}" -gt $most ] && most=$n; [ "\${m:-0}" -gt $mem ] && mem=$m; sleep 0.02; done; wait $pid && echo "$most $mem"`;
  const { status, stdout } = spawnSync('sh', ['-c', script], { cwd: dir, encoding: 'utf8' });
  const rows = fs.readFileSync(path.join(dir, 'many.out'), 'utf8').trimEnd().split('\n');
  const good = new Set(
    rows
      .map((row) => JSON.parse(row))
      .filter((row) => row.size === 4096 && row.digest)
      .map((row) => row.path),
  );
  const [fds, kib] = stdout.trim().split(' ').map(Number);
  judge(
    '50,000 files: all read, none lost',
    [status === 0 ? good.size / 50000 : 0],
    1,
    `${good.size} digests, at most ${fds} descriptors and ${(kib! / 1024).toFixed(0)} MiB`,
  );
}

function fixedFileGain(): void {
  const file = path.join(dir, 'cached');
  fs.writeFileSync(file, Buffer.alloc(16 << 20, 1));
  for (const size of [4096, 512]) {
    const { stdout } = spawnSync('sh', ['-c', `${vioctl} bench --json --size ${size} --rounds 11 "${file}"`], { encoding: 'utf8' });
    const { ways } = JSON.parse(stdout) as {
      ways: { name: string; cpu: number; cpuMin: number; cpuMax: number; ratio: number; ratioMin: number; ratioMax: number }[];
    };
    for (const way of ways)
      console.log(
        `       ${size} bytes QD32 ${way.name.padEnd(12)} ${way.cpu.toFixed(2)} us (${way.cpuMin.toFixed(2)}..${way.cpuMax.toFixed(2)}), x pread ${way.ratio.toFixed(2)} (${way.ratioMin.toFixed(2)}..${way.ratioMax.toFixed(2)})`,
      );
  }
}

/** What runs: all, or the parts named as arguments. */
const parts: Record<string, () => void | Promise<void>> = {
  blocks: cachedBlocks,
  fixed: fixedFileGain,
  large: largeFiles,
  lists: coldLists,
  cold: coldSums,
  syncs,
  many: manyFiles,
};
const chosen = process.argv.length > 2 ? process.argv.slice(2) : quick ? ['blocks'] : [];

/** Parts that compare with b3sum as well. */
const withB3sum = ['large', 'lists'];

async function main(): Promise<void> {
  try {
    for (const [name, run] of Object.entries(parts)) {
      if (chosen.length > 0 && !chosen.includes(name)) continue;
      if (withB3sum.includes(name) && peer('b3sum') === undefined) tell({ what: name, values: [], unit: 'x', missing: 'b3sum' });
      else await run();
    }
  } finally {
    fs.rmSync(dir, { recursive: true });
  }
}
void main();
