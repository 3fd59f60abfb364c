/** How much a target admits, in all and of one host. */
import { usage } from '../../../common/errors.js';
import { parseDecimal, parseSize } from '../../../common/units.js';
import { maxQueues } from '../admin/features.js';
import { lastCntlid } from '../names.js';

/** Limits of a whole target. What they refuse is told with a status that hosts retry: Connect Controller Busy. */
export interface TargetLimits {
  /** Associations, those with the discovery service included. */
  controllers: number;
  /** Connections that have a queue. */
  connections: number;
  /** I/O queues of a controller. */
  queues: number;
}

/** Limits of one host, by its NQN; a host without a name by its identifier. Left out: none of its own. */
export interface HostLimits {
  /** Connections that have a queue. */
  connections?: number | undefined;
  /** I/O queues of a controller. */
  queues?: number | undefined;
  /** Bytes of data that commands of its I/O queues hold at a time. */
  bytes?: number | undefined;
}

export const defaultLimits: Readonly<TargetLimits> = { controllers: 512, connections: 1024, queues: maxQueues };

/** Connections that the engine takes beyond the limit: a host that is one too many is told so by its CONNECT. */
export const spareConnections = 128;

const ranges: Readonly<Record<string, readonly [min: number, max: number]>> = {
  controllers: [1, lastCntlid],
  connections: [1, 65535],
  queues: [1, maxQueues],
  // a smaller limit than the largest transfer only means: one command at a time
  bytes: [4096, 2 ** 40],
};

/** One limit. @throws usage error */
export function checkLimit(name: string, value: number): number {
  const [min, max] = ranges[name]!;
  if (!Number.isSafeInteger(value) || value < min || value > max) throw usage(`${name}=${value}: must be ${min} to ${max}`);
  return value;
}

/**
 * `NAME=NUMBER` words of a command line, with `none` for no limit.
 * @param names that are known
 * @throws usage error
 */
export function limitNumbers<N extends string>(words: readonly string[], names: readonly N[]): Partial<Record<N, number | undefined>> {
  const found: Partial<Record<N, number | undefined>> = {};
  for (const word of words) {
    const match = /^([a-z]+)=(.+)$/.exec(word);
    const name = names.find((one) => one === match?.[1]);
    if (!name) throw usage(`not a limit: "${word}"`, `${names.map((one) => `${one}=N`).join(' ')}`);
    if (name in found) throw usage(`${name} is given twice`);
    found[name] =
      match![2] === 'none' ? undefined : checkLimit(name, name === 'bytes' ? parseSize(match![2]!) : numberOf(name, match![2]!));
  }
  return found;
}

function numberOf(name: string, text: string): number {
  const value = parseDecimal(text);
  if (value === undefined) throw usage(`${name}=${text}: must be a number`);
  return value;
}

/** What a host is counted by. */
export const hostKey = (hostnqn: string, hostid: Buffer): string => (hostnqn === '' ? `hostid:${hostid.toString('hex')}` : hostnqn);
