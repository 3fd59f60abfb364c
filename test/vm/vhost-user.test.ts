import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { Background } from '../support/background.js';
import { vioctl } from '../support/cli.js';
import type { Device } from './devices.js';
import { boot } from './lab.js';

/** shmem serve --pmem: a guest's own driver, unchanged, with a host file behind /dev/pmem0. */
const pmem =
  (socket: string): Device =>
  (context) => {
    const n = context.next();
    const device = `vhost-user-test-device-pci,chardev=pmem${n},virtio-id=27,num_vqs=1,config_size=16`;
    return { args: ['-chardev', `socket,id=pmem${n},path=${socket}`, '-device', device], sharedMemory: true };
  };

const guest = `
  set -e
  modprobe virtio_pmem; modprobe nd_pmem
  for i in $(seq 100); do [ -b /dev/pmem0 ] && break; sleep 0.1; done
  [ -b /dev/pmem0 ] || mknod /dev/pmem0 b $(tr : ' ' </sys/block/pmem0/dev)
  blockdev --getsize64 /dev/pmem0
  dd if=/dev/pmem0 bs=26 count=1 status=none; echo
  printf WRITTEN-BY-THE-GUEST | dd of=/dev/pmem0 bs=4096 seek=2 conv=notrunc,fsync status=none
  dd if=/dev/pmem0 bs=4096 skip=2 count=1 status=none | head -c 20; echo
`;

// The driver knows shared memory regions from Linux 6.9 on.
test('a Debian kernel reads and writes a host file through /dev/pmem0', async () => {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-pmem-'));
  const file = path.join(dir, 'data');
  const socket = path.join(dir, 's');
  fs.writeFileSync(file, Buffer.alloc(64 << 20));
  fs.writeFileSync(file, 'THIS-IS-THE-HOST-FILE-AT-0', { flag: 'r+' });
  const server = Background.vioctl([
    'vhost-user',
    'shmem',
    'serve',
    socket,
    '--region',
    '0=64M',
    '--map',
    `0:0=${file}:rw`,
    '--pmem',
    '--json',
  ]);
  try {
    await server.sees(/"mappings"/);
    const result = await boot({ kernel: '6.12', qemu: '11', devices: [pmem(socket)], cmd: guest, timeout: 200 });
    expect(`${result.stdout}${result.stderr}`).toBe('67108864\nTHIS-IS-THE-HOST-FILE-AT-0\nWRITTEN-BY-THE-GUEST\n');
    expect(result.status).toBe(0);
    expect(fs.readFileSync(file).toString('utf8', 8192, 8212)).toBe('WRITTEN-BY-THE-GUEST');
    expect(server.stderr).toMatch(/map 0:0x0 .*: mapped/);
    expect(vioctl(['vhost-user', 'shmem', 'list', `${socket}.ctl`, '--json']).status).toBe(0);
  } finally {
    await server.stop();
    fs.rmSync(dir, { recursive: true });
  }
});
