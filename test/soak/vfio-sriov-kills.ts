/**
 * Every change of virtual functions killed before each write of its journal, then undone or repeated, in a guest:
 * `npm run soak -- vfio-sriov-kills`. Half an hour on a busy machine; test/vm/vfio-sriov.test.ts has the first of them.
 */
import { iommu } from '../vm/devices.js';
import { guestSteps, igb, KILLED, killedSriov, SRIOV_READY, sriovNvme } from '../vm/vfio-guest.js';

async function main(): Promise<void> {
  const files = await killedSriov();
  const step = await guestSteps('6.12', [['killed', `${KILLED} all`]], SRIOV_READY, [iommu(), igb, sriovNvme], { timeout: 3600, files });
  const { status, text } = step('killed');
  console.log(text);
  if (status !== 0 || text.includes('"error"')) process.exitCode = 1;
}

void main();
