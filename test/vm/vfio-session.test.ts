/** VFIO sessions on real kernels: open, DMA, interrupts, errors, hand-over to other programs. */
import { peer } from '../peers/peers.js';
import { BIND, type Case, qemuInGuest, type Series, series } from './vfio-guest.js';

const EDU = '0000:00:01.0';

/** Cases of one API, each as its own test. */
function apiCases(api: 'group' | 'cdev', result: () => Series): void {
  const get = (name: string): Case => result().cases.get(`${name} ${api}`) ?? { case: name, missing: result().stderr.slice(-2000) };

  test.each(['edu', 'nvme'])(`${api}: selftest on %s`, (device) => {
    const report = get(`selftest ${device}`);
    expect(report).toMatchObject({ device, api, ok: true });
    expect((report.checks as { name: string; ok: boolean }[]).map((check) => [check.name, check.ok])).toEqual([
      ['identity', true],
      ['dma to device', true],
      ['dma from device', true],
      ['interrupt', true],
    ]);
  });

  test(`${api}: dma plan, from sysfs alone, is what dma map does`, () => {
    expect(get('plan is map')).toMatchObject({ same: true, ranges: true, last: '0xffffffffffff' });
  });

  test(`${api}: what the kernel refuses, and a mapping with a hole leaves nothing behind`, () => {
    expect(get('kernel errors')).toMatchObject({
      window: 'EINVAL',
      across: 'EINVAL',
      aperture: 'EINVAL',
      unaligned: 'EINVAL',
      size: 'EINVAL',
      first: 'mapped',
      overlap: 'EEXIST',
      hole: 'EFAULT',
      withoutHole: 'mapped',
    });
  });

  test(`${api}: a read-only mapping is read, not written, and the attempt is reported by name`, () => {
    expect(get('read-only')).toMatchObject({
      copied: true,
      kept: true,
      fault: true,
      named: { name: 'fw', offset: '0x1000', live: true, readOnly: true },
    });
  });

  test(`${api}: a write after unmap is blocked and reported by name; the address is free again`, () => {
    expect(get('write after unmap')).toMatchObject({ fault: true, named: { name: 'gone', offset: '0x2000', live: false }, again: true });
  });

  test(`${api}: reset disables an enabled controller; a device without reset says so`, () => {
    expect(get('reset')).toMatchObject({ before: '0x1', after: '0x0', peers: ['0000:01:00.0'] });
    expect(get('no reset')).toMatchObject({ code: 'NO_RESET', exit: 7 });
  });

  test(`${api}: a held device names its holder`, () => {
    expect(get('held')).toMatchObject({
      code: 'EBUSY',
      exit: 3,
      message: expect.stringMatching(/is held by node \(pid \d+, descriptor \d+\)/),
    });
  });

  test(`${api}: exec hands over descriptors; the program does DMA and adds a mapping of its own`, () => {
    const names = api === 'cdev' ? 'iommufd:vfio-device:dma-buf' : 'vfio-container:vfio-group:vfio-device:dma-buf';
    expect(get('exec')).toMatchObject({ status: 0, child: { dma: true, listen: true, names, api } });
  });
}

describe.each(['6.1', '7'] as const)('kernel %s', (kernel) => {
  let result: Series;
  beforeAll(async () => {
    result = await series(kernel, `${BIND} node $SERIES session group`);
  });
  apiCases('group', () => result);

  test('a group that is not viable names the member and its driver', () => {
    const { nic, ...refusal } = result.cases.get('not viable')!;
    expect(refusal).toMatchObject({ code: 'NOT_VIABLE', exit: 3, hint: `vioctl vfio bind ${nic as string}` });
    expect(refusal.message).toContain(`${nic as string} (driver e1000)`);
  });

  test('exec: exit status, forwarded signals, nothing left open; --replace and --user', () => {
    expect(result.cases.get('exec passes the status and a signal')).toMatchObject({ status: 42, signalled: 7, free: 'none' });
    const { stdout, ...rest } = result.cases.get('exec replaces, as another user') as Case & { stdout: string[] };
    expect(rest).toMatchObject({ status: 0, stderr: '' });
    expect(stdout[0]).toBe('65534');
    expect(new Set(stdout[1]!.split(' ')).size).toBe(1); // LISTEN_PID is the program's own
    expect(stdout[2]).toBe('SigIgn:\t0000000000000000');
    expect(stdout[3]).toContain('vfio');
  });
});

describe('kernel 6.12 with iommufd', () => {
  let result: Series;
  beforeAll(async () => {
    const sid = await peer('sid');
    const inner = qemuInGuest(sid.dir);
    const qemu = `${inner.qemu} -object iommufd,id=i0,fd={iommufd} -device vfio-pci,id=v0,iommufd=i0,fd={device}`;
    const script = [
      inner.prepare,
      'echo QEMU',
      `monitor | node bin/run.js vfio exec 01:00.0 --user nobody --memlock unlimited -- sh -c 'id -u; exec "$@"' sh ${qemu} 2>&1`,
      'echo "status $?"',
    ].join('\n');
    result = await series('6.12', `${BIND} node $SERIES session group cdev\n${script}`, { iommufd: true });
  });
  apiCases('group', () => result);
  apiCases('cdev', () => result);

  test('a QEMU without privileges drives the device by two descriptors', () => {
    const qemu = result.stdout.split('QEMU\n')[1];
    expect(qemu).toMatch(/^65534\n/);
    expect(qemu).toContain('PCI device 1b36:0010');
    expect(qemu).toMatch(/status 0\n$/);
  });
});

test('kernel 6.12 without IOMMU: the self-tests with physical addresses, and no mapping', async () => {
  const { cases } = await series('6.12', `modprobe vfio enable_unsafe_noiommu_mode=1; ${BIND} node $SERIES noiommu`, {
    iommufd: true,
    iommu: false,
  });
  expect(cases.get('selftest edu')).toMatchObject({ bdf: EDU, api: 'noiommu', ok: true });
  expect(cases.get('selftest nvme')).toMatchObject({ api: 'noiommu', ok: true });
  expect(cases.get('no mapping')).toMatchObject({ code: 'NO_IOMMU', exit: 7 });
  expect(cases.get('without CAP_SYS_RAWIO')).toMatchObject({
    code: 'EPERM',
    exit: 6,
    hint: 'without an IOMMU it takes CAP_SYS_RAWIO, and the kernel is tainted',
  });
});
