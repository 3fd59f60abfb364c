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

/** Lines below those of `vfio show`. */
export function insideLines(inside: Inside | undefined): string[] {
  if (!inside) return [];
  if (!inside.open) return [`not opened   ${inside.why}`];
  const size = (bytes: number) => `0x${bytes.toString(16)}`;
  return [
    `opened by    ${inside.api}; ${inside.reset ? 'can be reset alone' : 'cannot be reset alone'}; hot reset: ${inside.hotReset.join(', ') || 'none'}`,
    ...inside.regions.map((r) => {
      const part = r.sparse ? ` (${r.areas.map((a) => `${size(a.offset)}+${size(a.size)}`).join(', ')})` : '';
      return `  region     ${r.name.padEnd(7)} ${size(r.size).padEnd(10)} ${r.flags.join(' ')}${part}${r.msixMappable ? ', MSI-X table too' : ''}`;
    }),
    ...inside.irqs.map((irq) => `  interrupt  ${irq.name.padEnd(7)} ${String(irq.count).padEnd(10)} ${irq.flags.join(' ')}`),
  ];
}
