import { createHmac, hkdfSync, randomBytes } from 'node:crypto';
import { VioError } from '../../../../src/common/errors.js';
import { formatChapKey, formatTlsKey, parseChapKey, parseTlsKey, transformedKey } from '../../../../src/nvme/auth/keys.js';
import { keptPsks, parseIdentity, pskOf, tlsPsk } from '../../../../src/nvme/auth/tls-psk.js';

// the key and the texts of libnvme's test/psk.c; the one with SHA-256 is that of the specification (NVMe/TCP 1.0, 3.6.1.5) too
const part1 = '5512DBB6737D0106F65975B773DFB011FFC344BCF442E2DD6D8BC4870B5D5B03';
const psk32 = Buffer.from(part1, 'hex');
const psk48 = Buffer.from(`${part1}FFC344BCF442E2DD6D8BC4870B5D5B03`, 'hex');
const published = {
  none: 'NVMeTLSkey-1:00:VRLbtnN9AQb2WXW3c9+wEf/DRLz0QuLdbYvEhwtdWwNf9LrZ:',
  sha256: 'NVMeTLSkey-1:01:VRLbtnN9AQb2WXW3c9+wEf/DRLz0QuLdbYvEhwtdWwNf9LrZ:',
  sha384: 'NVMeTLSkey-1:02:VRLbtnN9AQb2WXW3c9+wEf/DRLz0QuLdbYvEhwtdWwP/w0S89ELi3W2LxIcLXVsDn8kXZQ==:',
};
const host = 'nqn.psk-test-host';
const subsystem = 'nqn.psk-test-subsys';

describe('TLS keys', () => {
  test.each([
    [0, psk32, published.none],
    [1, psk32, published.sha256],
    [2, psk48, published.sha384],
  ])('hash %d: the published text and the key make each other', (hash, bytes, text) => {
    expect(parseTlsKey(Buffer.from(text))).toEqual({ hash, bytes });
    expect(formatTlsKey({ hash, bytes })).toBe(text);
  });

  test.each([
    [1, psk32, 'NVMe1R01 nqn.psk-test-host nqn.psk-test-subsys iSbjiStwJ/1TrTvDlt2fjFmzvsytOJelidNnA+X5lEU='],
    [2, psk48, 'NVMe1R02 nqn.psk-test-host nqn.psk-test-subsys QhW2+Rp6RzHlNtCslyRxMnwJ11tKKhz8JCAQpQ+XUD8f9td1VeH5h53yz2wKJG1a'],
  ])('hash %d: the published identity', (hash, bytes, identity) => {
    const made = tlsPsk({ hash, bytes }, host, subsystem);
    expect(made.identity).toBe(identity);
    expect(made.hash).toBe(hash);
    expect(made.psk).toHaveLength(bytes.length);
    expect(parseIdentity(identity)).toMatchObject({ version: 1, hash, hostnqn: host, subnqn: subsystem });
    expect(
      pskOf(identity, [
        { hash: 1, bytes: randomBytes(32) },
        { hash, bytes },
      ])?.psk,
    ).toEqual(made.psk);
  });

  /** RFC 5869 and RFC 8446 by Node: a second implementation of the derivation. */
  function byNode(name: string, key: Buffer, label: string, context: string): Buffer {
    const info = `\0${String.fromCharCode(key.length, label.length)}${label}${String.fromCharCode(context.length)}${context}`;
    return Buffer.from(hkdfSync(name, key, Buffer.alloc(0), Buffer.from(info, 'latin1'), key.length));
  }

  test.each([
    ['sha256', 1, psk32],
    ['sha384', 2, psk48],
  ] as const)('%s: retained and TLS PSK of both versions', (name, hash, bytes) => {
    const retained = byNode(name, bytes, 'tls13 HostNQN', host);
    const v0 = tlsPsk({ hash, bytes }, host, subsystem, 0);
    expect(v0.identity).toBe(`NVMe0R0${hash} ${host} ${subsystem}`);
    expect(v0.psk).toEqual(byNode(name, retained, 'tls13 nvme-tls-psk', v0.identity));
    const v1 = tlsPsk({ hash, bytes }, host, subsystem, 1);
    expect(v1.psk).toEqual(byNode(name, retained, 'tls13 nvme-tls-psk', `0${hash} ${v1.identity.split(' ')[3]}`));
    expect(pskOf(v0.identity, [{ hash, bytes }])?.psk).toEqual(v0.psk);
  });

  // drivers/nvme/common/tests/auth_kunit.c of Linux 7: a PSK that is used as it is, for "hostnqn" and "subsysnqn"
  test.each([
    [
      1,
      '1733c59fa7f48fcf37f5f26fc4ff0268ad4f78e030f4f3b0bfd1d47e7bb1447a',
      'OldoKuTfKddMuyCznAZojkWD7P4D9/AtzDzLimtOxqI=',
      '3c17da628474a04d2247c4cab47968c915388193f7c071bd9489cc3666cd7cc8',
    ],
    [
      2,
      'f14b2dd3234c459694d3bc63f8968bd6b37c2c6de849e22e118749001ce4bbe8640b9e3a748cb11ce4b1d71d359cce39',
      'cffMWk8TSS7HOQebjgYEIkrPrjWPV4JE5cdPB8WhEvY4JBW5YynKyv66XscN4A9n',
      '2774753233537b3fa50eb7d16a8e43457d85f4906c005b2236616c5d80939d0898fff15bb8b77119d2be0aac423e7590',
    ],
  ])('hash %d: the digest and the TLS PSK that Linux publishes', (hash, retained, digest, psk) => {
    const made = tlsPsk({ hash: 0, bytes: Buffer.from(retained, 'hex') }, 'hostnqn', 'subsysnqn');
    expect(made).toEqual({ identity: `NVMe1R0${hash} hostnqn subsysnqn ${digest}`, hash, psk: Buffer.from(psk, 'hex') });
  });

  // what `nvme check-tls-key --insert --keyfile` of nvme-cli 2.16 (libnvme 1.16.2) writes: the PSK in base64, with its CRC
  test.each([
    [published.none, 0, '7IUwC6gncmvTvE/Afzo0rsX+fIzKwF/vwvAhx04N+e/YO8qY'],
    [published.none, 1, 'pF0I7kY5x1cHKbs+V+kF5GakmhXs5UAa+QaDDE072wtN1HR2'],
    [published.sha256, 0, 'BcZQNVGtE25u4y5u6z9tUAtpcB2E7HHjKPZcf1FWb2hcZOn3'],
    [published.sha256, 1, 'j8PAut/UwMZvo8ozqt0DFPhVNsybxHM4tg8+blY3hsoK08KL'],
    [published.sha384, 0, '9CumOCTN/kIZFMWCkh+FtbW34tTfCEyu7cm+ILIS6LsP6KI+nVmhyPxkSdpJcKeNIuBQlw=='],
    [published.sha384, 1, 'orL5Q/R5/GglVc7ImFfIDtAEzpLzKpc9V2QVW7fjaxeoU2igZm0lCvrJKC3aLmLKRQhVCw=='],
  ] as const)('%s, version %d: the TLS PSK that libnvme derives', (key, version, psk) => {
    expect(tlsPsk(parseTlsKey(Buffer.from(key)), host, subsystem, version).psk).toEqual(Buffer.from(psk, 'base64').subarray(0, -4));
  });

  test('the identity of version 0 that the specification publishes', () => {
    // NVMe/TCP transport specification 1.0, 3.6.1.3; the key is that of 3.6.1.5
    const [hostnqn, subnqn] = ['f81d4fae-7dec-11d0-a765-00a0c91e6bf6', '36ebf5a9-1df9-47b3-a6d0-e9ba32e428a2'].map(
      (uuid) => `nqn.2014-08.org.nvmexpress:uuid:${uuid}`,
    ) as [string, string];
    expect(tlsPsk(parseTlsKey(Buffer.from(published.sha256)), hostnqn, subnqn, 0).identity).toBe(
      'NVMe0R01 nqn.2014-08.org.nvmexpress:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6 ' +
        'nqn.2014-08.org.nvmexpress:uuid:36ebf5a9-1df9-47b3-a6d0-e9ba32e428a2',
    );
  });

  test('a host tries identities of version 1, then 0 if its PSK exists', () => {
    const key = { hash: 1, bytes: psk32 };
    expect(keptPsks(key, host, subsystem)).toEqual([tlsPsk(key, host, subsystem, 1), tlsPsk(key, host, subsystem, 0)]);
    // RFC 8446, 7.1: the context of HkdfLabel has up to 255 bytes, and here it is the identity
    const long = `nqn.${'s'.repeat(96)}`;
    const longest = 'h'.repeat(255 - `NVMe0R01  ${long}`.length);
    const versions = (hostnqn: string) => keptPsks(key, hostnqn, long).map(({ identity }) => identity.slice(0, 5));
    expect([versions(longest), versions(`${longest}h`)]).toEqual([['NVMe1', 'NVMe0'], ['NVMe1']]);
    expect(pskOf(`NVMe0R01 ${longest} ${long}`, [key])).toBeDefined();
    expect(pskOf(`NVMe0R01 ${longest}h ${long}`, [key])).toBeUndefined();
  });

  test('a key without a hash is the retained PSK, and its length chooses the cipher', () => {
    expect(tlsPsk({ hash: 0, bytes: psk48 }, host, subsystem).identity).toMatch(/^NVMe1R02 /);
    expect(tlsPsk({ hash: 0, bytes: psk32 }, host, subsystem).identity).toMatch(/^NVMe1R01 /);
  });

  test('an identity of another key, host or version has no PSK', () => {
    const keys = [parseTlsKey(Buffer.from(published.sha256))];
    const { identity } = tlsPsk(keys[0]!, host, subsystem);
    expect(pskOf(identity, keys)).toBeDefined();
    for (const other of [
      identity.replace('test-host', 'test-hosT'),
      identity.replace('NVMe1', 'NVMe0'),
      identity.replace('R01', 'R02'),
      identity.replace('R01', 'R03'),
      identity.replace('iSb', 'iSB'),
      `${identity} `,
      `${identity}\0`,
      identity.replace(/ [^ ]*$/, ''),
      `NVMe0R01 ${'h'.repeat(224)} ${subsystem}`,
      '',
    ])
      expect(pskOf(other, keys)).toBeUndefined();
  });
});

describe('DH-HMAC-CHAP keys', () => {
  // of the manual page of nvme gen-kxchap-secret
  const published = 'DHHC-1:00:ia6zGodOr4SEG0Zzaw398rpY0wqipUWj4jWjUh4HWUz6aQ2n:';

  test('the published secret is one', () => {
    const key = parseChapKey(Buffer.from(published));
    expect(key.hash).toBe(0);
    expect(key.bytes).toHaveLength(32);
    expect(formatChapKey(key)).toBe(published);
  });

  test('every length and hash comes back', () => {
    for (const size of [32, 48, 64])
      for (let hash = 0; hash <= 3; hash++) {
        const key = { hash, bytes: randomBytes(size) };
        expect(parseChapKey(Buffer.from(formatChapKey(key)))).toEqual(key);
      }
  });

  test('transformation', () => {
    const bytes = Buffer.from(part1, 'hex');
    expect(transformedKey({ hash: 0, bytes }, host)).toEqual(bytes);
    for (const [hash, name] of [
      [1, 'sha256'],
      [2, 'sha384'],
      [3, 'sha512'],
    ] as const)
      expect(transformedKey({ hash, bytes }, host)).toEqual(createHmac(name, bytes).update(`${host}NVMe-over-Fabrics`).digest());
  });

  // what `nvme gen-dhchap-key --secret HEX --hmac N --nqn nqn.psk-test-host` of nvme-cli 2.16 prints
  test.each([
    [1, part1, '90WR+faTu56Irm7wBhqqFpgGtTS9wPq4KziON4skLgpjUHdc'],
    [2, psk48.toString('hex'), 'ObSGkprKpncz8Qr0i1YuMGatMkLi/w735laLxM3j8SXSWFrT/RhdIPXXCAO50X+QpXFA6Q=='],
    [3, part1 + part1, 'bxuZ2SoHb30FfrAWlwy3zRI0CHLzCH331VfVublhfoUEXgsiKMR3/R7LrsDzSxOf5EuR+caPVze35EU5u2NZ0FaPaSc='],
  ])('hash %d: the transformation of nvme-cli', (hash, hex, text) => {
    const key = { hash, bytes: Buffer.from(hex, 'hex') };
    expect(formatChapKey({ hash, bytes: transformedKey(key, host) })).toBe(`DHHC-1:0${hash}:${text}:`);
  });

  test('every changed character is an error, and no error shows the key', () => {
    const text = Buffer.from(formatChapKey({ hash: 1, bytes: randomBytes(48) }));
    const secret = text.toString().split(':')[2]!;
    const spoilt: Buffer[] = [];
    for (let at = 0; at < text.length; at++) {
      if (at === 8) continue; // another hash
      for (const byte of [0, 0x20, 0x3a, 0x3d, 0x41, 0x7f, 0xff, text[at]! ^ 1]) {
        const one = Buffer.from(text);
        one[at] = byte;
        if (!one.equals(text)) spoilt.push(one);
      }
      spoilt.push(text.subarray(0, at), Buffer.concat([text.subarray(0, at), text.subarray(at + 1)]));
    }
    spoilt.push(
      Buffer.concat([text, text]),
      Buffer.alloc(0),
      Buffer.from('DHHC-1:04:AAAA:'),
      Buffer.from('DHHC-1:00::'),
      Buffer.from(published.replace('DHHC', 'dhhc')),
    );
    for (const one of spoilt) {
      let caught: unknown;
      try {
        parseChapKey(one);
      } catch (err) {
        caught = err;
      }
      if (!(caught instanceof VioError)) throw new Error(`taken: ${JSON.stringify(one.toString('latin1'))}`);
      expect(caught.code).toBe('BAD_KEY');
      expect(caught.message).not.toContain(secret.slice(0, 6));
    }
  });
});
