/** Mappings on real kernels: limits, large ones, a holder that other programs share. */
import { BIND, type Series, series } from './vfio-guest.js';

function holderCase(api: 'group' | 'cdev', result: () => Series): void {
  test(`${api}: dma map holds; attach shares, list shows, unmap takes away, a late write is blocked and named`, () => {
    const first = api === 'cdev' ? 'iommufd:vfio-device' : 'vfio-container:vfio-group:vfio-device';
    expect(result().cases.get(`holder ${api}`)).toMatchObject({
      names: ['buf', 'ring'],
      attached: { dma: true, listen: true, names: `${first}:dma-buf:dma-ring`, api },
      unmapped: 0,
      left: ['buf'],
      again: [0, 'ring is unmapped already\n'],
      never: [1, expect.stringContaining('no mapping rang')],
      fault: expect.stringMatching(/0000:00:01\.0 was kept from writing to 0x[0-9a-f]+: ring \+ 0x0, which is not mapped any more/),
      status: 0,
      socket: false,
    });
  });
}

describe.each([
  ['6.1', ['group']],
  ['6.12', ['group', 'cdev']],
  ['7', ['group']],
] as const)('kernel %s', (kernel, apis) => {
  let result: Series;
  beforeAll(async () => {
    result = await series(kernel, `${BIND} node $SERIES dma ${apis.join(' ')}`, { iommufd: kernel === '6.12' });
  });

  test('65,535 entries, then ENOSPC that says what to do', () => {
    expect(result.cases.get('entry limit')).toMatchObject({
      available: 65535,
      done: 65535,
      code: 'ENOSPC',
      left: 0,
      full: { code: 'ENOSPC', exit: 3, hint: expect.stringContaining('dma_entry_limit') },
    });
  });

  test('4 GiB lie on both sides of the MSI window, and the device reaches both', () => {
    const found = result.cases.get('4 GiB across the window')!;
    expect(found).toMatchObject({ clear: true, moved: true, bytes: 2 ** 32, first: '0x200000', last: '0xff000000' });
    expect(found.below).toBe(63);
  });

  test('locked memory of a user: forecast before anything is pinned, and the kernel agrees', () => {
    const { child } = result.cases.get('memlock of a user') as unknown as { child: Record<string, unknown> };
    expect(child).toMatchObject({
      uid: 65534,
      exempt: false,
      limit: 8 << 20,
      forecast: { code: 'MEMLOCK', exit: 6 },
      kernel: { code: 'ENOMEM', exit: 6, message: expect.stringContaining('64M would be locked, the limit is 8M') },
      small: 1,
    });
  });

  for (const api of apis) holderCase(api, () => result);
});
