import { hash } from 'node:crypto';
import { usage } from '../../common/errors.js';

/** What tells a namespace apart, the same after every restart and over every path. */
export interface NamespaceIds {
  /** 16 bytes */
  nguid: Buffer;
  /** 8 bytes */
  eui64: Buffer;
  /** 16 bytes */
  uuid: Buffer;
}

const digest = (purpose: string, name: string): Buffer => hash('sha256', `vioctl ${purpose}\0${name}`, 'buffer');

/** The bytes of a UUID made from a name: version 8 (RFC 9562, 5.8), 122 bits of SHA-256. */
export function uuidOf(name: string): Buffer {
  const uuid = Buffer.from(digest('uuid', name).subarray(0, 16));
  uuid[6] = (uuid[6]! & 0x0f) | 0x80;
  uuid[8] = (uuid[8]! & 0x3f) | 0x80;
  return uuid;
}

/** `6ba7b810-9dad-…` */
export const uuidText = (uuid: Uint8Array): string =>
  Buffer.from(uuid)
    .toString('hex')
    .replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');

/**
 * Identifiers of a namespace from the names of its subsystem and of its source.
 * EUI-64 and NGUID are marked as locally administered: no manufacturer has given them.
 */
export function namespaceIds(name: string): NamespaceIds {
  const eui64 = Buffer.from(digest('eui64', name).subarray(0, 8));
  eui64[0] = (eui64[0]! & ~1) | 2;
  const nguid = Buffer.from(digest('nguid', name).subarray(0, 16));
  nguid[8] = (nguid[8]! & ~1) | 2;
  return { nguid, eui64, uuid: uuidOf(name) };
}

const idSizes: Readonly<Record<keyof NamespaceIds, number>> = { nguid: 16, eui64: 8, uuid: 16 };

/** An identifier of a command line or a configuration. @returns its digits, without dashes @throws usage error */
export function parseId(kind: keyof NamespaceIds, text: string | undefined): string {
  const digits = idSizes[kind] * 2;
  const hex = (text ?? '').toLowerCase();
  const dashed = kind === 'uuid' && /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(hex);
  const bare = dashed ? hex.replaceAll('-', '') : hex;
  if (!/^[0-9a-f]+$/.test(bare) || bare.length !== digits)
    throw usage(`${kind}=${text ?? ''}: must be ${kind === 'uuid' ? 'a UUID' : `${digits} hexadecimal digits`}`);
  if (/^0+$/.test(bare)) throw usage(`${kind}=${text}: all zeroes means that there is none`);
  return bare;
}

/**
 * Identifiers of a namespace: those that were asked for, the others made from one of them if there is one, so that a copy of a disk
 * can take its place whole.
 * @param subsystem NQN @param source name of the source (src/storage/identity.ts) @throws usage error
 */
export function idsOf(subsystem: string, source: string, asked: Partial<Record<keyof NamespaceIds, string>> = {}): NamespaceIds {
  const kinds = (['uuid', 'nguid', 'eui64'] as const).filter((kind) => asked[kind] !== undefined);
  const name = kinds[0] === undefined ? source : `${kinds[0]} ${parseId(kinds[0], asked[kinds[0]])}`;
  const given = kinds.map((kind) => [kind, Buffer.from(parseId(kind, asked[kind]), 'hex')] as const);
  return { ...namespaceIds(`${subsystem}\0${name}`), ...Object.fromEntries(given) };
}

/** Serial number of a subsystem: 20 characters from its name. */
export const serialOf = (name: string): string => digest('serial', name).toString('hex').slice(0, 20);
