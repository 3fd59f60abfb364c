/**
 * TLS (tl): a ClientHello that is wrong where the rest of it is right, records that are none, plaintext where TLS is used, and TLS where it
 * is not. Sections are those of RFC 8446 and of the NVMe/TCP Transport Specification 1.0.
 */
import { createHash } from 'node:crypto';
import { tlsPsk } from '../../auth/tls-psk.js';
import { encodePdu, pdus } from '../../wire/index.js';
import type { Bench, Facts } from '../bench.js';
import type { Case } from '../case.js';
import { closed, describeOutcome, holds, icresp, ok, term } from '../expect.js';
import { clientHello, extension, type HelloFaults, hashOf, RecordType, record, Suite } from '../hello.js';
import { finding, type Outcome } from '../raw.js';

const noTls = ({ tls }: Facts): string | undefined => (tls ? undefined : 'no --tls-key-file');
const refusal = 'no handshake and no PDU';
/** As many as this, or as the limit on open files allows. */
const crowd = 10_000;

const parameters = '4.1.2 and 6.2: a handshake that must not succeed ends with an alert, or without a word';
const records = '5.1: what is no record, or one that cannot come now, ends the connection';

/** What the bytes of a target are. */
function tell(bytes: Buffer): string {
  if (bytes.length === 0) return 'nothing';
  const [type, body] = [bytes[0], bytes.subarray(5)];
  if (type === RecordType.alert) return `alert ${body[1] ?? '?'}`;
  if (type === RecordType.handshake) return body[0] === 2 ? 'ServerHello' : `handshake message ${body[0] ?? '?'}`;
  return type === 1 || type === 3 ? `a PDU of type ${type}` : `bytes that begin with ${type?.toString(16)}h`;
}

/** Judges the answer to something that must not get further: an alert, or the end. @param wait it may also wait for more */
async function judge(bench: Bench, pieces: readonly Uint8Array[], wait = false): Promise<Outcome> {
  const connection = await bench.bytes();
  for (const piece of pieces) connection.send(piece);
  const bytes = await connection.heard((heard) => heard.length > 5 && heard[0] !== RecordType.alert);
  const told = tell(bytes);
  if (bytes.length > 0 && bytes[0] !== RecordType.alert) return finding(false, told);
  if (bytes.length === 0 && !connection.ended && !wait) return finding(false, 'no answer');
  return finding(true, refusal, connection.ended ? `${told}, closed` : told);
}

type Row = [id: string, title: string, faults: HelloFaults | ((facts: Facts) => HelloFaults)];
const hellos: Row[] = [
  ['tl10', 'a ClientHello without a pre-shared key', { noPsk: true }],
  ['tl11', 'a ClientHello of an unknown identity', { identities: ['NVMe1R01 nobody nothing AAAA'] }],
  ['tl12', 'a ClientHello of an empty identity', { identities: [''] }],
  ['tl13', 'a ClientHello of an identity of 60,000 bytes', { identities: [Buffer.alloc(60_000, 0x61)] }],
  ['tl14', 'a ClientHello of an identity with a NUL behind it', ({ tls }) => ({ identities: [`${tls!.identity}\0`] })],
  ['tl15', 'a ClientHello of an identity with another digest', ({ tls }) => ({ identities: [flipLast(tls!.identity)] })],
  [
    'tl16',
    'a ClientHello of the other hash function',
    ({ tls }) => ({ identities: [tls!.identity.replace(/R0./, `R0${3 - hashOf(tls!)}`)] }),
  ],
  [
    'tl17',
    'a ClientHello with one wrong bit in its binder',
    { binder: (right) => Buffer.concat([right.subarray(0, -1), Buffer.of(right.at(-1)! ^ 1)]) },
  ],
  ['tl18', 'a ClientHello with a binder of zeroes', { binder: (right) => Buffer.alloc(right.length) }],
  ['tl19', 'a ClientHello with a binder that is one byte shorter', { binder: (right) => right.subarray(1) }],
  ['tl20', 'a ClientHello that asks for psk_ke alone', { modes: [0] }],
  ['tl21', 'a ClientHello without psk_key_exchange_modes', { modes: null }],
  ['tl22', 'a ClientHello with unknown PSK modes', { modes: [7, 255] }],
  ['tl23', 'a ClientHello of TLS 1.2 alone', { versions: [0x0303] }],
  ['tl24', 'a ClientHello of unknown versions', { versions: [0x0305, 0x7f1c] }],
  [
    'tl25',
    'a ClientHello of a cipher suite that does not go with the hash of the key',
    ({ tls }) => ({ suites: [hashOf(tls!) === 2 ? Suite.aes128 : Suite.aes256] }),
  ],
  ['tl26', 'a ClientHello of unknown cipher suites', { suites: [0x1a1a, 0x00ff] }],
  ['tl27', 'a ClientHello with a key share of 31 bytes', { share: Buffer.alloc(31, 9) }],
  ['tl28', 'a ClientHello with a key share of zeroes', { share: Buffer.alloc(32) }],
  ['tl29', 'a ClientHello with compression', { compression: Buffer.of(1) }],
  ['tl30', 'a ClientHello whose pre_shared_key is not its last extension', { pskFirst: true }],
  ['tl31', 'a ClientHello with an extension twice', { more: extension(45, Buffer.of(1, 1)) }],
];

/** An identity whose digest ends in another way. */
const flipLast = (identity: string): string => {
  const at = identity.length - 3;
  return identity.slice(0, at) + (identity[at] === 'A' ? 'B' : 'A') + identity.slice(at + 1);
};

/** Bytes instead of a ClientHello, and in pieces. @param wait a target may wait for the rest */
type Odd = [id: string, title: string, pieces: (hello: Buffer) => Uint8Array[], wait?: boolean];
const odd: Odd[] = [
  ['tl40', 'half a ClientHello', (hello) => [record(RecordType.handshake, hello).subarray(0, 60)], true],
  ['tl41', 'one byte of TLS', () => [Buffer.of(RecordType.handshake)], true],
  ['tl42', 'a record of 65,535 bytes', () => [Buffer.concat([record(RecordType.handshake, Buffer.alloc(65_535))])]],
  ['tl43', 'a record without a byte', () => [record(RecordType.handshake, Buffer.alloc(0))], true],
  ['tl44', 'a ClientHello that says it has 16 MiB', (hello) => [record(RecordType.handshake, lengthOf(hello, 0xff_ffff))]],
  [
    'tl45',
    'a ClientHello that ends within an extension',
    (hello) => [record(RecordType.handshake, lengthOf(hello.subarray(0, -40), hello.length - 44))],
  ],
  [
    'tl46',
    'a ClientHello with bytes behind its end',
    (hello) => [record(RecordType.handshake, lengthOf(Buffer.concat([hello, Buffer.alloc(8)]), hello.length + 4))],
  ],
  ['tl47', 'application data first', () => [record(RecordType.data, Buffer.alloc(64))]],
  ['tl48', 'a ServerHello of the host', (hello) => [record(RecordType.handshake, Buffer.concat([Buffer.of(2), hello.subarray(1)]))]],
  ['tl49', 'Finished first', () => [record(RecordType.handshake, Buffer.concat([Buffer.of(20, 0, 0, 32), Buffer.alloc(32)]))]],
  ['tl50', 'a fatal alert first', () => [record(RecordType.alert, Buffer.of(2, 40))]],
  ['tl51', '10,000 warnings', () => [Buffer.concat(Array.from({ length: 10_000 }, () => record(RecordType.alert, Buffer.of(1, 90))))]],
  ['tl52', 'a ClientHello of SSL 2', () => [Buffer.concat([Buffer.from('802e0100020015000000100100800300', 'hex'), Buffer.alloc(32)])]],
];
/** A message whose header says another length. */
const lengthOf = (message: Buffer, length: number): Buffer =>
  Buffer.concat([Buffer.of(message[0]!, length >> 16, (length >> 8) & 0xff, length & 0xff), message.subarray(4)]);

/** After a good ClientHello: the handshake must not end by what comes then. */
const behind: Odd[] = [
  ['tl60', 'a ClientHello twice', (hello) => [record(RecordType.handshake, hello), record(RecordType.handshake, hello)]],
  [
    'tl61',
    'Finished in the clear',
    (hello) => [
      record(RecordType.handshake, hello),
      record(RecordType.handshake, Buffer.concat([Buffer.of(20, 0, 0, 32), Buffer.alloc(32)])),
    ],
  ],
  [
    'tl62',
    'a record that cannot be decrypted',
    (hello) => [record(RecordType.handshake, hello), record(RecordType.data, Buffer.alloc(58, 7))],
  ],
  ['tl63', 'an ICReq in the clear behind a ClientHello', (hello) => [record(RecordType.handshake, hello), encodePdu(pdus.icReq, {})]],
];

/** Judges what comes behind a good ClientHello: an alert in the clear, or the end. An encrypted alert looks like data. */
async function judgeBehind(bench: Bench, pieces: readonly Uint8Array[]): Promise<Outcome> {
  const connection = await bench.bytes();
  for (const piece of pieces) connection.send(piece);
  const bytes = await connection.heard((heard) => heard[0] === 1 || heard[0] === 3);
  if (bytes[0] === 1 || bytes[0] === 3) return finding(false, tell(bytes));
  return finding(connection.ended, connection.ended ? refusal : `${tell(bytes)}, and the connection stays open`);
}

const hello = ({ facts }: Bench, faults?: HelloFaults): Buffer => clientHello(facts.tls!, faults);

export const tlsCases: Case[] = [
  {
    id: 'tl01',
    title: 'a ClientHello where TLS is not used',
    spec: '3.6.1: a target without TLS meets a PDU type that does not exist',
    accept: [term(1), closed],
    run: async (bench) => {
      const connection = await bench.raw();
      const { hostnqn, subnqn } = bench.facts;
      const key = tlsPsk({ hash: 1, bytes: createHash('sha256').update('no key').digest() }, hostnqn, subnqn);
      connection.send(record(RecordType.handshake, clientHello(key)));
      return connection.next();
    },
    skip: ({ tls }) => (tls ? 'TLS is used' : undefined),
  },
  {
    id: 'tl02',
    title: 'a ClientHello in one record (legal)',
    spec: '4.1.3: answered with ServerHello',
    accept: [holds('ServerHello')],
    run: async (bench) => {
      const connection = await bench.bytes();
      connection.send(record(RecordType.handshake, hello(bench)));
      const told = tell(await connection.heard((heard) => heard.length > 5));
      return finding(told === 'ServerHello', told);
    },
    skip: noTls,
  },
  {
    id: 'tl03',
    title: 'a ClientHello byte by byte (legal)',
    spec: 'TCP is a stream: records may be cut anywhere',
    accept: [holds('ServerHello')],
    run: async (bench) => {
      const connection = await bench.bytes();
      for (const byte of record(RecordType.handshake, hello(bench))) {
        connection.send(Buffer.of(byte));
        await new Promise((resolve) => setImmediate(resolve));
      }
      const told = tell(await connection.heard((heard) => heard.length > 5));
      return finding(told === 'ServerHello', told);
    },
    skip: noTls,
  },
  {
    id: 'tl04',
    title: 'an ICReq without TLS',
    spec: '3.6.1: a target that requires TLS takes nothing without it; one that allows it may',
    accept: [closed, icresp],
    run: async (bench) => {
      const connection = await bench.bytes();
      connection.send(encodePdu(pdus.icReq, {}));
      const bytes = await connection.heard();
      const required = bench.facts.tlsRequired !== false;
      if (bytes[0] === 1 && !required) return { kind: 'icresp', cpda: 0, dgst: 0, maxh2cdata: 0 };
      return bytes.length === 0 && connection.ended ? { kind: 'closed' } : finding(false, tell(bytes));
    },
    skip: noTls,
  },
  ...hellos.map(
    ([id, title, faults]): Case => ({
      id,
      title,
      spec: parameters,
      accept: [holds(refusal)],
      run: (bench) => judge(bench, recordsOf(hello(bench, typeof faults === 'function' ? faults(bench.facts) : faults))),
      skip: noTls,
    }),
  ),
  ...odd.map(
    ([id, title, pieces, wait]): Case => ({
      id,
      title,
      spec: records,
      accept: [holds(refusal)],
      run: (bench) => judge(bench, pieces(hello(bench)), wait),
      skip: noTls,
    }),
  ),
  ...behind.map(
    ([id, title, pieces]): Case => ({
      id,
      title,
      spec: records,
      accept: [holds(refusal)],
      run: (bench) => judgeBehind(bench, pieces(hello(bench))),
      skip: noTls,
    }),
  ),
  {
    id: 'tl70',
    title: `${crowd} handshakes that stop behind the ClientHello, then a host`,
    spec: 'those who do not go on must not keep hosts out: the handshake has a deadline, or the oldest make room',
    accept: [holds('the host is served')],
    run: async (bench) => {
      const bytes = record(RecordType.handshake, hello(bench));
      const open = await bench.silent(crowd, () => bytes);
      const outcome = await bench.servedAfterAll();
      const good = ok().match(outcome) && open > 0;
      return finding(good, good ? 'the host is served' : describeOutcome(outcome), `${open} connections were open`);
    },
    skip: noTls,
  },
];

/** A handshake message in records of 16 KiB at most. */
function recordsOf(message: Buffer): Buffer[] {
  const out: Buffer[] = [];
  for (let at = 0; at < message.length; at += 16_384) out.push(record(RecordType.handshake, message.subarray(at, at + 16_384)));
  return out;
}
