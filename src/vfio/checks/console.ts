import type { Census } from '../census/census.js';
import { PCI_DEVICES, type PciDevice } from '../devices/pci.js';
import type { Finding } from './finding.js';

/** Names under which /proc/iomem shows a frame buffer that firmware set up. */
const FIRMWARE_FB = /BOOTFB|efifb|vesafb|simplefb|simple-framebuffer/;

/** The console graphics adapter. */
export function consoleFindings(census: Census, device: PciDevice): Finding[] {
  if (device.class >> 16 !== 0x03 || census.modules.isVfio(device.driver)) return [];
  const { root } = census;
  const fb = root
    .list('/sys/class/graphics')
    .find((name) => name.startsWith('fb') && root.readlink(`/sys/class/graphics/${name}`)?.includes(`/${device.bdf}/`));
  const bars = (root.attr(`${PCI_DEVICES}/${device.bdf}/resource`) ?? '').split('\n').map((line) => line.split(' ').map(Number));
  const firmware = (root.attr('/proc/iomem') ?? '').split('\n').some((line) => {
    const match = /^\s*([0-9a-f]+)-([0-9a-f]+) : (.*)$/.exec(line);
    if (!match || !FIRMWARE_FB.test(match[3]!)) return false;
    const start = Number.parseInt(match[1]!, 16);
    return bars.some(([from = 0, to = 0]) => to > 0 && start >= from && start <= to);
  });
  if (!device.bootVga && fb === undefined && !firmware) return [];
  const why =
    fb !== undefined
      ? `it drives the console frame buffer ${fb}`
      : firmware
        ? "the firmware's frame buffer is in its memory"
        : 'firmware used it as the console (boot_vga)';
  return [
    {
      check: 'console',
      subject: device.bdf,
      brief: 'console',
      message: `${device.bdf} is the console graphics adapter: ${why}`,
      fix: 'move the console to another adapter or to a serial line',
    },
  ];
}
