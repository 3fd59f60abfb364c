import { Exit, VioError } from '../../common/errors.js';
import { idOf, type PciDevice } from '../devices/pci.js';
import type { Session } from '../session/session.js';
import { selftestEdu } from './edu.js';
import { selftestNvme } from './nvme.js';
import { pagesFor } from './pages.js';
import type { Check } from './proof.js';

export interface SelftestReport {
  /** PCI address */
  bdf: string;
  /** `edu` (QEMU's teaching device) or `nvme`. */
  device: 'edu' | 'nvme';
  /** group (container) or cdev (iommufd) */
  api: Session['api'];
  /** all checks passed */
  ok: boolean;
  /** one entry for each check */
  checks: Check[];
  /** duration of all checks */
  milliseconds: number;
}

/** Which self-test a device can do; undefined for none. */
export function selftestOf(device: Pick<PciDevice, 'vendor' | 'device' | 'class'>): 'edu' | 'nvme' | undefined {
  if (device.vendor === 0x1234 && device.device === 0x11e8) return 'edu';
  return device.class === 0x010802 ? 'nvme' : undefined;
}

/**
 * Proves DMA in both directions and an interrupt with the device's own means. It is reset first: whatever state it was in
 * is lost.
 * @throws VioError (7) for a device that has no self-test; 124 where the device does not answer in time
 */
export async function selftest(session: Session, device: PciDevice): Promise<SelftestReport> {
  const kind = selftestOf(device);
  if (kind === undefined)
    throw new VioError(`${device.bdf}: no self-test for ${idOf(device)}`, {
      code: 'NO_SELFTEST',
      exit: Exit.unsupported,
      hint: 'NVMe controllers and QEMU edu devices have one',
    });
  const start = performance.now();
  if (session.canReset) session.reset();
  session.mapBar(0);
  session.busMaster(true);
  const pages = pagesFor(session);
  let checks: Check[];
  try {
    checks = await (kind === 'edu' ? selftestEdu(session, pages) : selftestNvme(session, pages));
    session.busMaster(false);
  } finally {
    pages.close();
  }
  return {
    bdf: session.bdf,
    device: kind,
    api: session.api,
    ok: checks.every((check) => check.ok),
    checks,
    milliseconds: Math.round(performance.now() - start),
  };
}
