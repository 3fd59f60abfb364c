// In a guest: what Linux's host learns of a disk's block sizes and limits, and that it zeroes no less than it asks for.
import fs from 'node:fs';
import { fact, kernelHost, main, serveNvmf, sh } from './inside.js';

const queue = (device: string): Record<string, number> => {
  const names = ['logical_block_size', 'physical_block_size', 'minimum_io_size', 'optimal_io_size', 'rotational'];
  return Object.fromEntries(names.map((name) => [name, Number(fs.readFileSync(`/sys/block/${device.slice(5)}/queue/${name}`, 'latin1'))]));
};

main(async () => {
  sh('modprobe -a virtio_blk nvme_tcp');
  const disk = '/dev/vda';
  sh(`[ -b ${disk} ]`);
  sh('head -c 128M /dev/zero | tr "\\0" x >/run/full');
  const target = await serveNvmf([disk, '/run/full']);
  const kernel = await kernelHost(target, 2);
  fact('the disk', queue(disk));
  fact('the namespace', queue(kernel.get(1)!));
  // 100 MiB: several commands, each of which must zero as much as the host believes
  sh(`blkdiscard -z -o 1M -l 100M ${kernel.get(2)}; sync`);
  const image = fs.readFileSync('/run/full');
  const zero = image.subarray(1 << 20, 101 << 20);
  fact('zeroed', zero.equals(Buffer.alloc(zero.length)));
  fact('the rest', image.subarray(0, 1 << 20).equals(Buffer.alloc(1 << 20, 'x')) && image[101 << 20] === 0x78);
  sh(`nvme disconnect -n ${target.nqn}`);
  await target.server.stop();
});
