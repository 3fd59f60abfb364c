import { type Address, decodeAddress, encodeAddress } from '../../../../src/uring/request/address.js';
import { openFlags } from '../../../../src/uring/request/flags.js';

test.each<[Address, string]>([
  [{ address: '127.0.0.1', port: 4420 }, '0200 1144 7f000001 0000000000000000'],
  [{ address: '::1', port: 1 }, '0a00 0001 00000000 00000000000000000000000000000001 00000000'],
  [{ address: '2001:db8::ff00:42:8329', port: 65535 }, '0a00 ffff 00000000 20010db8000000000000ff0000428329 00000000'],
  [{ address: '::', port: 0 }, '0a00 0000 00000000 00000000000000000000000000000000 00000000'],
  [{ path: '/run/x' }, '0100 2f72756e2f78 00'],
  [{ path: '\0name' }, '0100 00 6e616d65'],
])('%j', (address, hex) => {
  const bytes = encodeAddress(address);
  expect(bytes.toString('hex')).toBe(hex.replaceAll(' ', ''));
  expect(decodeAddress(bytes)).toEqual(address);
});

test('an IPv4 address inside IPv6; unnamed sockets; other families; what cannot be meant', () => {
  const mapped = encodeAddress({ address: '::ffff:192.0.2.1', port: 7 });
  expect(mapped.toString('hex', 8, 24)).toBe('00000000000000000000ffffc0000201');
  expect(decodeAddress(mapped)).toMatchObject({ port: 7, address: expect.stringMatching(/^::ffff:(192\.0\.2\.1|c000:201)$/) });
  for (const bytes of [Buffer.alloc(0), Buffer.of(1, 0), Buffer.of(16, 0, 0, 0), Buffer.of(2, 0, 1, 2)])
    expect(decodeAddress(bytes)).toBeUndefined();
  for (const bad of [
    { address: 'localhost', port: 1 },
    { address: '1.2.3.4', port: 65536 },
    { address: '::1', port: 1.5 },
    { path: '' },
    { path: 'x'.repeat(108) },
  ])
    expect(() => encodeAddress(bad)).toThrow(expect.objectContaining({ code: 'EINVAL' }));
});

test('flags of node:fs', () => {
  expect([openFlags('r'), openFlags('wx+'), openFlags(5)]).toEqual([0, 0o1302, 5]);
  for (const bad of ['q', '', 'R', Number.NaN, -1, undefined, 'constructor'])
    expect(() => openFlags(bad as never)).toThrow(expect.objectContaining({ code: 'EINVAL' }));
});
