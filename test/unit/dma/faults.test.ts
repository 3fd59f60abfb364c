import { describeFault, parseFault } from '../../../src/dma/faults.js';

describe('faults in the kernel log', () => {
  test.each([
    [
      'DMAR: [DMA Write NO_PASID] Request device [00:05.0] fault addr 0x10002000 [fault reason 0x05] PTE Write access is not set',
      { device: '0000:00:05.0', address: 0x10002000n, write: true },
    ],
    [
      'DMAR: [DMA Read] Request device [3b:00.1] PASID ffffffff fault addr fffff000 [fault reason 06] PTE Read access is not set',
      { device: '0000:3b:00.1', address: 0xfffff000n, write: false },
    ],
    [
      'vfio-pci 0000:01:00.0: AMD-Vi: Event logged [IO_PAGE_FAULT domain=0x000e address=0x10002000 flags=0x0020]',
      undefined, // no device in the record: another line of the driver has it
    ],
    [
      'AMD-Vi: Event logged [IO_PAGE_FAULT device=0000:01:00.0 domain=0x000e address=0x10002000 flags=0x0020]',
      { device: '0000:01:00.0', address: 0x10002000n, write: true },
    ],
    [
      'AMD-Vi: Event logged [IO_PAGE_FAULT device=01:00.0 domain=0x000e address=0x00000000fffff000 flags=0x0000]',
      { device: '0000:01:00.0', address: 0xfffff000n, write: false },
    ],
    ['DMAR: DRHD: handling fault status reg 2', undefined],
    ['', undefined],
  ])('%s', (line, fault) => {
    expect(parseFault(line)).toEqual(fault);
  });

  test('a fault is told with the name of its mapping', () => {
    const fault = { device: '0000:00:05.0', address: 0x12000n, write: true };
    expect(describeFault(fault, { name: 'ring', offset: 0x2000n, live: false, readOnly: false })).toBe(
      '0000:00:05.0 was kept from writing to 0x12000: ring + 0x2000, which is not mapped any more',
    );
    expect(describeFault(fault, { name: 'fw', offset: 0n, live: true, readOnly: true })).toBe(
      '0000:00:05.0 was kept from writing to 0x12000: fw + 0x0, which is read-only',
    );
    expect(describeFault({ ...fault, write: false }, undefined)).toBe(
      '0000:00:05.0 was kept from reading 0x12000: no mapping of this command',
    );
  });
});
