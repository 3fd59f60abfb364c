import type { OwnedFd } from '../../native/owned-fd.js';
import { Adrfam, discoveryHeader, discoveryNqn, discoveryRecord, dynamicCntlid, Sectype, Subtype, Treq, Trtype } from '../wire/index.js';
import type { TlsChoice, TlsMode } from './security/tls.js';

/** An address where hosts can connect. */
export interface Listener {
  /** Number of this port, never used again; PORTID is one more. */
  readonly id: number;
  readonly address: string;
  readonly port: number;
  readonly ipv6: boolean;
  /** Answers discovery alone: no subsystem can be connected to here. */
  readonly discoveryOnly?: boolean;
  /** What discovery tells hosts instead, where they reach this port by another address. */
  advertise?: { readonly address: string; readonly port: number } | undefined;
  /** What was asked for: a name and port 0 stay what they are; `discovery` for the ports of the discovery service. */
  asked?: string | undefined;
  /** Whether its connections are by TLS; undefined: they are not. */
  tls?: TlsMode | undefined;
  /** What was asked for about TLS, if anything: otherwise it is as the target's. */
  askedTls?: TlsChoice | undefined;
  /** Where connections come in. The engine has it too. */
  readonly socket: OwnedFd;
  /** What is served here is not complete yet: hosts are told to try again. */
  opening?: boolean;
  /** A service manager has opened the socket: it is listened on besides what a configuration says. */
  readonly activated?: boolean;
}

/** Listeners of the discovery port, which follow from the others. */
export const ofDiscoveryPort = ({ asked }: Listener): boolean => asked === discoveryPortAsked;
export const discoveryPortAsked = 'discovery';

/** Another discovery service that hosts are told about. */
export interface Referral {
  address: string;
  port: number;
  /** Of the discovery service there, if it has one of its own. */
  nqn?: string;
}

const explicitPersistentConnections = 2; // EFLAGS: this service tells of changes
const wildcard = (address: string): boolean => address === '0.0.0.0' || address === '::';
/** Whether two texts name one IP address (RFC 4291, 2.2); a scope counts. */
export function sameAddress(a: string, b: string): boolean {
  const plain = (address: string): string => (address.includes(':') ? new URL(`http://[${address.replace(/%.*/, '')}]`).host : address);
  return plain(a) === plain(b) && a.replace(/^[^%]*/, '') === b.replace(/^[^%]*/, '');
}
const isV6 = (address: string): boolean => address.includes(':');

/**
 * The discovery log (NVMe Base 2.0, 5.16.1.23) as one host sees it.
 * @param via our address of the connection that asks: it stands for listeners on all addresses
 */
export function discoveryLog(options: {
  generation: bigint;
  listeners: readonly Omit<Listener, 'socket'>[];
  subsystems: readonly string[];
  referrals: readonly Referral[];
  via: string;
  /** Of this discovery service. */
  nqn?: string | undefined;
}): Buffer {
  const records: Parameters<typeof discoveryRecord.encode>[0][] = [];
  const record = (
    at: { address: string; port: number; tls?: TlsMode | undefined },
    portid: number,
    subtype: number,
    subnqn: string,
    eflags = 0,
  ) => {
    const secure = at.tls === undefined ? 0 : at.tls === 'require' ? Treq.required : Treq.notRequired;
    records.push({
      trtype: Trtype.tcp,
      adrfam: isV6(at.address) ? Adrfam.ipv6 : Adrfam.ipv4,
      subtype,
      treq: subtype === Subtype.referral ? 0 : Treq.sqFlowControlOff | secure,
      sectype: at.tls ? Sectype.tls13 : 0,
      portid,
      cntlid: dynamicCntlid,
      asqsz: 32,
      eflags,
      trsvcid: String(at.port),
      subnqn,
      traddr: at.address.replace(/%.*/, ''), // a scope is of this machine only
    });
  };
  for (const { id, address, port, ipv6, discoveryOnly, advertise, tls } of options.listeners) {
    if (!advertise && wildcard(address) && isV6(options.via) !== ipv6) continue;
    const at = { ...(advertise ?? { address: wildcard(address) ? options.via : address, port }), tls };
    record(at, id + 1, Subtype.current, options.nqn ?? discoveryNqn, explicitPersistentConnections);
    if (!discoveryOnly) for (const nqn of options.subsystems) record(at, id + 1, Subtype.nvm, nqn);
  }
  for (const referral of options.referrals) record(referral, 0, Subtype.referral, referral.nqn ?? discoveryNqn);
  const out = Buffer.alloc(discoveryHeader.size + records.length * discoveryRecord.size);
  discoveryHeader.encode({ genctr: options.generation, numrec: BigInt(records.length), recfmt: 0 }, out);
  for (const [i, one] of records.entries()) discoveryRecord.encode(one, out, discoveryHeader.size + i * discoveryRecord.size);
  return out;
}
