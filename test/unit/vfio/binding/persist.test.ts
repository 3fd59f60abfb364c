import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { bind, planBind } from '../../../../src/vfio/binding/bind.js';
import { applyUnitText } from '../../../../src/vfio/binding/declared.js';
import { hookText, persistent, unitText } from '../../../../src/vfio/binding/persist.js';
import { bindScript, shellScript } from '../../../../src/vfio/binding/script.js';
import { unbind } from '../../../../src/vfio/binding/unbind.js';
import { Census } from '../../../../src/vfio/census/census.js';
import type { Host } from '../../../../src/vfio/transaction/move.js';
import { PciTree } from '../../../support/pci-tree.js';
import { type Kernel, testHost } from './kernel.js';

const A = '0000:01:00.0';
const RULE = `/etc/udev/rules.d/20-vioctl-vfio-${A}.rules`;
const CONFIG = `/etc/vioctl/vfio.d/${A}.env`;
const UNIT = '/etc/systemd/system/vioctl-vfio@.service';
const program = ['/usr/bin/node', '/opt/my tools/run.js'];
const shipped = (name: string) => fs.readFileSync(path.resolve(__dirname, '../../../../systemd', name), 'utf8');

let tree: PciTree;
let host: Host;
let kernel: Kernel;
beforeEach(() => {
  tree = new PciTree();
  ({ host, kernel } = testHost(tree));
  tree.driver('nvme');
  tree.device(A, { driver: 'nvme', group: 1 });
});
afterEach(() => tree.remove());
const census = () => new Census(tree.root);
const persist = (more = {}) => bind(host, census(), { bdfs: [A], persist: program, ...more });

test('the shipped unit and hook are those that --persist writes', () => {
  expect(shipped('vioctl-vfio@.service')).toBe(unitText(['/usr/bin/vioctl']));
  expect(shipped('vioctl-vfio-apply@.service')).toBe(applyUnitText(['/usr/bin/vioctl']));
  expect(shipped('initramfs-hook-vioctl-vfio')).toBe(hookText);
});

test('rule, options and unit: by address and by id', async () => {
  const { files } = await persist({ owner: { uid: 7, gid: 8, text: 'qemu:kvm' }, allow: ['open'] });
  expect(files).toEqual([UNIT, CONFIG, RULE]);
  const rule = tree.root.read(RULE);
  for (const part of [`KERNEL=="${A}"`, 'ATTR{vendor}=="0x1b36"', 'ATTR{device}=="0x0010"', 'ATTR{driver_override}="vfio-pci"'])
    expect(rule).toContain(part);
  expect(tree.root.read(CONFIG)).toContain('VIOCTL_BIND=--expect 1b36:0010 --driver vfio-pci --owner qemu:kvm --allow open\n');
  expect(tree.root.read(UNIT)).toContain('ExecStart=/usr/bin/node "/opt/my tools/run.js" vfio bind %i $VIOCTL_BIND\n');
  expect(persistent(tree.root)).toEqual([A]);
});

test('a second time nothing is written; unbind --persist removes all, and what is shared with the last binding only', async () => {
  const B = '0000:02:00.0';
  tree.device(B, { driver: 'nvme', group: 2 });
  tree.folder('/etc/initramfs-tools/hooks');
  await persist({ bdfs: [A, B] });
  expect((await persist({ bdfs: [A, B] })).files).toEqual([]);
  expect(fs.statSync(tree.at('/etc/initramfs-tools/hooks/vioctl-vfio')).mode & 0o111).toBe(0o111);
  const first = await unbind(host, census(), { bdfs: [A], wait: 0, persist: true });
  expect(first.files).toEqual([RULE, CONFIG]);
  const second = await unbind(host, census(), { bdfs: [B], wait: 0, persist: true });
  expect(second.files.sort()).toEqual([CONFIG.replace(A, B), '/etc/initramfs-tools/hooks/vioctl-vfio', UNIT, RULE.replace(A, B)].sort());
});

test('a persistent binding of an address where no device is any more can be removed', async () => {
  await persist();
  fs.rmSync(tree.at(`/sys/bus/pci/devices/${A}`));
  await expect(unbind(host, census(), { bdfs: [A], wait: 0 })).rejects.toThrow('no PCI device');
  expect(await unbind(host, census(), { bdfs: [A], wait: 0, persist: true })).toMatchObject({
    devices: [],
    files: expect.arrayContaining([RULE]),
  });
});

test('a failed bind leaves no file; a file that cannot be written undoes the bind', async () => {
  kernel.faults.set(`bind vfio-pci ${A}`, 22);
  await expect(persist()).rejects.toThrow('EINVAL');
  expect(tree.root.exists(RULE)).toBe(false);
  tree.file('/etc/udev/rules.d', 'a file where a folder should be');
  await expect(persist()).rejects.toThrow('make the binding persistent');
  expect([tree.root.exists(CONFIG), tree.root.exists(UNIT)]).toEqual([false, false]);
  expect(tree.root.readlink(`/sys/bus/pci/devices/${A}/driver`)).toMatch(/nvme$/);
});

describe('an earlier persistent binding stays', () => {
  const files = () => [UNIT, CONFIG, RULE].map((file) => tree.root.attr(file));

  test('when a signal ends a bind of it and of another device', async () => {
    const B = '0000:02:00.0';
    tree.device(B, { driver: 'nvme', group: 2 });
    await persist();
    await unbind(host, census(), { bdfs: [A], wait: 0 });
    const before = files();
    const control = new AbortController();
    kernel.faults.set(`bind vfio-pci ${B}`, () => control.abort(new Error('SIGINT')));
    await expect(persist({ bdfs: [A, B], signal: control.signal })).rejects.toThrow('SIGINT');
    expect(files()).toEqual(before);
    expect(persistent(tree.root)).toEqual([A]);
  });

  test('as it was, when the bind fails after the files were written', async () => {
    await persist();
    await unbind(host, census(), { bdfs: [A], wait: 0 });
    const before = files();
    fs.chmodSync(tree.at(CONFIG), 0o600);
    tree.folder(`/run/vioctl/vfio/bound/${A}.json.new`);
    await expect(persist({ allow: ['open'] })).rejects.toThrow('write the journal');
    expect(files()).toEqual(before);
    expect(fs.statSync(tree.at(CONFIG)).mode & 0o777).toBe(0o600);
  });

  test('a signal that comes when nothing is left to do but the files writes none', async () => {
    await bind(host, census(), { bdfs: [A] });
    const control = new AbortController();
    control.abort(new Error('SIGINT'));
    await expect(persist({ signal: control.signal })).rejects.toThrow('SIGINT');
    expect(files()).toEqual([undefined, undefined, undefined]);
  });
});

test('only VFIO drivers', () => {
  tree.aliases('pci:v*d*sv*sd*bc01sc08i02* nvme');
  expect(() => planBind(census(), { bdfs: [A], driver: 'nvme', persist: program }, { privileged: false })).toThrow(
    expect.objectContaining({ exit: 2 }),
  );
});

test('the script of a dry run writes the same files', async () => {
  const script = shellScript(bindScript(tree.root, planBind(census(), { bdfs: [A], persist: program }, { privileged: false })));
  // the sysfs writes need a kernel; the files are taken into the tree
  const files = script.slice(script.indexOf('mkdir -p')).replace(/^(mkdir -p|cat >|chmod \d+) \/etc\//gm, `$1 ${tree.dir}/etc/`);
  expect(files.match(/^(mkdir|cat|chmod) .*/gm)!.every((line) => line.includes(` ${tree.dir}/`))).toBe(true);
  const { status, stderr } = spawnSync('sh', ['-eu'], { input: files, encoding: 'utf8' });
  expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
  const written = [UNIT, CONFIG, RULE].map((file) => tree.root.read(file));
  await persist();
  expect([UNIT, CONFIG, RULE].map((file) => tree.root.read(file))).toEqual(written);
});
