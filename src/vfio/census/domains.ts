import type { Sysroot } from '../../common/sysroot.js';

/** A libvirt domain with a PCI device of this host, or a network that hands such devices to domains. */
export interface Domain {
  kind: 'domain' | 'network';
  name: string;
  running: boolean;
}

const plain = (text: string): string =>
  text.replaceAll('&lt;', '<').replaceAll('&gt;', '>').replaceAll('&quot;', '"').replaceAll('&apos;', "'").replaceAll('&amp;', '&');

/** The PCI address that attributes give, in decimal or hexadecimal; none for devices of other buses. */
function addressIn(attributes: string): string[] {
  const number = (key: string) => Number(new RegExp(`\\b${key}=["'](0x[0-9a-f]+|\\d+)["']`, 'i').exec(attributes)?.[1] ?? Number.NaN);
  const [bus, slot, fn] = [number('bus'), number('slot'), number('function')];
  if ([bus, slot, fn].some(Number.isNaN)) return [];
  const hex = (value: number, digits: number) => value.toString(16).padStart(digits, '0');
  return [`${hex(number('domain') || 0, 4)}:${hex(bus, 2)}:${hex(slot, 2)}.${fn}`];
}

const nameIn = (xml: string): string | undefined => {
  const name = /<name>([^<]*)<\/name>/.exec(xml)?.[1];
  return name === undefined ? undefined : plain(name);
};

/** Addresses of the host devices in a domain's XML (libvirt, Domain XML format: hostdev, interfaces of type hostdev, NVMe disks). */
export function hostDevices(xml: string): { name: string; bdfs: string[] } | undefined {
  const name = nameIn(xml);
  if (name === undefined) return undefined;
  const bdfs = [...xml.matchAll(/<source[^>]*>\s*<address\s([^>]*?)\/?>/g)].flatMap(([, attributes = '']) => addressIn(attributes));
  return { name, bdfs };
}

/**
 * What a network that forwards by host devices has (libvirt, Network XML format): virtual functions by address, or all those of a
 * physical function that is named by its interface.
 */
function pool(root: Sysroot, xml: string): { name: string; bdfs: string[] } | undefined {
  const name = nameIn(xml);
  const forward = /<forward\b[^>]*\bmode=["']hostdev["'][^>]*>([\s\S]*?)<\/forward>/.exec(xml)?.[1];
  if (name === undefined || forward === undefined) return undefined;
  const bdfs = [...forward.matchAll(/<address\s([^>]*?)\/?>/g)].flatMap(([, attributes = '']) => addressIn(attributes));
  for (const [, link] of forward.matchAll(/<pf\s+dev=["']([^"'/]+)["']/g)) {
    const device = `/sys/class/net/${link}/device`;
    const functions = root.list(device).filter((entry) => /^virtfn\d+$/.test(entry));
    for (const entry of functions) bdfs.push(root.readlink(`${device}/${entry}`)?.split('/').pop() ?? '');
  }
  return { name, bdfs };
}

/** Owners by the addresses of their host devices; one that runs comes before one that is only defined. */
export function readDomains(root: Sysroot): Map<string, Domain> {
  const found = new Map<string, Domain>();
  for (const [folder, kind, running] of [
    ['/run/libvirt/qemu', 'domain', true],
    ['/etc/libvirt/qemu', 'domain', false],
    ['/run/libvirt/network', 'network', true],
    ['/etc/libvirt/qemu/networks', 'network', false],
  ] as const)
    for (const file of root.list(folder).filter((name) => name.endsWith('.xml'))) {
      const text = root.attr(`${folder}/${file}`) ?? '';
      const owner = kind === 'domain' ? hostDevices(text) : pool(root, text);
      for (const bdf of owner?.bdfs ?? []) if (!found.has(bdf)) found.set(bdf, { kind, name: owner!.name, running });
    }
  return found;
}
