import fs from 'node:fs';
import { apply } from '../../../../src/vfio/apply/apply.js';
import { parseDeclaration } from '../../../../src/vfio/apply/document.js';
import { bind, planBind } from '../../../../src/vfio/binding/bind.js';
import { applyUnitText, keyOf } from '../../../../src/vfio/binding/declared.js';
import { isGoneSelector, unbind } from '../../../../src/vfio/binding/unbind.js';
import { Census } from '../../../../src/vfio/census/census.js';
import { identityOf } from '../../../../src/vfio/devices/identity.js';
import { linkName, readDevice } from '../../../../src/vfio/devices/pci.js';
import { findDevice } from '../../../../src/vfio/devices/select.js';
import { sriov } from '../../../../src/vfio/sriov/sriov.js';
import type { Host } from '../../../../src/vfio/transaction/move.js';
import { PciTree } from '../../../support/pci-tree.js';
import { testHost } from './kernel.js';

const A = '0000:01:00.0';
const B = '0000:02:00.0';
const PF = '0000:04:00.0';
const program = ['/usr/bin/vioctl'];
let tree: PciTree;
let host: Host;
beforeEach(() => {
  tree = new PciTree();
  ({ host } = testHost(tree));
  for (const name of ['nvme', 'igb', 'igbvf']) tree.driver(name);
  tree.aliases('vfio_pci:v*d*sv*sd*bc*sc*i* vfio_pci', 'pci:v00008086d000010CAsv*sd*bc*sc*i* igbvf');
  plug(A, 'S1', 1);
  plug(B, 'S2', 2);
});
afterEach(() => tree.remove());

/** An NVMe controller on its host driver. */
function plug(bdf: string, serial: string, group: number): void {
  const dir = tree.device(bdf, { driver: 'nvme', group });
  tree.file(`${dir}/nvme/nvme${group}/serial`, `${serial}\n`);
}
/** VFIO shows no serial number. */
function hide(bdf: string): void {
  fs.rmSync(tree.at(`/sys/devices/pci0000:00/${bdf}/nvme`), { recursive: true });
}
const census = () => new Census(tree.root);
const identity = (bdf: string) => identityOf(tree.root, readDevice(tree.root, bdf)!);
const driver = (bdf: string) => linkName(tree.root, `/sys/bus/pci/devices/${bdf}/driver`);
const declaration = (key: string) => `/etc/vioctl/vfio.d/${key}.json`;
const applyFile = async (key: string, check = false) =>
  apply(host, census(), await parseDeclaration(tree.root.read(declaration(key)), key), { check, wait: 0, program });

test('serial number, MAC address, slot, address: the first that is of this device alone', () => {
  expect(identity(A)).toEqual({ kind: 'serial', selector: 'serial:S1', expect: '1b36:0010', function: 0 });
  tree.file(`/sys/devices/pci0000:00/${B}/nvme/nvme2/serial`, 'S1\n');
  expect(identity(A)).toMatchObject({ kind: 'address', selector: A });
  tree.file('/sys/bus/pci/slots/7/address', '0000:01:00\n');
  expect(identity(A)).toMatchObject({ kind: 'slot', selector: 'slot:7' });
  tree.igb(PF);
  tree.file(`/sys/devices/pci0000:00/${PF}/net/eth0/address`, '52:54:00:00:00:0A\n');
  expect(identity(PF)).toMatchObject({ kind: 'mac', selector: 'mac:52:54:00:00:00:0a' });
  tree.file(`/sys/devices/pci0000:00/${PF}/net/eth0/addr_assign_type`, '1\n'); // random
  expect(identity(PF)).toMatchObject({ kind: 'address' });
});

test('a device that vioctl bound keeps its names: every selector still finds it, also a second time', async () => {
  tree.block(`/sys/devices/pci0000:00/${A}/nvme/nvme1`, 'nvme1n1', '259:0');
  await bind(host, census(), { bdfs: [A] });
  hide(A);
  fs.rmSync(tree.at('/sys/class/block/nvme1n1'));
  for (const word of ['serial:S1', 'serial:s1', 'block:nvme1n1', 'block:/dev/nvme1n1']) expect(findDevice(tree.root, word).bdf).toBe(A);
  expect(identity(A)).toMatchObject({ selector: 'serial:S1' });
  await bind(host, census(), { bdfs: [A] });
  expect(findDevice(tree.root, 'serial:S1').bdf).toBe(A);
  // another device at the address is not it
  tree.file(`/sys/devices/pci0000:00/${A}/device`, '0x0011\n');
  expect(() => findDevice(tree.root, 'serial:S1')).toThrow(expect.objectContaining({ code: 'ENODEV' }));
});

test('--persist declares it; after it moved it is found, and its twin at the old address is left alone', async () => {
  const { files } = await bind(host, census(), { bdfs: [A], persist: program, owner: { uid: 0, gid: 0, text: '0:0' }, allow: ['open'] });
  const rule = '/etc/udev/rules.d/20-vioctl-vfio-serial_S1-0.rules';
  expect(files).toEqual(['/etc/systemd/system/vioctl-vfio-apply@.service', declaration('serial_S1-0'), rule]);
  expect(tree.root.read(rule)).toContain('ENV{SYSTEMD_WANTS}+="vioctl-vfio-apply@serial_S1-0.service"');
  expect(tree.root.read(rule)).not.toContain('driver_override');
  expect(tree.root.read(files[0]!)).toBe(applyUnitText(program));
  hide(A);
  expect(
    (await bind(host, census(), { bdfs: [A], persist: program, owner: { uid: 0, gid: 0, text: '0:0' }, allow: ['open'] })).files,
  ).toEqual([]);
  expect(await applyFile('serial_S1-0', true)).toMatchObject([{ bdf: A, outcome: 'same' }]);
  // reboot: the cards changed their slots
  fs.rmSync(tree.at('/run/vioctl'), { recursive: true });
  for (const bdf of [A, B]) fs.rmSync(tree.at(`/sys/devices/pci0000:00/${bdf}`), { recursive: true });
  plug(A, 'S2', 1);
  plug(B, 'S1', 2);
  expect(await applyFile('serial_S1-0')).toMatchObject([{ bdf: B, outcome: 'changed' }]);
  expect([driver(A), driver(B)]).toEqual(['nvme', 'vfio-pci']);
  hide(B);
  expect(await applyFile('serial_S1-0')).toMatchObject([{ bdf: B, outcome: 'same' }]);
  const end = await unbind(host, census(), { bdfs: [B], wait: 0, persist: true });
  expect(end.files.sort()).toEqual([...files].sort());
  expect(driver(B)).toBe('nvme');
});

test('a device that is gone: the declaration is no failure, and its selector ends it', async () => {
  await bind(host, census(), { bdfs: [A], persist: program });
  fs.rmSync(tree.at('/run/vioctl'), { recursive: true });
  for (const bdf of [A]) fs.rmSync(tree.at(`/sys/bus/pci/devices/${bdf}`));
  expect(await applyFile('serial_S1-0')).toMatchObject([{ outcome: 'absent' }]);
  expect([isGoneSelector(tree.root, 'serial:S1'), isGoneSelector(tree.root, 'serial:S2'), isGoneSelector(tree.root, A)]).toEqual([
    true,
    false,
    false,
  ]);
  const { files } = await unbind(host, census(), { bdfs: [], gone: ['serial:S1'], wait: 0, persist: true });
  expect(files).toContain(declaration('serial_S1-0'));
  expect(tree.root.list('/etc/vioctl/vfio.d')).toEqual([]);
});

test('another kind on request, or a refusal', async () => {
  const plan = (kind: 'mac' | 'address' | 'slot') =>
    planBind(census(), { bdfs: [A], persist: program, identity: kind }, { privileged: false });
  expect(plan('address').files.map(({ path }) => path)).toContain(`/etc/vioctl/vfio.d/${A}.env`);
  expect(() => plan('mac')).toThrow(expect.objectContaining({ code: 'NO_IDENTITY', exit: 7 }));
  tree.file('/sys/bus/pci/slots/7/address', '0000:01:00\n');
  expect(plan('slot').files.map(({ path }) => path)).toContain(declaration('slot_7-0'));
});

test('serial numbers with odd characters have keys of their own', () => {
  const key = (selector: string) => keyOf({ selector, function: 0 });
  const keys = ['serial:a b', 'serial:a/b', 'serial:a_b', 'serial:../../x', 'mac:52:54:00:00:00:0a'].map(key);
  expect(new Set(keys).size).toBe(5);
  for (const one of keys) expect(one).toMatch(/^[A-Za-z0-9_.-]+$/);
});

test('virtual functions at every boot; together with a binding of the same device; with --vfs 0 no longer', async () => {
  tree.igb(PF);
  tree.file(`/sys/devices/pci0000:00/${PF}/net/eth0/address`, '52:54:00:00:00:0a\n');
  const run = (options: object) => sriov(host, census(), PF, { vfs: 2, wait: 0, persist: program, ...options });
  const key = keyOf({ selector: 'mac:52:54:00:00:00:0a', function: 0 });
  const { files } = await run({ driver: 'vfio-pci' });
  expect(files).toContain(declaration(key));
  expect((await run({ driver: 'vfio-pci' })).already).toBe(true);
  expect(await applyFile(key, true)).toMatchObject([{ bdf: PF, outcome: 'same' }]);
  await run({ driver: 'vfio-pci', vfs: 3 });
  expect(JSON.parse(tree.root.read(declaration(key))).devices).toMatchObject([{ vfs: 3, vfDriver: 'vfio-pci', optional: true }]);
  await sriov(host, census(), PF, { vfs: 0, wait: 0 });
  expect((await applyFile(key))[0]!.outcome).toBe('changed');
  expect(readDevice(tree.root, PF)!.numVfs).toBe(3);
  expect((await run({ vfs: 0 })).files).toContain(declaration(key));
  expect(tree.root.list('/etc/vioctl/vfio.d')).toEqual([]);
});
