/** Names and texts that a target is given, checked where they are given: hosts would refuse or cut wrong ones later. */
import { usage, type VioError } from '../../common/errors.js';
import { beginning } from '../../common/escape.js';
import { discoveryNqn, maxNqn } from '../wire/index.js';

/** True for what can stand in a field for an NQN: 1 to 223 bytes, no control characters. Hosts may send any such name. */
export const possibleName = (name: string): boolean =>
  Buffer.byteLength(name) > 0 && Buffer.byteLength(name) <= maxNqn && !/[\x00-\x1f\x7f]/.test(name);

const label = '[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?';
/** `nqn.yyyy-mm.` and a domain in reverse, with text of the owner's choice behind a colon. */
const format = new RegExp(`^nqn\\.[0-9]{4}-(0[1-9]|1[0-2])\\.${label}(\\.${label})*(:.+)?$`, 'su');

/** Whether a name is an NVMe Qualified Name (NVMe Base 2.0, 4.5). */
export const validNqn = (nqn: string): boolean => possibleName(nqn) && format.test(nqn);

const notAnNqn = (nqn: string): VioError =>
  usage(`not an NQN: "${beginning(nqn)}"`, 'an NQN is nqn.2014-08.org.example:disk1, at most 223 bytes');

/** @throws usage error for a host name that is no NQN: no host would ever match it */
export function checkHostNqn(nqn: string): string {
  if (!validNqn(nqn)) throw notAnNqn(nqn);
  return nqn;
}

/** @throws usage error for what cannot be the name of a subsystem */
export function checkSubsystemNqn(nqn: string): string {
  if (!validNqn(nqn)) throw notAnNqn(nqn);
  if (nqn === discoveryNqn) throw usage(`${nqn} is the name of the discovery service`, 'choose another NQN');
  return nqn;
}

/** @throws usage error for a text that does not fit an ASCII field of Identify Controller, which would cut it */
export function checkAscii(text: string, what: string, size: number): string {
  if (text.length > size) throw usage(`${what}: ${text.length} characters, at most ${size} fit`);
  if (!/^[\x20-\x7e]+$/.test(text)) throw usage(`${what}: only printable ASCII characters`);
  return text;
}

/** Bytes of SN and MN in Identify Controller. */
export const serialSize = 20;
export const modelSize = 40;

/** Highest controller identifier (NVMe Base 2.0, 6.3: FFF0h and above are reserved). */
export const lastCntlid = 0xffef;

/** Controller identifiers of a subsystem: the first and the last. */
export type CntlidRange = readonly [first: number, last: number];

/** `MIN-MAX`. @throws usage error */
export function parseCntlidRange(text: string): CntlidRange {
  const match = /^(\d{1,5})-(\d{1,5})$/.exec(text);
  const [first, last] = [Number(match?.[1]), Number(match?.[2])];
  if (!match || first < 1 || last > lastCntlid || first > last)
    throw usage(`not a range of controller IDs: "${text}"`, `MIN-MAX within 1-${lastCntlid}, such as 1-999`);
  return [first, last];
}
