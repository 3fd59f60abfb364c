import { isIP } from 'node:net';
import { printable } from '../../common/escape.js';
import type { Census } from '../census/census.js';
import { type Mount, optionsOf } from '../census/mounts.js';
import { type PciDevice, pciDevices } from '../devices/pci.js';
import type { Finding } from './finding.js';

/** Folders without which the running system breaks. */
const systemMounts = new Set(['/', '/boot', '/boot/efi', '/efi', '/usr', '/var', '/etc', '/nix', '/nix/store', '/sysroot']);

/** Findings of a mount, and of the overlays that stand on it. @param what the mounted thing, as a sentence begins */
export function mountFindings(census: Census, subject: string, what: string, mount: Mount): Finding[] {
  const one = (target: string, how: string, also: string): Finding[] => {
    const shown = printable(target);
    const found: Finding[] = [];
    if (systemMounts.has(target)) {
      const message = `the system runs from it: ${what} is ${how}mounted on ${shown}`;
      found.push({ check: 'boot-disk', subject, brief: `boot disk (${shown})`, message, fix: undefined });
    }
    const message = `${what} is ${how}mounted on ${shown}`;
    return [...found, { check: 'mounted', subject, brief: `mounted ${shown}${also}`, message, fix: `umount ${shown}` }];
  };
  return [
    ...one(mount.target, '', ''),
    ...census.mounts.overlaysOn(mount.dev).flatMap(({ target }) => one(target, 'a layer of the overlay ', ' (overlay)')),
  ];
}

/** 9p over a virtio device: its mount tag is the source of the mount (net/9p/trans_virtio.c). */
function nineP(census: Census, device: PciDevice, child: string): Finding[] {
  const tag = census.root.attr(`${pciDevices}/${device.bdf}/${child}/mount_tag`)?.replace(/\0.*$/s, '');
  if (tag === undefined) return [];
  const local = (mount: Mount) => ['virtio', undefined].includes(optionsOf(mount, 'trans')[0]);
  return census.mounts.all
    .filter((mount) => mount.fstype === '9p' && mount.source === tag && local(mount))
    .flatMap((mount) => mountFindings(census, child, `the 9p share ${printable(tag)} of ${child}`, mount));
}

/** VIRTIO_ID_FS (virtio_ids.h), as `virtioN/device` shows it, and the PCI device id of it. */
const VIRTIO_FS = 26;
const PCI_VIRTIO_FS = 0x1040 + VIRTIO_FS;

/**
 * A virtiofs device: /sys/fs/virtiofs has the tag of each since Linux 6.9. Before that a tag cannot be read, and a mounted
 * virtiofs may be that of any device.
 */
function virtioFs(census: Census, device: PciDevice, child: string): Finding[] {
  const { root } = census;
  const folder = '/sys/fs/virtiofs';
  const isFs =
    device.device === PCI_VIRTIO_FS || Number(root.attr(`${pciDevices}/${device.bdf}/${child}/device`) ?? Number.NaN) === VIRTIO_FS;
  const entry = root.list(folder).find((name) => root.readlink(`${folder}/${name}/device`)?.endsWith(`/${device.bdf}/${child}`));
  if (!isFs && entry === undefined) return [];
  const tag = entry === undefined ? undefined : root.attr(`${folder}/${entry}/tag`);
  return census.mounts.all
    .filter((mount) => mount.fstype === 'virtiofs' && (tag === undefined || mount.source === tag))
    .flatMap((mount) => {
      const share = `the virtiofs share ${printable(mount.source)}`;
      return mountFindings(census, child, tag === undefined ? `${share}, perhaps of ${child},` : `${share} of ${child}`, mount);
    });
}

/** Mounted file systems of virtio devices, which have no block device. */
export function shareFindings(census: Census, device: PciDevice): Finding[] {
  return device.entries
    .filter((name) => /^virtio\d+$/.test(name))
    .flatMap((child) => [...nineP(census, device, child), ...virtioFs(census, device, child)]);
}

/** The address part of `10.0.0.1:6789`, `[::1]:6789`, `v2:10.0.0.1:3300/0`; undefined for a name. */
function addressIn(text: string): string | undefined {
  const bare = text.replace(/^v[12]:/, '').replace(/\/\d+$/, '');
  const host = /^\[([^\]]+)\]/.exec(bare)?.[1] ?? (isIP(bare) ? bare : bare.replace(/:\d+$/, ''));
  const address = host.replace(/%.*$/, '');
  return isIP(address) ? address : undefined;
}

/** Addresses of the servers of a network file system: NFS, SMB, Ceph, 9p over TCP, Lustre, and FUSE ones that name an address. */
export function serversOf(mount: Mount): string[] {
  const { fstype, source } = mount;
  const given = ['addr', 'mountaddr', 'ip'].flatMap((name) => optionsOf(mount, name));
  const monitors = optionsOf(mount, 'mon_addr').flatMap((text) => text.split('/'));
  const hosts =
    fstype === 'ceph'
      ? source.replace(/:?\/.*$/, '').split(',')
      : fstype === '9p' && ['tcp', 'rdma'].includes(optionsOf(mount, 'trans')[0] ?? '')
        ? [source]
        : fstype === 'lustre'
          ? source.split(/[:,]/).map((part) => part.replace(/@.*$/, ''))
          : /^(nfs4?|cifs|smb3|afs|fuse\..*)$/.test(fstype)
            ? [
                source
                  .replace(/^.*@/, '')
                  .replace(/^\/\//, '')
                  .replace(/:?\/.*$/, ''),
              ]
            : [];
  return [...new Set([...given, ...monitors, ...hosts].flatMap((text) => addressIn(text) ?? []))];
}
