import { VioError } from '../../common/errors.js';
import type { Census } from '../census/census.js';
import type { PciDevice } from '../devices/pci.js';
import { openSession } from './open.js';
import type { IrqType, Region, Session } from './session.js';

/** What only an open device tells; `why` it could not be opened otherwise. */
export type Inside =
  | { open: true; api: Session['api']; reset: boolean; hotReset: string[]; regions: Region[]; irqs: IrqType[] }
  | { open: false; why: string };

/**
 * Opens a device that is bound to VFIO, looks, and closes it: the kernel resets it at both ends, as nobody holds it.
 * @returns undefined for a device that is not bound to VFIO
 */
export function inspect(census: Census, device: PciDevice): Inside | undefined {
  if (!census.modules.isVfio(device.driver)) return undefined;
  let session: Session;
  try {
    session = openSession(census, device.bdf);
  } catch (err) {
    if (err instanceof VioError) return { open: false, why: err.message };
    throw err;
  }
  try {
    return {
      open: true,
      api: session.api,
      reset: session.canReset,
      hotReset: hotResetOf(session),
      regions: session.regions(),
      irqs: session.irqs(),
    };
  } finally {
    session.close();
  }
}

/** Devices that a hot reset reaches; none where there is no slot or bus to reset. */
function hotResetOf(session: Session): string[] {
  try {
    return session.resetPeers().map((peer) => peer.bdf);
  } catch (err) {
    if (err instanceof VioError && err.code === 'NO_RESET') return [];
    throw err;
  }
}
