/** Keys for TLS handshakes: who a host says it is, and the pre-shared key that proves it. */
import { wipe } from '../../auth/secret.js';
import { parseIdentity, pskOf, type TlsPsk } from '../../auth/tls-psk.js';
import type { KeyRing } from './keyring.js';

/** Whether connections are by TLS 1.3: as the host likes, or always. */
export type TlsMode = 'allow' | 'require';

/** How the engine takes it. */
export const tlsUse = (mode: TlsMode | undefined): 0 | 1 | 2 => (mode === undefined ? 0 : mode === 'allow' ? 1 : 2);

/** The two ends that an identity names: a Connect through its connection must name the same. */
export interface TlsEnds {
  hostnqn: string;
  subnqn: string;
}

/** The first of the identities that a host offers whose key is known. Wipe its `psk` after use. */
export function findKey(identities: readonly Buffer[], keys: KeyRing): (TlsPsk & TlsEnds) | undefined {
  for (const bytes of identities) {
    const identity = bytes.toString('latin1');
    const named = parseIdentity(identity);
    const found = named && pskOf(identity, keys.tlsKeys(named.hostnqn));
    if (found) return { ...found, hostnqn: named.hostnqn, subnqn: named.subnqn };
  }
  return undefined;
}

/** Gives a key to the engine and forgets it. */
export function handOver(found: TlsPsk | undefined, give: (identity: string, key: Uint8Array) => void): void {
  give(found?.identity ?? '', found?.psk ?? Buffer.alloc(0));
  wipe(found?.psk);
}
