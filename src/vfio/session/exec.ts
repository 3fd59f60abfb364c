import { Exit, usage, VioError } from '../../common/errors.js';
import { printable } from '../../common/escape.js';
import type { Sysroot } from '../../common/sysroot.js';
import { formatSize } from '../../common/units.js';
import { describeFault, watchFaults } from '../../dma/faults.js';
import { apiOf, handOver } from '../../dma/handover.js';
import type { LockLimit } from '../../dma/lock-limit.js';
import type { MapSpec } from '../../dma/spec.js';
import type { HandOver } from '../../launch/handover.js';
import { native } from '../../native/index.js';
import { bind } from '../binding/bind.js';
import { Census } from '../census/census.js';
import { findDevice } from '../devices/select.js';
import { checkSignal, type Host } from '../transaction/move.js';
import { Hold } from './hold.js';
import { type Api, requireBound } from './open.js';
import { tokenFor } from './token.js';

export interface ExecOptions {
  bdfs: readonly string[];
  words: readonly string[];
  specs: readonly MapSpec[];
  api: Api;
  /** Bind the devices first, and give them back at the end. */
  bind: boolean;
  limit: LockLimit;
  /** VF token for the devices that take one. */
  token?: string | undefined;
  /** RLIMIT_MEMLOCK of the program. */
  memlock: number | undefined;
  /** Stops the bind, and what follows it before the program is ready; everything is undone. */
  signal?: AbortSignal | undefined;
}

/** All that a program is to get, ready; close() undoes it: unmap, close, unbind what was bound. */
export interface Prepared {
  program: HandOver;
  /** Reports accesses that the IOMMU blocks, by the names of the mappings, until it is closed; undefined where none can be seen. */
  watchFaults(report: (text: string) => void): { close(): void } | undefined;
  close(): Promise<void>;
}

/** Binds, opens, maps, and prepares the hand-over. @throws VioError; what was done is undone */
export async function prepareExec(host: Host, options: ExecOptions): Promise<Prepared> {
  const { words, specs } = options;
  if (words.length === 0) throw usage('no program to run', 'vioctl vfio exec BDF… -- CMD…');
  const asked = apiOf(words);
  if (asked !== undefined && options.api !== 'auto' && asked !== options.api)
    throw usage(`CMD asks for the ${asked} API, --api for ${options.api}`);
  const api = options.api === 'auto' ? (asked ?? 'auto') : options.api;
  const bdfs = [...new Set(options.bdfs.map((bdf) => findDevice(host.root, bdf).bdf))];
  const binding = options.bind
    ? await bind(host, new Census(host.root, { pid: host.pid }), { bdfs, group: true, hold: true, signal: options.signal })
    : undefined;
  let hold: Hold | undefined;
  try {
    hold = new Hold(new Census(host.root), bdfs, api, specs, options.limit, {
      untouched: asked === 'cdev' && specs.length === 0,
      token: options.token,
    });
    if (options.memlock !== undefined) setMemlock(options.memlock);
    const token = options.token ?? tokenOfAny(host.root, bdfs);
    const program = handOver(words, hold.allFds(), hold.describe(bdfs), token);
    await checkSignal(options.signal); // one that came while devices were opened is seen here
    const held = hold;
    const { mapper } = held;
    return {
      program,
      watchFaults: (report) =>
        mapper && watchFaults(host.root, new Set(bdfs), (fault) => report(describeFault(fault, mapper.nameOf(fault.address)))),
      close: async () => {
        try {
          held.close();
        } finally {
          await binding?.undo();
        }
      },
    };
  } catch (err) {
    hold?.close();
    await binding?.undo();
    throw err;
  }
}

/** The token that vioctl set for one of the devices. */
function tokenOfAny(root: Sysroot, bdfs: readonly string[]): string | undefined {
  const census = new Census(root);
  return bdfs.flatMap((bdf) => tokenFor(census, findDevice(root, bdf), undefined) ?? [])[0];
}

/** What prepareExec would do, for people. @throws VioError where it would fail at once */
export function execPlan(root: Sysroot, { bdfs, words, specs, bind }: Pick<ExecOptions, 'bdfs' | 'words' | 'specs' | 'bind'>): string[] {
  if (words.length === 0) throw usage('no program to run', 'vioctl vfio exec BDF… -- CMD…');
  const census = new Census(root);
  const lines = bdfs.map((text) => {
    const device = findDevice(root, text);
    if (bind) return `would bind the IOMMU group of ${device.bdf}, unless it is bound`;
    requireBound(census, device);
    return `would open ${device.bdf}`;
  });
  for (const { name, size, file } of specs)
    lines.push(`would map ${name}: ${file === undefined ? formatSize(size ?? 0n) : printable(file)}`);
  return [...lines, `would run ${words.map(printable).join(' ')}`];
}

function setMemlock(bytes: number): void {
  try {
    native().vfio.setMemlock(bytes);
  } catch (err) {
    throw new VioError('the limit of locked memory cannot be raised', {
      code: 'EPERM',
      exit: Exit.permission,
      hint: 'it takes root (CAP_SYS_RESOURCE)',
      cause: err,
    });
  }
}
