// In a guest: block sizes and partition tables as hosts and guests see them, and sizes that change.
import { spawn } from 'node:child_process';
import fs from 'node:fs';
import { OwnedFd } from '../../../src/native/owned-fd.js';
import { NvmeDisk, RingDisk } from '../../support/served-disk.js';
import { pair, Raw } from '../../support/vhost-user.js';
import { dm, fact, kernelHost, loop, main, serveBlk, serveNvmf, sh, type Target, until } from './inside.js';

/** A partition table as sfdisk prints it, without what names the device. */
const table = (device: string): string[] =>
  sh(`sfdisk -d ${device}`)
    .split('\n')
    .filter((line) => !line.startsWith('device:'))
    .map((line) => line.replace(/^\S+p(\d+) :/, 'partition $1 :'));
/** Start and size of each partition that the kernel has found, in sectors of 512 bytes. */
const partitions = (device: string): Record<string, string> => {
  const name = device.slice(5);
  const found = fs.readdirSync(`/sys/block/${name}`).filter((entry) => new RegExp(`^${name}p\\d+$`).test(entry));
  const attr = (part: string, file: string): string => fs.readFileSync(`/sys/block/${name}/${part}/${file}`, 'latin1').trim();
  return Object.fromEntries(found.sort().map((part) => [part.slice(name.length), `${attr(part, 'start')}+${attr(part, 'size')}`]));
};

async function blocksOf4096(): Promise<void> {
  const { device } = loop('native', 64, '-b 4096 -P');
  sh(`printf 'label: gpt\\nname=one,size=16M\\nname=two\\n' | sfdisk -q ${device}; sync`);
  await until('partitions of the loop device', () => Object.keys(partitions(device)).length === 2);
  fact('table of the device', table(device));
  fact('partitions of the device', partitions(device));
  const source = sh(`dd if=${device} bs=4096 skip=1 count=1 iflag=direct status=none | head -c 8`);
  fact('header of the device', source);
  const target = await serveNvmf([device]);
  const kernel = (await kernelHost(target, 1)).get(1)!;
  await until('partitions of the namespace', () => Object.keys(partitions(kernel)).length === 2);
  fact('block size of the namespace', sh(`blockdev --getss ${kernel}`));
  fact('table of the namespace', table(kernel));
  fact('partitions of the namespace', partitions(kernel));
  // what the host writes into a partition is there on the device
  sh(`mkfs.ext4 -q -L native ${kernel}p1; sync; nvme disconnect -n ${target.nqn}`);
  await target.server.stop();
  fact('label', sh(`blkid -p -o value -s LABEL ${device}p1`));
  const server = await serveBlk([`/run/native.sock=${device}`]);
  const disk = await RingDisk.open('/run/native.sock', { extra: 1n << 6n });
  const config = Buffer.from((await disk.guest.front.config(0, 60))!);
  fact('virtio-blk', { capacity: Number(config.readBigUInt64LE(0)) * 512, blk_size: config.readUInt32LE(20) });
  const into = Buffer.alloc(4096);
  fact('header of the virtio disk', `${await disk.read(4096, into)} ${into.toString('latin1', 0, 8)}`);
  disk.close();
  await server.stop();
}

interface Source {
  path: string;
  /** Makes it as large as told, in MiB. */
  resize: (mib: number) => void;
}

/** A file, a loop device and a device-mapper device, of 16 MiB each. */
function sources(): Record<string, Source> {
  sh('truncate -s 16M /run/file');
  const looped = loop('grown', 16);
  const below = loop('below', 64).device;
  const mapped = dm('mapped', 16 * 2048, `linear ${below} 0`);
  return {
    file: { path: '/run/file', resize: (mib) => sh(`truncate -s ${mib}M /run/file`) },
    loop: { path: looped.device, resize: (mib) => sh(`truncate -s ${mib}M ${looped.file}; losetup -c ${looped.device}`) },
    dm: {
      path: mapped,
      resize: (mib) =>
        sh(
          `dmsetup load mapped --table '0 ${mib * 2048} linear ${below} 0'; dmsetup suspend --noudevsync mapped; dmsetup resume --noudevsync mapped`,
        ),
    },
  };
}

const MIB = 1 << 20;
/** Sizes in MiB, one after the other. The disk of a guest may shrink as well. */
const sizes = [24, 48, 40];

/** Seconds until both kinds of host have a new size, for each source and change. */
async function resizes(): Promise<void> {
  const all = sources();
  const target: Target = await serveNvmf(Object.values(all).map(({ path }) => path));
  const kernel = await kernelHost(target, Object.keys(all).length);
  const monitor = spawn('udevadm', ['monitor', '--kernel', '--property'], { env: { ...process.env, SYSTEMD_IGNORE_CHROOT: '1' } });
  let events = '';
  monitor.stdout.on('data', (text: Buffer) => (events += text));
  const own = await NvmeDisk.open(target.port, target.nqn);
  for (const [i, [name, { resize }]] of Object.entries(all).entries()) {
    const seconds: number[] = [];
    for (const mib of sizes) {
      const began = performance.now();
      resize(mib);
      await until(`${name} has ${mib} MiB at the host`, () => Number(sh(`blockdev --getsize64 ${kernel.get(i + 1)}`)) === mib * MIB, 20);
      seconds.push((performance.now() - began) / 1000);
      const { blocks, blockSize } = await own.controller.namespace(i + 1);
      fact(`${name} of ${mib} MiB at our host`, Number(blocks) * blockSize);
    }
    fact(`seconds of ${name} at the host`, seconds);
  }
  await until('uevents', () => (events.match(/RESIZE=1/g) ?? []).length >= 3);
  monitor.kill();
  fact('uevents', (events.match(/RESIZE=1/g) ?? []).length);
  own.close();
  sh(`nvme disconnect -n ${target.nqn}`);
  await target.server.stop();
}

async function resizesOfGuests(): Promise<void> {
  sh('dmsetup remove --noudevsync mapped; losetup -D; rm -f /run/*.img /run/file');
  const all = sources();
  for (const [name, { path, resize }] of Object.entries(all)) {
    const server = await serveBlk([`/run/${name}.sock=${path}`]);
    const disk = await RingDisk.open(`/run/${name}.sock`, { protocols: ['BACKEND_REQ'] });
    const { front } = disk.guest;
    const [ours, theirs]: [OwnedFd, OwnedFd] = pair();
    const back = new Raw(ours);
    await front.request('SET_BACKEND_REQ_FD', {}, [theirs]);
    const seconds: number[] = [];
    for (const mib of sizes) {
      const began = performance.now();
      resize(mib);
      const answer = await back.exchange.next(20_000);
      if (answer.kind !== 'message' || answer.message.id !== 2)
        throw new Error(`${name}: ${answer.kind} instead of a change of the configuration`);
      seconds.push((performance.now() - began) / 1000);
      if (answer.message.flags & 8) back.send(2, 0x5, Buffer.alloc(8));
      const config = Buffer.from((await front.config(0, 60))!);
      fact(`${name} of ${mib} MiB in the guest`, Number(config.readBigUInt64LE(0)) * 512);
    }
    fact(`seconds of ${name} in the guest`, seconds);
    back.close();
    disk.close();
    await server.stop();
  }
}

main(async () => {
  sh('modprobe -a loop dm_mod nvme_tcp ext4');
  await blocksOf4096();
  await resizes();
  await resizesOfGuests();
});
