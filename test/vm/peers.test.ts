import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { peer } from '../peers/peers.js';
import { boot, devices } from './lab.js';

test('a guest uses vhost-user disks and folders served by peer programs', async () => {
  const sid = await peer('sid');
  const dir = mkdtempSync(path.join(tmpdir(), 'lab-peers-'));
  const at = (name: string) => path.join(dir, name);
  const image = Buffer.alloc(1 << 20, 'vhost-user ');
  writeFileSync(at('disk'), image);
  mkdirSync(at('folder'));
  writeFileSync(at('folder/hello'), 'from the host\n');
  const servers = [
    sid.argv([
      ...(['qemu-storage-daemon', '--blockdev', `driver=file,node-name=f,filename=${at('disk')}`, '--export'] as const),
      `type=vhost-user-blk,id=e,addr.type=unix,addr.path=${at('blk')},node-name=f,writable=on`,
    ]),
    sid.argv(['virtiofsd', '--socket-path', at('fs'), '--shared-dir', at('folder'), '--sandbox', 'none']),
  ].map(([program, ...args]) => spawn(program, args, { stdio: 'inherit' }));
  try {
    for (const name of ['blk', 'fs']) for (let i = 0; i < 200 && !existsSync(at(name)); i++) await sleep(100);
    const r = await boot({
      kernel: '6.12',
      devices: [devices.vhostUserBlk(at('blk')), devices.vhostUserFs(at('fs'), 'tag')],
      cmd: `set -e
        modprobe virtio_blk; modprobe virtiofs
        cmp /dev/vda ${at('disk')} && echo same
        printf written | dd of=/dev/vda bs=7 seek=1 conv=notrunc oflag=sync status=none
        mount -t virtiofs tag /mnt; cat /mnt/hello; echo from the guest >/mnt/answer; umount /mnt`,
    });
    expect(r).toMatchObject({ status: 0, stdout: 'same\nfrom the host\n', stderr: '' });
    expect(readFileSync(at('folder/answer'), 'utf8')).toBe('from the guest\n');
    Buffer.from('written').copy(image, 7);
    expect(readFileSync(at('disk')).equals(image)).toBe(true);
  } finally {
    for (const s of servers) {
      if (s.exitCode !== null || s.signalCode !== null) continue;
      const ended = once(s, 'exit');
      s.kill('SIGTERM');
      await ended;
    }
    rmSync(dir, { recursive: true, force: true });
  }
});
