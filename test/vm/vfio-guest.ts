/** Boots a guest with devices for VFIO and runs parts of vfio-series.ts in it. */
import path from 'node:path';
import { build } from 'esbuild';
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
