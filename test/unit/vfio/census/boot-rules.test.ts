import { boundElsewhere } from '../../../../src/vfio/census/boot-rules.js';
import { PciTree } from '../../../support/pci-tree.js';

const device = { bdf: '0000:05:00.0', vendor: 0x1b36, device: 0x0010 };
let tree: PciTree;
beforeEach(() => {
  tree = new PciTree();
});
afterEach(() => tree.remove());
const where = () => boundElsewhere(tree.root, device).map((one) => one.where);

test('nothing', () => expect(where()).toEqual([]));

test.each([
  ['/etc/driverctl.d/0000:05:00.0', 'vfio-pci\n', true],
  ['/etc/driverctl.d/pci-0000:05:00.0', 'vfio-pci\n', true],
  ['/etc/driverctl.d/0000:05:00.0', 'nvme\n', false],
  ['/etc/driverctl.d/0000:06:00.0', 'vfio-pci\n', false],
  ['/etc/modprobe.d/vfio.conf', 'options vfio-pci ids=8086:10fb,1b36:0010 disable_vga=1\n', true],
  ['/etc/modprobe.d/vfio.conf', '# options vfio-pci ids=1b36:0010\noptions vfio_pci ids=1b36:0011\n', false],
  ['/etc/modprobe.d/vfio.txt', 'options vfio-pci ids=1b36:0010\n', false],
  ['/etc/initramfs-tools/modules', 'ext4\nvfio-pci ids=1b36:0010\n', true],
  ['/etc/initramfs-tools/modules', 'vfio-pci\n# vfio-pci ids=1b36:0010\n', false],
  ['/etc/initramfs-tools/scripts/init-top/vfio', 'echo vfio-pci > /sys/bus/pci/devices/0000:05:00.0/driver_override\n', true],
  ['/usr/lib/dracut/modules.d/64vfio/vfio.sh', 'for d in 0000:06:00.0; do echo vfio-pci; done\n', false],
  ['/etc/udev/rules.d/99-mine.rules', 'KERNEL=="0000:05:00.0", ATTR{driver_override}="vfio-pci"\n', true],
  ['/etc/udev/rules.d/20-vioctl-vfio-0000:05:00.0.rules', 'KERNEL=="0000:05:00.0", ATTR{driver_override}="vfio-pci"\n', false],
])('%s with %j: %s', (file, text, has) => {
  tree.file(file, text);
  expect(where()).toEqual(has ? [file] : []);
});

test('the kernel command line', () => {
  tree.file('/proc/cmdline', 'quiet vfio-pci.ids=10de:1eb8,1B36:0010:1af4:1100\n');
  expect(boundElsewhere(tree.root, device)).toEqual([
    { by: 'kernel command line', where: 'vfio-pci.ids', fix: 'remove 1b36:0010 from vfio-pci.ids= and reboot' },
  ]);
});
