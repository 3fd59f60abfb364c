import { createHash, hash } from 'node:crypto';
import { blake3 } from '@noble/hashes/blake3.js';
import { native } from '../../native/index.js';

/** How checksums are computed in JavaScript, where the addon's threads do not do it. Loaded when it is needed only. */
export interface Hasher {
  create: () => { update(bytes: Buffer): unknown; digest(): string };
  /** The checksum of bytes that are there at once. */
  once: (bytes: Buffer) => string;
}

const crcText = (crc: number): string => crc.toString(16).padStart(8, '0');
const hex = (digest: Uint8Array): string => Buffer.from(digest).toString('hex');

/** By who computes it; the argument is the algorithm's name. */
export const hashers: Readonly<Record<'addon' | 'openssl' | 'noble', (name: string) => Hasher>> = {
  addon: () => {
    const { crc32c } = native().common;
    return {
      create: () => {
        let crc = 0;
        const update = (bytes: Buffer): void => {
          crc = crc32c(bytes, crc);
        };
        return { update, digest: () => crcText(crc) };
      },
      once: (bytes) => crcText(crc32c(bytes)),
    };
  },
  openssl: (name) => ({
    create: () => {
      const state = createHash(name);
      return { update: (bytes) => state.update(bytes), digest: () => state.digest('hex') };
    },
    once: (bytes) => hash(name, bytes, 'hex'),
  }),
  noble: () => ({
    create: () => {
      const state = blake3.create();
      return { update: (bytes) => state.update(bytes), digest: () => hex(state.digest()) };
    },
    once: (bytes) => hex(blake3(bytes)),
  }),
};
