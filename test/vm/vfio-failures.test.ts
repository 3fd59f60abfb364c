/** VFIO sessions on real kernels: every way to fail that the catalogue has (session/), resets, interrupts, programs. */
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { checkJson } from '../support/schemas.js';
import { boot, devices, type GuestResult, kernelsFor, onceMore, spawnGuest } from './lab.js';
import { sessionCases } from './session/cases.js';
import { caseName } from './session/harness.js';
import { bundle } from './vfio-guest.js';

const addon = path.resolve(__dirname, '..', '..', 'build', 'native', 'release', 'vioctl.node');

/** The program that holds a device by plain ioctls. */
function holdProgram(): { mode: number; data: Buffer } {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-guest-'));
  try {
    const { status, stderr } = spawnSync('gcc', ['-O', '-o', path.join(dir, 'hold'), path.join(__dirname, 'vfio', 'hold.c')], {
      encoding: 'utf8',
    });
    if (status !== 0) throw new Error(`gcc: ${stderr}`);
    return { mode: 0o755, data: fs.readFileSync(path.join(dir, 'hold')) };
  } finally {
    fs.rmSync(dir, { recursive: true });
  }
}

/** An NVMe controller with virtual functions, 04:00.0, and a device with advanced error reporting, 05:00.0. */
const special: devices.Device = () => ({
  args: [
    ...['-device', 'pcie-root-port,id=sriov,chassis=90,slot=190,x-speed=5', '-device', 'nvme-subsys,id=lab0,nqn=lab'],
    ...[
      '-device',
      'nvme,subsys=lab0,serial=PF,bus=sriov,sriov_max_vfs=2,sriov_vq_flexible=4,sriov_vi_flexible=2,max_ioqpairs=8,msix_qsize=8',
    ],
    ...['-device', 'pcie-root-port,id=errors,chassis=91,slot=191', '-device', 'virtio-rng-pci,id=aer,bus=errors,aer=on'],
  ],
});

interface Report {
  name: string;
  error?: string;
  result?: unknown;
}

/** The kernel that also gets the cases that one is enough for. */
const fullest = '6.12';

// 6.12 has both APIs; test/vm/vfio-session opens devices on the others.
describe.each(kernelsFor([fullest]))('kernel %s', (kernel) => {
  const apis = kernel === '6.12' ? ['group', 'cdev'] : ['group'];
  let result: GuestResult;
  const reports = new Map<string, Report>();

  const session = async (): Promise<GuestResult> => {
    const guest = await spawnGuest({
      kernel,
      cmd: `node /session.cjs ${apis.join(' ')}`,
      devices: [devices.iommu({ awBits: 48 }), devices.edu(), devices.nvme(1, { port: 'x-speed=5' }), devices.bridge(), special],
      files: { '/session.cjs': await bundle('session/guest.ts'), '/tmp/hold': holdProgram() },
      env: {
        VIOCTL_ADDON: addon,
        ...(kernel === fullest && { ONCE: '1' }),
        ...(process.env.CASES !== undefined && { CASES: process.env.CASES }),
      },
      ...(kernel === '6.12' && { iommufd: true }),
      timeout: 900,
    });
    let over = false;
    // the guest asks for errors on the bus
    const inject = async () => {
      for (let done = 0; !over; await new Promise((resolve) => setTimeout(resolve, 200))) {
        const asked = guest.stdout.split('{"inject":"aer"}').length - 1;
        if (asked === done) continue;
        done = asked;
        await guest.qmp('human-monitor-command', { 'command-line': 'pcie_aer_inject_error aer COMP_TIME' });
      }
    };
    const injecting = inject();
    try {
      return await guest.wait();
    } finally {
      over = true;
      await Promise.allSettled([injecting, guest.stop()]);
    }
  };

  beforeAll(async () => {
    result = await onceMore(session);
    for (const line of result.stdout.split('\n').filter((text) => text.startsWith('{"name"'))) {
      const report = JSON.parse(line) as Report;
      reports.set(report.name, report);
    }
    if (process.env.VFIO_REPORT !== undefined)
      fs.writeFileSync(
        `${process.env.VFIO_REPORT}-${kernel}`,
        `${result.stdout}\n${result.stderr}\n${result.console}\n${result.seconds}\n`,
      );
  });

  test('the guest came to its end, without a complaint of the kernel about a bug', () => {
    expect({ status: result.status, stderr: result.status === 0 ? '' : result.stderr }).toEqual({ status: 0, stderr: '' });
    expect(result.console).not.toMatch(/BUG:|Oops/);
  });

  test.each(
    sessionCases
      .filter(({ once }) => !once || kernel === fullest)
      .flatMap((one) => one.apis.filter((api) => apis.includes(api)).map((api) => caseName(one, api))),
  )('%s', (name) => {
    if (process.env.CASES !== undefined && !reports.has(name)) return;
    expect(reports.get(name)).toBeDefined();
    expect(reports.get(name)?.error).toBeUndefined();
    if (!name.startsWith('documents of commands')) return;
    const documents = Object.values(reports.get(name)!.result as Record<string, { command: string; document: unknown }>);
    expect(documents.length).toBeGreaterThan(10);
    for (const { command, document } of documents) checkJson(command, document);
  });
});

test('without interrupt remapping: EPERM that says why, through both APIs', async () => {
  const open = (api: string) => `node bin/run.js vfio reset 00:01.0 --api ${api} --json; echo "status $?"`;
  const { stdout, stderr } = await boot({
    kernel: '6.12',
    iommufd: true,
    cmd: `node bin/run.js vfio bind 00:01.0 >&2 && ${open('group')}; ${open('cdev')}`,
    args: ['-device', 'intel-iommu,intremap=off,aw-bits=48'],
    append: 'intel_iommu=on',
    devices: [devices.edu()],
    env: { VIOCTL_ADDON: addon },
  });
  expect(stdout).toBe('status 6\nstatus 6\n');
  const errors = stderr.split('\n').filter((line) => line.startsWith('{"error"'));
  expect(errors).toHaveLength(2);
  for (const line of errors)
    expect(JSON.parse(line)).toMatchObject({
      error: {
        code: 'EPERM',
        message: expect.stringContaining('interrupts cannot be isolated (no interrupt remapping)'),
        hint: expect.stringContaining('allow_unsafe_interrupts'),
      },
    });
});
