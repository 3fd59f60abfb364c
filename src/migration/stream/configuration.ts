/** What a stream begins with: the header and the configuration record. */

import { foreign } from './foreign.js';
import { limits, streamMagic, streamVersion, Type, versionObsolete } from './format.js';
import type { Framing } from './framing.js';
import { report } from './issues.js';
import type { Configuration, WalkEvent } from './model.js';
import { endText, type StreamReader } from './reader.js';

const magic4 = Buffer.alloc(4);
magic4.writeUInt32BE(streamMagic);

/** Magic and version. Yields what is wrong; false when the walk cannot go on. */
export function* readHeader(reader: StreamReader, force: boolean): Generator<WalkEvent, boolean> {
  const at = reader.position;
  const start = reader.peek(8);
  const other = start.length === 8 && start.readUInt32BE(0) !== streamMagic ? foreign(reader) : undefined;
  const head = other ? { ok: true as const, bytes: start } : reader.take(8);
  if (!head.ok) {
    if (head.end.kind === 'io') {
      yield report('error', 'read-error', head.end.at, '', `header: ${endText(head.end)}`);
    } else if (head.bytes.length === 0) {
      yield report('error', 'empty', at, '', 'the input is empty', { expected: 'a migration stream' });
    } else if (!magic4.subarray(0, head.bytes.length).equals(head.bytes.subarray(0, 4))) {
      yield report('error', 'magic', at, '', 'not a QEMU migration stream', { expected: 'QEVM', found: head.bytes.toString('latin1') });
    } else {
      yield report('error', 'truncated', head.end.at, '', 'truncated header', {
        expected: '8 bytes',
        found: String(head.bytes.length),
      });
    }
    return false;
  }
  const magic = head.bytes.readUInt32BE(0);
  const version = head.bytes.readUInt32BE(4);
  if (magic !== streamMagic) {
    const what = other ? `not a QEMU migration stream, but ${other.what}: ${other.advice}` : 'not a QEMU migration stream';
    yield report('error', 'magic', at, '', what, { expected: 'QEVM', found: start.subarray(0, 4).toString('latin1') });
    return false;
  }
  yield { type: 'header', offset: BigInt(at), version };
  if (version === streamVersion) return true;
  const what = version === versionObsolete ? 'stream version 2 is obsolete: QEMU refuses it since 2009' : 'unknown stream version';
  yield report('error', 'version', at + 4, '', what, { expected: '3', found: String(version) });
  return force;
}

/** The configuration record at the present position. `known` gets it when the machine is known: what follows may be cut off. */
export function* readConfiguration(reader: StreamReader, framing: Framing, known: (c: Configuration) => void): Generator<WalkEvent> {
  const at = reader.position;
  reader.skip(1, 'configuration');
  const length = reader.be32('machine name length');
  if (length > limits.machineName) {
    yield report('error', 'machine-name', at + 1, 'configuration', 'length of the machine name', {
      expected: `at most ${limits.machineName}`,
      found: String(length),
    });
    yield* framing.resync(at + 5, 'configuration');
    return;
  }
  const configuration: Configuration = { machine: reader.bytes(length, 'machine name').toString('utf8') };
  known(configuration);
  while (reader.next(1) === Type.subsection) {
    const sub = reader.position;
    reader.skip(1, 'subsection');
    const name = reader.string8('configuration subsection');
    const version = reader.be32('configuration subsection version');
    if (name === 'configuration/target-page-bits') {
      const bits = reader.be32(name);
      if (bits >= limits.pageBits[0] && bits <= limits.pageBits[1]) configuration.pageBits = bits;
      else {
        yield report('error', 'page-bits', sub, 'configuration', 'size of a target page', {
          expected: `2^${limits.pageBits[0]} to 2^${limits.pageBits[1]} bytes`,
          found: `2^${bits}`,
          recovered: 'read with pages of 4 KiB',
        });
      }
    } else if (name === 'configuration/capabilities') {
      const count = reader.be32(name);
      if (count > limits.capabilities) {
        yield report('error', 'capabilities', sub, 'configuration', 'number of capabilities', {
          expected: `at most ${limits.capabilities}`,
          found: String(count),
        });
        yield* framing.resync(sub, 'configuration');
        break;
      }
      configuration.capabilities = Array.from({ length: count }, () => reader.string8('capability'));
      for (const name of configuration.capabilities) {
        if (name !== 'x-ignore-shared' && name !== 'mapped-ram')
          yield report('warning', 'capability', sub, 'configuration', `unknown capability ${name}`);
      }
    } else if (name === 'configuration/uuid') {
      const hex = reader.bytes(16, name).toString('hex');
      configuration.uuid = hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');
    } else {
      yield report('error', 'configuration', sub, 'configuration', `unknown subsection ${name} version ${version}`);
      yield* framing.resync(sub, 'configuration');
      break;
    }
  }
  yield { type: 'configuration', offset: BigInt(at), size: reader.position - at, ...configuration };
}
