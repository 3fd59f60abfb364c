import { constants } from 'node:fs';
import { integer, invalid } from './request.js';

const { O_APPEND, O_CREAT, O_EXCL, O_RDONLY, O_RDWR, O_SYNC, O_TRUNC, O_WRONLY } = constants;

/** The flags of node:fs by name. */
const names: Readonly<Record<string, number>> = {
  r: O_RDONLY,
  rs: O_RDONLY | O_SYNC,
  'r+': O_RDWR,
  'rs+': O_RDWR | O_SYNC,
  w: O_TRUNC | O_CREAT | O_WRONLY,
  wx: O_TRUNC | O_CREAT | O_WRONLY | O_EXCL,
  'w+': O_TRUNC | O_CREAT | O_RDWR,
  'wx+': O_TRUNC | O_CREAT | O_RDWR | O_EXCL,
  a: O_APPEND | O_CREAT | O_WRONLY,
  ax: O_APPEND | O_CREAT | O_WRONLY | O_EXCL,
  as: O_APPEND | O_CREAT | O_WRONLY | O_SYNC,
  'a+': O_APPEND | O_CREAT | O_RDWR,
  'ax+': O_APPEND | O_CREAT | O_RDWR | O_EXCL,
  'as+': O_APPEND | O_CREAT | O_RDWR | O_SYNC,
};

/** O_* of open(2) from a flag as node:fs takes it. @throws EINVAL */
export function openFlags(flags: string | number): number {
  if (typeof flags === 'number') return integer('flags of open', flags, 0, 0x7fff_ffff);
  if (typeof flags !== 'string' || !Object.hasOwn(names, flags))
    throw invalid('flags of open', flags, `O_* or one of ${Object.keys(names).join(', ')}`);
  return names[flags]!;
}
