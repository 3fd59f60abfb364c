import fs from 'node:fs';
import readline from 'node:readline';
import { Exit, VioError, wrap } from '../../common/errors.js';
import { printable } from '../../common/escape.js';
import { formatSize, hex64 } from '../../common/units.js';
import { describe } from '../wire/describe.js';
import type { FdInfo } from '../wire/fds.js';
import { type ChannelName, headerSize } from '../wire/messages.js';
import type { TraceEnd, TraceRecord } from './proxy.js';

/** `memfd:name 128M seal,shrink` */
export function fdText(fd: FdInfo): string {
  const parts = [`${fd.kind}:${fd.name}`];
  if (fd.size !== undefined) parts.push(formatSize(BigInt(fd.size)));
  if (fd.seals && fd.seals.length > 0) parts.push(fd.seals.join(','));
  if (fd.access !== 'rw') parts.push(fd.access === 'r' ? 'read-only' : 'write-only');
  return printable(parts.join(' '));
}

function valueText(value: unknown): string {
  if (typeof value === 'bigint') return hex64(value);
  if (value instanceof Uint8Array)
    return value.length > 64
      ? `${Buffer.from(value.subarray(0, 64)).toString('hex')}…(${value.length} bytes)`
      : Buffer.from(value).toString('hex') || "''";
  if (Array.isArray(value)) return `[${value.map(valueText).join(' ')}]`;
  if (value !== null && typeof value === 'object') return `{${fieldsText(value as Record<string, unknown>)}}`;
  return printable(String(value));
}

const fieldsText = (fields: Record<string, unknown>): string =>
  Object.entries(fields)
    .map(([key, value]) => `${key}=${valueText(value)}`)
    .join(' ');

/** A record as one line. */
export function recordText(record: TraceRecord | TraceEnd): string {
  const head = `${record.t.toFixed(6).padStart(11)} ${record.connection} ${record.channel} ${record.from === 'front-end' ? '>' : '<'}`;
  if (!('bytes' in record)) return `${head} DISCONNECT${record.error ? ` ${printable(record.error)}` : ''}`;
  const parts = [head, record.kind === 'reply' ? `${record.op}.reply` : record.op];
  if (Object.keys(record.fields).length > 0) parts.push(fieldsText(record.fields));
  if (record.fds.length > 0) parts.push(`fds=[${record.fds.map(fdText).join('; ')}]`);
  if (record.needReply) parts.push('need_reply');
  if (record.latencyUs !== undefined) parts.push(`(${record.latencyUs} us)`);
  for (const warning of record.warnings) parts.push(`! ${printable(warning)}`);
  return parts.join(' ');
}

/**
 * Records of a capture (`trace --ndjson`), their bytes decoded again by today's table.
 * @throws VioError (EPROTO) with the line that is damaged; the records before it were given
 */
export async function* readCapture(input: NodeJS.ReadableStream, device?: string): AsyncGenerator<TraceRecord | TraceEnd> {
  let line = 0;
  for await (const text of readline.createInterface({ input, crlfDelay: Number.POSITIVE_INFINITY })) {
    line++;
    if (text === '') continue;
    yield parseRecord(text, line, device);
  }
}

/** One line of a capture. */
export function parseRecord(text: string, line: number, device?: string): TraceRecord | TraceEnd {
  const damaged = (why: string): VioError =>
    new VioError(`line ${line}: ${why}`, {
      code: 'EPROTO',
      exit: Exit.damaged,
      hint: 'captures are made by vioctl vhost-user trace --ndjson',
    });
  let record: TraceRecord | TraceEnd;
  try {
    record = JSON.parse(text) as TraceRecord | TraceEnd;
  } catch {
    throw damaged('no JSON');
  }
  if (typeof record !== 'object' || record === null || typeof record.t !== 'number') throw damaged('no trace record');
  if (record.channel !== 'main' && record.channel !== 'back') throw damaged('no channel');
  if (!('bytes' in record)) return record;
  if (typeof record.bytes !== 'string' || !/^([0-9a-f]{2})*$/.test(record.bytes) || !Array.isArray(record.fds)) throw damaged('no bytes');
  const data = Buffer.from(record.bytes, 'hex');
  if (data.length < headerSize || data.readUInt32LE(8) !== data.length - headerSize) throw damaged('bytes are no whole message');
  const message = { id: data.readUInt32LE(0), flags: data.readUInt32LE(4), payload: data.subarray(headerSize) };
  return { ...record, ...describe(record.channel as ChannelName, message, record.fds.length, device) };
}

/** A capture file as a stream; `-` is stdin. @throws VioError */
export function openCapture(file: string): NodeJS.ReadableStream {
  try {
    return fs.createReadStream('', { fd: file === '-' ? 0 : fs.openSync(file, 'r') });
  } catch (err) {
    throw wrap(`open ${file}`, err);
  }
}

/** A capture file that is being written. Lines are written at once: a capture is whole whatever way the program ends. */
export interface Capture {
  write(line: string): void;
  close(): void;
}

/** Makes or empties a capture file. @throws VioError */
export function createCapture(file: string): Capture {
  try {
    const fd = fs.openSync(file, 'w', 0o600);
    return { write: (line) => fs.writeSync(fd, `${line}\n`), close: () => fs.closeSync(fd) };
  } catch (err) {
    throw wrap(`open ${file}`, err);
  }
}
