// Fills the cache with all that the VM lab and the peer tests use, in the order in which tests want it.
import { blkio } from '../peers/blkio.js';
import { gdbMultiarch } from '../peers/gdb.js';
import { peer } from '../peers/peers.js';
import { vhostDevice } from '../peers/vhost-device.js';
import { guestTools } from './guest-tools.js';
import { iommufdKernel } from './iommufd.js';
import { kernel } from './kernels.js';
import { bigEndianQemu, foreignQemu, qemu } from './qemu.js';

const STEPS: [string, () => Promise<unknown>][] = [
  ['sid peer', () => peer('sid')],
  ['systemd peer', () => peer('systemd')],
  ['nvme-stas peer', () => peer('stas')],
  ['tlshd peer', () => peer('tlshd')],
  ['nvme-tls peer', () => peer('nvme-tls')],
  ['libblkio', blkio],
  ['vhost-device-vsock', vhostDevice],
  ['QEMU 10', () => qemu('10')],
  ['QEMU 10 for other machines', () => foreignQemu('10')],
  ['QEMU 11 for other machines', () => foreignQemu('11')],
  ['QEMU 10 for RISC-V', () => foreignQemu('10', 'qemu-system-riscv64')],
  ['gdb for all architectures', gdbMultiarch],
  ['big-endian QEMU', () => bigEndianQemu()],
  ['kernel 6.12', () => kernel('6.12')],
  ['kernel 6.1', () => kernel('6.1')],
  ['kernel 7', () => kernel('7')],
  ['kernel 6.12 with iommufd', () => iommufdKernel()],
  ['programs of guests', guestTools],
];

for (const [name, fill] of STEPS) {
  const begun = Date.now();
  try {
    await fill();
    process.stdout.write(`prefetch: ${name}: ${((Date.now() - begun) / 1000).toFixed(1)} s\n`);
  } catch (e) {
    process.stderr.write(`prefetch: ${name}: ${e instanceof Error ? e.message : String(e)}\n`);
    process.exitCode = 1;
  }
}
