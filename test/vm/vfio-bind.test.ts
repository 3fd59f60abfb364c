import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { buildSync } from 'esbuild';
import { boot, devices, type GuestResult, kernelsFor } from './lab.js';
import { working } from './vfio/cases.js';
import { failing } from './vfio/failures.js';
import { interruptions } from './vfio/interrupted.js';

const root = path.resolve(__dirname, '..', '..');
const addon = path.join(root, 'build', 'native', 'release', 'vioctl.node');

/** The cases and the program in one file, and the program that holds devices. */
function guestFiles(): Record<string, { mode: number; data: Buffer }> {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-guest-'));
  try {
    buildSync({
      entryPoints: [path.join(__dirname, 'vfio', 'guest.ts')],
      outfile: path.join(dir, 'guest.cjs'),
      bundle: true,
      platform: 'node',
      target: 'node20',
      format: 'cjs',
      define: { 'import.meta.dirname': '__dirname' },
      logLevel: 'warning',
    });
    const compile = (source: string, output: string, ...flags: string[]) => {
      const args = ['-O', ...flags, '-o', path.join(dir, output), path.join(__dirname, 'vfio', source)];
      const { status, stderr } = spawnSync('gcc', args, { encoding: 'utf8' });
      if (status !== 0) throw new Error(`gcc: ${stderr}`);
    };
    compile('hold.c', 'hold');
    compile('cut.c', 'cut.so', '-shared', '-fPIC');
    return {
      '/tmp/guest.cjs': { mode: 0o644, data: fs.readFileSync(path.join(dir, 'guest.cjs')) },
      '/tmp/cut.so': { mode: 0o755, data: fs.readFileSync(path.join(dir, 'cut.so')) },
      '/tmp/hold': { mode: 0o755, data: fs.readFileSync(path.join(dir, 'hold')) },
    };
  } finally {
    fs.rmSync(dir, { recursive: true });
  }
}

interface Report {
  name: string;
  error?: string;
  result?: unknown;
  ms: number;
}

/** The kernel that also gets the cases that one is enough for. */
const fullest = '6.12';
const casesOn = (kernel: string): string[] =>
  [...working, ...failing, ...interruptions].filter(({ once }) => !once || kernel === fullest).map(({ name }) => name);

// One kernel gets everything; test/vm/vfio-session binds on the others.
describe.each(kernelsFor([fullest]))('kernel %s', (kernel) => {
  let guest: GuestResult;
  const reports = new Map<string, Report>();

  beforeAll(async () => {
    guest = await boot({
      kernel,
      cmd: 'node /tmp/guest.cjs',
      files: guestFiles(),
      env: {
        VIOCTL_ADDON: addon,
        ...(kernel === fullest && { ONCE: '1' }),
        ...(process.env.CASES !== undefined && { CASES: process.env.CASES }),
      },
      devices: [devices.iommu(), devices.nvme(3), devices.bridge(), devices.edu()],
      timeout: 900, // two minutes on a machine that has nothing else to do
    });
    for (const line of guest.stdout.split('\n').filter((text) => text.startsWith('{'))) {
      const report = JSON.parse(line) as Report;
      reports.set(report.name, report);
    }
    if (process.env.VFIO_REPORT !== undefined)
      fs.writeFileSync(`${process.env.VFIO_REPORT}-${kernel}`, `${guest.stdout}\n${guest.stderr}\n${guest.console}\n${guest.seconds}\n`);
  }, 1_200_000);

  test('the guest came to its end, without a complaint of the kernel about a bug', () => {
    expect({ status: guest.status, stderr: guest.status === 0 ? '' : guest.stderr }).toEqual({ status: 0, stderr: '' });
    expect(guest.console).not.toMatch(/BUG:|Oops|WARNING: CPU/);
  });

  test.each(casesOn(kernel))('%s', (name) => {
    if (process.env.CASES !== undefined && !reports.has(name)) return;
    const report = reports.get(name);
    expect(report).toBeDefined();
    expect(report?.error).toBeUndefined();
  });
});

test('without an IOMMU: list warns, bind and doctor end with status 7, and all say why', async () => {
  const vioctl = 'node bin/run.js vfio';
  const { status, stdout, stderr } = await boot({
    kernel: '6.12',
    cmd: `modprobe nvme
for c in list 'bind 01:00.0' doctor 'show 01:00.0' 'bind 01:00.0 --dry-run'; do ${vioctl} $c; echo "status $?"; echo "-- $c" >&2; done
readlink /sys/bus/pci/devices/0000:01:00.0/driver; ls -A /run/vioctl 2>&1; echo "[$(cat /sys/bus/pci/devices/0000:01:00.0/driver_override)]"`,
    // the machine has an IOMMU that the kernel was told not to use
    args: ['-device', 'intel-iommu,intremap=on'],
    append: 'intel_iommu=off',
    devices: [devices.nvme(1)],
    timeout: 300,
  });
  expect(status).toBe(0);
  expect(stdout.match(/^status \d+$/gm)).toEqual(['status 0', 'status 7', 'status 7', 'status 0', 'status 7']);
  const why = /no IOMMU: the kernel command line has intel_iommu=off/;
  const [list, bind, , show] = stderr.split(/^-- .*\n/m);
  for (const text of [list, bind, show]) expect(text).toMatch(why);
  expect(bind).toMatch(/hint: remove intel_iommu=off from the kernel command line/);
  expect(stdout).toMatch(why); // doctor
  expect(stdout).toMatch(/^0000:01:00\.0 +nvme/m); // list prints what there is all the same
  expect(stdout).toMatch(/drivers\/nvme\n[\s\S]*\[\(null\)\]\n$/);
}, 400_000);

test('at least 25 of the cases are failures of binding', () => {
  expect([...failing, ...interruptions].filter((c) => c.failure).length).toBeGreaterThanOrEqual(25);
});
