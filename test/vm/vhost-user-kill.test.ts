import { createHash } from 'node:crypto';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { Background } from '../support/background.js';
import { vhostUserBlk } from './devices.js';
import { boot } from './lab.js';

/** QEMU 11's front-end with INFLIGHT_SHMFD, and Linux's driver with split and packed rings, over back-ends that are killed. */
const ROUNDS = 60;
const guest = `
  set -e
  modprobe virtio_blk
  disks=$(for s in SPLIT PACKED; do basename $(dirname $(grep -l "^$s" /sys/block/vd*/serial)); done)
  for d in $disks; do
    features=$(cat /sys/block/$d/device/features)
    echo "$(cat /sys/block/$d/serial) packed=$(echo $features | cut -c35)"
  done
  echo READY >&2
  for i in $(seq ${ROUNDS}); do
    for d in $disks; do
      for w in 0 1 2 3; do
        { yes "round $i writer $w" | head -c 65536 | dd of=/dev/$d bs=64K seek=$((i * 4 + w)) oflag=direct conv=notrunc status=none; } &
      done
    done
    wait
  done
  sync
  for d in $disks; do head -c 33554432 /dev/$d | sha256sum | cut -c1-64; done
`;

test('kill -9 and SIGTERM of a back-end: QEMU reconnects, and the guest loses nothing', async () => {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-vhu-kill-'));
  const disks = ['SPLIT', 'PACKED'].map((serial) => ({ serial, img: path.join(dir, serial), socket: path.join(dir, `${serial}.s`) }));
  const serve = async ({ serial, img, socket }: (typeof disks)[number]): Promise<Background> => {
    const server = Background.vioctl(['vhost-user', 'serve', 'blk', socket, '--file', img, '--queues', '2', '--serial', serial]);
    await server.sees(/serving/);
    return server;
  };
  for (const { img } of disks) fs.writeFileSync(img, Buffer.alloc(32 << 20));
  const servers = [await serve(disks[0]!), await serve(disks[1]!)];
  let over = false;
  let ends = 0;
  const written = (): boolean => disks.every(({ img }) => fs.statSync(img).blocks > 0);
  const killer = (async () => {
    while (!over && !written()) await new Promise((resolve) => setTimeout(resolve, 100));
    for (let i = 0; !over && i < 12; i++) {
      await new Promise((resolve) => setTimeout(resolve, 100 + ((i * 137) % 400)));
      const which = i % 2;
      await servers[which]!.stop(i % 3 === 2 ? 'SIGTERM' : 'SIGKILL');
      servers[which] = await serve(disks[which]!);
      ends++;
    }
  })();
  try {
    const devices = disks.map(({ socket, serial }) => vhostUserBlk(socket, { queues: 2, packed: serial === 'PACKED', reconnect: true }));
    const result = await boot({ kernel: '6.12', qemu: '11', devices, cmd: guest, smp: 2, timeout: 250 });
    over = true;
    await killer;
    const expected = Buffer.alloc(32 << 20);
    for (let i = 1; i <= ROUNDS; i++)
      for (let w = 0; w < 4; w++) expected.fill(`round ${i} writer ${w}\n`, (i * 4 + w) * 65536, (i * 4 + w + 1) * 65536);
    const sum = createHash('sha256').update(expected).digest('hex');
    expect(result.stdout.trim().split('\n')).toEqual(['SPLIT packed=0', 'PACKED packed=1', sum, sum]);
    expect(result.status).toBe(0);
    expect(ends).toBeGreaterThan(2);
    for (const { img } of disks) expect(fs.readFileSync(img).equals(expected)).toBe(true);
  } finally {
    over = true;
    await killer.catch(() => {});
    for (const server of servers) await server.stop();
    fs.rmSync(dir, { recursive: true });
  }
});
