/** Boots a guest with devices for VFIO and runs parts of vfio-series.ts in it. */
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { build } from 'esbuild';
import { compileC } from '../support/compile.js';
import type { Device } from './devices.js';
import { boot, devices, type GuestOptions, type KernelName } from './lab.js';

/** A program of this folder as one file: compiling it in a guest would take longer than running it. */
export async function bundle(program: string): Promise<string> {
  const { outputFiles } = await build({
    entryPoints: [path.join(__dirname, program)],
    bundle: true,
    write: false,
    platform: 'node',
    target: 'node20',
    format: 'cjs',
    define: { 'import.meta.dirname': '__dirname' },
  });
  return outputFiles[0]!.text;
}

/** What a case reported; `thrown` if it ended with an error that was not expected. */
export type Case = Record<string, unknown> & { case: string };

export interface Series {
  cases: Map<string, Case>;
  seconds: number;
  stderr: string;
  stdout: string;
}

/**
 * Runs a script in a guest with an edu (00:01.0), an NVMe controller (01:00.0) and a bridge with an edu and a NIC.
 * `$SERIES` is the series' file.
 */
export async function series(
  kernel: KernelName,
  script: string,
  options: { iommufd?: boolean; iommu?: boolean; memory?: number } = {},
): Promise<Series> {
  const guest: GuestOptions = {
    kernel,
    cmd: `export VIOCTL_ADDON=$PWD/build/native/release/vioctl.node SERIES=/series.cjs\n${script}`,
    devices: [...(options.iommu === false ? [] : [devices.iommu({ awBits: 48 })]), devices.edu(), devices.nvme(1), devices.bridge()],
    files: { '/series.cjs': await bundle('vfio-series.ts') },
    ...(options.iommufd && { iommufd: true }),
    memory: options.memory ?? 1024,
    timeout: 800, // a busy machine needs many times the usual 40 s
  };
  const { stdout, stderr, seconds } = await boot(guest);
  const cases = stdout.split('\n').flatMap((line): [string, Case][] => {
    if (!line.startsWith('{"case"')) return [];
    const one = JSON.parse(line) as Case;
    return [[one.case, one]];
  });
  return { cases: new Map(cases), seconds, stderr, stdout };
}

/** Binds the edu and the NVMe controller. */
export const BIND = 'node bin/run.js vfio bind 00:01.0 01:00.0 >&2 || exit 1; chmod 666 /dev/vfio/*\n';

/**
 * A newer QEMU inside a guest, stopped, with its monitor on standard input: `monitor | … ${qemu}`.
 * @param dir folder of the peer. Its own root is not used, as entering it takes privileges; `prepare` lets everybody read it.
 */
export function qemuInGuest(dir: string): { qemu: string; prepare: string } {
  const lib = `${dir}/usr/lib/x86_64-linux-gnu`;
  const qemu = [
    ...[`${lib}/ld-linux-x86-64.so.2`, '--library-path', lib, `${dir}/usr/bin/qemu-system-x86_64`],
    ...['-L', `${dir}/usr/share/qemu`, '-L', `${dir}/usr/share/seabios`, '-M', 'q35', '-m', '64', '-nodefaults'],
    ...['-display', 'none', '-S', '-monitor', 'stdio'],
  ].join(' ');
  const prepare = [
    `d=${dir}; while [ "$d" != / ]; do chmod a+rx "$d"; d=$(dirname "$d"); done`,
    'monitor() { echo info pci; echo quit; }', // read when the machine is there
  ].join('\n');
  return { qemu, prepare };
}

const port = (id: string, n: number) => ['-device', `pcie-root-port,id=${id},chassis=${n},slot=${n}`];
/** A network card that can have seven virtual functions. */
export const igb: Device = () => ({ args: [...port('igbrp', 90), '-device', 'igb,bus=igbrp,romfile='] });
/** An NVMe controller that can have four virtual functions. QEMU gives them no queues until they are assigned: `virtMgmt`. */
export const sriovNvme: Device = () => ({
  args: [
    ...port('srrp', 91),
    ...['-device', 'nvme-subsys,id=srs'],
    ...['-device', 'nvme,serial=SR0,subsys=srs,bus=srrp,sriov_max_vfs=4,sriov_vq_flexible=8,sriov_vi_flexible=4'],
  ],
});

/** Gives queues and interrupts to four virtual NVMe controllers of nvme0, and sets them online. */
export const virtMgmt =
  'for i in 1 2 3 4; do nvme virt-mgmt /dev/nvme0 -c $i -r 0 -a 8 -n 2 && nvme virt-mgmt /dev/nvme0 -c $i -r 1 -a 8 -n 1 && nvme virt-mgmt /dev/nvme0 -c $i -a 9 || exit 1; done';

/** $P is the address of the igb, $N that of the NVMe controller, `vf PF N` that of a virtual function. */
export const SRIOV_NAMES = [
  'P=$(grep -l 0x10c9 /sys/bus/pci/devices/*/device | cut -d/ -f6)',
  'N=$(grep -l 0x010802 /sys/bus/pci/devices/*/class | cut -d/ -f6)',
  'vf() { basename $(readlink /sys/bus/pci/devices/$1/virtfn$2); }',
].join('; ');

/** Drivers loaded, and the names of SRIOV_NAMES. */
export const SRIOV_READY = `for m in vfio-pci igb igbvf nvme; do modprobe $m; done; cd $PWD\n${SRIOV_NAMES}; sleep 1`;

/** Kills at each write of a journal (vfio/killed-sriov.ts), with the files of killedSriov(). */
export const KILLED = 'VIOCTL_ADDON=$PWD/build/native/release/vioctl.node node /tmp/killed.cjs $P $N';

/** Files of a guest that runs KILLED. */
export async function killedSriov(): Promise<NonNullable<GuestOptions['files']>> {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-cut-'));
  try {
    const cut = fs.readFileSync(compileC('test/vm/vfio/cut.c', path.join(dir, 'cut.so'), ['-shared', '-fPIC']));
    return { '/tmp/cut.so': { mode: 0o755, data: cut }, '/tmp/killed.cjs': await bundle('vfio/killed-sriov.ts') };
  } finally {
    fs.rmSync(dir, { recursive: true });
  }
}

export type Steps = readonly (readonly [name: string, command: string])[];

/** Runs named commands in a guest, one after another. @returns output and status of each by its name; throws if one is missing */
export async function guestSteps(
  kernel: KernelName,
  steps: Steps,
  prepare: string,
  list: readonly Device[],
  options: Partial<GuestOptions> = {},
): Promise<(name: string) => { status: number; text: string }> {
  const { stdout, stderr } = await boot({
    kernel,
    cmd: `${prepare}\n${steps.map(([name, command]) => `echo '@@ ${name}'; ( ${command}; ) 2>&1; echo "@= $?"`).join('\n')}`,
    devices: [...list],
    timeout: 500,
    ...options,
  });
  const out = new Map<string, { status: number; text: string }>();
  for (const part of stdout.split('@@ ')) {
    const match = /^(.*)\n([\s\S]*)@= (\d+)\n$/.exec(part);
    if (match) out.set(match[1]!, { status: Number(match[3]), text: match[2]! });
  }
  const missing = steps.find(([name]) => !out.has(name));
  if (missing) throw new Error(`the guest did not come to "${missing[0]}": ${stdout.slice(-2000)}${stderr.slice(-2000)}`);
  return (name) => out.get(name)!;
}
