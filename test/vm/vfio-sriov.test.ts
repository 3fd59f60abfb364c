/** Virtual functions on a real kernel: seven of an igb, four of an NVMe controller, and a declaration that wants them. */
import { iommu } from './devices.js';
import { guestSteps, igb, KILLED, killedSriov, SRIOV_READY, sriovNvme, virtMgmt } from './vfio-guest.js';

const V = 'node bin/run.js vfio';
const STEPS: readonly (readonly [name: string, command: string])[] = [
  ['seven', `${V} sriov $P --vfs 7 --driver vfio-pci --mac 52:54:00:00:00:01 --mac 52:54:00:00:00:02 --json`],
  ['again', `${V} sriov $P --vfs 7 --driver vfio-pci --json`],
  ['eight', `${V} sriov $P --vfs 8`],
  ['held', `${V} exec $(vf $P 3) -- sh -c "cd $PWD; ${V} sriov $P --vfs 0"`],
  ['none', `${V} sriov $P --vfs 0 --json`],
  ['four', `${V} sriov $N --vfs 4 --no-autoprobe --json`],
  ['resources', virtMgmt],
  ['bound', `${V} sriov $N --vfs 4 --no-autoprobe --driver vfio-pci --json`],
  ['selftest', `${V} selftest $(vf $N 0) --json && ${V} selftest $(vf $N 3)`],
  ['gone', `${V} sriov $N --vfs 0 --json`],
  ['declare', `printf 'devices:\\n- {device: %s, vfs: 2, vfDriver: vfio-pci}\\n' $P >/tmp/d.yaml`],
  ['check', `${V} apply /tmp/d.yaml --check`],
  ['apply', `${V} apply /tmp/d.yaml --json`],
  ['apply again', `${V} apply /tmp/d.yaml --check --json`],
  ['take away', `${V} sriov $P --vfs 0`],
  ['killed', KILLED],
  ['left', 'ls /run/vioctl/vfio/journal /run/vioctl/vfio/claims'],
];

let step: (name: string) => { status: number; text: string };

beforeAll(async () => {
  step = await guestSteps('6.12', STEPS, SRIOV_READY, [iommu(), igb, sriovNvme], { timeout: 1400, files: await killedSriov() });
}, 1_600_000);

const json = (name: string) => {
  if (step(name).status !== 0) throw new Error(`${name}: status ${step(name).status}: ${step(name).text}`);
  return JSON.parse(step(name).text) as { numVfs: number; already: boolean; vfs: { driver: string; mac?: string; group: number }[] };
};

test('seven virtual functions of an igb, on VFIO from the start, with MAC addresses', () => {
  const { numVfs, vfs } = json('seven');
  expect([numVfs, new Set(vfs.map(({ driver }) => driver)), new Set(vfs.map(({ group }) => group)).size]).toEqual([
    7,
    new Set(['vfio-pci']),
    7,
  ]);
  expect(vfs.slice(0, 2).map(({ mac }) => mac)).toEqual(['52:54:00:00:00:01', '52:54:00:00:00:02']);
  expect(json('again').already).toBe(true);
  expect(step('eight')).toMatchObject({ status: 2, text: expect.stringContaining('at most 7') });
});

test('while a program has one of them, the number stays', () => {
  expect(step('held')).toMatchObject({ status: 3, text: expect.stringMatching(/virtual function .* is held by node/) });
  expect(json('none')).toMatchObject({ numVfs: 0, vfs: [] });
});

test('four virtual NVMe controllers do DMA and interrupt', () => {
  expect(json('four').vfs.map(({ driver }) => driver)).toEqual([undefined, undefined, undefined, undefined]);
  expect(step('resources').status).toBe(0);
  expect(json('bound').vfs.map(({ driver }) => driver)).toEqual(['vfio-pci', 'vfio-pci', 'vfio-pci', 'vfio-pci']);
  expect(step('selftest')).toMatchObject({ status: 0, text: expect.stringContaining('passed') });
  expect(json('gone').numVfs).toBe(0);
});

test('kill -9 before each write of the journals: restore undoes it, apply is repeated', () => {
  const { status, text } = step('killed');
  const cases = text.split('\n').flatMap((line) => (line.startsWith('{') ? [JSON.parse(line) as { name: string; error?: string }] : []));
  expect({ status, errors: cases.map(({ error }) => error) }).toEqual({ status: 0, errors: [undefined, undefined] });
});

test('a declaration: differences, then none, and nothing is left behind', () => {
  expect(step('check')).toMatchObject({ status: 4, text: expect.stringMatching(/vfs +0 -> 2/) });
  expect(step('apply')).toMatchObject({ status: 0, text: expect.stringContaining('"changed"') });
  expect(step('apply again')).toMatchObject({ status: 0, text: expect.stringContaining('"same"') });
  expect(
    step('left')
      .text.split('\n')
      .filter((line) => line !== '' && !line.endsWith(':')),
  ).toEqual([]);
});
