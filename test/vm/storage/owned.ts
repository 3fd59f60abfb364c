// In a guest: who may use a disk at the same time as a server, and whom a server keeps out.
import fs from 'node:fs';
import { RingDisk } from '../../support/served-disk.js';
import { attempt, dm, fact, loop, main, serveBlk, serveNvmf, sh } from './inside.js';

/** Both servers as commands that would serve a source for ever. */
const servers: Record<string, (source: string) => string> = {
  nvmf: (source) => `timeout 50 node bin/run.js nvmf serve '${source}' --listen 127.0.0.1:0 --discovery-port none`,
  blk: (source) => `timeout 50 node bin/run.js vhost-user serve blk '/run/refused.sock=${source}'`,
};

/** What both servers say of a source: exit status and the line of the error. */
function refusals(what: string, source: string): void {
  for (const [server, command] of Object.entries(servers)) {
    const { status, text } = attempt(`${command(source)} 2>&1 >/dev/null`);
    fact(`${server} refuses ${what}`, [status, text.split('\n')[0]]);
  }
}

/** What others may not do with a block device that a server has. */
function intruders(who: string, device: string): void {
  const commands: Record<string, string> = {
    'mkfs.ext4': `mkfs.ext4 -q ${device} </dev/null`,
    'mkfs.xfs': `mkfs.xfs -q ${device}`,
    mount: `mount -t ext4 ${device} /mnt`,
    mkswap: `mkswap ${device}`,
    dm: `dmsetup create --noudevsync intruder --table '0 2048 linear ${device} 0'`,
    wipefs: `wipefs -a ${device}`,
  };
  for (const [name, command] of Object.entries(commands)) fact(`${who} against ${name}`, attempt(command));
}

/** Images: the locks of QEMU, and those of the other server. */
async function images(): Promise<void> {
  sh('truncate -s 8M /run/image; ln /run/image /run/hard; ln -s /run/image /run/sym');
  const target = await serveNvmf(['/run/image']);
  fact('qemu-io on a served image', attempt(`qemu-io -f raw -c 'write 0 4k' /run/image`));
  for (const name of ['/run/image', '/run/hard', '/run/sym']) refusals(`${name}`, name);
  await target.server.stop();
  const server = await serveBlk(['/run/image.sock=/run/image']);
  const disk = await RingDisk.open('/run/image.sock');
  await disk.flush();
  fact('qemu-io on a guest disk', attempt(`qemu-io -f raw -c 'write 0 4k' /run/image`));
  refusals('a guest disk', '/run/image');
  disk.close();
  await server.stop();
  fact('qemu-io afterwards', attempt(`qemu-io -f raw -c 'write 0 4k' /run/image`).status);
  // qemu-io has it: it waits for a line
  const qemu = attempt(
    `mkfifo /run/in; qemu-io -f raw /run/image </run/in >/run/qemu.out 2>&1 & exec 9>/run/in; echo 'write 0 4k' >&9; ` +
      `n=0; until grep -q wrote /run/qemu.out || [ $n -gt 100 ]; do sleep 0.1; n=$((n+1)); done; ${servers.nvmf!('/run/image')} 2>&1 >/dev/null; echo "status $?"; ` +
      `${servers.blk!('/run/image')} 2>&1 >/dev/null; echo "status $?"`,
  );
  fact('an image of qemu-io', qemu.text.match(/status \d+|already in use.*/g));
}

/** Devices that something in the kernel uses. */
function used(): void {
  const mounted = loop('mounted', 64, '-P');
  sh(`mkfs.ext4 -q ${mounted.device}; mount ${mounted.device} /mnt`);
  refusals('a mounted device', mounted.device);
  refusals('the file below a mounted device', mounted.file);
  sh('umount /mnt');
  const swap = loop('swap', 16);
  sh(`mkswap ${swap.device}; swapon ${swap.device}`);
  refusals('active swap', swap.device);
  sh(`swapoff ${swap.device}`);
  const held = loop('held', 16);
  const above = dm('above', 8192, `linear ${held.device} 0`, '--uuid CRYPT-LUKS2-00-above');
  refusals('a device below dm', held.device);
  sh(`mkfs.ext4 -q ${above}; mount ${above} /mnt`);
  refusals('a device below a mounted dm', held.device);
  refusals('a mounted dm', above);
  sh('umount /mnt');
  const volume = loop('volume', 16);
  dm('vg-lv', 8192, `linear ${volume.device} 0`, '--uuid LVM-0123456789abcdefghijklmnopqrstuvABCDEFGHIJKLMNOPQRSTUVWXYZ012345');
  refusals('a physical volume', volume.device);
  // an array without mdadm: what it writes to sysfs
  const member = loop('member', 16);
  sh(
    `modprobe raid1; echo md100 >/sys/module/md_mod/parameters/new_array; cd /sys/block/md100/md; echo none >metadata_version; echo raid1 >level; ` +
      `echo 1 >raid_disks; echo ${sh(`cat /sys/block/${member.device.slice(5)}/dev`)} >new_dev; echo 0 >dev-${member.device.slice(5)}/slot; ` +
      `echo 16384 >dev-${member.device.slice(5)}/size; echo 16384 >component_size; echo active >array_state`,
  );
  fact('array', sh('cat /sys/block/md100/md/array_state /sys/block/md100/size').split('\n'));
  refusals('a member of an array', member.device);
  const exported = loop('exported', 16);
  fs.writeFileSync('/sys/kernel/config/nvmet/subsystems/lab/namespaces/1/device_path', exported.device);
  fs.writeFileSync('/sys/kernel/config/nvmet/subsystems/lab/namespaces/1/enable', '1');
  refusals('a namespace of nvmet', exported.device);
  refusals('the file below a namespace of nvmet', exported.file);
  // a partition of a disk, and the disk of a mounted partition
  const disk = loop('disk', 64, '-P');
  sh(
    `printf 'label: gpt\\n,16M\\n,16M\\n' | sfdisk -q ${disk.device}; udevadm settle 2>/dev/null || true; partprobe ${disk.device} 2>/dev/null || true`,
  );
  const [one, two] = [`${disk.device}p1`, `${disk.device}p2`];
  sh(`mkfs.ext4 -q ${one}; mount ${one} /mnt`);
  refusals('the disk of a mounted partition', disk.device);
  refusals('a mounted partition', one);
  sh(`mkfs.ext4 -q ${two}`); // nobody has the neighbour
  sh('umount /mnt');
}

main(async () => {
  sh('modprobe -a loop dm_mod ext4 xfs nvmet nvmet_tcp configfs; mount -t configfs none /sys/kernel/config 2>/dev/null || true');
  sh('mkdir /sys/kernel/config/nvmet/subsystems/lab; mkdir /sys/kernel/config/nvmet/subsystems/lab/namespaces/1');
  await images();
  const device = loop('served', 64).device;
  sh(`mkfs.ext4 -q ${device}`);
  const target = await serveNvmf([device]);
  intruders('nvmf', device);
  await target.server.stop();
  const server = await serveBlk([`/run/device.sock=${device}`]);
  const disk = await RingDisk.open('/run/device.sock');
  await disk.flush();
  intruders('blk', device);
  disk.close();
  await server.stop();
  fact('mount afterwards', attempt(`mount -t ext4 ${device} /mnt && umount /mnt`));
  used();
});
