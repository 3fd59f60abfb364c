// Reading and extracting migration streams against cat and QEMU's analyze-migration.py, on the same file in one run.
//   npx tsx test/bench/migration.ts [SIZE_GIB…]     (default 1 4)
// The script is not part of this project: name one with VIOCTL_ANALYZE_MIGRATION=FILE, else those lines say that it is absent.
// CPU seconds are user + system of the measured process alone; files are in the page cache. Everything lies in a temporary folder.
import { execFileSync } from 'node:child_process';
import { closeSync, existsSync, mkdtempSync, openSync, readFileSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { openInput } from '../../src/migration/containers/input.js';
import { Walker } from '../../src/migration/walk.js';
import { saveIdleGuest } from '../peers/linux-guest.js';
import { TestGuest } from '../peers/migration-guest.js';
import {
  be32,
  blockList,
  cat,
  configuration,
  EOS,
  end,
  footer,
  header,
  PAGE,
  page,
  pattern,
  start,
  u8,
  zero,
} from '../support/migration.js';
import { qemu } from '../vm/qemu.js';
import { program, quick, type Row, tell } from './support/bench.js';

const dir = mkdtempSync(path.join(tmpdir(), 'vioctl-bench-'));
process.on('exit', () => rmSync(dir, { recursive: true, force: true }));
const analyze = process.env.VIOCTL_ANALYZE_MIGRATION;
/** The interpreter itself: what `python3` names may be a script around it, whose cost is not the peer's. */
const python = execFileSync('python3', ['-c', 'import sys; print(sys.executable)'], { encoding: 'utf8' }).trim();

const devices = ['virtio-net-pci', 'virtio-rng-pci', 'virtio-balloon-pci', 'qemu-xhci', 'usb-tablet', 'e1000'];

/** Devices, EOF and description of a real guest. */
async function realTail(): Promise<Buffer> {
  const file = path.join(dir, 'small');
  const guest = await TestGuest.start(await qemu('7.2'), dir, ['-M', 'q35', '-m', '16', ...devices.flatMap((d) => ['-device', d])]);
  try {
    await guest.migrate({ uri: `exec:cat > ${file}` });
  } finally {
    await guest.stop();
  }
  const input = openInput(file);
  for (const event of new Walker(input.reader).walk()) {
    if (event.type === 'section' && event.record === 'full') return readFileSync(file).subarray(Number(event.offset));
  }
  throw new Error('no device in the stream of a real guest');
}

/** A stream of `gib` GiB of RAM, `share` of the pages with content, in front of the devices of a real guest. */
function make(name: string, gib: number, share: number, tail: Buffer): string {
  const file = path.join(dir, name);
  const fd = openSync(file, 'w');
  const pages = gib * 262144;
  const put = (bytes: Buffer) => {
    for (let done = 0; done < bytes.length; ) done += writeSync(fd, bytes, done);
  };
  put(cat(header(), configuration('pc-q35-7.2'), start(2, 'ram', 4, cat(blockList(['pc.ram', pages * PAGE]), EOS)), u8(2), be32(2)));
  const content = Array.from({ length: 64 }, (_, i) => pattern(i + 1));
  for (let at = 0; at < pages; at += 4096) {
    const batch = Array.from({ length: 4096 }, (_, i) => {
      const first = at + i === 0 ? 'pc.ram' : undefined;
      return (at + i) % 100 < share * 100 ? page((at + i) * PAGE, content[i & 63]!, first) : zero((at + i) * PAGE, first);
    });
    put(cat(...batch));
  }
  put(cat(EOS, footer(2), end(2, EOS), tail));
  closeSync(fd);
  return file;
}

interface Cost {
  cpu: number;
  wall: number;
  /** MB */
  rss: number;
}

/** Cost of a command; `from` is sent through a pipe. */
function cost(argv: string[], options: { from?: string; to?: string } = {}): Cost {
  const meter =
    'import resource,subprocess,sys,time\nt=time.time()\nr=subprocess.run(sys.argv[1:],stdout=open(OUT,"wb"),stderr=subprocess.PIPE)\n' +
    'w=time.time()-t\nu=resource.getrusage(resource.RUSAGE_CHILDREN)\n' +
    'sys.stderr.write("%f %f %d %d\\n"%(u.ru_utime+u.ru_stime,w,u.ru_maxrss,r.returncode))';
  const script = `import sys\nOUT=${JSON.stringify(options.to ?? '/dev/null')}\n${meter}`;
  const line = options.from ? 'cat "$FROM" | "$PYTHON" -c "$SCRIPT" "$@" 2>&1' : '"$PYTHON" -c "$SCRIPT" "$@" 2>&1';
  const said = execFileSync('sh', ['-c', line, 'sh', ...argv], {
    encoding: 'utf8',
    env: { ...process.env, FROM: options.from ?? '', SCRIPT: script, PYTHON: python },
  });
  const [cpu, wall, rss, status] = said.trim().split('\n').at(-1)!.split(' ').map(Number) as [number, number, number, number];
  if (status !== 0) throw new Error(`${argv.join(' ')} ended with ${status}`);
  return { cpu, wall, rss: rss / 1024 };
}

/** The best of some runs: other work on the machine only ever adds. */
const best = (argv: string[], options: { from?: string; to?: string; runs?: number } = {}): Cost =>
  Array.from({ length: options.runs ?? 5 }, () => cost(argv, options)).reduce((a, b) => (a.cpu < b.cpu ? a : b));

/** Copying and extracting in turns, three times each, the disk at rest before each: the least CPU and the least time of each. */
function writing(copy: string[], extract: string[], out: string): [Cost, Cost] {
  const least = (costs: Cost[]): Cost => ({
    cpu: Math.min(...costs.map((c) => c.cpu)),
    wall: Math.min(...costs.map((c) => c.wall)),
    rss: Math.max(...costs.map((c) => c.rss)),
  });
  const rested = (argv: string[], to?: string): Cost => {
    rmSync(out, { force: true });
    execFileSync('sync', ['-f', dir]);
    return cost(argv, to === undefined ? {} : { to });
  };
  const pairs = [0, 1, 2].map(() => [rested(copy, out), rested(extract)] as const);
  rmSync(out, { force: true });
  return [least(pairs.map(([c]) => c)), least(pairs.map(([, e]) => e))];
}

const vioctl = (...args: string[]) => [process.execPath, program, 'migration', ...args];
const show = (label: string, c: Cost, more = '') =>
  console.log(`  ${label.padEnd(44)} ${c.cpu.toFixed(3)} s CPU  ${c.wall.toFixed(2)} s  ${c.rss.toFixed(0)} MB${more ? `  ${more}` : ''}`);
/** A row of one value: of the least of some runs to the least of some others, as other work on the machine only ever adds. */
const row = (what: string, value: number, goal: NonNullable<Row['goal']>, peer: string): void =>
  tell({ what, values: [value], unit: 'x', goal, peer });

async function main(): Promise<void> {
  const sizes = process.argv.slice(2).map(Number);
  const tail = await realTail();
  const node = best([process.execPath, '-e', '0'], { runs: 9 });
  show('node -e 0', node);
  const guests = [
    ...(process.argv.length > 2 ? sizes : [1, 4]).map((g) => ['full', g, 0.9] as const),
    ['idle Linux', 4, 0] as const,
    ['idle', 4, 0.05] as const,
    ['idle', 32, 0.05] as const,
  ];
  for (const [kind, gib, share] of quick ? guests.filter(([one, g]) => one === 'idle' && g === 4) : guests) {
    console.log(
      `${kind} guest of ${gib} GiB${share > 0 ? `: made here, every ${share === 0.9 ? 'page but one in ten' : 'twentieth page'} filled` : ''}`,
    );
    const file = kind === 'idle Linux' ? path.join(dir, 'stream') : make('stream', gib, share, tail);
    if (kind === 'idle Linux') await saveIdleGuest(dir, file, gib * 1024, devices);
    const cat = best(['cat', file]);
    show('cat FILE', cat);
    const label = `${kind} guest of ${gib} GiB`;
    const least = (...args: string[]): Cost => best(vioctl(...args), quick ? { runs: 3 } : {});
    const walk = least('dump', file);
    show('dump FILE', walk, `less node: ${((walk.cpu - node.cpu) / cat.cpu).toFixed(2)}x`);
    row(`${label}: dump to cat, CPU`, walk.cpu / cat.cpu, { atMost: kind === 'full' ? 0.8 : 2 }, 'cat');
    const verified = least('verify', file);
    show('verify FILE', verified, `${(verified.rss - node.rss).toFixed(0)} MB above node`);
    row(`${label}: verify to cat, CPU`, verified.cpu / cat.cpu, { atMost: kind === 'full' ? 1.5 : 3 }, 'cat');
    if (!quick) {
      const catPipe = best(['cat'], { from: file });
      show('… | cat', catPipe);
      const walkPipe = best(vioctl('dump', '-'), { from: file });
      show('… | dump -', walkPipe);
      row(`${label}: … | dump - to … | cat, CPU`, walkPipe.cpu / catPipe.cpu, { atMost: 1.5 }, 'cat');
    }
    const json = least('dump', file, '--json', '--fields');
    show('dump --json --fields', json, `${(json.rss - node.rss).toFixed(0)} MB above node`);
    const times = kind === 'full' ? 5 : 25;
    const what = `${label}: analyze-migration.py to dump --json --fields, CPU`;
    if (analyze && existsSync(analyze)) {
      const peer = best([python, analyze, '-d', 'state', '-f', file], { runs: kind === 'full' ? 2 : 5 });
      show('analyze-migration.py -d state', peer, `less node: ${(peer.cpu / (json.cpu - node.cpu)).toFixed(0)}x`);
      row(what, peer.cpu / json.cpu, { atLeast: times }, 'analyze-migration.py');
    } else tell({ what, values: [], unit: 'x', goal: { atLeast: times }, missing: 'analyze-migration.py (VIOCTL_ANALYZE_MIGRATION=FILE)' });
    if (kind === 'full') {
      const out = path.join(dir, 'out');
      const [copy, ram] = writing(['cat', file], vioctl('ram', file, '--block', 'pc.ram', '-o', out), out);
      show('cat FILE > OUT', copy);
      show(
        'ram FILE --block pc.ram -o OUT',
        ram,
        `${(ram.cpu / copy.cpu).toFixed(2)}x the CPU, ${(ram.rss - node.rss).toFixed(0)} MB above node`,
      );
      row(`${label}: ram -o OUT to cat > OUT, time`, ram.wall / copy.wall, { atMost: 1.3 }, 'cat');
    }
    rmSync(file);
  }
}

main().catch((err: unknown) => {
  console.error(err);
  process.exitCode = 1;
});
