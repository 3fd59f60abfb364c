/**
 * The nvme group of blktests (https://github.com/linux-blktests/blktests) over TCP, with `vioctl nvmf serve` in the place of the kernel's
 * target: `VIOCTL_BLKTESTS=DIR npm run soak -- blktests [--kernel 6.12 | 7]… [NUMBER…]`. DIR is a checked-out tree. blktests' own
 * interface for other targets (NVME_TARGET_CONTROL) knows neither ports nor ANA states nor keys that change, so the tests get the
 * folders and attributes of nvmet instead (test/support/blktests/nvmet.ts), and run as they are.
 */
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { build } from 'esbuild';
import { peer } from '../peers/peers.js';
import { KERNELS, type KernelName, spawnGuest } from '../vm/lab.js';

type Outcome = 'passed' | 'failed' | 'not run';

/** Tests that must pass. */
const passing = (
  '003 004 005 006 008 010 014 018 019 021 022 023 025 026 027 028 029 030 031 038 040 ' +
  '041 042 043 044 045 047 048 051 052 055 057 058 060 061 062'
).split(' ');

/**
 * Why others do not run, or fail: on `kernels`, or on all. Tests of a PCI device (032-037, 039, 046, 049, 050, 053, 059, 064, 066, 067)
 * are not asked for.
 */
const reasons: readonly { test: string; outcome: Exclude<Outcome, 'passed'>; why: string; kernels?: readonly KernelName[] }[] = [
  { test: '002', outcome: 'not run', why: 'of the loop transport: 1,000 subsystems of one device, and vioctl serves a source once' },
  { test: '012', outcome: 'not run', why: 'wants disks of 350 MB, which have 32 MB here' },
  { test: '016', outcome: 'not run', why: 'of the loop transport: 1,000 namespaces of one device, and vioctl serves a source once' },
  { test: '017', outcome: 'not run', why: 'of the loop transport: 1,000 namespaces of one file, and vioctl serves a source once' },
  { test: '054', outcome: 'not run', why: 'vioctl has no reservations' },
  { test: '056', outcome: 'not run', why: 'needs a network card that takes over NVMe/TCP' },
  { test: '063', outcome: 'not run', why: 'Linux 6.12 has no secure concatenation', kernels: ['6.12'] },
  { test: '063', outcome: 'failed', why: 'vioctl has no secure concatenation', kernels: ['7'] },
  { test: '065', outcome: 'not run', why: 'Linux 6.12 does not have the attribute that it looks at', kernels: ['6.12'] },
  { test: '065', outcome: 'failed', why: 'it finds no disk of scsi_debug in this guest', kernels: ['7'] },
  { test: '068', outcome: 'failed', why: 'Linux 6.12 has no delayed removal', kernels: ['6.12'] },
  { test: '069', outcome: 'not run', why: 'needs a kernel with KASAN' },
];

const { values, positionals } = parseArgs({
  args: process.argv.slice(1).filter((arg) => arg !== '--'),
  allowPositionals: true,
  options: { kernel: { type: 'string', multiple: true, default: ['6.12', '7'] } },
});

/** The program that shows our target as nvmet. */
async function shim(to: string): Promise<void> {
  await build({
    ...{ entryPoints: ['test/support/blktests/nvmet.ts'], outfile: to, bundle: true, platform: 'node', format: 'cjs', target: 'node20' },
    ...{ external: ['*.node'], logLevel: 'error', define: { 'import.meta.dirname': JSON.stringify(process.cwd()) } },
  });
}

/** Runs tests in a guest. @returns what became of each, by its number; the worst of several variants */
async function run(kernel: KernelName, dir: string, numbers: readonly string[]): Promise<Map<string, { outcome: Outcome; why: string }>> {
  const guest = await spawnGuest({
    kernel,
    cmd: 'exec sh test/support/blktests/run.sh "$BLKTESTS" /share/nvmet.cjs $TESTS',
    share: dir,
    smp: 2,
    memory: 2048,
    timeout: 7200,
    env: {
      BLKTESTS: process.env.VIOCTL_BLKTESTS!,
      TESTS: numbers.map((one) => `nvme/${one}`).join(' '),
      PEER: (await peer('nvme-tls')).dir,
      TLSHD: (await peer(kernel === '6.12' ? 'tlshd' : 'nvme-tls')).dir,
    },
  });
  let shown = 0;
  const follow = setInterval(() => {
    process.stdout.write(guest.stdout.slice(shown));
    shown = guest.stdout.length;
  }, 500);
  try {
    const { stdout, status, stderr } = await guest.wait();
    process.stdout.write(stdout.slice(shown));
    process.stderr.write(stderr);
    if (!stdout.includes('== target ended with 0')) throw new Error(`kernel ${kernel}: status ${status}`);
    return outcomes(stdout);
  } finally {
    clearInterval(follow);
    await guest.stop();
  }
}

/** The reason behind the running time. */
const said = (lines: string): string =>
  lines
    .replace(/^ *runtime .*\n/m, '')
    .trim()
    .split('\n')[0]!
    .trim();

function outcomes(text: string): Map<string, { outcome: Outcome; why: string }> {
  const found = new Map<string, { outcome: Outcome; why: string }>();
  for (const [, number, outcome, rest] of text.matchAll(/^nvme\/(\d+) .*\[(passed|failed|not run)\]\n((?: {4}.*\n)*)/gm)) {
    const now = found.get(number!);
    if (now && now.outcome !== 'passed') continue;
    found.set(number!, { outcome: outcome as Outcome, why: said(rest!) });
  }
  return found;
}

async function main(): Promise<void> {
  const from = process.env.VIOCTL_BLKTESTS;
  if (!from) return console.log('skipped: VIOCTL_BLKTESTS names no tree of blktests');
  const kernels = values.kernel.map((name) => {
    const kernel = KERNELS.find((one) => one === name);
    if (!kernel) throw new Error(`no kernel ${name}`);
    return kernel;
  });
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-blktests-'));
  try {
    await shim(path.join(dir, 'nvmet.cjs'));
    const wanted = positionals.length > 0 ? positionals : [...new Set([...passing, ...reasons.map(({ test }) => test)])].sort();
    const lines: string[] = [];
    for (const kernel of kernels) {
      const found = await run(kernel, dir, wanted);
      for (const number of [...new Set([...wanted, ...found.keys()])].sort()) {
        const expected = reasons.find(({ test, kernels = [kernel] }) => test === number && kernels.includes(kernel)) ?? {
          outcome: 'passed' as const,
          why: '',
        };
        const { outcome, why } = found.get(number) ?? { outcome: 'not run', why: 'blktests did not say anything of it' };
        const right = outcome === expected.outcome;
        if (!right) process.exitCode = 1;
        const text = expected.why || why;
        lines.push(
          `${kernel.padEnd(5)} nvme/${number} ${outcome}${outcome === 'passed' ? '' : `: ${text}`}${right ? '' : ` (UNEXPECTED: ${why})`}`,
        );
      }
    }
    console.log(lines.join('\n'));
  } finally {
    fs.rmSync(dir, { recursive: true, force: true });
  }
}

main()
  .catch((err: Error) => {
    console.error(err);
    process.exitCode = 1;
  })
  .finally(() => process.exit());
