import { Census } from '../../../../src/vfio/census/census.js';
import { kernelParameter, readIommu } from '../../../../src/vfio/devices/iommu.js';
import { diagnose, diagnosisStatus } from '../../../../src/vfio/inventory/doctor.js';
import { PciTree } from '../../../support/pci-tree.js';
import { testHost } from '../binding/kernel.js';

let tree: PciTree;
beforeEach(() => {
  tree = new PciTree();
});
afterEach(() => tree.remove());

const look = () => {
  const census = new Census(tree.root);
  const found = diagnose(testHost(tree).host, census);
  const byId = (id: string) => found.find((entry) => entry.id === id);
  return { found, byId, status: diagnosisStatus(found) };
};
const ready = () => {
  tree.driver('vfio-pci');
  tree.folder('/sys/module/vfio_iommu_type1');
  tree.folder('/sys/class/iommu/dmar0');
  tree.device('0000:01:00.0', { driver: 'vfio-pci', group: 1 });
  tree.file('/proc/interrupts', ' 24: 0 IR-PCI-MSI 1-edge nvme\n');
  tree.file(
    '/proc/self/limits',
    'Limit  Soft Limit  Hard Limit  Units\nMax locked memory         unlimited            unlimited            bytes\n',
  );
  tree.file('/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages', '512\n');
};

test('a host that is ready', () => {
  ready();
  const { found, status } = look();
  expect(found.filter(({ level }) => level !== 'ok')).toEqual([]);
  expect(status).toBe(0);
});

describe('why there is no IOMMU, and what to do', () => {
  test.each([
    ['DMAR', 'GenuineIntel', 'root=x', /no intel_iommu=on/, /add intel_iommu=on/],
    ['DMAR', 'GenuineIntel', 'intel_iommu=off', /command line has intel_iommu=off/, /remove intel_iommu=off/],
    ['', 'GenuineIntel', 'intel_iommu=on', /no ACPI table DMAR/, /VT-d/],
    ['', 'AuthenticAMD', '', /no ACPI table IVRS/, /AMD-Vi/],
    ['IVRS', 'AuthenticAMD', 'iommu=pt,off', /iommu=off/, /remove/],
    ['', 'ARM', '', /iommu_groups is empty/, /firmware/],
  ])('%s %s "%s"', (table, vendor, cmdline, why, fix) => {
    if (table !== '') tree.file(`/sys/firmware/acpi/tables/${table}`, '');
    tree.file('/proc/cpuinfo', `vendor_id\t: ${vendor}\n`);
    tree.file('/proc/cmdline', `${cmdline}\n`);
    const state = readIommu(tree.root);
    expect(state.present).toBe(false);
    expect(state.why).toMatch(why);
    expect(state.fix).toMatch(fix);
    expect(look().status).toBe(7);
  });

  test('no-IOMMU mode of VFIO is a warning', () => {
    tree.file('/sys/module/vfio/parameters/enable_unsafe_noiommu_mode', 'Y\n');
    tree.driver('vfio-pci');
    tree.folder('/sys/module/vfio_iommu_type1');
    expect(look()).toMatchObject({ status: 0 });
    expect(look().byId('iommu')).toMatchObject({ level: 'warn' });
  });
});

test('modules that are neither loaded nor installed: status 1', () => {
  ready();
  tree.remove();
  tree = new PciTree();
  tree.device('0000:01:00.0', { group: 1 });
  const { byId, status } = look();
  expect(status).toBe(1);
  expect(byId('vfio-pci')).toMatchObject({ level: 'fail', fix: expect.stringContaining('6.12.0-test') });
  tree.file(
    '/lib/modules/6.12.0-test/modules.dep',
    'kernel/drivers/vfio/pci/vfio-pci.ko.xz: a\nkernel/drivers/vfio/vfio_iommu_type1.ko:\n',
  );
  expect(look()).toMatchObject({ status: 0 });
});

test('no interrupt remapping, small limits, a group that is not viable', () => {
  ready();
  tree.file('/proc/interrupts', ' 24: 0 PCI-MSI 1-edge nvme\n');
  tree.file('/proc/self/limits', 'Max locked memory         8388608              8388608              bytes\n');
  tree.driver('e1000');
  tree.device('0000:01:00.1', { driver: 'e1000', group: 1 });
  const { byId, status } = look();
  expect(status).toBe(0);
  expect(byId('interrupts')).toMatchObject({ level: 'warn', fix: expect.stringContaining('allow_unsafe_interrupts=1') });
  expect(byId('memlock')).toMatchObject({ level: 'warn', message: expect.stringContaining('8M') });
  expect(byId('group-1')).toMatchObject({ level: 'warn', message: expect.stringContaining('0000:01:00.1 (e1000)') });
});

test('a run that was cut short', () => {
  ready();
  tree.file(
    '/run/vioctl/vfio/journal/bind-x.json',
    JSON.stringify({
      version: 1,
      id: 'bind-x',
      operation: 'bind',
      pid: 3,
      started: '1',
      boot: 'boot-1',
      devices: [{ bdf: '0000:01:00.0' }],
    }),
  );
  expect(look().byId('journal-bind-x')).toMatchObject({ level: 'fail', fix: 'vioctl vfio restore' });
});

test('kernel parameters: the last one wins, bare words are empty', () => {
  expect([
    kernelParameter('a=1 b a=2 c=x=y', 'a'),
    kernelParameter('b', 'b'),
    kernelParameter('c=x=y', 'c'),
    kernelParameter('', 'a'),
  ]).toEqual(['2', '', 'x=y', undefined]);
});
