/** Devices behind a virtio IOMMU: they have no group before a driver probes them, and their interrupts are not isolated. */
import { edu, nvme, virtioIommu } from './devices.js';
import { kernelsFor } from './lab.js';
import { guestSteps, type Steps } from './vfio-guest.js';

const V = 'node bin/run.js vfio';
const [EDU, NVME] = ['00:01.0', '01:00.0'];
const STEPS: Steps = [
  ['bound', `${V} bind ${EDU} ${NVME} --json`],
  ['refused', `${V} selftest ${NVME}`],
  [
    'selftests',
    `echo 1 >/sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts; ${V} selftest ${EDU} && ${V} selftest ${NVME} --json`,
  ],
  ['window', `node bin/run.js dma plan ${NVME} --aw 48 a=64K,iova=0xfee00000`],
  ['mapped', `${V} exec ${NVME} --map ring=2M -- echo {ring.iova}`],
  ['the IOMMU itself', `${V} bind 00:1a.0 --dry-run`],
  ['unbound', `${V} unbind ${EDU} ${NVME}`],
];

// 6.1 has no driver of it.
describe.each(kernelsFor(['7'], ['6.12', '7']))('kernel %s', (kernel) => {
  let step: (name: string) => { status: number; text: string };
  beforeAll(async () => {
    step = await guestSteps(kernel, STEPS, 'modprobe nvme; modprobe vfio-pci; sleep 1', [virtioIommu(), edu(), nvme()]);
  }, 700_000);

  test('bound, with a group each', () => {
    expect(step('bound')).toMatchObject({ status: 0 });
    const { devices } = JSON.parse(step('bound').text) as { devices: { driver: string; group: number }[] };
    expect(devices.map(({ driver, group }) => [driver, typeof group])).toEqual([
      ['vfio-pci', 'number'],
      ['vfio-pci', 'number'],
    ]);
  });

  test('without isolated interrupts a session is refused with the parameter that allows it; with it DMA and interrupts work', () => {
    expect(step('refused')).toMatchObject({
      status: 6,
      text: expect.stringMatching(/interrupts cannot be isolated.*EPERM[\s\S]*allow_unsafe_interrupts=1/),
    });
    expect(step('selftests')).toMatchObject({ status: 0, text: expect.stringContaining('passed') });
    expect(step('mapped')).toMatchObject({ status: 0, text: expect.stringMatching(/^0x[0-9a-f]+\n$/) });
  });

  test('the window of message-signalled interrupts is reserved; the IOMMU is no device to give away', () => {
    expect(step('window')).toMatchObject({ status: 3, text: expect.stringMatching(/0xfee00000/) });
    expect(step('the IOMMU itself')).toMatchObject({ status: 3, text: expect.stringContaining('IOMMU') });
    expect(step('unbound').status).toBe(0);
  });
});
