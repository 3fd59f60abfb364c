import { printable } from '../../common/escape.js';
import type { Sysroot } from '../../common/sysroot.js';
import type { Census } from '../census/census.js';
import { type PciDevice, pciDevices } from '../devices/pci.js';
import type { Finding } from './finding.js';

/** Drivers of USB interfaces that use nothing by themselves: hubs, and what a process has claimed (it has the node open then). */
const idle = new Set(['hub', 'usbfs', 'usb']);
/** Levels of USB hubs (USB 3.2, 4.1.1: five below the root), with their root and the devices. */
const mostLevels = 8;

/** Folders of USB devices below a folder of sysfs, hubs included. */
function usbDevices(root: Sysroot, folder: string, entries: readonly string[], level = 0): string[] {
  if (level > mostLevels) return [];
  return entries
    .filter((name) => /^(usb\d+|\d+-\d+(\.\d+)*)$/.test(name))
    .flatMap((name) => [`${folder}/${name}`, ...usbDevices(root, `${folder}/${name}`, root.list(`${folder}/${name}`), level + 1)]);
}

/** Devices of a USB controller that a driver of this host uses. */
function usbFindings({ root }: Census, device: PciDevice): Finding[] {
  return usbDevices(root, `${pciDevices}/${device.bdf}`, device.entries).flatMap((folder): Finding[] => {
    const drivers = root
      .list(folder)
      .filter((name) => /^\d+-[\d.]+:\d+\.\d+$/.test(name))
      .flatMap((name) => root.readlink(`${folder}/${name}/driver`)?.split('/').pop() ?? [])
      .filter((driver) => !idle.has(driver));
    if (drivers.length === 0) return [];
    const id = [root.attr(`${folder}/idVendor`), root.attr(`${folder}/idProduct`)].filter((part) => part !== undefined).join(':');
    const name = printable(root.attr(`${folder}/product`) ?? (id === '' ? 'a device' : id));
    const at = folder.split('/').pop()!;
    const using = [...new Set(drivers)].map(printable).join(', ');
    const message = `USB device ${at} (${name}, driver ${using}) hangs on it`;
    return [{ check: 'attached', subject: at, brief: `USB ${name}`, message, fix: `unplug it, or move it to another controller` }];
  });
}

/** Keyboards and mice that are not on USB: virtio, I2C, serial. Jacks of sound cards and keys of graphics adapters are none. */
function inputFindings(census: Census, device: PciDevice): Finding[] {
  const folder = '/sys/class/input';
  const { root } = census;
  return census.below(folder, device.bdf).flatMap(({ name, target }): Finding[] => {
    if (!/^input\d+$/.test(name) || /\/(sound|drm|usb\d+)\//.test(target)) return [];
    const label = printable(root.attr(`${folder}/${name}/name`) ?? name);
    return [
      {
        check: 'attached',
        subject: name,
        brief: `input ${label}`,
        message: `the input device ${name} (${label}) hangs on it`,
        fix: undefined,
      },
    ];
  });
}

/** Streams of a sound card that run (/proc/asound/cardN/pcmNp/subN/status); their processes have its nodes open as a rule. */
function soundFindings(census: Census, device: PciDevice): Finding[] {
  const { root } = census;
  return census.below('/sys/class/sound', device.bdf).flatMap(({ name: card }): Finding[] => {
    if (!/^card\d+$/.test(card)) return [];
    const pcms = root.list(`/proc/asound/${card}`).filter((name) => /^pcm\d+[pc]$/.test(name));
    const running = pcms.find((pcm) =>
      root
        .list(`/proc/asound/${card}/${pcm}`)
        .some((sub) => sub.startsWith('sub') && /^state: /m.test(root.attr(`/proc/asound/${card}/${pcm}/${sub}/status`) ?? '')),
    );
    if (running === undefined) return [];
    const what = running.endsWith('p') ? 'plays' : 'records';
    return [
      { check: 'open', subject: card, brief: `sound ${card}`, message: `the sound card ${card} ${what} (${running})`, fix: undefined },
    ];
  });
}

/** What hangs on a controller. */
export const attachedFindings = (census: Census, device: PciDevice): Finding[] => [
  ...usbFindings(census, device),
  ...inputFindings(census, device),
  ...soundFindings(census, device),
];
