import { blocking, describeHolder, holdersOf, resourceSizes, syspathBdf, vfioMappings } from '../../../../src/vfio/census/holders.js';
import { majorMinor, Processes } from '../../../../src/vfio/census/processes.js';
import { readDevice } from '../../../../src/vfio/devices/pci.js';
import { PciTree } from '../../../support/pci-tree.js';

const A = '0000:01:00.0';
const B = '0000:02:00.0';
let tree: PciTree;

beforeEach(() => {
  tree = new PciTree();
  tree.driver('vfio-pci');
  const attrs = { enable: '1', resource: '0x00000000fe000000 0x00000000fe003fff 0x0000000000140204\n' };
  tree.device(A, { driver: 'vfio-pci', group: 10, attrs });
  tree.device(B, { driver: 'vfio-pci', group: 11, attrs: { ...attrs, enable: '0' } });
});
afterEach(() => tree.remove());

const holders = (bdf: string) => holdersOf(tree.root, new Processes(tree.root), readDevice(tree.root, bdf)!);
const brief = (bdf: string) => holders(bdf).map(({ pid, how, certain }) => [pid, how, certain]);
const maps = (offset: string, size = '1000', path = 'anon_inode:[vfio-device]') =>
  `7f0000000000-7f000000${size} rw-s ${offset} 00:0e 2063                       ${path}\n`;

test('a kernel that names the device in fdinfo', () => {
  tree.process(
    50,
    'qemu',
    { 8: '/dev/vfio/vfio', 9: '/dev/vfio/10', 10: 'anon_inode:[vfio-device]' },
    { 'fdinfo/10': `pos: 0\nvfio-device-syspath: /sys/devices/pci0000:00/${A}\n` },
  );
  expect(brief(A).sort()).toEqual([
    [50, 'device', true],
    [50, 'group', true],
  ]);
  expect(blocking(holders(A)).map(describeHolder)).toEqual(['qemu (pid 50, descriptor 10)']);
  expect(brief(B)).toEqual([]);
});

test('an older kernel: by the group nodes of the process', () => {
  tree.file(`/sys/devices/pci0000:00/${B}/enable`, '1\n');
  tree.process(50, 'qemu', { 9: '/dev/vfio/10', 10: 'anon_inode:[vfio-device]' });
  expect(blocking(holders(A))).toMatchObject([{ pid: 50, how: 'device', certain: true }]);
  expect(blocking(holders(B))).toMatchObject([{ how: 'unseen' }]);
});

test('a process that was handed the descriptor has no group node: the only candidate of an open device', () => {
  tree.process(60, 'app', { 3: 'anon_inode:[vfio-device]' });
  expect(brief(A)).toEqual([[60, 'device', true]]);
  tree.process(61, 'app', { 3: 'anon_inode:[vfio-device]' });
  expect(holders(A).map(describeHolder)).toEqual(['app (pid 60, descriptor 3, probably)', 'app (pid 61, descriptor 3, probably)']);
});

test('only a mapping is left', () => {
  tree.process(70, 'dpdk', {}, { maps: maps('00000000') });
  expect(brief(A)).toEqual([[70, 'mapping', true]]);
  expect(brief(B)).toEqual([]); // not enabled: nobody holds it
});

test('a mapping of a region the device does not have is of another device', () => {
  tree.process(70, 'dpdk', {}, { maps: maps('20000000000') }); // region 2
  expect(brief(A)).toEqual([[0, 'unseen', false]]);
  tree.process(71, 'dpdk', {}, { maps: '7f0000000000-7f0000010000 rw-s 00000000 00:0e 1  anon_inode:[vfio-device]\n' }); // 64 KiB of a 16 KiB BAR
  expect(brief(A)).toEqual([[0, 'unseen', false]]);
});

test('the device node of newer kernels', () => {
  tree.folder(`/sys/devices/pci0000:00/${A}/vfio-dev/vfio3`);
  tree.process(80, 'ch', { 5: '/dev/vfio/devices/vfio3' });
  expect(brief(A)).toEqual([[80, 'cdev', true]]);
});

test('enabled, and nobody to be seen: told, not taken for free', () => {
  expect(holders(A).map(describeHolder)).toEqual(['a process that is not visible here']);
  tree.file(`/sys/devices/pci0000:00/${A}/enable`, '0\n');
  expect(brief(A)).toEqual([]);
});

test('parts', () => {
  expect(vfioMappings('garbage vfio\n7f-80 r-- 0 vfio\n')).toEqual([]);
  expect(vfioMappings(maps('20000001000', '2000', '/dev/vfio/devices/vfio0'))).toEqual([
    { size: 0x2000, region: 2, path: '/dev/vfio/devices/vfio0' },
  ]);
  expect(syspathBdf('vfio-device-syspath: /sys/devices/x/y\n')).toBeUndefined();
  expect(syspathBdf('a: b\nvfio-device-syspath: /sys/devices/pci10000:00/10000:01:00.0\n')).toBe('10000:01:00.0');
  expect(resourceSizes('0x1000 0x1fff 0x200\n0x0 0x0 0x0\n')).toEqual([4096, 0, 0]);
  expect(majorMinor(0x10300)).toBe('259:0');
  expect(majorMinor(Number((259n << 8n) | 0x13n | (1n << 20n)))).toBe('259:275');
});
