/** Keys of a host, from the files that options name. */
import { usage } from '../../common/errors.js';
import { readChapKey, readTlsKey } from '../auth/read.js';
import { wipe } from '../auth/secret.js';
import { keptPsks } from '../auth/tls-psk.js';
import type { ControllerOptions } from './controller.js';

/** TLS with the key of a file for each of several subsystems: a key may be read only once. Undefined without one. @throws VioError */
export function tlsOptionsFor(file: string | undefined, hostnqn: string, subnqns: readonly string[]): ControllerOptions['tls'][] {
  if (file === undefined) return subnqns.map(() => undefined);
  const key = readTlsKey(file, 'TLS key');
  try {
    return subnqns.map((subnqn) => keptPsks(key, hostnqn, subnqn));
  } finally {
    wipe(key.bytes);
  }
}

/** The same for one. @throws VioError */
export const tlsOptions = (file: string | undefined, hostnqn: string, subnqn: string): ControllerOptions['tls'] =>
  tlsOptionsFor(file, hostnqn, [subnqn])[0];

/** DH-HMAC-CHAP with the keys of the host and, maybe, of the controller; undefined without any. @throws VioError */
export function chapOptions(own: string | undefined, controller: string | undefined): ControllerOptions['chap'] {
  if (own === undefined && controller === undefined) return undefined;
  if (own === undefined) throw usage('--dhchap-ctrl-secret-file needs --dhchap-secret-file');
  const key = readChapKey(own, 'DH-HMAC-CHAP key');
  return { key, controllerKey: controller === undefined ? undefined : readChapKey(controller, "controller's DH-HMAC-CHAP key") };
}
