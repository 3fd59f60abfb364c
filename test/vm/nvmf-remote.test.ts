/**
 * A VM whose disks are namespaces of other targets, by way of vhost-user serve blk: one of our own target, which is killed, and one of
 * Linux's target, whose machine loses its power. The guest writes and verifies all the time and sees a pause.
 */
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Background } from '../support/background.js';
import { type ServedTarget, serveTarget } from '../support/nvme-target.js';
import { devices, type Guest, spawnGuest } from './lab.js';
import { nvmetLines } from './nvmet.js';
import { loadFunctions } from './storage/load.js';

const nqn = 'nqn.2014-08.org.nvmexpress:far';
const SIZE = 64 << 20;

const linuxTarget = `
set -e
modprobe virtio_blk
n=0; until [ -b /dev/vda ]; do n=$((n+1)); [ $n -lt 100 ]; sleep 0.1; done
${nvmetLines(nqn, [{ nsid: 1, path: '/dev/vda', uuid: '5b4cd4f0-1f2e-4b1d-9a55-6f3c3d1f7a01' }])}
echo "READY $(cat /proc/sys/kernel/random/boot_id)"
read word
`;

const script = `${loadFunctions}
for m in ext4 virtio_blk; do modprobe $m; done
until_true '[ -b /dev/vda ] && [ -b /dev/vdb ]'
for d in vda vdb; do mkdir -p /mnt/$d; run mkfs.ext4 -q -F /dev/$d; run mount /dev/$d /mnt/$d; load $d /mnt/$d & done
rounds vda vdb
for what in 'kill ours' 'reset Linux' 'kill ours again'; do ask "$what"; rounds vda vdb; done
touch /run/stop; until_true '[ -e /run/ended-vda ] && [ -e /run/ended-vdb ]'
dmesg | grep -E 'I/O error|EXT4-fs (error|warning)' && fail 'errors reached the guest'
for d in vda vdb; do
  run umount /mnt/$d; run e2fsck -fn /dev/$d
  echo "SUM $d $(sha256sum </dev/$d | cut -c1-64)"
done
echo "ROUNDS $(count vda) $(count vdb)"
`;

let dir: string;
const at = (name: string): string => path.join(dir, name);
let server: Background;
let far: ServedTarget;
const serveFar = async (port: number): Promise<void> => {
  far = await serveTarget([at('ours'), '--nqn', nqn, '--listen', `127.0.0.1:${port}`, '--discovery-port', 'none']);
};
const guests: Guest[] = [];
beforeEach(() => {
  dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-far-'));
});
afterEach(async () => {
  for (const guest of guests) await guest.stop();
  await server?.stop('SIGKILL');
  await far?.stop('SIGKILL');
  fs.rmSync(dir, { recursive: true, force: true });
});

test('a VM on remote namespaces: the death of their targets is a pause', async () => {
  for (const name of ['ours', 'linux']) {
    fs.writeFileSync(at(name), '');
    fs.truncateSync(at(name), SIZE);
  }
  await serveFar(0);
  const linux = await spawnGuest({
    ...{ kernel: '6.12', cmd: linuxTarget, memory: 512, timeout: 400 },
    devices: [devices.network({ forward: [4420] })],
    args: ['-drive', `file=${at('linux')},if=none,id=far,format=raw`, '-device', 'virtio-blk-pci,drive=far'],
  });
  guests.push(linux);
  await linux.line(/^READY/, 120);
  const source = (port: number, options: string): string => `nvme+tcp://127.0.0.1:${port}/${nqn}/1,queues=2,${options}`;
  server = Background.vioctl([
    ...['vhost-user', 'serve', 'blk', `${at('s0')}=${source(far.port, 'ddgst=on')}`],
    `${at('s1')}=${source(linux.ports.get(4420)!, 'hdgst=on')}`,
  ]);
  await server.sees(/^serving .*s0[\s\S]*s1/m, 60_000);
  const guest = await spawnGuest({
    ...{ kernel: '6.12', qemu: '11', cmd: script, smp: 2, timeout: 400 },
    devices: ['s0', 's1'].map((socket) => devices.vhostUserBlk(at(socket), { queues: 2 })),
  });
  guests.push(guest);
  const killOurs = async (): Promise<void> => {
    await far.stop('SIGKILL');
    await sleep(2000);
    await serveFar(far.port);
  };
  const acts: [string, () => Promise<void>][] = [
    ['kill ours', killOurs],
    [
      'reset Linux',
      async () => {
        const boots = (): number => linux.stdout.match(/^READY/gm)!.length;
        const before = boots();
        await linux.qmp('set-action', { reboot: 'reset' });
        await linux.qmp('system_reset');
        for (const end = Date.now() + 200_000; boots() === before; await sleep(200))
          if (Date.now() > end) throw new Error(`the far machine does not boot again:\n${linux.console().slice(-2000)}`);
      },
    ],
    ['kill ours again', killOurs],
  ];
  const serve = async (): Promise<void> => {
    for (const [what, act] of acts) {
      await guest.line(new RegExp(`^ASK ${what}$`), 250);
      await act();
      guest.write('done\n');
    }
  };
  const [result] = await Promise.all([guest.wait(), serve()]);
  if (result.stdout.includes('FAILED')) console.log(result.stdout.slice(-6000), server.stderr.slice(-3000));
  expect(result.stdout).not.toContain('FAILED');
  expect(result.status).toBe(0);
  expect(await server.stop()).toBe(0);
  expect(server.stderr.match(/connected again/g)!.length).toBeGreaterThanOrEqual(3);
  expect(await far.stop()).toBe(0);
  for (const [name, dev] of [
    ['ours', 'vda'],
    ['linux', 'vdb'],
  ] as const) {
    const sum = createHash('sha256')
      .update(fs.readFileSync(at(name)))
      .digest('hex');
    expect(result.stdout).toContain(`SUM ${dev} ${sum}\n`);
  }
  console.log(`${result.seconds} s; ${/^ROUNDS .*$/m.exec(result.stdout)}`);
}, 500_000);
