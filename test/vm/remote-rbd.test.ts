/**
 * ext4 of a Linux guest on two images of Ceph: one by way of nvmf serve, one as the guest's virtio disk by way of vhost-user serve blk.
 * fio writes and verifies on both while the cluster stalls, dies, comes back, and fences our clients.
 */
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Background } from '../support/background.js';
import { Ceph } from '../support/ceph.js';
import { vioctl } from '../support/cli.js';
import { usage } from '../support/nvme-host-fuzz.js';
import { devices, type Guest, spawnGuest } from './lab.js';
import { loadFunctions } from './storage/load.js';

const nqn = 'nqn.2014-08.org.nvmexpress:rbd';
/** Largest resident memory of a server, in MiB. */
const MEMORY = 200;

const script = String.raw`${loadFunctions}
for m in nvme-tcp ext4 virtio_blk; do modprobe $m; done
nsid() { for d in /sys/block/nvme*n*; do case $(basename $d) in *c*) continue;; esac; [ "$(cat $d/nsid 2>/dev/null)" != "$1" ] || echo /dev/$(basename $d); done; }
run nvme connect -t tcp -a 10.0.2.2 -s $PORT -n $NQN -i 2 -l 600
until_true '[ -b "$(nsid 1)" ] && [ -b /dev/vda ]'
N=$(nsid 1); V=/dev/vda
mkdir -p /mnt/nvme /mnt/virtio /mnt/old
for pair in $N:nvme $V:virtio; do
  run mkfs.ext4 -q -F $(echo $pair | cut -d: -f1)
  run mount $(echo $pair | tr : ' ' | sed 's, , /mnt/,')
done
for d in nvme virtio; do head -c 1000000 /dev/urandom >/mnt/$d/marker; cp /mnt/$d/marker /run/marker-$d; done
sync
load nvme /mnt/nvme & load virtio /mnt/virtio &
rounds nvme virtio

for what in 'stopped OSD' 'killed OSD' 'cluster away'; do ask "$what"; rounds nvme virtio; done
ask resize
for d in $N $V; do until_true "[ \"\$(blockdev --getsize64 $d)\" = $GROWN ]"; run resize2fs $d; done
rounds nvme virtio

for d in nvme virtio; do fsfreeze -f /mnt/$d; done
ask snapshot
for d in nvme virtio; do fsfreeze -u /mnt/$d; done
until_true '[ -b "$(nsid 2)" ] && [ -b /dev/vdb ]'
for pair in $(nsid 2):nvme /dev/vdb:virtio; do
  d=$(echo $pair | cut -d: -f1)
  [ "$(cat /sys/block/$(basename $d)/ro)" = 1 ] || fail "a snapshot that can be written: $pair"
  run mount -o ro,noload $d /mnt/old
  run cmp /mnt/old/marker /run/marker-$(echo $pair | cut -d: -f2)
  run umount /mnt/old
done
rounds nvme virtio
dmesg | grep -E 'I/O error|EXT4-fs (error|warning)' && fail 'errors reached the guest before its clients were fenced'
echo CLEAN

# A host with native multipath keeps what a path error left and sends it again; a virtio disk has nothing but an error.
ask fence
until_true '[ -e /run/bad-virtio ]'
[ ! -e /run/bad-nvme ] || fail 'fio on nvme'
ask reopen
rounds nvme
umount /mnt/virtio || umount -l /mnt/virtio
e2fsck -fy $V >/run/out 2>&1 || [ $? = 1 ] || { cat /run/out; fail e2fsck; }
run mount $V /mnt/virtio
rm -f /run/bad-virtio
load virtio /mnt/virtio &
rounds nvme virtio
touch /run/stop; until_true '[ -e /run/ended-nvme ] && [ -e /run/ended-virtio ]'
for pair in $N:nvme $V:virtio; do
  run cmp /mnt/$(echo $pair | cut -d: -f2)/marker /run/marker-$(echo $pair | cut -d: -f2)
  run umount /mnt/$(echo $pair | cut -d: -f2)
  run e2fsck -fn $(echo $pair | cut -d: -f1)
  echo "SUM $(echo $pair | cut -d: -f2) $(sha256sum <$(echo $pair | cut -d: -f1) | cut -c1-64)"
done
echo "ROUNDS $(count nvme) $(count virtio)"
run nvme disconnect -n $NQN
`;

let dir: string;
let ceph: Ceph;
const servers: Background[] = [];
const at = (name: string): string => path.join(dir, name);
const source = (image: string): string => `rbd:rbd/${image},conf=${ceph.conf},timeout=2m`;
const ctl = (group: 'nvmf' | 'vhost-user', ...args: string[]): string => {
  const done = vioctl([group, 'ctl', at(group), ...args], { timeout: 60_000 });
  if (done.status !== 0) throw new Error(`${group} ctl ${args.join(' ')}: ${done.stderr}`);
  return done.stdout;
};
beforeAll(async () => {
  dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-rbd-'));
  ceph = await Ceph.start({ store: 'bluestore' });
}, 300_000);
afterAll(async () => {
  for (const server of servers) await server.stop('SIGKILL');
  ceph?.stop();
  fs.rmSync(dir, { recursive: true, force: true });
});

/** What the guest asks for, in its order. */
const acts = (guest: Guest): [string, () => unknown][] => [
  [
    'stopped OSD',
    async () => {
      ceph.signal('SIGSTOP', 'osd');
      await sleep(20_000);
      ceph.signal('SIGCONT', 'osd');
    },
  ],
  [
    'killed OSD',
    async () => {
      ceph.signal('SIGKILL', 'osd');
      await sleep(1000);
      ceph.restart('osd');
    },
  ],
  [
    'cluster away',
    async () => {
      ceph.signal('SIGSTOP', ...ceph.daemons);
      await sleep(5000);
      ceph.signal('SIGCONT', ...ceph.daemons);
    },
  ],
  ['resize', () => ['first', 'second'].map((image) => ceph.run('rbd', 'resize', '--size', '96M', image))],
  [
    'snapshot',
    async () => {
      for (const image of ['first', 'second']) ceph.run('rbd', 'snap', 'create', `${image}@then`);
      ctl('nvmf', 'add', source('first@then'));
      ctl('vhost-user', 'add', `${at('old')}=${source('second@then')}`);
      const addr = { type: 'unix', data: { path: at('old') } };
      await guest.qmp('chardev-add', { id: 'old', backend: { type: 'socket', data: { addr, server: false } } });
      await guest.qmp('device_add', { driver: 'vhost-user-blk-pci', chardev: 'old', bus: 'spare', id: 'old' });
    },
  ],
  [
    'fence',
    async () => {
      for (const image of ['first', 'second']) ceph.fence(image);
      for (const server of servers) await server.sees(/fenced this one.*ESHUTDOWN/, 60_000);
      expect(JSON.parse(ctl('nvmf', 'list', '--json')).subsystems[0].namespaces[0]).toMatchObject({ syncError: 'ESHUTDOWN' });
    },
  ],
  [
    'reopen',
    () => {
      ctl('nvmf', 'reopen', '1');
      ctl('vhost-user', 'reopen', at('disk'));
    },
  ],
];

test('a Linux host and a VM on images of Ceph: each fault of the cluster is a pause, a fenced client is not', async () => {
  for (const image of ['first', 'second']) ceph.run('rbd', 'create', '--size', '64M', image);
  servers.push(
    Background.vioctl([
      ...['nvmf', 'serve', source('first'), '--nqn', nqn, '--listen', '127.0.0.1:0', '--discovery-port', 'none'],
      ...['--control', at('nvmf')],
    ]),
    Background.vioctl(['vhost-user', 'serve', 'blk', `${at('disk')}=${source('second')}`, '--control', at('vhost-user')]),
  );
  const [, port] = await servers[0]!.sees(/on 127\.0\.0\.1:(\d+)/, 60_000);
  await servers[1]!.sees(/^serving /m, 60_000);
  const guest = await spawnGuest({
    ...{ kernel: '6.12', qemu: '11', cmd: script, smp: 2, timeout: 500 },
    devices: [devices.network(), devices.vhostUserBlk(at('disk')), devices.rootPort('spare')],
    env: { PORT: port!, NQN: nqn, GROWN: String(96 << 20) },
  });
  let memory: number[] = [];
  try {
    const serve = async () => {
      for (const [what, act] of acts(guest)) {
        await guest.line(new RegExp(`^ASK ${what}`), 250);
        await act();
        guest.write('done\n');
      }
      memory = servers.map(({ child }) => Math.round(usage(child.pid!).rss));
    };
    const [result] = await Promise.all([guest.wait(), serve()]);
    if (result.stdout.includes('FAILED')) console.log(result.stdout.slice(-6000), ...servers.map(({ stderr }) => stderr.slice(-3000)));
    expect(result.stdout).not.toContain('FAILED');
    expect(result.status).toBe(0);
    for (const [image, name] of [
      ['first', 'nvme'],
      ['second', 'virtio'],
    ] as const) {
      ceph.run('rbd', 'export', image, at('export'));
      const sum = createHash('sha256')
        .update(fs.readFileSync(at('export')))
        .digest('hex');
      fs.rmSync(at('export'));
      expect(result.stdout).toContain(`SUM ${name} ${sum}\n`);
    }
    for (const server of servers) expect(await server.stop()).toBe(0);
    console.log(
      `${result.seconds} s; ${/^ROUNDS .*$/m.exec(result.stdout)}; RSS of nvmf serve, vhost-user serve blk: ${memory.join(', ')} MiB`,
    );
    for (const mib of memory) expect(mib).toBeLessThan(MEMORY);
  } finally {
    await guest.stop();
  }
}, 600_000);
