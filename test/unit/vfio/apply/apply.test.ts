import fs from 'node:fs';
import { appliedLines } from '../../../../src/groups/vfio/views.js';
import { apply } from '../../../../src/vfio/apply/apply.js';
import { checkDocument, parseDeclaration } from '../../../../src/vfio/apply/document.js';
import { bind } from '../../../../src/vfio/binding/bind.js';
import { Census } from '../../../../src/vfio/census/census.js';
import { linkName, readDevice } from '../../../../src/vfio/devices/pci.js';
import { Store } from '../../../../src/vfio/transaction/journal.js';
import type { Host } from '../../../../src/vfio/transaction/move.js';
import { PciTree } from '../../../support/pci-tree.js';
import { type Kernel, testHost } from '../binding/kernel.js';

const DISK = '0000:01:00.0';
const PF = '0000:04:00.0';
let tree: PciTree;
let host: Host;
let kernel: Kernel;

beforeEach(() => {
  tree = new PciTree();
  ({ host, kernel } = testHost(tree));
  for (const name of ['nvme', 'igb', 'igbvf']) tree.driver(name);
  tree.aliases('pci:v*d*sv*sd*bc01sc08i02* nvme', 'vfio_pci:v*d*sv*sd*bc*sc*i* vfio_pci', 'pci:v00008086d000010CAsv*sd*bc*sc*i* igbvf');
  const disk = tree.device(DISK, { driver: 'nvme', group: 1, attrs: { 'power/control': 'on' } });
  tree.file(`${disk}/nvme/nvme0/serial`, 'S1\n');
  tree.igb(PF);
  const { writer } = host;
  host.writer = {
    write: async (file, value, options) => (file.endsWith('/power/control') ? tree.file(file, value) : writer.write(file, value, options)),
  };
});
afterEach(() => tree.remove());

const run = async (text: string, check = false) =>
  apply(host, new Census(tree.root), await parseDeclaration(text, 'test.yaml'), { check, wait: 0, program: ['/usr/bin/vioctl'] });
const driver = (bdf: string) => linkName(tree.root, `/sys/bus/pci/devices/${bdf}/driver`);

const FILE = `
# a host
version: 1
devices:
  - device: ${DISK}
    driver: vfio
    persist: yes
    power: auto
  - device: net:eth0
    vfs: 2
    vfDriver: vfio-pci
  - device: 0000:09:00.0
    optional: true
`;

test('--check tells the differences and changes nothing; apply makes them; a second time there are none', async () => {
  const found = await run(FILE, true);
  expect(found.map(({ outcome, differences }) => [outcome, ...differences.map(({ what }) => what)])).toEqual([
    ['differs', 'driver', 'persist', 'power'],
    ['differs', 'vfs', 'vfDriver'],
    ['absent'],
  ]);
  expect([kernel.seen, driver(DISK), tree.root.list('/etc/vioctl/vfio.d')]).toEqual([[], 'nvme', []]);
  expect((await run(FILE)).map(({ outcome }) => outcome)).toEqual(['changed', 'changed', 'absent']);
  expect([driver(DISK), readDevice(tree.root, PF)!.vfs.map(driver), tree.root.attr(`/sys/bus/pci/devices/${DISK}/power/control`)]).toEqual([
    'vfio-pci',
    ['vfio-pci', 'vfio-pci'],
    'auto',
  ]);
  expect(tree.root.list('/etc/vioctl/vfio.d')).toEqual(['serial_S1-0.json']);
  kernel.seen.length = 0;
  expect((await run(FILE)).map(({ outcome }) => outcome)).toEqual(['same', 'same', 'absent']);
  expect((await run(FILE, true)).map(({ outcome }) => outcome)).toEqual(['same', 'same', 'absent']);
  expect(kernel.seen).toEqual([]);
});

test('host gives a device back; an address is text in YAML', async () => {
  await run(`devices: [{device: 01:00.0, driver: vfio}]`);
  expect(driver(DISK)).toBe('vfio-pci');
  expect(await run(`devices:\n- device: 01:00.0\n  driver: host\n`)).toMatchObject([{ outcome: 'changed', bdf: DISK }]);
  expect(driver(DISK)).toBe('nvme');
});

test('what is refused or not there keeps no other entry from being done', async () => {
  tree.block(`/sys/devices/pci0000:00/${DISK}/nvme/nvme0`, 'nvme0n1', '259:0');
  tree.file('/proc/self/mountinfo', '40 1 259:0 / /srv rw - xfs /dev/nvme0n1 rw\n');
  const text = JSON.stringify({
    devices: [
      { device: 'serial:S1', driver: 'vfio' },
      { device: 'block:sdz', driver: 'vfio' },
      { device: DISK, vfs: 1 },
      { device: PF, vfs: 1 },
    ],
  });
  expect(await run(text)).toMatchObject([
    { outcome: 'failed', bdf: DISK, error: { code: 'MOUNTED', exit: 3 } },
    { outcome: 'failed', error: { code: 'ENODEV' } },
    { outcome: 'failed', error: { code: 'NO_SRIOV', exit: 7 } },
    { outcome: 'changed', bdf: PF },
  ]);
  expect((await run(text, true))[0]).toMatchObject({ outcome: 'failed', error: { code: 'MOUNTED' } });
  expect(await run(JSON.stringify({ devices: [{ device: DISK, driver: 'vfio', allow: ['mounted'] }] }))).toMatchObject([
    { outcome: 'changed' },
  ]);
});

test('a selector that matches several needs all', async () => {
  tree.device('0000:02:00.0', { driver: 'nvme', group: 2 });
  expect(await run('devices: [{device: "class:nvme", driver: vfio}]')).toMatchObject([{ outcome: 'failed', error: { exit: 2 } }]);
  expect((await run('devices: [{device: "class:nvme", driver: vfio, all: true}]')).map(({ bdf }) => bdf)).toEqual([DISK, '0000:02:00.0']);
});

test('what a killed run left of the device is put back first, and told; what it left of others stays', async () => {
  const other = '0000:02:00.0';
  tree.device(other, { driver: 'nvme', group: 2 });
  for (const bdf of [DISK, other]) {
    await bind(host, new Census(tree.root), { bdfs: [bdf], hold: true, wait: 0 });
    tree.bind(bdf, 'nvme'); // cut short here
  }
  tree.file('/proc/100/stat', '');
  const results = await run('devices: [{device: 01:00.0, driver: vfio-pci}]');
  const restored = [{ bdf: DISK, operation: 'bind', outcome: 'restored' }];
  expect(results).toMatchObject([{ bdf: DISK, outcome: 'changed', restored }]);
  expect(appliedLines(results)).toContainEqual(expect.stringMatching(/^ {2}first 0000:01:00\.0: restored \(bind was cut short/));
  expect(driver(DISK)).toBe('vfio-pci');
  expect(new Store(tree.root).journals().map(({ devices }) => devices.map(({ bdf }) => bdf))).toEqual([[other]]);
});

test('a run that was killed when only its journal was left to end: all is as declared, and still the journal is a difference', async () => {
  await bind(host, new Census(tree.root), { bdfs: [DISK], hold: true, wait: 0 });
  tree.file('/proc/100/stat', '');
  const text = 'devices: [{device: 01:00.0, driver: vfio-pci}]';
  const differences = [{ what: 'interrupted', is: expect.stringContaining(DISK), wanted: 'none' }];
  expect(driver(DISK)).toBe('vfio-pci');
  expect(await run(text, true)).toMatchObject([{ outcome: 'differs', differences }]);
  expect(await run(text)).toMatchObject([{ outcome: 'changed', restored: [{ bdf: DISK, operation: 'bind' }] }]);
  expect([driver(DISK), new Store(tree.root).journals()]).toEqual(['vfio-pci', []]);
  expect((await run(text)).map(({ outcome }) => outcome)).toEqual(['same']);
});

test('the owner of the nodes', async () => {
  tree.file('/etc/passwd', `me:x:${process.getuid!()}:${process.getgid!()}::/:/bin/sh\n`);
  const text = 'devices: [{device: 01:00.0, driver: vfio-pci, owner: me}]';
  expect((await run(text))[0]!.outcome).toBe('changed');
  expect((await run(text))[0]!.outcome).toBe('same');
  expect(fs.statSync(tree.at('/dev/vfio/1')).uid).toBe(process.getuid!());
});

test.each([
  ['[]', /no document/],
  ['{"devices": 5}', /devices: not a list/],
  ['{"devices": [], "more": 1}', /more: no such key/],
  ['version: 2\ndevices: []', /version/],
  ['devices: [x]', /devices\[0\]: not an entry/],
  ['devices: [{driver: vfio}]', /devices\[0\]\.device/],
  ['devices: [{device: a, vfs: many}]', /devices\[0\]\.vfs: not a number/],
  ['devices: [{device: a, vfs: -1}]', /vfs: not a number/],
  ['devices: [{device: a, persist: perhaps}]', /persist: not true or false/],
  ['devices: [{device: a, allow: everything}]', /no such check/],
  ['devices: [{device: a, colour: red}]', /no such key/],
  ['devices: [{device: a, power: off}]', /not on or auto/],
  ['devices: [{device: a, vfDriver: vfio-pci}]', /need vfs/],
  ['devices: [{device: a, persist: true}]', /need a VFIO driver/],
  ['devices: [{device: a, vfs: 1, macs: [zz]}]', /MAC/],
])('%s is wrong usage', async (text, message) => {
  await expect(parseDeclaration(text, 'x')).rejects.toMatchObject({ exit: 2, message: expect.stringMatching(message) });
});

test.each(['devices: [', 'devices: "x', '{"devices": ', 'a: b: c', 'x: !!js/function "f"'])('%j is damaged', async (text) => {
  await expect(parseDeclaration(text, 'x.yaml')).rejects.toMatchObject({
    exit: 5,
    code: 'BAD_FILE',
    message: expect.stringContaining('x.yaml'),
  });
});

test('a document of the largest size', () => {
  expect(() => checkDocument({ devices: Array.from({ length: 10_001 }, () => ({ device: 'a' })) }, 'devices.yaml')).toThrow(
    expect.objectContaining({ exit: 2 }),
  );
});

test('power policy and reset method: set where they differ; a device that lacks one fails alone', async () => {
  const dir = `/sys/devices/pci0000:00/${DISK}`;
  tree.file(`${dir}/d3cold_allowed`, '1\n');
  tree.file(`${dir}/reset_method`, 'flr bus\n');
  host.writer = { write: async (file, value) => tree.file(file, value) };
  const text = `devices:\n- {device: ${PF}, d3cold: false}\n- {device: ${DISK}, power: auto, d3cold: false, resetMethod: bus}\n`;
  const [without, disk] = await run(text);
  expect(without).toMatchObject({ outcome: 'failed', error: { exit: 7, message: expect.stringContaining('d3cold_allowed') } });
  expect(disk).toMatchObject({ outcome: 'changed', differences: [{ what: 'power' }, { what: 'd3cold' }, { what: 'resetMethod' }] });
  expect(['power/control', 'd3cold_allowed', 'reset_method'].map((name) => tree.root.attr(`${dir}/${name}`))).toEqual(['auto', '0', 'bus']);
  expect((await run(text))[1]).toMatchObject({ outcome: 'same' });
  await expect(parseDeclaration('devices: [{device: a, resetMethod: ["x;y"]}]', 'x')).rejects.toMatchObject({ exit: 2 });
});
