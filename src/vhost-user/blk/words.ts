import os from 'node:os';
import { usage } from '../../common/errors.js';
import { decimal, parseSourceText, type SourceOption, type SourceOptions } from '../../storage/source.js';
import { virtioBlk } from '../wire/devices.js';
import type { DiskOptions } from './model.js';

/** Virtqueues of a disk, at most: SET_VRING_KICK has eight bits for them. */
export const maxQueues = 256;
/** Unless told otherwise: as many as any guest here has CPUs, since VMMs want one for each and refuse a device with fewer. */
export const defaultQueues = Math.max(64, Math.min(maxQueues, os.availableParallelism()));

/** A source, with options that only disks have. */
type DiskSource = SourceOptions & Pick<DiskOptions, 'serial' | 'queues'>;

/** A serial number that fits the device. @throws usage error */
export function checkSerial(text: string | undefined): string {
  if (text === undefined || text === '') throw usage('serial=: must be a text');
  if (Buffer.byteLength(text) > virtioBlk.idSize) throw usage(`serial=${text}: more than ${virtioBlk.idSize} bytes`);
  return text;
}

const diskOptions: Readonly<Record<string, SourceOption<DiskSource>>> = {
  serial: (o, value) => {
    o.serial = checkSerial(value);
  },
  queues: (o, value) => {
    const queues = decimal(value, 'queues');
    if (queues < 1 || queues > maxQueues) throw usage(`queues=${value}: must be 1 to ${maxQueues}`);
    o.queues = queues;
  },
};

/** A source of the command line: what it is, and what its disk is like. @throws usage error */
export function parseDiskSource(text: string, defaults: Partial<SourceOptions>): Omit<DiskOptions, 'socket'> {
  const { serial, queues, ...source } = parseSourceText<DiskSource>(text, defaults, diskOptions);
  return { source, ...(serial !== undefined && { serial }), ...(queues !== undefined && { queues }) };
}

/** Whether a word is SOCKET=SOURCE. */
export const isDiskWord = (word: string): boolean => /^[^=]+=./s.test(word);

/** Permissions of a socket file: octal digits. @throws usage error */
export function parseMode(text: string): number {
  if (!/^0?[0-7]{3}$/.test(text)) throw usage(`not a mode: "${text}"`, 'modes are octal: 0600, 0660, 0666');
  return Number.parseInt(text, 8);
}

/** A disk as the command line has it: SOCKET=SOURCE, where the first = splits. @throws usage error */
export function parseDisk(word: string, defaults: Partial<SourceOptions>): DiskOptions & { socket: string } {
  if (!isDiskWord(word)) throw usage(`"${word}" is not SOCKET=SOURCE`);
  const at = word.indexOf('=');
  return { socket: word.slice(0, at), ...parseDiskSource(word.slice(at + 1), defaults) };
}
