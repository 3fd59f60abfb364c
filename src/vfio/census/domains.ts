import type { Sysroot } from '../../common/sysroot.js';

/** A libvirt domain with a PCI device of this host. */
export interface Domain {
  name: string;
  running: boolean;
}

const plain = (text: string): string =>
  text.replaceAll('&lt;', '<').replaceAll('&gt;', '>').replaceAll('&quot;', '"').replaceAll('&apos;', "'").replaceAll('&amp;', '&');

/** Addresses of the host devices in a domain's XML (libvirt, Domain XML format: hostdev and interfaces of type hostdev). */
export function hostDevices(xml: string): { name: string; bdfs: string[] } | undefined {
  const name = /<name>([^<]*)<\/name>/.exec(xml)?.[1];
  if (name === undefined) return undefined;
  const bdfs = [...xml.matchAll(/<source[^>]*>\s*<address\s([^>]*?)\/?>/g)].flatMap(([, attributes = '']) => {
    const number = (key: string) => Number(new RegExp(`\\b${key}=["'](0x[0-9a-f]+|\\d+)["']`, 'i').exec(attributes)?.[1] ?? Number.NaN);
    const [bus, slot, fn] = [number('bus'), number('slot'), number('function')];
    if ([bus, slot, fn].some(Number.isNaN)) return [];
    const hex = (value: number, digits: number) => value.toString(16).padStart(digits, '0');
    return [`${hex(number('domain') || 0, 4)}:${hex(bus, 2)}:${hex(slot, 2)}.${fn}`];
  });
  return { name: plain(name), bdfs };
}

/** Domains by the addresses of their host devices; one that runs comes before one that is only defined. */
export function readDomains(root: Sysroot): Map<string, Domain> {
  const found = new Map<string, Domain>();
  for (const [folder, running] of [
    ['/run/libvirt/qemu', true],
    ['/etc/libvirt/qemu', false],
  ] as const)
    for (const file of root.list(folder).filter((name) => name.endsWith('.xml'))) {
      const domain = hostDevices(root.attr(`${folder}/${file}`) ?? '');
      for (const bdf of domain?.bdfs ?? []) if (!found.has(bdf)) found.set(bdf, { name: domain!.name, running });
    }
  return found;
}
