import type { Sysroot } from '../common/sysroot.js';
import { type LockLimit, requireLockable } from './lock-limit.js';
import { memoryNeed, requireMemory } from './memory.js';
import { requirePinnable } from './pinning.js';
import type { MapSpec } from './spec.js';

/**
 * What stands in the way of mapping on this host now, before anything is taken: the limit of locked memory, file systems that
 * cannot be pinned, memory and hugepages. `dma plan` of a device, every dry run and `dma map` ask this one function.
 * @param locked bytes that will be locked in all
 * @param page the IOMMU's smallest page
 * @throws VioError: 6 for the limit, 3 for the others
 */
export function requireFeasible(
  root: Sysroot,
  specs: readonly MapSpec[],
  locked: bigint,
  page: bigint,
  limit: LockLimit | undefined,
): void {
  if (limit) requireLockable(locked, limit);
  requirePinnable(root, specs);
  requireMemory(root, memoryNeed(specs, page));
}
