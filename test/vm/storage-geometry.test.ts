// Devices with blocks of 4096 bytes behind both servers, and sources whose size changes, as Linux's host and a guest see them.
import { storageFacts } from './storage/lab.js';

/** Seconds until a new size is there. The emulated machine may need longer now and then, not three times. */
const MOST = 2;

test('a GPT of a 4Kn device is a GPT for hosts and guests; a new size is seen within 2 s', async () => {
  const facts = await storageFacts('blocks');
  expect(facts).toMatchObject({
    'header of the device': 'EFI PART',
    'block size of the namespace': '4096',
    'table of the namespace': facts['table of the device'],
    'partitions of the namespace': facts['partitions of the device'],
    label: 'native',
    'virtio-blk': { capacity: 64 << 20, blk_size: 4096 },
    'header of the virtio disk': 'ok EFI PART',
  });
  expect(facts['table of the device']).toEqual(expect.arrayContaining(['label: gpt', 'sector-size: 4096']));
  expect(Object.keys(facts['partitions of the device'] as object)).toEqual(['p1', 'p2']);
  for (const source of ['file', 'loop', 'dm']) {
    for (const mib of [24, 48, 40]) {
      expect(facts[`${source} of ${mib} MiB at our host`]).toBe(mib << 20);
      expect(facts[`${source} of ${mib} MiB in the guest`]).toBe(mib << 20);
    }
    for (const where of ['at the host', 'in the guest']) {
      const seconds = facts[`seconds of ${source} ${where}`] as number[];
      console.log(`${source} ${where}: ${seconds.map((s) => s.toFixed(2)).join(', ')} s`);
      expect({ source, where, inTime: Math.min(...seconds) < MOST }).toEqual({ source, where, inTime: true });
    }
  }
  expect(facts.uevents).toBeGreaterThanOrEqual(3);
});
