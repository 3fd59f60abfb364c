/** Keys for TLS handshakes: who a host says it is, and the pre-shared key that proves it. */
import { usage } from '../../../common/errors.js';
import type { TlsUse } from '../../../native/nvme.js';
import { wipe } from '../../auth/secret.js';
import { parseIdentity, pskOf, type TlsPsk } from '../../auth/tls-psk.js';
import type { KeyRing } from './keyring.js';

/** Whether connections are by TLS 1.3: as the host likes, or always. */
export type TlsMode = 'allow' | 'require';

/** What a target or a listener may be told about TLS. */
export type TlsChoice = TlsMode | 'off';
export const tlsChoices = ['allow', 'require', 'off'] as const satisfies readonly TlsChoice[];

/** How the engine takes it. */
export const tlsUse = (mode: TlsMode | undefined): TlsUse => (mode === undefined ? 0 : mode === 'allow' ? 1 : 2);

/** A choice as it works: undefined is without TLS. */
export const modeOf = (choice: TlsChoice): TlsMode | undefined => (choice === 'off' ? undefined : choice);

/** For people: `TLS required`. */
export const tlsText = (choice: TlsChoice): string => `TLS ${{ allow: 'allowed', require: 'required', off: 'off' }[choice]}`;

/** TLS of listeners that do not say it: required where there are keys for it, unless it is said otherwise. @throws usage error without a key */
export function defaultMode(choice: TlsChoice | undefined, keys: { readonly tls: boolean }): TlsMode | undefined {
  checkChoice(choice, keys);
  return choice === undefined ? (keys.tls ? 'require' : undefined) : modeOf(choice);
}

/** @throws usage error if TLS is chosen and there is no key for it */
export function checkChoice(choice: TlsChoice | undefined, keys: { readonly tls: boolean }): void {
  if (choice === undefined || choice === 'off' || keys.tls) return;
  throw usage(`TLS cannot be ${choice === 'allow' ? 'allowed' : 'required'} without a key`, '--tls-key-file FILE');
}

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
