import { Sysroot } from '../../../../src/common/sysroot.js';
import { showLines } from '../../../../src/groups/vfio/views.js';
import { Census } from '../../../../src/vfio/census/census.js';
import { parseBdf } from '../../../../src/vfio/devices/pci.js';
import { findDevice } from '../../../../src/vfio/devices/select.js';
import { inventory, type ListFilter, parseResource, report } from '../../../../src/vfio/inventory/inventory.js';
import { asTree } from '../../../../src/vfio/inventory/tree.js';
import { PciTree } from '../../../support/pci-tree.js';

let tree: PciTree;
beforeEach(() => {
  tree = new PciTree();
});
afterEach(() => tree.remove());

describe('addresses', () => {
  test.each([
    ['0000:01:00.0', '0000:01:00.0'],
    ['01:00.0', '0000:01:00.0'],
    ['10000:E1:1F.7', '10000:e1:1f.7'],
  ])('%s', (text, bdf) => expect(parseBdf(text)).toBe(bdf));

  test.each(['', '1:0.0', '01:00', '01:00.8', '01:20.0', '0000:01:00.0 ', 'nvme0', '000:01:00.0'])('"%s" is refused', (text) => {
    expect(() => parseBdf(text)).toThrow(expect.objectContaining({ code: 'USAGE', exit: 2 }));
  });

  test('a device that is not there: the nearest addresses', () => {
    tree.device('0000:01:00.0');
    tree.device('0000:41:00.0');
    tree.device('0000:00:1f.3');
    expect(() => findDevice(tree.root, '01:00.1')).toThrow(
      expect.objectContaining({ code: 'ENODEV', exit: 1, hint: expect.stringContaining('there is 0000:01:00.0, 0000:41:00.0') }),
    );
  });
});

describe('tree', () => {
  test('bridges, what is behind them, virtual functions below their physical one', () => {
    tree.device('0000:00:01.0', { class: 0x060400 });
    tree.device('0000:00:02.0');
    const port = { parent: '/sys/devices/pci0000:00/0000:00:01.0' };
    tree.device('0000:01:00.0', { ...port, group: 4 });
    for (const vf of ['0000:01:10.0', '0000:01:10.1'])
      tree.link(`${tree.device(vf, port)}/physfn`, '/sys/devices/pci0000:00/0000:00:01.0/0000:01:00.0');
    tree.device('0000:01:00.1', port);
    const drawn = (filter: ListFilter) => asTree(inventory(new Census(tree.root), filter)).map(({ branch, bdf }) => branch + bdf);
    expect(drawn({ parents: true })).toEqual([
      '0000:00:01.0',
      '├─ 0000:01:00.0',
      '│  ├─ 0000:01:10.0',
      '│  └─ 0000:01:10.1',
      '└─ 0000:01:00.1',
      '0000:00:02.0',
    ]);
    expect(drawn({ parents: true, group: 4 })).toEqual(['0000:00:01.0', '└─ 0000:01:00.0']);
    expect(drawn({ group: 4 })).toEqual(['0000:01:00.0']);
    const rows = inventory(new Census(tree.root));
    expect(rows.find(({ bdf }) => bdf === '0000:01:10.1')?.parent).toBe('0000:01:00.0');
  });

  test('parents that lead in a circle, or nowhere', () => {
    for (const bdf of ['0000:01:00.0', '0000:02:00.0']) tree.device(bdf);
    tree.link('/sys/devices/pci0000:00/0000:01:00.0/physfn', '/sys/devices/pci0000:00/0000:02:00.0');
    tree.link('/sys/devices/pci0000:00/0000:02:00.0/physfn', '/sys/devices/pci0000:00/0000:01:00.0');
    expect(asTree(inventory(new Census(tree.root), { parents: true })).map(({ bdf }) => bdf)).toEqual(['0000:01:00.0', '0000:02:00.0']);
  });
});

test('looking at twice as many devices takes twice as many looks at the system, not four times', () => {
  /** Files, links and folders that a list reads. */
  const looks = (devices: number): number => {
    const big = new PciTree();
    let count = 0;
    class Counting extends Sysroot {
      override path(absolute: string): string {
        count++;
        return super.path(absolute);
      }
    }
    try {
      for (let i = 0; i < devices; i++) {
        const bdf = `0000:${(1 + (i >> 3)).toString(16).padStart(2, '0')}:00.${i & 7}`;
        const dir = big.device(bdf, { class: i % 2 ? 0x010802 : 0x020000, driver: i % 2 ? 'nvme' : 'igb', group: i });
        if (i % 2) big.block(`${dir}/nvme/nvme${i}`, `nvme${i}n1`, `259:${i}`);
        else big.net(dir, `eth${i}`);
      }
      expect(inventory(new Census(new Counting(big.dir)))).toHaveLength(devices);
      return count;
    } finally {
      big.remove();
    }
  };
  expect(looks(160)).toBeLessThan(2.2 * looks(80));
});

describe('list', () => {
  test('driver, group, class and what uses a device', () => {
    tree.driver('nvme');
    tree.driver('vfio-pci');
    const nvme = tree.device('0000:01:00.0', { driver: 'nvme', group: 1 });
    tree.device('0000:02:00.0', { driver: 'vfio-pci', override: 'vfio-pci', group: 2, attrs: { enable: '0' } });
    tree.device('0000:00:02.0', { class: 0x060400, device: 0x000c, driver: 'pcieport', group: 0 });
    const disk = tree.block(`${nvme}/nvme/nvme0`, 'nvme0n1', '259:0');
    tree.block(disk, 'nvme0n1p1', '259:1', { partition: 1 });
    tree.file('/proc/self/mountinfo', '40 1 259:1 / /srv/my\\040data rw - ext4 /dev/nvme0n1p1 rw\n');
    const rows = inventory(new Census(tree.root));
    expect(rows.map(({ bdf, driver, override, group, vfio }) => [bdf, driver, override, group, vfio])).toEqual([
      ['0000:00:02.0', 'pcieport', undefined, 0, false],
      ['0000:01:00.0', 'nvme', undefined, 1, false],
      ['0000:02:00.0', 'vfio-pci', 'vfio-pci', 2, true],
    ]);
    expect(rows[1]).toMatchObject({
      className: 'nvme',
      class: '010802',
      id: '1b36:0010',
      uses: [{ check: 'mounted', brief: 'mounted /srv/my data' }],
    });
  });

  test('filters', () => {
    tree.driver('nvme');
    const used = tree.device('0000:01:00.0', { driver: 'nvme', group: 1 });
    tree.device('0000:02:00.0', { driver: 'nvme', group: 2 });
    tree.device('0000:03:00.0', { class: 0x020000, group: 2 });
    tree.device('0000:00:02.0', { class: 0x060400 });
    tree.block(`${used}/nvme/nvme0`, 'nvme0n1', '259:0');
    tree.file('/proc/swaps', 'Filename\tType\n/dev/nvme0n1 partition 100 0 -2\n');
    const found = (filter: Parameters<typeof inventory>[1]) => inventory(new Census(tree.root), filter).map((row) => row.bdf.slice(5, 7));
    expect(found({ class: 'nvme' })).toEqual(['01', '02']);
    expect(found({ class: '0x02' })).toEqual(['03']);
    expect(found({ class: 'net' })).toEqual(['03']);
    expect(found({ driver: 'none' })).toEqual(['00', '03']);
    expect(found({ group: 2 })).toEqual(['02', '03']);
    expect(found({ unused: true })).toEqual(['02', '03']);
    expect(() => found({ class: 'toaster' })).toThrow(expect.objectContaining({ exit: 2 }));
  });

  test('names from pci.ids; a device id of another vendor is not taken', () => {
    tree.file(
      '/usr/share/misc/pci.ids',
      '# comment\n1b35  Other\n\t0010  Wrong\n1b36  Red Hat, Inc.\n\t0001  Bridge\n\t0010  NVMe Controller\n\t\t1af4 1100  Sub\n1b37  Next\n\t0011  Not ours\n',
    );
    tree.device('0000:01:00.0');
    tree.device('0000:02:00.0', { device: 0x0011 });
    const rows = inventory(new Census(tree.root));
    expect(rows.map((row) => [row.vendorName, row.deviceName])).toEqual([
      ['Red Hat, Inc.', 'NVMe Controller'],
      ['Red Hat, Inc.', undefined],
    ]);
  });
});

describe('show', () => {
  test('names the member that blocks the group, and the way out; bridges do not block', () => {
    tree.driver('e1000');
    tree.driver('vfio-pci');
    tree.device('0000:04:00.0', { class: 0x060400, driver: 'shpchp', group: 13 });
    tree.device('0000:05:01.0', { class: 0x020000, vendor: 0x8086, device: 0x100e, driver: 'e1000', group: 13 });
    tree.device('0000:05:02.0', { class: 0x00ff00, vendor: 0x1234, device: 0x11e8, driver: 'vfio-pci', group: 13 });
    const doc = report(new Census(tree.root), findDevice(tree.root, '05:02.0'));
    expect(doc.iommuGroup).toMatchObject({ id: 13, viable: false, reserved: [{ start: 0xfee00000n, end: 0xfeefffffn, type: 'msi' }] });
    expect(doc.iommuGroup!.members.filter((m) => m.blocks).map((m) => [m.bdf, m.driver])).toEqual([['0000:05:01.0', 'e1000']]);
    const text = showLines(doc).join('\n');
    expect(text).toMatch(/0000:05:01\.0 .*BLOCKS the group: on host driver e1000/);
    expect(text).toMatch(/fix +vioctl vfio bind 0000:05:01\.0 --group/);
  });

  test('BARs and capabilities', () => {
    const config = Buffer.alloc(0x200);
    config.writeUInt16LE(0x10, 6);
    config[0x34] = 0x40;
    config.set([0x11, 0x50, 0x40, 0x80], 0x40); // MSI-X, 65 vectors, enabled
    config.set([0x05, 0x40, 0x0a, 0x00], 0x50); // MSI, 32 vectors; the list runs in a circle
    config.writeUInt32LE(0x0001_0000 | 0x0d, 0x100);
    config[0x3d] = 1;
    tree.device('0000:01:00.0', { attrs: { resource: '0x00000000fe000000 0x00000000fe003fff 0x0000000000140204\n0x0 0x0 0x0\n' } });
    tree.file('/sys/devices/pci0000:00/0000:01:00.0/config', config);
    const doc = report(new Census(tree.root), findDevice(tree.root, '01:00.0'));
    expect(doc.interrupts).toEqual({ intx: true, msi: 32, msix: 65 });
    expect(doc.capabilities.map((cap) => [cap.offset, cap.name])).toEqual([
      [0x40, 'MSI-X'],
      [0x50, 'MSI'],
      [0x100, 'access control services'],
    ]);
    expect(doc.bars).toEqual([{ index: 0, start: 0xfe000000n, size: 0x4000, kind: 'memory', prefetchable: false, width: 64 }]);
  });

  test.each(['', 'nonsense', '0x1 0x0 0x200', '0x0 0xffff', '0xfffffffffffffffff 0x1 0x200'])('resource line "%s" is no BAR', (line) => {
    expect(parseResource(line)).toEqual([]);
  });
});
