/** Options of `nvmf serve` that say who hosts are and what they must know. */
import { Flags } from '../../cli/flags.js';
import { tlsChoices } from '../../nvme/target/security/tls.js';

const keyFile = (summary: string) => Flags.string({ multiple: true, helpValue: '[NQN=]FILE', summary });

export const keyFlags = {
  'dhchap-secret-file': keyFile('DH-HMAC-CHAP key of a host, or of every host'),
  'dhchap-ctrl-secret-file': keyFile('DH-HMAC-CHAP key of the controller, for hosts that ask'),
  'tls-key-file': keyFile('TLS key of a host, or of every host: TLS is required'),
  tls: Flags.option({ options: tlsChoices, summary: 'TLS of listeners without tls= [default: require if there is a key]' })(),
};
