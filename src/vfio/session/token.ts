import { randomUUID } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { makeFolder, writeDurably } from '../../common/durable-file.js';
import { Exit, usage, VioError, wrap } from '../../common/errors.js';
import { printable } from '../../common/escape.js';
import type { Sysroot } from '../../common/sysroot.js';
import type { Census } from '../census/census.js';
import { type PciDevice, readDevice } from '../devices/pci.js';

/**
 * VF tokens. If a physical function is on VFIO itself, its virtual functions open only with the UUID that its program has set
 * (VFIO_DEVICE_FEATURE_PCI_VF_TOKEN): whoever has the physical function can cut them off, so both sides have to agree. Where vioctl
 * makes the virtual functions it sets a token, and keeps it for its own commands.
 */

const folder = '/run/vioctl/vfio/tokens';

/** The canonical form of a token. @throws VioError (usage) */
export function parseToken(text: string): string {
  if (!/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i.test(text))
    throw usage(`not a UUID: "${printable(text)}"`, 'such as 14b3a1e6-30d2-4b5e-9c58-6f1d2d6f7a10; uuidgen makes one');
  return text.toLowerCase();
}

export const newToken = (): string => randomUUID();

/** The 16 bytes of a token, in the order of its text (uuid_t of the kernel). */
export const tokenBytes = (token: string): Buffer => Buffer.from(token.replaceAll('-', ''), 'hex');

/** The token that vioctl has set on a physical function in this boot; undefined for none, or without permission to read it. */
export function keptToken(root: Sysroot, pf: string): string | undefined {
  const text = root.attr(`${folder}/${pf}`);
  return text === undefined || !/^[0-9a-f-]{36}$/.test(text) ? undefined : text;
}

/** Keeps a token, readable for our user alone. @throws VioError */
export function keepToken(root: Sysroot, pf: string, token: string): void {
  const file = root.path(`${folder}/${pf}`);
  try {
    makeFolder(path.dirname(file));
    fs.chmodSync(path.dirname(file), 0o700);
    writeDurably(file, `${token}\n`);
    fs.chmodSync(file, 0o600);
  } catch (err) {
    throw wrap(`keep the VF token in ${folder}/${pf}`, err);
  }
}

/** Drops what keepToken wrote; nothing there is no error. */
export function forgetToken(root: Sysroot, pf: string): void {
  fs.rmSync(root.path(`${folder}/${pf}`), { force: true });
}

/** The physical function on VFIO whose token a device takes: of a virtual function its own, of a physical one itself. */
export function tokenOwner(census: Census, device: PciDevice): string | undefined {
  if (device.vfsTotal > 0) return device.bdf;
  if (device.physfn === undefined) return undefined;
  const pf = readDevice(census.root, device.physfn);
  return pf && census.modules.isVfio(pf.driver) ? pf.bdf : undefined;
}

/**
 * The token to open a device with.
 * @param given the user's, canonical
 * @returns undefined if it takes none
 * @throws VioError NO_TOKEN (2) for one that is given in vain: the kernel would refuse it
 */
export function tokenFor(census: Census, device: PciDevice, given: string | undefined): string | undefined {
  const owner = tokenOwner(census, device);
  if (owner !== undefined) return given ?? keptToken(census.root, owner);
  if (given === undefined) return undefined;
  throw new VioError(
    `${device.bdf}: it takes no VF token: ${device.physfn === undefined ? 'it has no virtual functions and is none' : `its physical function ${device.physfn} is not on VFIO`}`,
    {
      code: 'NO_TOKEN',
      exit: Exit.usage,
      hint: 'leave out --vf-token',
    },
  );
}
