import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { closeChain, openChain } from '../../../src/storage/qcow2/chain.js';
import { parseHeader } from '../../../src/storage/qcow2/header.js';

let dir: string;
beforeEach(() => {
  dir = fs.realpathSync(fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-chain-')));
});
afterEach(() => fs.rmSync(dir, { recursive: true }));

/** A header of version 3 (QEMU's docs/interop/qcow2.txt) with what a test wants in it. */
function header(wanted: { backing?: string; format?: string; data?: string; edit?: (head: Buffer) => void } = {}): Buffer {
  const head = Buffer.alloc(65536);
  head.writeUInt32BE(0x514649fb, 0);
  head.writeUInt32BE(3, 4);
  head.writeUInt32BE(16, 20);
  head.writeBigUInt64BE(1n << 20n, 24);
  head.writeUInt32BE(104, 100);
  let at = 104;
  const extension = (type: number, text: string): void => {
    head.writeUInt32BE(type, at);
    head.writeUInt32BE(text.length, at + 4);
    head.write(text, at + 8);
    at += 8 + Math.ceil(text.length / 8) * 8;
  };
  if (wanted.format !== undefined) extension(0xe2792aca, wanted.format);
  if (wanted.data !== undefined) {
    head.writeBigUInt64BE(4n, 72);
    if (wanted.data !== '') extension(0x44415441, wanted.data);
  }
  at += 8;
  if (wanted.backing !== undefined) {
    head.writeBigUInt64BE(BigInt(at), 8);
    head.writeUInt32BE(Buffer.byteLength(wanted.backing), 16);
    head.write(wanted.backing, at);
  }
  wanted.edit?.(head);
  return head;
}
const file = (name: string, content: Buffer | string = ''): string => {
  fs.mkdirSync(path.dirname(path.join(dir, name)), { recursive: true });
  fs.writeFileSync(path.join(dir, name), content);
  return path.join(dir, name);
};

test('a header is read', () => {
  expect(parseHeader('x', header())).toEqual({ size: 1 << 20, backing: undefined, dataFile: undefined });
  expect(parseHeader('x', header({ backing: 'b', format: 'raw', data: 'd' }))).toEqual({
    size: 1 << 20,
    backing: { file: 'b', format: 'raw' },
    dataFile: 'd',
  });
});

const damaged: [string, (head: Buffer) => void][] = [
  ['no magic', (h) => h.writeUInt32BE(0, 0)],
  ['clusters of one byte', (h) => h.writeUInt32BE(0, 20)],
  ['clusters of 2^63 bytes', (h) => h.writeUInt32BE(63, 20)],
  ['a disk of 2^63 bytes', (h) => h.writeBigUInt64BE(1n << 63n, 24)],
  ['a header that ends before its fields', (h) => h.writeUInt32BE(8, 100)],
  ['a header longer than a cluster', (h) => h.writeUInt32BE(0xfffffff8, 100)],
  ['the mark of a corrupt image', (h) => h.writeBigUInt64BE(2n, 72)],
  [
    'a name behind the cluster',
    (h) => {
      h.writeBigUInt64BE(65530n, 8);
      h.writeUInt32BE(100, 16);
    },
  ],
  [
    'a name at 2^64',
    (h) => {
      h.writeBigUInt64BE(0xffff_ffff_ffff_fff0n, 8);
      h.writeUInt32BE(100, 16);
    },
  ],
  [
    'a name in the header',
    (h) => {
      h.writeBigUInt64BE(4n, 8);
      h.writeUInt32BE(4, 16);
    },
  ],
  [
    'a name of 4 GiB',
    (h) => {
      h.writeBigUInt64BE(200n, 8);
      h.writeUInt32BE(0xffffffff, 16);
    },
  ],
  [
    'an empty name',
    (h) => {
      h.writeBigUInt64BE(200n, 8);
      h.writeUInt32BE(0, 16);
    },
  ],
  [
    'a name with a NUL',
    (h) => {
      h.writeBigUInt64BE(200n, 8);
      h.writeUInt32BE(4, 16);
    },
  ],
  [
    'an extension of 4 GiB',
    (h) => {
      h.writeUInt32BE(0xe2792aca, 104);
      h.writeUInt32BE(0xffffffff, 108);
    },
  ],
  ['extensions without end', (h) => Array.from({ length: 8000 }, (_, i) => h.writeUInt32BE(i % 2 === 0 ? 1 : 0, 104 + i * 4))],
];
test.each(damaged)('%s is damage', (_what, edit) => {
  expect(() => parseHeader('x', header({ edit }))).toThrow(expect.objectContaining({ exit: 5 }));
});

test('every cut of a header is read or refused, never more', () => {
  const whole = header({ backing: 'b', format: 'raw' });
  for (let length = 0; length < 200; length++) {
    try {
      parseHeader('x', whole.subarray(0, length));
    } catch (err) {
      expect([5, 7]).toContain((err as { exit?: number }).exit);
    }
  }
});

test('what is not known is refused as unsupported', () => {
  for (const edit of [
    (h: Buffer) => h.writeUInt32BE(4, 4),
    (h: Buffer) => h.writeUInt32BE(1, 32),
    (h: Buffer) => h.writeBigUInt64BE(1n << 40n, 72),
  ])
    expect(() => parseHeader('x', header({ edit }))).toThrow(expect.objectContaining({ exit: 7 }));
});

const forbidden = ['/etc/shadow', '../secret', 'base/../../secret', 'json:{"driver":"file"}', 'nbd://h/x', 'file:base/b', ''];
test.each(forbidden.filter((name) => name !== ''))('a backing file %s is refused', (name) => {
  file('base/b');
  const image = file('images/top', header({ backing: name, format: 'raw' }));
  for (const folder of [undefined, path.join(dir, 'base'), path.join(dir, 'images')])
    expect(() => openChain(image, true, folder)).toThrow(expect.objectContaining({ exit: 3 }));
});
test.each(forbidden)('a data file "%s" is refused', (name) => {
  const image = file('images/top', header({ data: name }));
  expect(() => openChain(image, true, path.join(dir, 'base'))).toThrow();
});

test('links out of the folder, pipes, devices, and formats that would be guessed are refused', () => {
  file('secret');
  fs.mkdirSync(path.join(dir, 'base'));
  fs.symlinkSync('../secret', path.join(dir, 'base/link'));
  fs.symlinkSync('/dev/null', path.join(dir, 'base/null'));
  const open = (backing: string, format?: string) => () =>
    openChain(file('top', header({ backing, ...(format !== undefined && { format }) })), true, path.join(dir, 'base'));
  expect(open('base/link', 'raw')).toThrow(expect.objectContaining({ exit: 3 }));
  expect(open('base/null', 'raw')).toThrow(expect.objectContaining({ exit: 3 }));
  file('base/b');
  expect(open('base/b')).toThrow(expect.objectContaining({ exit: 3 }));
  expect(open('base/b', 'vmdk')).toThrow(expect.objectContaining({ exit: 3 }));
  closeChain(open('base/b', 'raw')());
});

test('a chain is bounded, and one that leads back to itself ends', () => {
  const image = file('base/loop', header({ backing: 'loop', format: 'qcow2' }));
  expect(() => openChain(image, true, path.join(dir, 'base'))).toThrow(
    expect.objectContaining({ exit: 3, message: expect.stringContaining('longer than') }),
  );
});
