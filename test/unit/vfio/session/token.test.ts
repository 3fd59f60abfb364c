import fs from 'node:fs';
import { Census } from '../../../../src/vfio/census/census.js';
import { readDevice } from '../../../../src/vfio/devices/pci.js';
import { forgetToken, keepToken, keptToken, newToken, parseToken, tokenBytes, tokenFor } from '../../../../src/vfio/session/token.js';
import { requireSriov } from '../../../../src/vfio/sriov/token.js';
import { PciTree } from '../../../support/pci-tree.js';

const PF = '0000:04:00.0';
const VF = '0000:04:10.0';
const TOKEN = '14b3a1e6-30d2-4b5e-9c58-6f1d2d6f7a10';
let tree: PciTree;
beforeEach(() => {
  tree = new PciTree();
  for (const name of ['vfio-pci', 'igb']) tree.driver(name);
  tree.igb(PF);
  const vf = tree.device(VF, { driver: 'vfio-pci' });
  tree.link(`${vf}/physfn`, `/sys/devices/pci0000:00/${PF}`);
  tree.device('0000:05:00.0', { driver: 'vfio-pci' });
});
afterEach(() => tree.remove());

const of = (bdf: string, given?: string) => tokenFor(new Census(tree.root), readDevice(tree.root, bdf)!, given);

test('a UUID, in any case; its bytes are in the order of the text', () => {
  expect(parseToken(TOKEN.toUpperCase())).toBe(TOKEN);
  expect(tokenBytes(TOKEN).toString('hex')).toBe(TOKEN.replaceAll('-', ''));
  expect(parseToken(newToken())).toHaveLength(36);
  for (const text of ['', TOKEN.slice(1), `${TOKEN}0`, TOKEN.replace('4', 'g'), TOKEN.replaceAll('-', ''), `{${TOKEN}}`])
    expect(() => parseToken(text)).toThrow(expect.objectContaining({ exit: 2 }));
});

test('a virtual function takes a token only if its physical one is on VFIO; others never do', () => {
  expect(of(VF)).toBeUndefined();
  expect(() => of(VF, TOKEN)).toThrow(
    expect.objectContaining({ code: 'NO_TOKEN', exit: 2, message: expect.stringContaining('is not on VFIO') }),
  );
  tree.bind(PF, 'vfio-pci');
  expect(of(VF, TOKEN)).toBe(TOKEN);
  expect(of(PF, TOKEN)).toBe(TOKEN);
  expect(() => of('0000:05:00.0', TOKEN)).toThrow(expect.objectContaining({ code: 'NO_TOKEN' }));
});

test('the token that vioctl set is used, is readable for us alone, and goes', () => {
  tree.bind(PF, 'vfio-pci');
  keepToken(tree.root, PF, TOKEN);
  expect(fs.statSync(tree.at(`/run/vioctl/vfio/tokens/${PF}`)).mode & 0o777).toBe(0o600);
  expect([of(VF), of(PF), of(VF, TOKEN.replace('1', '2'))]).toEqual([TOKEN, TOKEN, TOKEN.replace('1', '2')]);
  forgetToken(tree.root, PF);
  forgetToken(tree.root, PF);
  expect([of(VF), keptToken(tree.root, PF)]).toEqual([undefined, undefined]);
});

test('vfio-pci without enable_sriov makes no virtual functions', () => {
  tree.bind(PF, 'vfio-pci');
  const check = () => requireSriov(new Census(tree.root), readDevice(tree.root, PF)!);
  tree.file('/sys/module/vfio_pci/parameters/enable_sriov', 'N\n');
  expect(check).toThrow(expect.objectContaining({ exit: 7, hint: expect.stringContaining('enable_sriov') }));
  tree.file('/sys/module/vfio_pci/parameters/enable_sriov', 'Y\n');
  expect(check).not.toThrow();
});
