import { createHash } from 'node:crypto';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { Background } from '../support/background.js';
import { type Device, vhostUserBlk } from './devices.js';
import { boot } from './lab.js';

/** Our back-ends under a guest's own drivers: a host file behind /dev/pmem0 (shmem serve --pmem), and a disk (serve blk). */
const pmem =
  (socket: string): Device =>
  (context) => {
    const n = context.next();
    const device = `vhost-user-test-device-pci,chardev=pmem${n},virtio-id=27,num_vqs=1,config_size=16`;
    return { args: ['-chardev', `socket,id=pmem${n},path=${socket}`, '-device', device], sharedMemory: true };
  };

const guest = `
  set -e
  modprobe virtio_pmem; modprobe nd_pmem; modprobe virtio_blk
  for i in $(seq 100); do [ -b /dev/pmem0 ] && break; sleep 0.1; done
  blockdev --getsize64 /dev/pmem0
  dd if=/dev/pmem0 bs=26 count=1 status=none; echo
  printf WRITTEN-BY-THE-GUEST | dd of=/dev/pmem0 bs=4096 seek=2 conv=notrunc,fsync status=none
  dd if=/dev/pmem0 bs=4096 skip=2 count=1 status=none | head -c 20; echo
  disk=/dev/$(basename $(dirname $(grep -l '^DISK-7' /sys/block/vd*/serial)))
  blockdev --getsize64 $disk
  dd if=$disk of=$disk bs=64K count=64 seek=64 iflag=direct oflag=direct conv=notrunc status=none
  printf written-to-the-disk | dd of=$disk bs=4096 seek=3 conv=notrunc,fsync status=none
  sha256sum <$disk | cut -c1-64
`;

async function serve(...args: string[]): Promise<Background> {
  const server = Background.vioctl(['vhost-user', ...args, '--json']);
  await server.sees(/\n}\n/);
  return server;
}

test('a Debian kernel with a host file as /dev/pmem0 and a disk image as virtio disk', async () => {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-vhu-vm-'));
  const at = (name: string): string => path.join(dir, name);
  fs.writeFileSync(at('data'), Buffer.alloc(64 << 20));
  fs.writeFileSync(at('data'), 'THIS-IS-THE-HOST-FILE-AT-0', { flag: 'r+' });
  fs.writeFileSync(at('img'), Buffer.alloc(8 << 20, 'the disk '));
  const servers = [
    await serve('shmem', 'serve', at('p'), '--region', '0=64M', '--map', `0:0=${at('data')}:rw`, '--pmem'),
    await serve('serve', 'blk', at('b'), '--file', at('img'), '--queues', '2', '--serial', 'DISK-7'),
  ];
  try {
    const devices = [pmem(at('p')), vhostUserBlk(at('b'), { queues: 2 })];
    const result = await boot({ kernel: '6.12', qemu: '11', devices, cmd: guest, smp: 2, timeout: 200 });
    const image = fs.readFileSync(at('img'));
    expect(`${result.stdout}${result.stderr}`.split('\n')).toEqual([
      String(64 << 20),
      'THIS-IS-THE-HOST-FILE-AT-0',
      'WRITTEN-BY-THE-GUEST',
      String(8 << 20),
      createHash('sha256').update(image).digest('hex'),
      '',
    ]);
    expect(result.status).toBe(0);
    expect(fs.readFileSync(at('data')).toString('utf8', 8192, 8212)).toBe('WRITTEN-BY-THE-GUEST');
    expect(image.toString('utf8', 3 * 4096, 3 * 4096 + 19)).toBe('written-to-the-disk');
    expect(image.subarray(4 << 20).equals(Buffer.alloc(4 << 20, Buffer.alloc(8 << 20, 'the disk ').subarray(0, 4 << 20)))).toBe(true);
  } finally {
    for (const server of servers) await server.stop();
    fs.rmSync(dir, { recursive: true });
  }
  expect(servers[0]!.stderr).toMatch(/map 0:0x0 .*: mapped/);
  expect(servers[1]!.stderr).toMatch(/[1-9]\d* reads, [1-9]\d* writes, [1-9]\d* flushes, 0 errors/);
});
