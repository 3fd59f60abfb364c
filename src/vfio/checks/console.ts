import { printable } from '../../common/escape.js';
import type { Sysroot } from '../../common/sysroot.js';
import type { Census } from '../census/census.js';
import { type PciDevice, pciDevices } from '../devices/pci.js';
import type { Finding } from './finding.js';

/** Names under which /proc/iomem shows a frame buffer that firmware set up. */
const firmwareFb = /BOOTFB|efifb|vesafb|simplefb|simple-framebuffer/;

/** Consoles of the kernel on a device: serial ports, virtio consoles (hvc: the driver's ports, whichever port it is). */
function terminalFindings(census: Census, device: PciDevice): Finding[] {
  const { root } = census;
  const printing = census.consoles;
  if (printing.length === 0) return [];
  return printing
    .filter(
      (name) =>
        root.readlink(`/sys/class/tty/${name}`)?.includes(`/${device.bdf}/`) || (/^hvc\d/.test(name) && hasVirtioConsole(root, device)),
    )
    .map((name) => ({
      check: 'console' as const,
      subject: name,
      brief: `console ${name}`,
      message: `the kernel's console is on ${name}, a port of it`,
      fix: `remove console=${name} from the kernel command line and reboot`,
    }));
}

/** VIRTIO_ID_CONSOLE (virtio_ids.h): its terminals hvcN are virtual devices that do not show which console they belong to. */
function hasVirtioConsole(root: Sysroot, device: PciDevice): boolean {
  const dir = `${pciDevices}/${device.bdf}`;
  return root.list(dir).some((name) => /^virtio\d+$/.test(name) && Number(root.attr(`${dir}/${name}/device`) ?? 0) === 3);
}

/** Monitors that a graphics adapter drives, and processes that are master of its DRM device (/sys/kernel/debug/dri). */
function displayFindings(census: Census, device: PciDevice): Finding[] {
  if (device.class >> 16 !== 0x03) return [];
  const { root } = census;
  const cards = census.below('/sys/class/drm', device.bdf).map(({ name }) => name);
  return cards.flatMap((name): Finding[] => {
    if (name.includes('-')) {
      const on = root.attr(`/sys/class/drm/${name}/enabled`) === 'enabled' && root.attr(`/sys/class/drm/${name}/dpms`) !== 'Off';
      const output = printable(name.replace(/^card\d+-/, ''));
      const message = `${device.bdf} shows a picture on its output ${output}`;
      return on ? [{ check: 'display', subject: name, brief: `display ${output}`, message, fix: 'end the graphical session' }] : [];
    }
    const minor = /^card(\d+)$/.exec(name)?.[1];
    const clients = minor === undefined ? undefined : root.attr(`/sys/kernel/debug/dri/${minor}/clients`);
    return (clients ?? '').split('\n').flatMap((line): Finding[] => {
      // command tgid dev master a uid magic; the command may have blanks
      const match = /^\s*(.*?)\s+(\d+)\s+\d+\s+y\s/.exec(line);
      if (!match) return [];
      const who = `${printable(match[1]!)} (pid ${match[2]})`;
      return [
        {
          check: 'display',
          subject: name,
          brief: `DRM master ${who}`,
          message: `${who} is master of ${name}`,
          fix: `end process ${match[2]}`,
        },
      ];
    });
  });
}

/** What the kernel's messages are shown on: serial ports and virtio consoles, and the console graphics adapter. */
export const consoleFindings = (census: Census, device: PciDevice): Finding[] => [
  ...displayFindings(census, device),
  ...terminalFindings(census, device),
  ...adapterFindings(census, device),
];

function adapterFindings(census: Census, device: PciDevice): Finding[] {
  if (device.class >> 16 !== 0x03 || census.isVfio(device.driver)) return [];
  const { root } = census;
  const fb = census.below('/sys/class/graphics', device.bdf).find(({ name }) => name.startsWith('fb'))?.name;
  const bars = (root.attr(`${pciDevices}/${device.bdf}/resource`) ?? '').split('\n').map((line) => line.split(' ').map(Number));
  const firmware = (root.attr('/proc/iomem') ?? '').split('\n').some((line) => {
    const match = /^\s*([0-9a-f]+)-([0-9a-f]+) : (.*)$/.exec(line);
    if (!match || !firmwareFb.test(match[3]!)) return false;
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
