import fs from 'node:fs';
import { Census } from '../../../../src/vfio/census/census.js';
import { dumpRange } from '../../../../src/vfio/session/bar.js';
import { access, parseAccess, readConfigSpace, resolveAccess } from '../../../../src/vfio/session/config.js';
import { byMethod } from '../../../../src/vfio/session/reset.js';
import { configRegion } from '../../../../src/vfio/session/session.js';
import { openSpace } from '../../../../src/vfio/session/space.js';
import { PciTree } from '../../../support/pci-tree.js';

const BDF = '0000:01:00.0';
const real = `/sys/devices/pci0000:00/${BDF}`;
let tree: PciTree;
beforeEach(() => {
  tree = new PciTree();
  tree.device(BDF, { attrs: { 'power/control': 'auto', reset_method: 'flr bus' } });
  const config = Buffer.alloc(256);
  config.writeUInt32LE(0x00101b36, 0);
  config.writeUInt16LE(2, 4); // memory space
  config.writeUInt16LE(0x10, 6); // capability list
  config[0x34] = 0x40;
  config.writeUInt32LE(0xc803_0001, 0x40); // power management, the last capability
  config.writeUInt16LE(0x4008, 0x44);
  tree.file(`${real}/config`, config);
  tree.file(`${real}/resource`, `0xfe000000 0xfe000fff 0x200\n${'0x0 0x0 0x0\n'.repeat(6)}`);
  const bar = Buffer.alloc(4096);
  bar.writeBigUInt64LE(0x0123_4567_89ab_cdefn, 8);
  tree.file(`${real}/resource0`, bar);
});
afterEach(() => tree.remove());
const open = () => openSpace(new Census(tree.root), BDF, 'auto', undefined);
const power = () => tree.root.attr(`${real}/power/control`);

test('config space without VFIO: registers, capabilities, offsets from them, bounds', () => {
  const space = open();
  const read = (text: string) => access(space, configRegion, { ...resolveAccess(space, parseAccess(text, 4)), value: undefined });
  expect([read('VENDOR_ID'), read('0.l'), read('CAP_PM+4.w')]).toEqual([0x1b36n, 0x101b36n, 0x4008n]);
  expect(readConfigSpace(space).capabilities).toMatchObject([{ name: 'power management', offset: 0x40 }]);
  expect(() => read('100.b')).toThrow(expect.objectContaining({ code: 'ERANGE', exit: 2 }));
  expect(() => read('CAP_MSI+2.w')).toThrow(expect.objectContaining({ exit: 7 }));
  expect(() => parseAccess('2.l', 4)).toThrow(expect.objectContaining({ exit: 2 }));
  expect(() => space.store(configRegion, 4, 2, 0)).toThrow(expect.objectContaining({ code: 'NOT_BOUND' }));
  space.close();
  expect(power()).toBe('auto');
});

test('a BAR of a device without a driver, which stays awake meanwhile', () => {
  const space = open();
  expect(space.mapBar(0)).toBe(4096);
  expect(power()).toBe('on');
  expect([8, 4, 2, 1].map((width) => space.load(0, 8, width))).toEqual([0x0123_4567_89ab_cdefn, 0x89ab_cdefn, 0xcdefn, 0xefn]);
  expect(dumpRange(space, 0, 8, 8).toString('hex')).toBe('efcdab8967452301');
  expect(() => space.load(0, 4096, 4)).toThrow(expect.objectContaining({ code: 'ERANGE' }));
  expect(() => space.mapBar(1)).toThrow(expect.objectContaining({ code: 'ENXIO' }));
  space.close();
  expect(power()).toBe('auto');
});

test('not while a driver works with it, nor with memory space off; an explicit API means VFIO', () => {
  tree.driver('nvme');
  tree.bind(BDF, 'nvme');
  let space = open();
  expect(() => space.mapBar(0)).toThrow(
    expect.objectContaining({ code: 'NOT_BOUND', message: expect.stringContaining('driver nvme works') }),
  );
  space.close();
  tree.bind(BDF, undefined);
  const config = fs.readFileSync(tree.at(`${real}/config`));
  config[4] = 0;
  tree.file(`${real}/config`, config);
  space = open();
  expect(() => space.mapBar(0)).toThrow(expect.objectContaining({ code: 'EIO' }));
  space.close();
  expect(power()).toBe('auto');
  expect(() => openSpace(new Census(tree.root), BDF, 'group', undefined)).toThrow(expect.objectContaining({ code: 'NOT_BOUND' }));
});

test('the 64 bytes that everybody may read', () => {
  tree.file(`${real}/config`, fs.readFileSync(tree.at(`${real}/config`)).subarray(0, 64));
  const space = open();
  expect(() => space.read(configRegion, 0, 256)).toThrow(
    expect.objectContaining({ exit: 6, message: expect.stringContaining('64 of 256') }),
  );
  space.close();
});

test('a reset by one method: the others come back, also after a failure', () => {
  const methods = () => tree.root.attr(`${real}/reset_method`);
  expect(byMethod(tree.root, BDF, 'bus', methods)).toBe('bus');
  expect(methods()).toBe('flr bus');
  expect(() =>
    byMethod(tree.root, BDF, 'flr', () => {
      throw new Error('no');
    }),
  ).toThrow('no');
  expect(methods()).toBe('flr bus');
  expect(() => byMethod(tree.root, BDF, 'pm', methods)).toThrow(expect.objectContaining({ exit: 7, hint: 'it has flr, bus' }));
  expect(() => byMethod(tree.root, BDF, '../x', methods)).toThrow(expect.objectContaining({ exit: 2 }));
});
