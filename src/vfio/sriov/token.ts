import { Exit, VioError } from '../../common/errors.js';
import type { Sysroot } from '../../common/sysroot.js';
import { Census } from '../census/census.js';
import { blocking, holdersOf } from '../census/holders.js';
import type { PciDevice } from '../devices/pci.js';
import { openSession } from '../session/open.js';
import { keepToken, keptToken, newToken, tokenBytes } from '../session/token.js';

/** Parameter of vfio-pci that lets a physical function on it have virtual ones. */
const parameter = '/sys/module/vfio_pci/parameters/enable_sriov';

/** @throws VioError NO_SRIOV (7) where vfio-pci makes no virtual functions */
export function requireSriov({ root }: Census, pf: PciDevice): void {
  if (pf.driver !== 'vfio-pci' || root.attr(parameter) !== 'N') return;
  throw new VioError(`${pf.bdf}: vfio-pci makes no virtual functions: its parameter enable_sriov is off`, {
    code: 'NO_SRIOV',
    exit: Exit.unsupported,
    hint: `echo 1 > ${parameter}`,
  });
}

/**
 * Sets the token that virtual functions of a physical function on VFIO will ask for, and keeps it. Before they appear: to open the
 * physical function resets it. A program that has it open sets the token itself.
 * @param given the user's; a new one unless given
 * @returns whether it was set
 * @throws VioError of openSession, or of the kernel
 */
export function setToken(root: Sysroot, pf: PciDevice, given: string | undefined): boolean {
  const census = new Census(root);
  const kept = keptToken(root, pf.bdf);
  if (given !== undefined && given === kept) return false;
  if (given === undefined && blocking(holdersOf(root, census.processes, pf)).length > 0) return false;
  const token = given ?? newToken();
  const session = openSession(census, pf.bdf, 'auto', [], kept);
  try {
    session.setVfToken(tokenBytes(token));
  } finally {
    session.close();
  }
  keepToken(root, pf.bdf, token);
  return true;
}
