import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { Sysroot } from '../../../../src/common/sysroot.js';
import { lockLimit } from '../../../../src/dma/lock-limit.js';
import { hexLines } from '../../../../src/groups/vfio/session-views.js';
import { Census } from '../../../../src/vfio/census/census.js';
import { selftestOf } from '../../../../src/vfio/selftest/selftest.js';
import { barIndex } from '../../../../src/vfio/session/bar.js';
import { parseAccess } from '../../../../src/vfio/session/config.js';
import { prepareExec } from '../../../../src/vfio/session/exec.js';
import { openSession } from '../../../../src/vfio/session/open.js';
import { PciTree } from '../../../support/pci-tree.js';
import { testHost } from '../binding/kernel.js';

describe('registers, spelled as for setpci', () => {
  test.each([
    ['04.w', { offset: 4, width: 2, value: undefined }],
    ['0x10', { offset: 16, width: 4, value: undefined }],
    ['04.w=6', { offset: 4, width: 2, value: 6n }],
    ['c.b=0xff', { offset: 12, width: 1, value: 255n }],
    ['0.q=ffffffffffffffff', { offset: 0, width: 8, value: 0xffffffffffffffffn }],
    ['COMMAND', { offset: 4, width: 2, value: undefined }],
    ['command=0x106', { offset: 4, width: 2, value: 0x106n }],
    ['BASE_ADDRESS_2', { offset: 0x18, width: 4, value: undefined }],
    ['bac', { offset: 0xbac, width: 4, value: undefined }],
  ])('%s', (text, access) => {
    expect(parseAccess(text, 4)).toEqual({ base: undefined, ...access });
  });
  test.each([
    '',
    'zz',
    '04.x',
    '04.b=100',
    '4=',
    'COMMAND.w=10000',
    '123456789',
    'NOSUCH_REGISTER',
    'bad',
    '6',
    '1.w',
    'CAP_PM',
    'CAP_PM+',
    'CAP_NONE+0',
    'CAP_PM+COMMAND',
    'CAP_PM+CAP_EXP+4',
    'ECAP_PM+4',
  ])('"%s" is none', (text) => {
    expect(() => parseAccess(text, 4)).toThrow(expect.objectContaining({ exit: 2 }));
  });
  test.each([
    ['CAP_PM+4.w', { base: { name: 'CAP_PM', id: 1, extended: false }, offset: 4, width: 2, value: undefined }],
    ['ecap_aer+8.l=1', { base: { name: 'ECAP_AER', id: 1, extended: true }, offset: 8, width: 4, value: 1n }],
    ['CAP11+2.w', { base: { name: 'CAP11', id: 0x11, extended: false }, offset: 2, width: 2, value: undefined }],
    ['ECAP0010+0', { base: { name: 'ECAP0010', id: 0x10, extended: true }, offset: 0, width: 4, value: undefined }],
  ])('%s counts from a capability', (text, access) => expect(parseAccess(text, 4)).toEqual(access));
  test('BARs', () => {
    expect(['0', '5', 'rom', 'ROM'].map(barIndex)).toEqual([0, 5, 6, 6]);
    for (const text of ['6', '-1', '']) expect(() => barIndex(text)).toThrow(expect.objectContaining({ exit: 2 }));
  });
});

test('hex lines shorten what repeats, and keep the last one', () => {
  expect(hexLines(Buffer.alloc(80), 0x100)).toEqual([`00000100: ${'00 '.repeat(15)}00`, '*', `00000140: ${'00 '.repeat(15)}00`]);
  expect(hexLines(Buffer.from([1, 2]))).toEqual(['00000000: 01 02']);
  expect(hexLines(Buffer.alloc(0))).toEqual([]);
});

test('which devices have a self-test', () => {
  expect(selftestOf({ vendor: 0x1234, device: 0x11e8, class: 0xff00 })).toBe('edu');
  expect(selftestOf({ vendor: 0x144d, device: 0xa808, class: 0x010802 })).toBe('nvme');
  expect(selftestOf({ vendor: 0x8086, device: 0x100e, class: 0x020000 })).toBeUndefined();
});

describe('opening, on a tree of files', () => {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-session-'));
  const put = (file: string, text: string) => {
    fs.mkdirSync(path.dirname(path.join(dir, file)), { recursive: true });
    fs.writeFileSync(path.join(dir, file), text);
  };
  for (const bdf of ['0000:01:00.0', '0000:02:00.0']) {
    const device = `/sys/bus/pci/devices/${bdf}`;
    for (const [name, value] of Object.entries({ vendor: '0x1b36', device: '0x0010', class: '0x010802', modalias: 'pci:x' }))
      put(`${device}/${name}`, `${value}\n`);
    fs.mkdirSync(path.join(dir, '/sys/kernel/iommu_groups/7'), { recursive: true });
    fs.symlinkSync('../../../../kernel/iommu_groups/7', path.join(dir, device, 'iommu_group'));
  }
  fs.mkdirSync(path.join(dir, '/sys/bus/pci/drivers/nvme'), { recursive: true });
  fs.symlinkSync('../../drivers/nvme', path.join(dir, '/sys/bus/pci/devices/0000:02:00.0/driver'));
  afterAll(() => fs.rmSync(dir, { recursive: true }));
  const census = () => new Census(new Sysroot(dir));

  test('a device without driver, one on its host driver, none at all', () => {
    expect(() => openSession(census(), '01:00.0')).toThrow(
      expect.objectContaining({ code: 'NOT_BOUND', hint: 'vioctl vfio bind 0000:01:00.0' }),
    );
    expect(() => openSession(census(), '02:00.0')).toThrow(/its driver is nvme/);
    expect(() => openSession(census(), '03:00.0')).toThrow();
  });
});

test.each(['unbind nvme', 'bind vfio-pci'])('exec --bind: a signal during "%s" gives the device back', async (step) => {
  const bdf = '0000:01:00.0';
  const tree = new PciTree();
  try {
    const { host, kernel } = testHost(tree);
    tree.driver('nvme');
    tree.device(bdf, { driver: 'nvme', group: 1 });
    const control = new AbortController();
    kernel.faults.set(`${step} ${bdf}`, () => control.abort(new Error('SIGTERM')));
    const options = { bdfs: [bdf], words: ['true'], specs: [], api: 'auto', bind: true, limit: lockLimit(''), memlock: undefined } as const;
    await expect(prepareExec(host, { ...options, signal: control.signal })).rejects.toThrow('SIGTERM');
    expect(tree.root.readlink(`/sys/bus/pci/devices/${bdf}/driver`)).toMatch(/nvme$/);
    expect(tree.root.list('/run/vioctl/vfio/journal')).toEqual([]);
  } finally {
    tree.remove();
  }
});
