// npx tsx test/bench/uring.ts: what registered files and batching save, each against a named peer in the same run.
// Ratios count; times are of the machine and of what else runs on it. Files lie in $VIOCTL_BENCH_DIR or /var/tmp (not
// tmpfs: io_uring hands reads of tmpfs to kernel threads). On a busy machine VIOCTL_BENCH_PREFIX='chrt -r 1' gives both
// sides of each comparison the processor when they want it.
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { type File, FileTable, Ring } from '../../src/uring/index.js';

const rounds = Number(process.env.VIOCTL_BENCH_ROUNDS ?? 5);
const dir = fs.mkdtempSync(path.join(process.env.VIOCTL_BENCH_DIR ?? '/var/tmp', 'vioctl-bench-'));
const program = path.resolve(import.meta.dirname, '..', '..', 'bin', 'run.js');
const prefix = (process.env.VIOCTL_BENCH_PREFIX ?? '').split(' ').filter((word) => word !== '');
let failed = false;

const median = (values: number[]): number => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)]!;
const spread = (values: number[], digits = 2): string =>
  `${median(values).toFixed(digits)} (${Math.min(...values).toFixed(digits)}..${Math.max(...values).toFixed(digits)})`;

/** One line, and whether the goal is met. */
function judge(what: string, ratio: number, goal: number, text: string): void {
  const met = ratio >= goal;
  failed ||= !met;
  console.log(`${met ? 'met   ' : 'MISSED'} ${what}: ${ratio.toFixed(2)}x (goal ${goal}x) ${text}`);
}

/** CPU microseconds per operation of each way, all ways in every round. */
async function cpuPerOp(ways: Record<string, () => Promise<void>>, ops: number): Promise<Record<string, number[]>> {
  const results: Record<string, number[]> = Object.fromEntries(Object.keys(ways).map((name) => [name, []]));
  for (let round = -1; round < rounds; round++) {
    for (const [name, run] of Object.entries(ways)) {
      const before = process.cpuUsage();
      await run();
      const { user, system } = process.cpuUsage(before);
      if (round >= 0) results[name]!.push((user + system) / ops);
    }
  }
  return results;
}

/** Cached 4 KiB reads from JavaScript: fs.read with a callback against the ring, at a queue depth. */
async function cachedReads(): Promise<void> {
  const file = path.join(dir, 'cached');
  fs.writeFileSync(file, Buffer.alloc(16 << 20, 1));
  const fd = fs.openSync(file, 'r');
  fs.readFileSync(file);
  const ring = new Ring({ entries: 64 });
  const table = new FileTable(ring);
  table.register([fd]);
  const buffers = Array.from({ length: 32 }, () => Buffer.alloc(4096));
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
  const plain: Start = (buffer, offset, done) => fs.read(fd, buffer, 0, 4096, offset, done);
  const onRing =
    (target: File): Start =>
    (buffer, offset, done) =>
      ring.read(target, buffer, offset, done);
  for (const depth of [32, 1]) {
    const result = await cpuPerOp({ fs: () => drive(depth, plain), ring: () => drive(depth, onRing(table.slot(0))) }, ops);
    const text = `CPU/op: fs.read ${spread(result.fs!)} us, ring ${spread(result.ring!)} us`;
    judge(`cached 4 KiB reads, QD${depth}, CPU against fs.read`, median(result.fs!) / median(result.ring!), 4, text);
  }
  ring.close();
  fs.closeSync(fd);
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
  for (const peer of ['sha256sum', 'cat']) {
    const ratios = wall[peer]!.map((value, i) => value / wall.sum![i]!);
    judge(
      `10,000 cold 4 KiB files: uring sum against xargs ${peer}`,
      median(ratios),
      3,
      `rounds ${spread(ratios)}; ${spread(wall.sum!, 0)} ms against ${spread(wall[peer]!, 0)} ms`,
    );
  }
  const warm = wall.sum!.map(() => timed(ways.sha256sum!) / timed(ways.sum!));
  console.log(`       the same files cached: ${spread(warm)}x (below 1: coreutils is faster)`);
}

function syncs(): void {
  makeFiles('dirty', 3000);
  timed('sync');
  const touch = (): void => {
    for (const name of fs.readFileSync(path.join(dir, 'dirty.list'), 'utf8').split('\0')) {
      if (name !== '') fs.appendFileSync(path.join(dir, name), 'dirty');
    }
  };
  const ratios: number[] = [];
  const wholes: number[] = [];
  const times: number[][] = [[], [], []];
  for (let round = 0; round < rounds; round++) {
    const wall = [`${vioctl} sync -0 <dirty.list`, 'xargs -0 sync <dirty.list', 'sync -f dirty'].map((script, i) => {
      touch();
      const time = timed(script);
      times[i]!.push(time);
      return time;
    });
    ratios.push(wall[1]! / wall[0]!);
    wholes.push(wall[2]! / wall[0]!);
  }
  judge(
    '3,000 dirty files: uring sync against xargs sync',
    median(ratios),
    5,
    `rounds ${spread(ratios)}; ${times.map((t) => spread(t, 0)).join(', ')} ms`,
  );
  console.log(
    `       sync -f (syncfs) against uring sync: ${spread(wholes)}x (below 1: syncfs is faster; uring sync --filesystem does that)`,
  );
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
    status === 0 ? good.size / 50000 : 0,
    1,
    `${good.size} digests, at most ${fds} descriptors and ${(kib! / 1024).toFixed(0)} MiB`,
  );
}

function fixedFileGain(): void {
  const file = path.join(dir, 'cached');
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

async function main(): Promise<void> {
  try {
    await cachedReads();
    fixedFileGain();
    coldSums();
    syncs();
    manyFiles();
  } finally {
    fs.rmSync(dir, { recursive: true });
  }
  process.exitCode = failed ? 1 : 0;
}
void main();
