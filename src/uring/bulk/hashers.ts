import { createHash } from 'node:crypto';
import { native } from '../../native/index.js';

/** A checksum of one stream. */
export interface Hasher {
  update(bytes: Uint8Array): unknown;
  /** In hexadecimal. */
  digest(): string;
}

/**
 * Begins a checksum where the addon's threads do not compute it.
 * @param algorithm a name of `algorithms`; one that the addon does not have is OpenSSL's
 */
export function newHasher(algorithm: string): Hasher {
  const { digestSize, digestNew, digestUpdate, digestFinish } = native().uring;
  if (digestSize(algorithm) === 0) {
    const hash = createHash(algorithm);
    return { update: (bytes) => hash.update(bytes), digest: () => hash.digest('hex') };
  }
  const handle = digestNew(algorithm);
  return { update: (bytes) => digestUpdate(handle, bytes), digest: () => digestFinish(handle).toString('hex') };
}
