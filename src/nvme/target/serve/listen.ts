/** Where a target listens: addresses and names of hosts, with a port. */
import { lookup } from 'node:dns/promises';
import { isIP } from 'node:net';
import { codeOf, reason, usage, VioError } from '../../../common/errors.js';
import { printable } from '../../../common/escape.js';
import type { Place } from '../../../common/text/place.js';
import type { MetricsPlace } from '../../../control/metrics-server.js';
import { type TlsChoice, tlsChoices } from '../security/tls.js';

/** Well-known port of NVMe over TCP. */
export const defaultPort = 4420;

/** Well-known port of the discovery service. */
export { discoveryPort as discoveryServicePort } from '../../wire/index.js';

/** Port of metrics unless another one is given. */
export const metricsPort = 9421;

/** `PATH` of a UNIX socket (with a slash), or an address as in parseAddress: loopback unless it names another one. @throws usage error */
export const parseMetricsPlace = (text: string): MetricsPlace => (text.includes('/') ? { path: text } : parseAddress(text, metricsPort));

/** Labels of a host name (RFC 1123); one of digits alone is a mistyped address. */
const hostName = /^(?!\d+(\.\d+)*$)[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?)*\.?$/;

/** `ADDRESS`, `ADDRESS:PORT`, `[ADDRESS]:PORT`, `NAME:PORT`, `:PORT` (loopback). @throws usage error */
export function parseAddress(text: string, port = defaultPort): Place {
  const match = /^(?:\[([^\]]+)\]|([^:[\]]*))(?::(\d{1,5}))?$/.exec(text);
  const number = Number(match?.[3] ?? port);
  const [inBrackets, plain] = [match?.[1], match?.[2]];
  const address = inBrackets ?? (plain || '127.0.0.1');
  const family = isIP(address);
  const right = inBrackets !== undefined ? family === 6 : family === 4 || hostName.test(address);
  if (!match || !right || number > 65535)
    throw usage(`not an address: "${text}"`, 'addresses are 127.0.0.1:4420, [::1]:4420, NAME:4420 or :4420; port 0 takes a free one');
  return { address, port: number };
}

/** A place to listen at. */
export interface ListenPlace extends Place {
  /** What discovery tells hosts instead. */
  advertise?: Place | undefined;
  /** TLS here, if it is not that of the whole target. */
  tls?: TlsChoice | undefined;
}

/** `ADDRESS[:PORT][,advertise=ADDRESS[:PORT]][,tls=require|allow|off]`, as --listen has it. @throws usage error */
export function parseListen(text: string): ListenPlace {
  const [place = '', ...options] = text.split(',');
  let advertise: Place | undefined;
  let tls: TlsChoice | undefined;
  for (const option of options) {
    const [, key, value = ''] = /^(advertise|tls)=(.+)$/.exec(option) ?? [];
    if (key === 'advertise' && !advertise) advertise = parseNumericAddress(value);
    else if (key === 'tls' && !tls) tls = parseTlsChoice(value);
    else throw usage(`--listen ${text}: "${option}"`, 'ADDRESS[:PORT],advertise=ADDRESS:PORT,tls=require');
  }
  return { ...parseAddress(place), ...(advertise && { advertise }), ...(tls && { tls }) };
}

/** TLS of a listener; `required` and `allowed`, as discovery logs have it, mean the same. @throws usage error */
export function parseTlsChoice(text: string): TlsChoice {
  const choice = tlsChoices.find((one) => text === one || text === { allow: 'allowed', require: 'required', off: '' }[one]);
  if (choice === undefined) throw usage(`TLS of a listener: "${text}"`, `tls= is one of ${tlsChoices.join(', ')}`);
  return choice;
}

/** An address that hosts are told: no name, no scope, and a port. @throws usage error */
export function parseNumericAddress(text: string, port = defaultPort): Place {
  const place = parseAddress(text, port);
  if (isIP(place.address) === 0 || place.address.includes('%') || place.port === 0)
    throw usage(`not an address for hosts: "${text}"`, 'hosts are told an IP address and a port, such as 192.0.2.1:4420');
  return place;
}

/**
 * The addresses of a place: itself, or all that its name has, IPv4 first.
 * @throws VioError naming a name that cannot be looked up
 */
export async function addressesOf({ address }: Place): Promise<string[]> {
  if (isIP(address) !== 0) return [address];
  try {
    const found = await lookup(address, { all: true });
    return [...new Set(found.sort((a, b) => a.family - b.family).map((one) => one.address))];
  } catch (err) {
    throw new VioError(`look up ${printable(address)}: ${reason(err)}`, {
      code: codeOf(err) ?? 'ENOTFOUND',
    });
  }
}

/** Addresses of a name that this machine does not have, as ::1 of localhost where IPv6 is off: the others are listened on. */
export const notHere = (err: unknown): boolean => ['EADDRNOTAVAIL', 'EAFNOSUPPORT'].includes(codeOf(err) ?? '');
