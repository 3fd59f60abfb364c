import { createHash } from 'node:crypto';
import fs from 'node:fs';
import { usage } from '../../common/errors.js';
import { maxNqn } from '../wire/index.js';

/** Who a host says it is. */
export interface HostIdentity {
  hostnqn: string;
  /** 16 bytes, not all zero */
  hostid: Buffer;
}

const uuidOf = (bytes: Buffer): string => bytes.toString('hex').replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');

/** A name-based UUID (RFC 9562 version 8: SHA-256 of the name). */
function uuidFrom(name: string): Buffer {
  const bytes = createHash('sha256').update(name).digest().subarray(0, 16);
  bytes[6] = (bytes[6]! & 0x0f) | 0x80;
  bytes[8] = (bytes[8]! & 0x3f) | 0x80;
  return bytes;
}

function line(file: string): string | undefined {
  try {
    return fs.readFileSync(file, 'utf8').trim() || undefined;
  } catch {
    return undefined; // absent or not readable: the next source is asked
  }
}

/** A UUID as 16 bytes in the order it is written. @throws usage error */
export function parseHostId(text: string): Buffer {
  const hex = text.replaceAll('-', '');
  if (!/^[0-9a-fA-F]{32}$/.test(hex) || /^0+$/.test(hex)) throw usage(`not a host ID: "${text}"`, 'a UUID that is not zero');
  return Buffer.from(hex, 'hex');
}

/**
 * The host's NQN and ID: given, else as nvme-cli keeps them (/etc/nvme/hostnqn, hostid), else made from /etc/machine-id, so
 * that this machine is always the same host.
 */
export function hostIdentity(given: { hostnqn?: string | undefined; hostid?: string | undefined }, etc = '/etc'): HostIdentity {
  const machine = () => uuidFrom(`vioctl ${line(`${etc}/machine-id`) ?? 'no machine-id'}`);
  const hostnqn = given.hostnqn ?? line(`${etc}/nvme/hostnqn`) ?? `nqn.2014-08.org.nvmexpress:uuid:${uuidOf(machine())}`;
  if (Buffer.byteLength(hostnqn) > maxNqn || hostnqn === '' || hostnqn.includes('\0'))
    throw usage(`not a host NQN: "${hostnqn}"`, `1 to ${maxNqn} bytes`);
  const inNqn = /:uuid:([0-9a-fA-F-]{36})$/.exec(hostnqn)?.[1];
  const fromFile = given.hostnqn === undefined ? line(`${etc}/nvme/hostid`) : undefined;
  if (given.hostid !== undefined) return { hostnqn, hostid: parseHostId(given.hostid) };
  if (fromFile !== undefined) return { hostnqn, hostid: parseHostId(fromFile) };
  return { hostnqn, hostid: inNqn === undefined ? uuidFrom(hostnqn) : parseHostId(inNqn) };
}
