import fs from 'node:fs';
import { batchError, oneByOne } from '../../../../src/vfio/binding/batch.js';
import { type BindOptions, bind, planBind } from '../../../../src/vfio/binding/bind.js';
import { restorationError, restore } from '../../../../src/vfio/binding/restore.js';
import { bindScript, shellScript } from '../../../../src/vfio/binding/script.js';
import { planUnbind, unbind } from '../../../../src/vfio/binding/unbind.js';
import { Census } from '../../../../src/vfio/census/census.js';
import { linkName, readOverride } from '../../../../src/vfio/devices/pci.js';
import { Store } from '../../../../src/vfio/transaction/journal.js';
import type { Host } from '../../../../src/vfio/transaction/move.js';
import { Transaction } from '../../../../src/vfio/transaction/transaction.js';
import { PciTree } from '../../../support/pci-tree.js';
import { type Kernel, testHost } from './kernel.js';

const A = '0000:01:00.0';
const B = '0000:02:00.0';
let tree: PciTree;
let host: Host;
let kernel: Kernel;
let loaded: string[];

beforeEach(() => {
  tree = new PciTree();
  ({ host, kernel, loaded } = testHost(tree));
  tree.driver('nvme');
  tree.aliases('pci:v*d*sv*sd*bc01sc08i02* nvme', 'vfio_pci:v*d*sv*sd*bc*sc*i* vfio_pci');
  tree.device(A, { driver: 'nvme', group: 1 });
  tree.device(B, { driver: 'nvme', group: 2 });
});
afterEach(() => tree.remove());

const census = () => new Census(tree.root);
const run = (options: Partial<BindOptions> & { hold?: boolean; signal?: AbortSignal; wait?: number } = {}) =>
  bind(host, census(), { bdfs: [A], ...options });
const state = (bdf: string) => [linkName(tree.root, `/sys/bus/pci/devices/${bdf}/driver`), readOverride(tree.root, bdf)];
const journals = () => tree.root.list('/run/vioctl/vfio/journal').filter((name) => name.endsWith('.json'));
const failure = async (promise: Promise<unknown>) =>
  promise.then(
    () => {
      throw new Error('did not fail');
    },
    (err: { code: string; exit: number; message: string; hint?: string; details?: Record<string, unknown> }) => err,
  );

describe('bind', () => {
  test('writes override, unbind, bind, in this order, and never new_id', async () => {
    const { devices } = await run();
    expect(loaded).toEqual(['vfio_pci']);
    expect(kernel.seen).toEqual([`driver_override ${A} vfio-pci`, `unbind nvme ${A}`, `bind vfio-pci ${A}`]);
    expect(devices).toMatchObject([{ bdf: A, driver: 'vfio-pci', previousDriver: 'nvme', group: 1, node: '/dev/vfio/1', already: false }]);
    expect(journals()).toEqual([]);
    expect(new Store(tree.root).record(A)).toMatchObject({ before: { driver: 'nvme', numVfs: 0 }, after: { driver: 'vfio-pci' } });
  });

  test('a second bind and a second unbind change nothing', async () => {
    await run();
    kernel.seen.length = 0;
    expect((await run()).devices[0]).toMatchObject({ already: true, previousDriver: 'nvme' });
    expect(kernel.seen).toEqual([]);
    await unbind(host, census(), { bdfs: [A], wait: 0 });
    expect(state(A)).toEqual(['nvme', undefined]);
    kernel.seen.length = 0;
    expect((await unbind(host, census(), { bdfs: [A], wait: 0 })).devices[0]).toMatchObject({ already: true });
    expect(kernel.seen).toEqual([]);
  });

  test('undo gives back what this call bound; with hold the journal stays until then', async () => {
    const binding = await run({ hold: true });
    expect(journals()).toHaveLength(1);
    expect(new Store(tree.root).record(A)).toBeUndefined();
    await binding.undo();
    expect(state(A)).toEqual(['nvme', undefined]);
    expect(journals()).toEqual([]);
    await binding.undo(); // a second one has nothing to do
  });

  test('a bound PF loses its VFs, and gets them back', async () => {
    tree.file(`/sys/devices/pci0000:00/${A}/sriov_numvfs`, '2\n');
    await run();
    await unbind(host, census(), { bdfs: [A], wait: 0 });
    expect(kernel.seen.at(-1)).toBe(`sriov_numvfs ${A} 2`);
  });
});

describe('what fails is undone', () => {
  test.each([
    ['the override cannot be written', `driver_override ${A} vfio-pci`, 5, 'EIO'],
    ['the old driver refuses to let go', `unbind nvme ${A}`, 16, 'EBUSY'],
    ['the new driver refuses', `bind vfio-pci ${A}`, 22, 'EINVAL'],
    ['the new driver has no memory', `bind vfio-pci ${A}`, 12, 'ENOMEM'],
    ['sysfs became read-only', `unbind nvme ${A}`, 30, 'EROFS'],
    ['the driver went away', `bind vfio-pci ${A}`, 2, 'ENOENT'],
  ])('%s', async (_, write, errno, code) => {
    kernel.faults.set(write, errno);
    const err = await failure(run());
    expect(err).toMatchObject({ code, message: expect.stringContaining(A) });
    expect(state(A)).toEqual(['nvme', undefined]);
    expect(journals()).toEqual([]);
    expect(new Store(tree.root).record(A)).toBeUndefined();
  });

  test('the kernel takes the write but the device is not there (drivers_probe-like silence)', async () => {
    kernel.faults.set(`bind vfio-pci ${A}`, 'ignore');
    expect(await failure(run())).toMatchObject({ code: 'NOT_APPLIED', message: expect.stringContaining('on no driver') });
    expect(state(A)).toEqual(['nvme', undefined]);
  });

  test('a race lost once is tried again; lost twice it is an error that names the driver', async () => {
    tree.driver('other');
    const grab = () => {
      tree.bind(A, 'other');
    };
    kernel.faults.set(`bind vfio-pci ${A}`, grab);
    await run();
    expect(kernel.seen.filter((write) => write.startsWith('unbind'))).toEqual([`unbind nvme ${A}`, `unbind other ${A}`]);
    expect(state(A)[0]).toBe('vfio-pci');
    await unbind(host, census(), { bdfs: [A], wait: 0 });
    kernel.faults.set(`bind vfio-pci ${A}`, () => {
      grab();
      kernel.faults.set(`bind vfio-pci ${A}`, grab);
    });
    expect(await failure(run())).toMatchObject({ code: 'EBUSY' });
    expect(state(A)).toEqual(['nvme', undefined]);
  });

  test('a race against a program that sets the override too is tried again as well', async () => {
    tree.driver('other');
    kernel.faults.set(`bind vfio-pci ${A}`, () => {
      tree.file(`/sys/bus/pci/devices/${A}/driver_override`, 'other\n');
      tree.bind(A, 'other');
    });
    await run();
    expect(kernel.seen.filter((write) => write.startsWith('unbind'))).toEqual([`unbind nvme ${A}`, `unbind other ${A}`]);
    expect(state(A)).toEqual(['vfio-pci', 'vfio-pci']);
  });

  test('the second of two devices fails: both go back', async () => {
    kernel.faults.set(`bind vfio-pci ${B}`, 22);
    await failure(run({ bdfs: [A, B] }));
    expect([state(A), state(B)]).toEqual([
      ['nvme', undefined],
      ['nvme', undefined],
    ]);
  });

  test('the old driver does not come back: exit 8, what is left, and the journal stays for restore', async () => {
    kernel.faults.set(`bind vfio-pci ${A}`, 22);
    kernel.faults.set(`bind nvme ${A}`, 12);
    const err = await failure(run());
    expect(err).toMatchObject({ exit: 8, code: 'NOT_RESTORED', hint: expect.stringContaining('vioctl vfio restore') });
    expect(err.message).toMatch(/EINVAL.*NOT restored: 0000:01:00\.0 should have driver nvme: driver nvme did not take the device: ENOMEM/);
    expect(journals()).toHaveLength(1);
    tree.file('/proc/100/stat', '100 (vioctl) Z\n'); // our process has ended
    expect((await restore(host, census(), { all: false, wait: 0 })).devices).toMatchObject([
      { bdf: A, operation: 'bind', outcome: 'restored' },
    ]);
    expect(state(A)).toEqual(['nvme', undefined]);
    expect(journals()).toEqual([]);
  });

  test('an unbind that hangs in the kernel: exit 8 with the process that waits', async () => {
    tree.file('/proc/4711/stat', '4711 (vioctl) D 1\n');
    tree.file('/proc/4711/wchan', 'nvme_remove');
    kernel.faults.set(`unbind nvme ${A}`, 'hang');
    const err = await failure(run());
    expect(err).toMatchObject({ exit: 8, code: 'NOT_RESTORED' });
    expect(err.message).toMatch(/driver nvme does not let go.*process 4711, state D, in nvme_remove/);
  });

  test('a signal before any write: nothing is changed; between writes: undone', async () => {
    for (const write of ['', `driver_override ${A} vfio-pci`, `unbind nvme ${A}`, `bind vfio-pci ${A}`]) {
      const control = new AbortController();
      if (write === '') control.abort(new Error('SIGINT'));
      else kernel.faults.set(write, () => control.abort(new Error('SIGINT')));
      await expect(run({ signal: control.signal })).rejects.toThrow('SIGINT');
      expect(state(A)).toEqual(['nvme', undefined]);
      expect(journals()).toEqual([]);
    }
  });

  test('the device vanishes in the middle', async () => {
    kernel.faults.set(`unbind nvme ${A}`, () => {
      fs.rmSync(tree.at(`/sys/bus/pci/devices/${A}`));
      throw Object.assign(new Error('gone'), { code: 'ENODEV' });
    });
    expect(await failure(run())).toMatchObject({ exit: 8, message: expect.stringContaining('the device is gone') });
  });

  test('no module: nothing was written', async () => {
    host.modprobe = async () => {
      throw Object.assign(new Error('cannot load module vfio_pci'), { code: 'MODPROBE' });
    };
    await expect(run()).rejects.toThrow('cannot load module');
    expect(kernel.seen).toEqual([]);
    expect(journals()).toEqual([]);
  });

  test('no node appears: undone', async () => {
    const write = kernel.write.bind(kernel);
    kernel.write = async (file, value) => {
      await write(file, value);
      fs.rmSync(tree.at('/dev/vfio/1'), { force: true });
    };
    expect(await failure(run())).toMatchObject({ code: 'NO_NODE' });
    expect(state(A)).toEqual(['nvme', undefined]);
  });

  /** Writes of a file fail from now on: a folder is where its temporary file goes. */
  const block = (file: string) => tree.folder(`/run/vioctl/vfio/${file}.new`);
  const claims = () => tree.root.list('/run/vioctl/vfio/claims');

  test.each([`driver_override ${A} vfio-pci`, `unbind nvme ${A}`])('the journal cannot be written after %s', async (write) => {
    kernel.faults.set(write, () => block(`journal/${journals()[0]}`));
    expect(await failure(run())).toMatchObject({ message: expect.stringContaining('write the journal') });
    expect(state(A)).toEqual(['nvme', undefined]);
    expect([journals(), claims()]).toEqual([[], []]);
  });

  test('a record cannot be written at the end: devices, and records that were written, go back', async () => {
    await run({ bdfs: [A] });
    tree.driver('other-vfio');
    tree.folder('/sys/module/vfio_pci_core/holders/other_vfio');
    tree.aliases('vfio_pci:v*d*sv*sd*bc*sc*i* other_vfio');
    const before = new Store(tree.root).record(A);
    block(`bound/${B}.json`);
    tree.file('/dev/vfio/2', '');
    const owner = { uid: process.getuid!(), gid: process.getgid!(), text: 'me' };
    expect(await failure(run({ bdfs: [A, B], driver: 'other-vfio', owner }))).toMatchObject({
      message: expect.stringContaining(`bound/${B}.json`),
    });
    expect([state(A), state(B)]).toEqual([
      ['vfio-pci', 'vfio-pci'],
      ['nvme', undefined],
    ]);
    expect([new Store(tree.root).record(A), journals(), claims()]).toEqual([before, [], []]);
  });

  test('the failing unbind of a VFIO device leaves it on VFIO', async () => {
    await run();
    kernel.faults.set(`bind nvme ${A}`, 12);
    expect(await failure(unbind(host, census(), { bdfs: [A], wait: 0 }))).toMatchObject({ code: 'ENOMEM' });
    expect(state(A)).toEqual(['vfio-pci', 'vfio-pci']);
    expect(new Store(tree.root).record(A)).toBeDefined();
  });
});

describe('refused before anything is written', () => {
  const refused = (options: Partial<BindOptions>, code: string, exit: number) =>
    expect(() => planBind(census(), { bdfs: [A], ...options }, { privileged: false })).toThrow(expect.objectContaining({ code, exit }));

  test('a device that does not answer', () => {
    tree.file(`/sys/devices/pci0000:00/${A}/config`, Buffer.alloc(64, 0xff));
    refused({}, 'EIO', 1);
  });
  test('a driver that does not claim the id', () => {
    tree.driver('e1000');
    refused({ driver: 'e1000' }, 'FOREIGN_DRIVER', 3);
    refused({ driver: '../nvme' }, 'USAGE', 2);
    refused({ driver: 'nosuch' }, 'ENOENT', 7);
  });
  test('another device at the address', () => {
    refused({ expect: '1b36:0011' }, 'RENUMBERED', 3);
    refused({ expect: 'nvme' }, 'USAGE', 2);
  });
  test('no IOMMU', () => {
    fs.rmSync(tree.at('/sys/kernel/iommu_groups'), { recursive: true });
    refused({}, 'NO_IOMMU', 7);
  });
  test('no driver_override in this kernel', () => {
    fs.rmSync(tree.at(`/sys/devices/pci0000:00/${A}/driver_override`));
    expect(() => planBind(census(), { bdfs: [A] }, { privileged: true })).toThrow(expect.objectContaining({ exit: 7 }));
  });
  test('a VFIO device that is held is not moved to another driver', async () => {
    await run();
    tree.file(`/sys/devices/pci0000:00/${A}/enable`, '1\n');
    tree.process(77, 'qemu', { 9: 'anon_inode:[vfio-device]' }, { 'fdinfo/9': `vfio-device-syspath: /sys/devices/pci0000:00/${A}\n` });
    refused({ driver: 'nvme' }, 'HELD', 3);
  });
});

describe('which driver', () => {
  test('the VFIO variant with the fewest wildcards, under the name it registers', async () => {
    tree.aliases('vfio_pci:v00001B36d00000010sv*sd*bc*sc*i* nvme_vfio_pci', 'vfio_pci:v00001B36d*sv*sd*bc*sc*i* vendor_vfio_pci');
    const [device] = planBind(census(), { bdfs: [A] }, { privileged: false }).devices;
    expect(device?.choice).toEqual({ driver: 'nvme_vfio_pci', module: 'nvme_vfio_pci', vfio: true });
    expect(planBind(census(), { bdfs: [A], driver: 'vfio-pci' }, { privileged: false }).devices[0]?.choice.driver).toBe('vfio-pci');
  });
  test('a variant for other devices is refused', () => {
    tree.aliases('vfio_pci:v000015B3d0000101Esv*sd*bc*sc*i* mlx5_vfio_pci');
    expect(() => planBind(census(), { bdfs: [A], driver: 'mlx5_vfio_pci' }, { privileged: false })).toThrow(/for other devices/);
  });
  test('a variant with a name of its own is known by the module it stands on', () => {
    tree.driver('grace', 'grace');
    const { modules } = census();
    expect(modules.isVfio('grace')).toBe(false);
    tree.folder('/sys/module/vfio_pci_core/holders/grace');
    expect([modules.isVfio('grace'), modules.isVfio('nvme'), modules.isVfio('vfio-pci'), modules.isVfio(undefined)]).toEqual([
      true,
      false,
      true,
      false,
    ]);
  });
  test('built-in drivers claim ids too', () => {
    tree.file('/lib/modules/6.12.0-test/modules.builtin.modinfo', 'snd.license=GPL\0ahci.alias=pci:v*d*sv*sd*bc01sc08i02*\0');
    tree.driver('ahci');
    expect(planBind(census(), { bdfs: [A], driver: 'ahci' }, { privileged: false }).devices[0]?.choice.vfio).toBe(false);
  });
  test('without a record unbind takes the driver that claims the id', async () => {
    tree.driver('vfio-pci');
    tree.bind(A, 'vfio-pci');
    expect(planUnbind(census(), { bdfs: [A] }, { privileged: false })[0]).toMatchObject({
      source: 'id',
      to: { driver: 'nvme', override: undefined },
    });
  });
});

describe('two runs', () => {
  const claim = (text: string) => tree.file(`/run/vioctl/vfio/claims/${A}`, text);
  test('another run that is alive', async () => {
    tree.file('/proc/55/stat', `55 (a) b) S ${'1 '.repeat(18)}42 0\n`);
    claim('55 42 bind-x\n');
    expect(await failure(run({ wait: 0 }))).toMatchObject({ code: 'BUSY' });
    expect(kernel.seen).toEqual([]);
    expect(tree.root.exists(`/run/vioctl/vfio/claims/${A}`)).toBe(true);
  });
  test('what a run left that died before its journal was there goes with a restore, and with the next claim; a live one stays', async () => {
    const folder = '/run/vioctl/vfio';
    const left = () => ['claims', 'journal'].flatMap((name) => tree.root.list(`${folder}/${name}`));
    const die = () => {
      claim('56 43 bind-dead\n');
      tree.file(`${folder}/claims/${A}.bind-dead`, '56 43 bind-dead\n');
      tree.file(`${folder}/journal/bind-dead.json.new`, '{');
    };
    tree.file('/proc/55/stat', `55 (a) S ${'1 '.repeat(18)}42 0\n`);
    tree.file(`${folder}/claims/${B}`, '55 42 bind-live\n');
    die();
    await restore(host, census(), { all: false, wait: 0 });
    expect(left()).toEqual([B]);
    die();
    await run();
    expect(left()).toEqual([B]);
  });
  test('another run to the same goal is waited for; then there is nothing left to do', async () => {
    tree.file('/proc/55/stat', `55 (a) S ${'1 '.repeat(18)}42 0\n`);
    claim('55 42 bind-x\n');
    const ours = run({ wait: 5000 });
    await new Promise((resolve) => setTimeout(resolve, 120));
    expect(kernel.seen).toEqual([]);
    tree.bind(A, 'vfio-pci'); // what the other run does
    tree.file(`/sys/bus/pci/devices/${A}/driver_override`, 'vfio-pci\n');
    tree.file('/dev/vfio/1', '');
    fs.rmSync(tree.at(`/run/vioctl/vfio/claims/${A}`));
    expect((await ours).devices).toMatchObject([{ already: true, driver: 'vfio-pci' }]);
    expect(kernel.seen).toEqual([]);
  });
  test('a device that another program changed between plan and claim is planned anew', async () => {
    const plan = planBind(census(), { bdfs: [A] }, { privileged: true });
    tree.bind(A, undefined);
    const [entry] = plan.devices;
    expect(() => Transaction.begin(host, 'bind', [{ device: entry!.device, to: entry!.to }])).toThrow(
      expect.objectContaining({ code: 'BUSY' }),
    );
    expect(tree.root.list('/run/vioctl/vfio/claims')).toEqual([]);
  });
  test.each([
    ['sriov_numvfs', '0', '2'],
    ['sriov_drivers_autoprobe', '1', '0'],
  ])('%s counts as such a change', (file, before, after) => {
    const path = `/sys/devices/pci0000:00/${A}/${file}`;
    tree.file(path, `${before}\n`);
    const [entry] = planBind(census(), { bdfs: [A] }, { privileged: true }).devices;
    const begin = () => Transaction.begin(host, 'bind', [{ device: entry!.device, to: entry!.to }]);
    tree.file(path, `${after}\n`);
    expect(begin).toThrow(expect.objectContaining({ code: 'BUSY' }));
    tree.file(path, `${before}\n`);
    expect(begin).not.toThrow();
  });
  test('a signal ends the wait', async () => {
    tree.file('/proc/55/stat', `55 (a) S ${'1 '.repeat(18)}42 0\n`);
    claim('55 42 bind-x\n');
    const abort = new AbortController();
    const ours = run({ wait: 60_000, signal: abort.signal });
    setTimeout(() => abort.abort(), 60);
    await expect(ours).rejects.toThrow();
    expect(kernel.seen).toEqual([]);
  });
  test('one that died before its journal', async () => {
    claim('55 42 bind-x\n');
    await run();
    expect(state(A)[0]).toBe('vfio-pci');
  });
  test('one that died with a journal', async () => {
    claim('55 42 bind-x\n');
    tree.file('/run/vioctl/vfio/journal/bind-x.json', '{"version":1,"devices":[]}');
    expect(await failure(run())).toMatchObject({ code: 'INTERRUPTED', hint: 'vioctl vfio restore' });
    expect(kernel.seen).toEqual([]);
  });
  test('one with the same pid that died with a journal keeps it', async () => {
    await run({ hold: true });
    tree.bind(A, 'nvme'); // the bind was cut short here
    tree.file('/proc/100/stat', `100 (vioctl) S ${'1 '.repeat(18)}888 0\n`); // the next container: pid 100 again
    const before = [journals(), tree.root.read(`/run/vioctl/vfio/claims/${A}`)];
    expect(before[0]).toHaveLength(1);
    expect(await failure(run())).toMatchObject({ code: 'INTERRUPTED' });
    expect([journals(), tree.root.read(`/run/vioctl/vfio/claims/${A}`)]).toEqual(before);
    expect((await restore(host, census(), { all: false, wait: 0 })).devices).toMatchObject([{ bdf: A, outcome: 'restored' }]);
    expect(state(A)).toEqual(['nvme', undefined]);
  });
  test('a journal of an earlier boot only goes away', async () => {
    await run({ hold: true });
    tree.file('/proc/sys/kernel/random/boot_id', 'boot-2\n');
    tree.file('/proc/100/stat', '');
    expect((await restore(host, census(), { all: false, wait: 0 })).devices).toMatchObject([{ outcome: 'other boot' }]);
    expect(state(A)).toEqual(['vfio-pci', 'vfio-pci']);
    expect(journals()).toEqual([]);
  });
});

describe('restore goes on', () => {
  const gone = (bdf: string) => fs.rmSync(tree.at(`/sys/bus/pci/devices/${bdf}`));
  const records = () => new Store(tree.root).records().map(({ bdf }) => bdf);

  test('--all: a device that was unplugged or replaced is named, its record goes, the others go back', async () => {
    await run({ bdfs: [A, B] });
    tree.device('0000:03:00.0', { driver: 'nvme', group: 3 });
    await run({ bdfs: ['0000:03:00.0'] });
    gone(A);
    tree.file('/sys/devices/pci0000:00/0000:03:00.0/device', '0x0011\n');
    const { devices, left, failed } = await restore(host, census(), { all: true, wait: 0 });
    expect(devices.map(({ bdf, outcome }) => [bdf, outcome])).toEqual([
      [A, 'gone'],
      ['0000:03:00.0', 'gone'],
      [B, 'restored'],
    ]);
    expect([left, failed, records()]).toEqual([[], [], []]);
    expect(state(B)).toEqual(['nvme', undefined]);
    expect(state('0000:03:00.0')[0]).toBe('vfio-pci'); // another device than the one we bound
  });

  test('--all: one that is held stays, with its record and the reason, the others go back', async () => {
    await run({ bdfs: [A, B] });
    tree.file(`/sys/devices/pci0000:00/${A}/enable`, '1\n');
    tree.process(77, 'qemu', { 9: 'anon_inode:[vfio-device]' }, { 'fdinfo/9': `vfio-device-syspath: /sys/devices/pci0000:00/${A}\n` });
    const result = await restore(host, census(), { all: true, wait: 0 });
    expect(result.failed).toMatchObject([{ bdf: A, code: 'HELD', exit: 3 }]);
    expect(result.devices).toMatchObject([{ bdf: B, outcome: 'restored' }]);
    expect(restorationError(result)).toMatchObject({
      exit: 3,
      message: expect.stringMatching(/^1 of 2 devices failed: .*still held by qemu/),
    });
    expect([state(A)[0], state(B)[0], records()]).toEqual(['vfio-pci', 'nvme', [A]]);
  });

  test('a journal of a device that is gone is ended for the others', async () => {
    await run({ bdfs: [A, B], hold: true });
    tree.file('/proc/100/stat', '');
    gone(B);
    const { devices, left } = await restore(host, census(), { all: false, wait: 0 });
    expect(devices.map(({ bdf, outcome }) => [bdf, outcome])).toEqual([
      [A, 'restored'],
      [B, 'gone'],
    ]);
    expect([left, journals(), state(A)]).toEqual([[], [], ['nvme', undefined]]);
  });
});

test('a batch goes on: what fails is told with its status, the rest is done', async () => {
  tree.block(`/sys/devices/pci0000:00/${A}/nvme/nvme0`, 'nvme0n1', '259:0');
  tree.file('/proc/self/mountinfo', '40 1 259:0 / /srv rw - xfs /dev/nvme0n1 rw\n');
  const { done, failed } = await oneByOne([A, B, '0000:09:00.0'], undefined, (bdf) => run({ bdfs: [bdf] }));
  expect(done.flatMap(({ devices }) => devices.map(({ bdf }) => bdf))).toEqual([B]);
  expect(failed).toMatchObject([
    { bdf: A, code: 'MOUNTED', exit: 3 },
    { bdf: '0000:09:00.0', code: 'ENODEV', exit: 1 },
  ]);
  expect(batchError(failed, 3)).toMatchObject({ exit: 1, code: 'SOME_FAILED' });
  expect(batchError(failed.slice(0, 1), 3)).toMatchObject({ exit: 3, code: 'MOUNTED' });
});

test('the script of a dry run has the writes that bind makes', async () => {
  const script = shellScript(
    bindScript(tree.root, planBind(census(), { bdfs: [A, B], owner: { uid: 7, gid: 8, text: 'x' } }, { privileged: false })),
  );
  expect(script.split('\n')).toEqual([
    '#!/bin/sh',
    'set -eu',
    'modprobe vfio_pci',
    ...[A, B].flatMap((bdf) => [
      `# ${bdf}`,
      `echo vfio-pci > /sys/bus/pci/devices/${bdf}/driver_override`,
      `echo ${bdf} > /sys/bus/pci/drivers/nvme/unbind`,
      `echo ${bdf} > /sys/bus/pci/drivers/vfio-pci/bind`,
    ]),
    'chown 7:8 /dev/vfio/1',
    'chown 7:8 /dev/vfio/2',
    '',
  ]);
});
