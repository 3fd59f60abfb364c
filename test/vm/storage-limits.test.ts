// A disk with 4096-byte physical blocks and sizes that it prefers, served to Linux's host: what its queue says there.
import { truncate, writeFile } from 'node:fs/promises';
import path from 'node:path';
import type { Device } from './devices.js';
import { boot } from './lab.js';
import { factsOf, storageGuest } from './storage/lab.js';

const disk: Device = async ({ dir }) => {
  const file = path.join(dir, 'topology');
  await writeFile(file, '');
  await truncate(file, 64 << 20);
  const topology = 'logical_block_size=512,physical_block_size=4096,min_io_size=65536,opt_io_size=262144';
  return { args: ['-drive', `if=none,id=topology,format=raw,file=${file}`, '-device', `virtio-blk-pci,drive=topology,${topology}`] };
};

// Since 6.13, the kernel's host knows that a disk rotates.
test.each(['6.12', '7'] as const)('Linux %s', async (kernel) => {
  const result = await boot({ kernel, ...storageGuest('limits'), devices: [disk], timeout: 300 });
  if (result.status !== 0) throw new Error(`status ${result.status}\n${result.stdout}\n${result.stderr}\n${result.console}`);
  const facts = factsOf(result.stdout);
  const sizes = { logical_block_size: 512, physical_block_size: 4096, minimum_io_size: 65536, optimal_io_size: 262144 };
  expect(facts['the disk']).toMatchObject(sizes);
  expect(facts['the namespace']).toMatchObject(sizes);
  if (kernel === '7') expect(facts['the namespace']).toEqual(facts['the disk']);
  expect([facts.zeroed, facts['the rest']]).toEqual([true, true]);
});
