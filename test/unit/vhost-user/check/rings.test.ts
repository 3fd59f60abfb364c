/** The cases of `check` that run a ring: a back-end that is right passes all, and each fault is found by the case for it. */
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { native } from '../../../../src/native/index.js';
import { openSource } from '../../../../src/storage/open.js';
import type { DeviceModel, RingStart, RunningRing } from '../../../../src/vhost-user/backend/model.js';
import { serveBackEnd } from '../../../../src/vhost-user/backend/serving.js';
import { blkDevice, noStats } from '../../../../src/vhost-user/blk/device.js';
import { ringCases } from '../../../../src/vhost-user/check/ring-cases.js';
import { runChecks } from '../../../../src/vhost-user/check/run.js';
import { Listener } from '../../../../src/vhost-user/wire/listener.js';

const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-rings-'));
afterAll(() => fs.rmSync(dir, { recursive: true }));
const file = path.join(dir, 'img');
fs.writeFileSync(file, Buffer.alloc(1 << 20));

/** Runs the cases over a device that one fault was built into. @returns names of the cases that do not pass, and why */
async function failing(fault: (device: DeviceModel) => Partial<DeviceModel>): Promise<Record<string, string>> {
  const source = { ...openSource({ source: file }), queues: 1, serial: 'S', ioUring: false, spinMicroseconds: 0 };
  const device = blkDevice(source, noStats());
  const end = new AbortController();
  const socket = path.join(dir, 's');
  const served = serveBackEnd(Listener.at(socket), { device: { ...device, ...fault(device) }, onLog: () => {} }, end.signal);
  const failed: Record<string, string> = {};
  const names: string[] = [];
  try {
    for await (const { name, result, got, section } of runChecks({ socket, timeout: 300 })) {
      if (!ringCases.some((one) => one.name === name)) continue;
      names.push(name);
      expect(section).not.toBe('');
      if (result !== 'ok') failed[name] = got;
    }
  } finally {
    end.abort();
    await served;
    native().storage.close(source.store);
  }
  expect(names).toEqual(ringCases.map(({ name }) => name));
  return failed;
}
/** A fault in how a ring starts. */
const start =
  (change: (begin: RingStart) => RingStart) =>
  (device: DeviceModel): Partial<DeviceModel> => ({ startRing: (begin) => device.startRing(change(begin)) });
/** A fault in how a ring ends. */
const stop =
  (change: (ring: RunningRing) => Promise<number>) =>
  (device: DeviceModel): Partial<DeviceModel> => ({
    startRing: (begin) => {
      const ring = device.startRing(begin);
      return { remap: ring.remap.bind(ring), callChanged: ring.callChanged!.bind(ring), stop: () => change(ring) };
    },
  });

test('a back-end that is right passes all cases', async () => {
  expect(await failing(() => ({}))).toEqual({});
});

test.each<[string, (device: DeviceModel) => Partial<DeviceModel>, string[]]>([
  ['calls nobody', start((begin) => ({ ...begin, call: () => undefined })), ['the call eventfd is signalled']],
  [
    'marks nothing in the dirty log',
    start((begin) => ({ ...begin, layout: { ...begin.layout, log: undefined } })),
    ['the dirty log has what a read has written'],
  ],
  [
    'does not mark the used ring',
    start((begin) => ({ ...begin, layout: { ...begin.layout, logUsed: false } })),
    ['the dirty log has what a read has written'],
  ],
  [
    'does not look at the in-flight region',
    start((begin) => ({ ...begin, layout: { ...begin.layout, inflight: undefined } })),
    ['the in-flight region tells that nothing is in flight', 'a request that an earlier back-end left in flight is answered'],
  ],
  [
    'starts at base 0 whatever it is told',
    start((begin) => ({ ...begin, layout: { ...begin.layout, base: 0 } })),
    ['a ring that is started again goes on at its base', 'after a reconnection, a ring goes on at its used index'],
  ],
  [
    'tells another base than it has reached',
    stop(async (ring) => (await ring.stop()) + 1),
    [
      'GET_VRING_BASE tells how far the ring was processed',
      'requests in the ring at GET_VRING_BASE are answered or left',
      'a ring that is started again goes on at its base',
    ],
  ],
  [
    'goes on after GET_VRING_BASE',
    stop(async (ring) => {
      setTimeout(() => void ring.stop(), 500);
      return 1;
    }),
    ['a stopped ring is not processed'],
  ],
  [
    'does not look at the ring before the next kick',
    (device) => ({
      startRing: (begin) => {
        const late = new (class implements RunningRing {
          ring: RunningRing | undefined;
          remap(): void {}
          async stop(): Promise<number> {
            clearTimeout(this.timer);
            return this.ring ? this.ring.stop() : begin.layout.base;
          }
          timer = setTimeout(() => {
            this.ring = device.startRing(begin);
          }, 1000);
        })();
        return late;
      },
    }),
    ['reads are answered', 'a kick that came before SET_VRING_KICK', 'a kick before SET_VRING_ENABLE'],
  ],
])('one that %s is found', async (_fault, fault, cases) => {
  const failed = await failing(fault);
  expect(Object.keys(failed)).toEqual(expect.arrayContaining(cases));
});
