import { restore } from '../../../../src/vfio/binding/restore.js';
import { Census } from '../../../../src/vfio/census/census.js';
import { linkName, readDevice } from '../../../../src/vfio/devices/pci.js';
import { parseMac } from '../../../../src/vfio/sriov/macs.js';
import { planSriov, type SriovOptions, showSriov, sriov, sriovLines } from '../../../../src/vfio/sriov/sriov.js';
import { Store } from '../../../../src/vfio/transaction/journal.js';
import type { Host } from '../../../../src/vfio/transaction/move.js';
import { PciTree } from '../../../support/pci-tree.js';
import { type Kernel, testHost } from '../binding/kernel.js';

const PF = '0000:04:00.0';
const VFS = ['0000:04:10.0', '0000:04:10.1', '0000:04:10.2'];
let tree: PciTree;
let host: Host;
let kernel: Kernel;
/** MAC addresses that the double of ip(8) has. */
let macs: string[];

beforeEach(() => {
  tree = new PciTree();
  ({ host, kernel } = testHost(tree));
  for (const name of ['igb', 'igbvf']) tree.driver(name);
  tree.aliases('vfio_pci:v*d*sv*sd*bc*sc*i* vfio_pci', 'pci:v00008086d000010CAsv*sd*bc*sc*i* igbvf');
  tree.igb(PF);
  macs = [];
  host.ip = async (args) => {
    const at = args.indexOf('vf');
    if (at >= 0) macs[Number(args[at + 1])] = args[at + 3]!;
    return JSON.stringify([{ ifname: 'eth0', vfinfo_list: macs.map((mac, vf) => ({ vf, address: mac })) }]);
  };
});
afterEach(() => tree.remove());

const census = () => new Census(tree.root);
const run = (options: Partial<SriovOptions> & { vfs: number }) => sriov(host, census(), PF, { wait: 0, ...options });
const numbers = () => kernel.seen.filter((line) => line.startsWith('sriov_')).map((line) => line.replace(` ${PF}`, ''));
const pf = () => readDevice(tree.root, PF)!;

test("on, by the kernel's drivers; a second run changes nothing; another number goes by 0; off", async () => {
  expect(await run({ vfs: 2 })).toMatchObject({
    numVfs: 2,
    previousVfs: 0,
    already: false,
    vfs: [{ bdf: VFS[0], driver: 'igbvf' }, { bdf: VFS[1] }],
  });
  kernel.seen.length = 0;
  expect(await run({ vfs: 2 })).toMatchObject({ numVfs: 2, already: true });
  expect(kernel.seen).toEqual([]);
  await run({ vfs: 3 });
  expect(numbers()).toEqual(['sriov_numvfs 0', 'sriov_numvfs 3']);
  expect(await run({ vfs: 0 })).toMatchObject({ numVfs: 0, previousVfs: 3, vfs: [] });
  expect([pf().vfs, tree.root.list('/run/vioctl/vfio/journal')]).toEqual([[], []]);
});

test('with a driver no other one is offered them; they are recorded as bound, and forgotten when they vanish', async () => {
  const { vfs } = await run({ vfs: 3, driver: 'vfio-pci' });
  expect(vfs.map(({ driver }) => driver)).toEqual(['vfio-pci', 'vfio-pci', 'vfio-pci']);
  expect(numbers()).toEqual(['sriov_drivers_autoprobe 0', 'sriov_numvfs 3', 'sriov_drivers_autoprobe 1']);
  expect(kernel.seen.some((line) => line.startsWith('unbind'))).toBe(false);
  expect(new Store(tree.root).records().map(({ bdf }) => bdf)).toEqual(VFS);
  kernel.seen.length = 0;
  expect(await run({ vfs: 3, driver: 'vfio-pci' })).toMatchObject({ already: true });
  expect(kernel.seen).toEqual([]);
  await run({ vfs: 0 });
  expect(new Store(tree.root).records()).toEqual([]);
});

test('--no-autoprobe stays; MAC addresses are set where they differ', async () => {
  const options = { vfs: 2, autoprobe: false, macs: ['52:54:00:00:00:0A', '52-54-00-00-00-0b'] };
  expect((await run(options)).vfs).toMatchObject([{ driver: undefined, mac: '52:54:00:00:00:0a' }, { mac: '52:54:00:00:00:0b' }]);
  expect(pf().autoprobe).toBe(false);
  expect(await run(options)).toMatchObject({ already: true });
  expect(await run({ ...options, macs: ['52:54:00:00:00:0c'] })).toMatchObject({ already: false });
  expect(macs).toEqual(['52:54:00:00:00:0c', '52:54:00:00:00:0b']);
});

test('what fails puts the number back: the write, a MAC address, a driver', async () => {
  kernel.faults.set(`sriov_numvfs ${PF} 3`, 12);
  await expect(run({ vfs: 3 })).rejects.toMatchObject({ code: 'ENOMEM' });
  expect([pf().numVfs, pf().autoprobe]).toEqual([0, true]);
  const { ip } = host;
  host.ip = () => Promise.reject(new Error('no'));
  await expect(run({ vfs: 3, macs: ['52:54:00:00:00:01'] })).rejects.toThrow('no');
  expect([pf().numVfs, pf().vfs]).toEqual([0, []]);
  host.ip = ip;
  kernel.faults.set(`bind vfio-pci ${VFS[1]}`, 22);
  await expect(run({ vfs: 2, driver: 'vfio-pci' })).rejects.toMatchObject({ code: 'EINVAL' });
  expect([pf().numVfs, pf().autoprobe, pf().vfs]).toEqual([0, true, []]);
  expect(tree.root.list('/run/vioctl/vfio/journal')).toEqual([]);
  expect(new Store(tree.root).records()).toEqual([]);
});

test.each([0, 1, 2, 3, 4, 5, 6])('killed at write %i: restore takes the virtual functions away again', async (cut) => {
  let writes = 0;
  const write = kernel.write.bind(kernel);
  host.writer = {
    write: (file, value) => (writes++ === cut ? new Promise(() => {}) : write(file, value)),
  };
  void run({ vfs: 2, driver: 'vfio-pci' }).catch(() => {});
  for (let turn = 0; turn < 50; turn++) await new Promise((resolve) => setImmediate(resolve));
  tree.file('/proc/100/stat', ''); // our process is dead
  for (const name of tree.root.list('/run/vioctl/vfio/journal')) tree.file(`/run/vioctl/vfio/journal/${name}.new`, '{'); // as it wrote
  host.writer = kernel;
  const { left } = await restore(host, census(), { all: true, wait: 0 });
  expect(left).toEqual([]);
  if (writes > cut) expect([pf().numVfs, pf().vfs, pf().autoprobe]).toEqual([0, [], true]);
  expect([tree.root.list('/run/vioctl/vfio/journal'), tree.root.list('/run/vioctl/vfio/claims')]).toEqual([[], []]);
});

test.each([
  [0, 0],
  [0, 1],
  [3, 0],
  [3, 1],
  [3, 2],
  [3, 3],
  [3, 5],
  [3, 7],
])('to %i functions, killed after %i writes: restore gives back number, drivers, records and addresses', async (vfs, done) => {
  await run({ vfs: 2, driver: 'vfio-pci', macs: ['52:54:00:00:00:0a', '52:54:00:00:00:0b'] });
  const records = new Store(tree.root).records();
  let writes = 0;
  const write = kernel.write.bind(kernel);
  host.writer = {
    write: async (file, value) => {
      if (writes < done) await write(file, value);
      if (pf().vfs.length === 0) macs = []; // those that come have addresses of their own
      if (++writes >= done) await new Promise(() => {});
    },
  };
  void run({ vfs, ...(vfs > 0 && { driver: 'vfio-pci' }) }).catch(() => {});
  for (let turn = 0; turn < 80; turn++) await new Promise((resolve) => setImmediate(resolve));
  expect(writes).toBeGreaterThanOrEqual(done);
  tree.file('/proc/100/stat', ''); // our process is dead
  for (const name of tree.root.list('/run/vioctl/vfio/journal')) tree.file(`/run/vioctl/vfio/journal/${name}.new`, '{'); // as it wrote
  host.writer = kernel;
  expect((await restore(host, census(), { all: false, wait: 0 })).left).toEqual([]);
  expect([pf().numVfs, pf().autoprobe, macs]).toEqual([2, true, ['52:54:00:00:00:0a', '52:54:00:00:00:0b']]);
  expect(pf().vfs.map((vf) => linkName(tree.root, `/sys/bus/pci/devices/${vf}/driver`))).toEqual(['vfio-pci', 'vfio-pci']);
  expect(new Store(tree.root).records()).toEqual(records);
  expect([tree.root.list('/run/vioctl/vfio/journal'), tree.root.list('/run/vioctl/vfio/claims')]).toEqual([[], []]);
});

test('a virtual function that is used keeps the number as it is', async () => {
  await run({ vfs: 2 });
  const vf = `/sys/devices/pci0000:00/${VFS[1]}`;
  tree.net(vf, 'eth7', { uppers: ['br0'] });
  tree.net(undefined, 'br0');
  await expect(run({ vfs: 0 })).rejects.toMatchObject({ exit: 3, code: 'UPPER', message: expect.stringContaining(VFS[1]!) });
  expect(pf().numVfs).toBe(2);
  expect(await run({ vfs: 0, allow: ['upper'] })).toMatchObject({ numVfs: 0 });
});

test('a virtual function that is held keeps the number as it is', async () => {
  await run({ vfs: 1, driver: 'vfio-pci' });
  tree.file(`/sys/devices/pci0000:00/${VFS[0]}/enable`, '1\n');
  tree.process(77, 'qemu', { 9: 'anon_inode:[vfio-device]' }, { 'fdinfo/9': `vfio-device-syspath: /sys/devices/pci0000:00/${VFS[0]}\n` });
  await expect(run({ vfs: 0 })).rejects.toMatchObject({ exit: 3, message: expect.stringContaining('held by qemu') });
});

test.each([
  [{ vfs: 8 }, { exit: 2, code: 'ERANGE' }],
  [{ vfs: 1, macs: ['52:54:00:00:00:01', '52:54:00:00:00:02'] }, { exit: 2 }],
  [{ vfs: 2, macs: ['52:54:00:00:00:01', '52:54:00:00:00:01'] }, { exit: 2 }],
])('%j is refused', (options, error) => {
  expect(() => planSriov(census(), PF, { wait: 0, ...options }, { privileged: false })).toThrow(expect.objectContaining(error));
});

test('no SR-IOV, a virtual function, no driver, no device', async () => {
  await run({ vfs: 1 });
  const plan = (bdf: string) => () => planSriov(census(), bdf, { vfs: 0, wait: 0 }, { privileged: false });
  expect(plan(VFS[0]!)).toThrow(expect.objectContaining({ exit: 2, message: expect.stringContaining('itself a virtual function') }));
  tree.device('0000:05:00.0');
  expect(plan('0000:05:00.0')).toThrow(expect.objectContaining({ exit: 7, code: 'NO_SRIOV' }));
  expect(plan('0000:06:00.0')).toThrow(expect.objectContaining({ code: 'ENODEV' }));
  tree.bind(PF, undefined);
  expect(plan(PF)).toThrow(expect.objectContaining({ code: 'NO_DRIVER' }));
  expect(await showSriov(host, census(), PF)).toMatchObject({ numVfs: 1, already: true });
});

test('the script has the writes; the driver of the physical function stays', () => {
  const plan = planSriov(census(), PF, { vfs: 2, driver: 'vfio-pci', macs: ['52:54:00:00:00:01'], wait: 0 }, { privileged: false });
  expect(sriovLines(plan)).toEqual([
    '#!/bin/sh',
    'set -eu',
    `# ${PF}`,
    `echo 0 > /sys/bus/pci/devices/${PF}/sriov_drivers_autoprobe`,
    `echo 2 > /sys/bus/pci/devices/${PF}/sriov_numvfs`,
    'ip link set dev eth0 vf 0 mac 52:54:00:00:00:01',
    `for vf in /sys/bus/pci/devices/${PF}/virtfn*; do`,
    '  vf=$(basename "$(readlink "$vf")")',
    '  echo vfio-pci > /sys/bus/pci/devices/$vf/driver_override',
    '  echo "$vf" > /sys/bus/pci/drivers/vfio-pci/bind',
    'done',
    `echo 1 > /sys/bus/pci/devices/${PF}/sriov_drivers_autoprobe`,
  ]);
  expect(linkName(tree.root, `/sys/bus/pci/devices/${PF}/driver`)).toBe('igb');
});

test.each(['52:54:00:00:00', '52:54:00:00:00:zz', '01:00:5e:00:00:01', '00:00:00:00:00:00', '52:54-00:00:00:01', ''])(
  '"%s" is no MAC address',
  (text) => {
    expect(() => parseMac(text)).toThrow(expect.objectContaining({ exit: 2 }));
  },
);

test.each(['sriov_numvfs', 'ip'])('a signal during %s brings the earlier number back', async (step) => {
  const control = new AbortController();
  const abort = () => control.abort(new Error('SIGTERM'));
  const { ip } = host;
  if (step === 'ip')
    host.ip = async (args) => {
      abort();
      return ip(args);
    };
  else kernel.faults.set(`sriov_numvfs ${PF} 2`, abort);
  await expect(run({ vfs: 2, macs: ['52:54:00:00:00:01'], signal: control.signal })).rejects.toThrow('SIGTERM');
  expect([pf().numVfs, pf().vfs, tree.root.list('/run/vioctl/vfio/journal')]).toEqual([0, [], []]);
});

test('MAC addresses of virtual functions that stay: a run that is killed between two is undone from its journal', async () => {
  await run({ vfs: 2, macs: ['52:54:00:00:00:0a', '52:54:00:00:00:0b'] });
  const { ip } = host;
  let sets = 0;
  host.ip = (args) => (args[0] === 'link' && ++sets === 2 ? new Promise(() => {}) : ip(args));
  void run({ vfs: 2, macs: ['52:54:00:00:00:1a', '52:54:00:00:00:1b'] });
  for (let turn = 0; turn < 50; turn++) await new Promise((resolve) => setImmediate(resolve));
  expect(macs).toEqual(['52:54:00:00:00:1a', '52:54:00:00:00:0b']);
  tree.file('/proc/100/stat', ''); // our process is dead
  host.ip = ip;
  expect((await restore(host, census(), { all: false, wait: 0 })).devices).toMatchObject([{ operation: 'sriov', step: 'macs' }]);
  expect([macs, pf().numVfs]).toEqual([['52:54:00:00:00:0a', '52:54:00:00:00:0b'], 2]);
});

test('MAC addresses that fail go back; one that the driver drops is told', async () => {
  await run({ vfs: 2, macs: ['52:54:00:00:00:0a', '52:54:00:00:00:0b'] });
  const { ip } = host;
  host.ip = (args) => (args.includes('52:54:00:00:00:1b') ? Promise.reject(new Error('no')) : ip(args));
  await expect(run({ vfs: 2, macs: ['52:54:00:00:00:1a', '52:54:00:00:00:1b'] })).rejects.toThrow('no');
  expect(macs).toEqual(['52:54:00:00:00:0a', '52:54:00:00:00:0b']);
  host.ip = (args) => (args.includes('52:54:00:00:00:1b') ? Promise.resolve('') : ip(args));
  await expect(run({ vfs: 2, macs: ['52:54:00:00:00:0a', '52:54:00:00:00:1b'] })).rejects.toMatchObject({
    code: 'NOT_APPLIED',
    message: expect.stringContaining('virtual function 1 has MAC address 52:54:00:00:00:0b'),
  });
});
