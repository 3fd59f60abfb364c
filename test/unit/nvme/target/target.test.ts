import { Sysroot } from '../../../../src/common/sysroot.js';
import { parseConnect } from '../../../../src/nvme/target/admission/connect.js';
import { roundKeepAlive } from '../../../../src/nvme/target/controller.js';
import { discoveryLog } from '../../../../src/nvme/target/discovery.js';
import { namespaceIds, serialOf, uuidText } from '../../../../src/nvme/target/identity.js';
import { parseCntlidRange, validNqn } from '../../../../src/nvme/target/names.js';
import { Refusal } from '../../../../src/nvme/target/refusal.js';
import { defaultNqn, parseSource } from '../../../../src/nvme/target/serve/config.js';
import { addressesOf, parseAddress } from '../../../../src/nvme/target/serve/listen.js';
import { controlRequest } from '../../../../src/nvme/target/serve/verbs.js';
import { connectCmd, connectData, discoveryHeader, discoveryRecord, sqe } from '../../../../src/nvme/wire/index.js';

describe('what the command line says', () => {
  test.each([
    ['127.0.0.1:4421', '127.0.0.1', 4421],
    ['0.0.0.0', '0.0.0.0', 4420],
    [':0', '127.0.0.1', 0],
    ['[::1]:8009', '::1', 8009],
    ['[::]', '::', 4420],
    ['localhost:0', 'localhost', 0],
    ['storage-1.example.org', 'storage-1.example.org', 4420],
    ['[fe80::7%lo]:0', 'fe80::7%lo', 0],
  ])('address %s', (text, address, port) => {
    expect(parseAddress(text)).toEqual({ address, port });
  });
  test.each([
    '::1',
    '1.2.3.4:70000',
    '1.2.3',
    '1.2.3.4.5',
    '[zz]:1',
    '[localhost]:1',
    '1.2.3.4:x',
    'a b',
    '-x',
    'a..b',
    '[::1',
    '[fe80::1%]:1',
  ])('no address: "%s"', (text) => {
    expect(() => parseAddress(text)).toThrow(/not an address/);
  });
  test('a name has its addresses, IPv4 first; one that nobody has is named', async () => {
    expect((await addressesOf({ address: 'localhost', port: 1 }))[0]).toBe('127.0.0.1');
    await expect(addressesOf({ address: 'no-such-host.invalid', port: 1 })).rejects.toThrow(/no-such-host\.invalid/);
  });
  test.each([
    ['1-99', [1, 99]],
    ['65519-65519', [65519, 65519]],
  ])('controller IDs %s', (text, range) => expect(parseCntlidRange(text)).toEqual(range));
  test.each(['0-5', '5-1', '1-65520', '1-70000', 'x', '7', '1-', '-1', '1-2-3', ' 1-2', '1.5-2'])('no controller IDs: "%s"', (text) =>
    expect(() => parseCntlidRange(text)).toThrow(expect.objectContaining({ exit: 2 })),
  );
  test.each([
    'nqn.2014-08.org.nvmexpress:uuid:a1111111-2222-3333-4444-555555555555',
    'nqn.2014-08.org.nvmexpress.discovery',
    'nqn.2014-08.com.example.a:b:c*',
    'nqn.2019-12.local:Platte 1 ü',
    `nqn.2014-08.org.example:${'x'.repeat(199)}`,
  ])('an NQN: %s', (name) => expect([Buffer.byteLength(name) <= 223, validNqn(name)]).toEqual([true, true]));
  test.each([
    '',
    '*',
    'nqn.',
    'not an nqn',
    'nqn.2014-13.org.example',
    'nqn.2014-08.org..example',
    'nqn.2014-08.org.example:',
    'nqn.2014-08.',
    'nqn.2014-8.org.example',
    'NQN.2014-08.org.example',
    'iqn.2014-08.org.example:x',
    ' nqn.2014-08.org.example:x',
    'nqn.2014-08.org.example:a\nb',
    `nqn.2014-08.org.example:${'x'.repeat(200)}`,
    `nqn.2014-08.org.example:${'ü'.repeat(100)}`,
  ])('no NQN: "%s"', (name) => expect(validNqn(name)).toBe(false));
  test.each([
    ['/a/b.img', { source: '/a/b.img' }],
    ['/a/b,ro', { source: '/a/b', readonly: true }],
    ['/a,b/c,bs=4096,nsid=3,group=2', { source: '/a,b/c', blockSize: 4096, nsid: 3, group: 2 }],
    ['ram:1M,ro', { source: 'ram:1048576', readonly: true }],
    ['/a/b,weird=1', { source: '/a/b,weird=1' }],
  ])('source %s', (text, options) => {
    expect(parseSource(text)).toEqual(options);
  });
  test('requests of nvmf ctl', () => {
    const flags = { timeout: 1 };
    expect(controlRequest('remove', ['3'], { ...flags, nqn: 'x' })).toEqual({ op: 'remove', nqn: 'x', nsid: 3 });
    expect(controlRequest('ana', ['2', 'change'], flags)).toEqual({ op: 'ana', group: 2, state: 'change' });
    for (const [action, operands] of [
      ['resize', []],
      ['resize', ['x']],
      ['add', []],
      ['list', ['x']],
      ['kick', []],
      ['remove', []],
      ['ana', ['1']],
    ] as const)
      expect(() => controlRequest(action, operands, flags)).toThrow(expect.objectContaining({ exit: 2 }));
  });
});

describe('identity', () => {
  test('differs by path, is the same for the same path, and is marked as local', () => {
    const [a, b] = [namespaceIds('/a.img'), namespaceIds('/b.img')];
    expect(namespaceIds('/a.img')).toEqual(a);
    expect(a.nguid.equals(b.nguid) || a.eui64.equals(b.eui64) || a.uuid.equals(b.uuid)).toBe(false);
    for (const { nguid, eui64, uuid } of [a, b]) {
      expect([eui64[0]! & 3, nguid[8]! & 3]).toEqual([2, 2]);
      expect(uuidText(uuid)).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
    }
    expect(serialOf('x')).toMatch(/^[0-9a-f]{20}$/);
  });
  test('an NQN of its own for other sources', () => {
    const root = new Sysroot('/nonexistent');
    expect(defaultNqn(root, ['/a'])).toMatch(/^nqn\.2014-08\.org\.nvmexpress:uuid:[0-9a-f-]{36}$/);
    expect(defaultNqn(root, ['/a'])).not.toBe(defaultNqn(root, ['/b']));
  });
});

describe('Connect', () => {
  const command = (fields: Parameters<typeof connectCmd.encode>[0] = {}) =>
    connectCmd.encode({ sqsize: 31, ...fields }, sqe.encode({ opcode: 0x7f, fctype: 1, psdt: 1, sglLength: 1024, sglId: 1 }));
  const data = (fields: Parameters<typeof connectData.encode>[0] = {}) =>
    connectData.encode({ hostid: Buffer.alloc(16, 1), cntlid: 0xffff, subnqn: 'nqn.s', hostnqn: 'nqn.h', ...fields });
  const refused = (cmd: Buffer, bytes: Buffer) => {
    try {
      parseConnect(cmd, bytes);
    } catch (err) {
      if (err instanceof Refusal) return [err.status & 0x3fff, err.result & 0xffff, err.result >>> 16];
      throw err;
    }
    return undefined;
  };
  test('a good one', () => {
    expect(parseConnect(command({ kato: 4001, cattr: 4 }), data())).toMatchObject({
      qid: 0,
      size: 32,
      flowControl: false,
      keepAlive: 4001,
      subnqn: 'nqn.s',
      hostnqn: 'nqn.h',
      discovery: false,
    });
  });
  test.each([
    ['a keep-alive time on an I/O queue', command({ qid: 1, kato: 10_000 }), data({ cntlid: 1 }), { qid: 1, keepAlive: 0 }],
    ['a host without a name', command(), data({ hostnqn: '' }), { hostnqn: '' }],
    [
      'a host whose name is no NQN',
      command(),
      data({ hostnqn: 'iqn.1993-08.org.example:host' }),
      { hostnqn: 'iqn.1993-08.org.example:host' },
    ],
    ['attributes that are reserved', command({ cattr: 0xf3 }), data(), { flowControl: true }],
  ])('takes %s, as other targets do', (_what, cmd, bytes, expected) => {
    expect(parseConnect(cmd, bytes)).toMatchObject(expected);
  });
  const unterminated = (offset: number) => {
    const bytes = data();
    bytes.fill(0x78, offset, offset + 256);
    return bytes;
  };
  test.each([
    ['a record format', command({ recfmt: 1 }), data(), [0x180, 0, 0]],
    ['SQSIZE 0', command({ sqsize: 0 }), data(), [0x182, 44, 0]],
    ['SQSIZE 1024', command({ sqsize: 1024 }), data(), [0x182, 44, 0]],
    ['no host identifier', command(), data({ hostid: Buffer.alloc(16) }), [0x182, 0, 1]],
    ['a static controller', command(), data({ cntlid: 1 }), [0x182, 16, 1]],
    ['a dynamic one for an I/O queue', command({ qid: 1 }), data(), [0x182, 16, 1]],
    ['no end of SUBNQN', command(), unterminated(256), [0x182, 256, 1]],
    ['no end of HOSTNQN', command(), unterminated(512), [0x182, 512, 1]],
    ['a long SUBNQN', command(), data({ subnqn: 'x'.repeat(224) }), [0x182, 256, 1]],
    ['short data', command(), data().subarray(1), [0x0f, 0, 0]],
    ['PRPs', sqe.encode({ psdt: 0 }, command()), data(), [0x02, 0, 0]],
  ])('refuses %s', (_what, cmd, bytes, expected) => {
    expect(refused(cmd, bytes)).toEqual(expected);
  });
});

test('keep-alive times are whole seconds that fit 32 bits', () => {
  expect([0, 1, 4001, 5000, 0xffff_ffff].map(roundKeepAlive)).toEqual([0, 1000, 5000, 5000, 4_294_967_000]);
});

test('the discovery log: wildcard listeners by the address that was used, of its family only', () => {
  const log = discoveryLog({
    generation: 7n,
    listeners: [
      { id: 0, address: '0.0.0.0', port: 4420, ipv6: false },
      { id: 1, address: '::', port: 4421, ipv6: true },
      { id: 2, address: '192.0.2.9', port: 8009, ipv6: false },
    ],
    subsystems: ['nqn.a'],
    referrals: [{ address: '2001:db8::1', port: 8009 }],
    via: '198.51.100.3',
  });
  const header = discoveryHeader.decode(log);
  expect(header).toMatchObject({ genctr: 7n, numrec: 5n });
  const records = Array.from({ length: 5 }, (_, i) => discoveryRecord.decode(log, 1024 * (i + 1)));
  expect(records.map((r) => [r.traddr, r.trsvcid, r.adrfam, r.subtype, r.subnqn])).toEqual([
    ['198.51.100.3', '4420', 1, 3, 'nqn.2014-08.org.nvmexpress.discovery'],
    ['198.51.100.3', '4420', 1, 2, 'nqn.a'],
    ['192.0.2.9', '8009', 1, 3, 'nqn.2014-08.org.nvmexpress.discovery'],
    ['192.0.2.9', '8009', 1, 2, 'nqn.a'],
    ['2001:db8::1', '8009', 2, 1, 'nqn.2014-08.org.nvmexpress.discovery'],
  ]);
});
