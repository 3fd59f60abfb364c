import type { Sysroot } from '../../common/sysroot.js';
import type { PciDevice } from './pci.js';

const files = ['/usr/share/misc/pci.ids', '/usr/share/hwdata/pci.ids', '/usr/share/pci.ids', '/var/lib/pciutils/pci.ids'];

/**
 * Names of vendors and devices from the system's pci.ids (https://pci-ids.ucw.cz), where there is one. Lines:
 * `VVVV  vendor`, below it `\tDDDD  device`; only those two levels are used.
 */
export class PciNames {
  readonly #text: string;
  readonly #known = new Map<number, { vendor: string | undefined; device: string | undefined }>();

  constructor(root: Sysroot) {
    this.#text = `\n${files.map((file) => root.attr(file)).find((text) => text !== undefined) ?? ''}\n`;
  }

  /** Names of a device's vendor and model; undefined where the file does not have them. */
  lookup(device: Pick<PciDevice, 'vendor' | 'device'>): { vendor: string | undefined; device: string | undefined } {
    const key = device.vendor * 0x1_0000 + device.device;
    let known = this.#known.get(key);
    if (!known) this.#known.set(key, (known = this.#search(device)));
    return known;
  }

  /** Looks through the file, which has more than a megabyte. */
  #search(device: Pick<PciDevice, 'vendor' | 'device'>): { vendor: string | undefined; device: string | undefined } {
    const id = (value: number) => value.toString(16).padStart(4, '0');
    const at = this.#text.indexOf(`\n${id(device.vendor)}  `);
    if (at < 0) return { vendor: undefined, device: undefined };
    const lineEnd = this.#text.indexOf('\n', at + 1);
    const vendor = this.#text.slice(at + 7, lineEnd).trim();
    // the vendor's block ends at the next line that starts with neither tab nor comment
    const rest = this.#text.slice(lineEnd);
    const end = /\n[^\t#\n]/.exec(rest)?.index ?? rest.length;
    const line = rest.slice(0, end).indexOf(`\n\t${id(device.device)}  `);
    if (line < 0) return { vendor, device: undefined };
    return { vendor, device: rest.slice(line + 8, rest.indexOf('\n', line + 1)).trim() };
  }
}
