/** Keys of a host, from the files that options name. */
import { usage } from '../../common/errors.js';
import { readChapKey, readTlsKey } from '../auth/read.js';
import { wipe } from '../auth/secret.js';
import { keptPsk } from '../auth/tls-psk.js';
import type { ControllerOptions } from './controller.js';

/** TLS with the key of a file; undefined without one. @throws VioError */
export function tlsOptions(file: string | undefined, hostnqn: string, subnqn: string): ControllerOptions['tls'] {
  if (file === undefined) return undefined;
  const key = readTlsKey(file, 'TLS key');
  const made = keptPsk(key, hostnqn, subnqn);
  wipe(key.bytes);
  return made;
}

/** DH-HMAC-CHAP with the keys of the host and, maybe, of the controller; undefined without any. @throws VioError */
export function chapOptions(own: string | undefined, controller: string | undefined): ControllerOptions['chap'] {
  if (own === undefined && controller === undefined) return undefined;
  if (own === undefined) throw usage('--dhchap-ctrl-secret-file needs --dhchap-secret-file');
  const key = readChapKey(own, 'DH-HMAC-CHAP key');
  return { key, controllerKey: controller === undefined ? undefined : readChapKey(controller, "controller's DH-HMAC-CHAP key") };
}
