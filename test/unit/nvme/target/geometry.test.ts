/** What hosts learn of a source's geometry (NVM Command Set 1.0, 4.1.5 and 5.8.2). */
import { native } from '../../../../src/native/index.js';
import { identify } from '../../../../src/nvme/target/admin/identify.js';
import { getLog } from '../../../../src/nvme/target/admin/logs.js';
import type { ControllerState, Namespace } from '../../../../src/nvme/target/model.js';
import { Refusal } from '../../../../src/nvme/target/refusal.js';
import {
  Cns,
  getLogCmd,
  identifyCmd,
  identifyNamespace,
  independentNamespace,
  Lid,
  nvmController,
  sqe,
} from '../../../../src/nvme/wire/index.js';

const file = {
  logical: 512,
  physical: 512,
  minimumIo: 0,
  optimalIo: 0,
  alignmentOffset: 0,
  directMemory: 0,
  directOffset: 0,
  rotational: false,
  device: false,
  readonly: false,
};
const store = native().storage.ram(1 << 20);
afterAll(() => native().storage.close(store));
const none = { discardGranularity: 0, discardMax: 0, zeroesMax: 0, chunk: 0 };

function controllerOf(ns: object): ControllerState {
  const namespace = {
    nsid: 1,
    size: 1 << 30,
    blockSize: 512,
    group: 1,
    readonly: false,
    limits: undefined,
    atomicWrite: 512,
    geometry: file,
    store,
    ids: { nguid: Buffer.alloc(16, 1), eui64: Buffer.alloc(8, 1), uuid: Buffer.alloc(16, 1) },
    ...ns,
  } as unknown as Namespace;
  const sees = { namespace: (nsid: number) => (nsid === 1 ? namespace : undefined), nsids: () => [1] };
  return { checkBuffer: () => {}, logRead: () => {}, subsystem: {}, ...sees } as unknown as ControllerState;
}
function answer(cns: number, ns: object): Buffer {
  return identify(controllerOf(ns), identifyCmd.encode({ cns, csi: 0 }, sqe.encode({ opcode: 6, nsid: 1 })));
}
const fields = (ns: object) => identifyNamespace.decode(answer(Cns.namespace, ns));

test('a RAID: all numbers count from 0, in blocks of the namespace', () => {
  const geometry = { ...file, physical: 4096, minimumIo: 65536, optimalIo: 262144, device: true };
  const limits = { ...none, discardGranularity: 1 << 20, chunk: 65536 };
  const raid = { geometry, limits, atomicWrite: 4096 };
  expect(fields(raid)).toMatchObject({
    nsfeat: 0x12, // NSABP and OPTPERF
    ...{ nawun: 7, nawupf: 7, nabsn: 7, nabspf: 7, nabo: 0 },
    ...{ npwg: 127, npwa: 127, npdg: 2047, npda: 2047, nows: 511, noiob: 128 },
  });
  expect(fields({ ...raid, blockSize: 4096 })).toMatchObject({
    ...{ nawun: 0, nawupf: 0, nabsn: 0, nabspf: 0 },
    ...{ npwg: 15, npwa: 15, npdg: 255, npda: 255, nows: 63, noiob: 16 },
  });
});

test('the optimal write is a multiple of what is written at best', () => {
  const nows = (optimalIo: number) => fields({ geometry: { ...file, minimumIo: 65536, optimalIo, device: true }, limits: none }).nows;
  // 100 KiB: one unit of 64 KiB; less than one: one; none: the largest transfer
  expect([nows(102400), nows(4096), nows(0), nows(2 ** 31)]).toEqual([127, 127, 2047, 65535]);
});

test('a file of 512-byte blocks on a file system of 4096, and a chunk that no field holds', () => {
  expect(fields({ geometry: { ...file, physical: 4096 }, atomicWrite: 4096 })).toMatchObject({
    ...{ nawupf: 7, npwg: 7, npwa: 7, npdg: 7, npda: 7, noiob: 0 },
  });
  expect(fields({ limits: { ...none, chunk: 65536 * 512 } }).noiob).toBe(0);
});

test('a disk that rotates: flag, endurance group, and the logs of the group', () => {
  const of = (rotational: boolean) => ({ geometry: { ...file, rotational } });
  const all = (rotational: boolean) => independentNamespace.decode(answer(Cns.independentNamespace, of(rotational)));
  expect([all(false), all(true)]).toMatchObject([
    { nsfeat: 0, endgid: 0 },
    { nsfeat: 0x10, endgid: 1 },
  ]);
  expect([fields(of(false)).endgid, fields(of(true)).endgid]).toEqual([0, 1]);
  const groups = (rotational: boolean) => answer(Cns.endurancegroups, of(rotational)).subarray(0, 4).toString('hex');
  expect([groups(false), groups(true)]).toEqual(['00000000', '01000100']);
  const log = (lid: number, lsi: number, rotational = true) =>
    getLog(controllerOf(of(rotational)), getLogCmd.encode({ lid, lsi, numdl: 127 }, sqe.encode({ opcode: 2 })));
  expect(log(Lid.rotationalMedia, 1).subarray(0, 6).toString('hex')).toBe('010001000000');
  expect(log(Lid.enduranceGroup, 1)).toHaveLength(512);
  for (const [lsi, rotational] of [
    [0, true],
    [2, true],
    [1, false],
  ] as const)
    expect(() => log(Lid.rotationalMedia, lsi, rotational)).toThrow(Refusal);
});

test('limits of the controller: 1 MiB to verify, 32 MiB to zero (65536 blocks of 512 bytes), as powers of two of 4 KiB', () => {
  expect(nvmController.decode(answer(Cns.csController, {}))).toMatchObject({ vsl: 8, wzsl: 13, dmrl: 255 });
});
