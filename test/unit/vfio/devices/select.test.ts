import { expand, findDevice, select } from '../../../../src/vfio/devices/select.js';
import { PciTree } from '../../../support/pci-tree.js';

let tree: PciTree;
beforeAll(() => {
  tree = new PciTree();
  const nvme = tree.device('0000:01:00.0', { driver: 'nvme' });
  tree.file(`${nvme}/nvme/nvme0/serial`, 'S123 \n');
  tree.block(`${nvme}/nvme/nvme0`, 'nvme0c0n1', '259:1');
  tree.block('/sys/devices/virtual/nvme-subsystem/nvme-subsys0', 'nvme0n1', '259:0');
  const nic = tree.device('0000:02:00.0', { class: 0x020000, vendor: 0x8086, device: 0x10fb });
  tree.net(nic, 'eth0');
  const config = Buffer.alloc(0x200);
  config.writeUInt32LE(0x10fb8086, 0);
  config.writeUInt32LE(0x0001_0003, 0x100);
  config.writeUInt32LE(0x44332211, 0x104);
  config.writeUInt32LE(0x88776655, 0x108);
  tree.file(`${nic}/config`, config);
  tree.device('0000:02:00.1', { class: 0x020000, vendor: 0x8086, device: 0x10fb });
  const virtio = tree.device('10000:e0:00.0', { class: 0x020000, vendor: 0x1af4, device: 0x1041 });
  tree.net(`${virtio}/virtio3`, 'ens3');
  tree.file('/sys/bus/pci/slots/5/address', '0000:02:00\n');
});
afterAll(() => tree.remove());

test.each([
  ['01:00.0', '0000:01:00.0'],
  ['00000000:01:00.0', '0000:01:00.0'],
  ['pci_0000_01_00_0', '0000:01:00.0'],
  ['00010000:E0:00.0', '10000:e0:00.0'],
  ['10000:e0:00.0', '10000:e0:00.0'],
  ['net:eth0', '0000:02:00.0'],
  ['net:ens3', '10000:e0:00.0'],
  ['block:nvme0n1', '0000:01:00.0'],
  ['block:/dev/nvme0n1', '0000:01:00.0'],
  ['id:1b36:0010', '0000:01:00.0'],
  ['class:nvme', '0000:01:00.0'],
  ['serial:S123', '0000:01:00.0'],
  ['serial:88-77-66-55-44-33-22-11', '0000:02:00.0'],
  ['01:*', '0000:01:00.0'],
  ['0000:0[!2]:*', '0000:01:00.0'],
])('%s is %s', (text, bdf) => {
  expect(findDevice(tree.root, text).bdf).toBe(bdf);
  expect(expand(tree.root, [text])).toEqual([bdf]);
});

test('several: named by an error, or taken with --all, each once', () => {
  for (const text of ['id:8086:10fb', 'slot:5', '02:00.?']) {
    expect(select(tree.root, text).map(({ bdf }) => bdf)).toEqual(['0000:02:00.0', '0000:02:00.1']);
    expect(() => findDevice(tree.root, text)).toThrow(
      expect.objectContaining({ exit: 2, message: expect.stringContaining('matches 2 devices') }),
    );
    expect(() => expand(tree.root, [text])).toThrow(expect.objectContaining({ exit: 2, hint: expect.stringContaining('--all') }));
  }
  expect(expand(tree.root, ['net:eth0', 'class:net', '02:00.1'], true)).toEqual(['0000:02:00.0', '0000:02:00.1', '10000:e0:00.0']);
});

test.each(['net:eth9', 'block:sda', 'id:1234:5678', 'serial:none', 'slot:9', '09:*', '03:00.0'])('%s: no such device', (text) => {
  expect(() => select(tree.root, text)).toThrow(expect.objectContaining({ code: 'ENODEV', exit: 1 }));
});

test.each(['id:1b36', 'class:toaster', '[', 'eth0', '1:0.0', '00:20.0', 'pci_0000_01_00_8', ''])('"%s" is wrong usage', (text) => {
  expect(() => select(tree.root, text)).toThrow(expect.objectContaining({ exit: 2 }));
});

test('an address needs no device for a list', () => expect(expand(tree.root, ['09:00.0'])).toEqual(['0000:09:00.0']));
