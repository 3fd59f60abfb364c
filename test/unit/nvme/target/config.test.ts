import fs from 'node:fs';
import path from 'node:path';
import { Ajv2020 } from 'ajv/dist/2020.js';
import { readConfigText } from '../../../../src/common/text/document.js';
import { parseConfig } from '../../../../src/nvme/target/config/read.js';

const root = path.resolve(__dirname, '../../../..');
const samples = path.join(root, 'docs/samples/nvmf');
const schema = JSON.parse(fs.readFileSync(path.join(root, 'schemas/nvmf-config.json'), 'utf8')) as Schema;

interface Schema {
  properties?: Record<string, Schema>;
  $defs: Record<string, Schema>;
  $ref?: string;
  items?: Schema;
  anyOf?: Schema[];
  type?: string;
  additionalProperties?: boolean;
}

const parse = (value: unknown, name = 'c.json') =>
  parseConfig({ text: typeof value === 'string' ? value : JSON.stringify(value), name, folder: '/base' });
const subsystem = { nqn: 'nqn.2014-08.org.example:x', namespaces: [{ source: 'disk.img' }] };
const withKey = (change: object) => ({ subsystems: [{ ...subsystem, ...change }] });
const withNamespace = (change: object) => withKey({ namespaces: [{ source: 's', ...change }] });

describe('a configuration file', () => {
  test('paths are relative to its folder, ram is not a path, numbers are given in order', async () => {
    const namespaces = [{ source: 'disk.img' }, { source: 'ram:1K', nsid: 1 }, { source: '/x' }];
    const { subsystems } = await parse({ subsystems: [{ ...subsystem, namespaces }] });
    expect(subsystems[0]!.namespaces.map(({ nsid, source }) => [nsid, source])).toEqual([
      [2, '/base/disk.img'],
      [1, 'ram:1024'],
      [3, '/x'],
    ]);
  });

  test.each<[string, unknown, RegExp]>([
    ['not JSON', '{', /c\.json: /],
    ['a list', '[]', /c\.json: not a configuration/],
    ['no subsystems', {}, /"subsystems" is missing/],
    ['an unknown key', { subsystems: [], port: 1 }, /c\.json\.port: is not known/],
    ['a key of Object', '{"subsystems":[],"constructor":1}', /c\.json\.constructor: is not known/],
    ['__proto__', '{"subsystems":[],"__proto__":{}}', /c\.json\.__proto__: is not known/],
    ['a wrong type', { subsystems: [], threads: '2' }, /threads: must be a number/],
    ['a number too large', { subsystems: [], threads: 65 }, /threads: must be a number from 1 to 64/],
    [
      'a wrong address of the discovery port',
      { subsystems: [], discoveryAddresses: ['host'] },
      /discoveryAddresses\[0\]: must be an IP address/,
    ],
    ['a wrong discovery port', { subsystems: [], discoveryPort: 70000 }, /discoveryPort: must be a port, or "none"/],
    ['a wrong engine', { subsystems: [], engine: 'aio' }, /engine: must be auto or uring or sync/],
    ['a wrong address', { subsystems: [], listen: ['127.0.0.1:99999'] }, /listen\[0\]: not an address/],
    ['an address twice', { subsystems: [], listen: [':1', ':1'] }, /listen\[1\]: .*that of \[0\]/],
    ['a pattern', { subsystems: [], sources: ['[z-a]'] }, /sources\[0\]: not a pattern/],
    ['a NUL in a path', { subsystems: [], control: 'a\0b' }, /control: must not contain a NUL/],
    ['a short NGUID', withNamespace({ nguid: '00' }), /nguid: must be 32 hexadecimal digits/],
    ['an NSID', withNamespace({ nsid: 0 }), /nsid: must be a number from 1/],
    ['a block size', withNamespace({ blockSize: 1000 }), /blockSize: must be a power of two/],
    ['a rate', withNamespace({ iops: '1/0' }), /iops: the burst is below the rate/],
    ['a size of memory', withNamespace({ source: 'ram:x' }), /namespaces\[0\]\.source: /],
    [
      'an NSID twice',
      withKey({
        namespaces: [
          { source: 'a', nsid: 2 },
          { source: 'b', nsid: 2 },
        ],
      }),
      /namespaces\[1\]: nsid 2/,
    ],
    ['an NQN twice', { subsystems: [subsystem, subsystem] }, /subsystems\[1\]: the NQN .* is that of \[0\]/],
    ['no source', withKey({ namespaces: [{}] }), /namespaces\[0\]: "source" is missing/],
    ['a name', withKey({ nqn: 'n' }), /subsystems\[0\]\.nqn: not an NQN/],
    ['a host', withKey({ allowHosts: ['*'] }), /allowHosts\[0\]: not an NQN/],
    ['a serial number', withKey({ serial: 'S'.repeat(21) }), /serial: .*at most 20/],
    ['a model', withKey({ model: 'é' }), /model: .*ASCII/],
    ['controller IDs', withKey({ cntlids: '0-1' }), /cntlids: not a range/],
    ['an ANA state', withKey({ ana: [{ group: 1, state: 'best' }] }), /ana\[0\]\.state: must be optimized or/],
    ['a group twice', withKey({ ana: [1, 1].map((group) => ({ group, state: 'change' })) }), /ana\[1\]: group 1/],
  ])('rejects %s', async (_what, value, message) => {
    await expect(parse(value)).rejects.toMatchObject({ exit: 2, message: expect.stringMatching(message) });
  });

  test.each([
    [{ subsystem: [], subsystems: [] }, 'did you mean "subsystems"?'],
    [withKey({ allowhosts: [] }), 'did you mean "allowHosts"?'],
    [withNamespace({ readonly: true }), 'did you mean "readOnly"?'],
    [{ subsystems: [], colour: 1 }, undefined],
  ])('an unknown key comes with the nearest one: %j', async (value, hint) => {
    await expect(parse(value)).rejects.toMatchObject({ message: expect.stringContaining('is not known'), hint });
  });

  test('control characters of keys and values do not reach the terminal', async () => {
    for (const value of [{ subsystems: [], '\x1b[2J': 1 }, withKey({ nqn: '\x1b[2J' })])
      await expect(parse(value)).rejects.toMatchObject({ message: expect.not.stringContaining('\x1b') });
  });

  test('YAML means what JSON means; its own types are not guessed', async () => {
    const yaml = `
threads: 4
headerDigest: false
discoveryPort: none
listen: ["[::1]:4420", 127.0.0.1:80]
subsystems:
  - nqn: nqn.2014-08.org.example:x
    serial: 0011
    namespaces:
      - {source: 1e3, nsid: 10, nguid: "00000000000000000000000000000012", iops: 1000}
`;
    const json = {
      threads: 4,
      headerDigest: false,
      discoveryPort: 'none',
      listen: ['[::1]:4420', '127.0.0.1:80'],
      subsystems: [
        {
          nqn: 'nqn.2014-08.org.example:x',
          serial: '0011',
          namespaces: [{ source: '1e3', nsid: 10, nguid: '00000000000000000000000000000012', iops: 1000 }],
        },
      ],
    };
    expect(await parse(yaml, 'c.yaml')).toEqual(await parse(json));
    expect(await parse(yaml, 'stdin')).toEqual(await parse(json));
    await expect(parse('a: [', 'c.yaml')).rejects.toMatchObject({ exit: 2, message: expect.stringMatching(/^c\.yaml:\d+:\d+: /) });
    await expect(parse('threads: two\nsubsystems: []', 'c.yml')).rejects.toThrow(/threads: must be a number/);
  });
});

describe('what is written about the file', () => {
  /** Keys of every object of the schema, by the place where it stands. */
  function keysOf(at: string, of: Schema, found: Map<string, string[]>): Map<string, string[]> {
    const one = of.$ref === undefined ? of : schema.$defs[of.$ref.split('/').at(-1)!]!;
    if (one.items) keysOf(`${at}[]`, one.items, found);
    for (const part of one.anyOf ?? []) keysOf(at, part, found);
    if (!one.properties) return found;
    found.set(at, Object.keys(one.properties));
    for (const [key, value] of Object.entries(one.properties)) keysOf(at === '' ? key : `${at}.${key}`, value, found);
    return found;
  }
  const keys = keysOf('', schema, new Map());

  test('the checks, the schema and the manual page have the same keys', async () => {
    const page = fs.readFileSync(path.join(root, 'man/vioctl-nvmf.5'), 'utf8');
    expect([...keys.keys()]).toEqual([
      '',
      'referrals[]',
      'hostLimits[]',
      'keys[]',
      'subsystems[]',
      'subsystems[].ana[]',
      'subsystems[].namespaces[]',
      'subsystems[].namespaces[].remote',
    ]);
    for (const [at, list] of keys) {
      // what the checks know, they say when they meet another key
      let value: unknown = { '?': 0 };
      for (const part of at === '' ? [] : at.split('.').reverse())
        value = { [part.replace('[]', '')]: part.endsWith('[]') ? [value] : value };
      const filled = JSON.stringify(value)
        .replace(
          /\{"\?":0\}/,
          '{"?":0,"source":"s","group":1,"state":"change","address":"a","port":1,"host":"any","nqn":"nqn.2014-08.a:n","namespaces":[],"subsystems":[]}',
        )
        .replace(/("(?:ana|namespaces)":\[\{"\?)/, '"nqn":"nqn.2014-08.a:n","namespaces":[],$1')
        .replace('"remote":', '"source":"s","remote":')
        .replace(/("(?:ana|namespaces)":\[\{"source")/, '"nqn":"nqn.2014-08.a:n","namespaces":[],$1')
        .replace(/^\{"(referrals|hostLimits|keys)"/, '{"subsystems":[],"$1"');
      const error = await parse(filled).catch((err: Error) => err.message);
      const known = / is not known; known are (.*)$/.exec(String(error))?.[1]?.split(', ');
      expect({ at, known }).toEqual({ at, known: list });
      const heading = at === '' ? 'KEYS OF THE FILE' : `KEYS OF ${at.toUpperCase()}`;
      const part = page.split('.SH ').find((one) => one.startsWith(heading));
      expect([...(part ?? '').matchAll(/^\.TP\n\.B "(.*)"$/gm)].map((match) => match[1])).toEqual(list);
    }
  });

  test('the schema knows no other keys, and accepts the samples', async () => {
    const validate = new Ajv2020({ strict: false }).compile(schema);
    expect(validate({ subsystems: [], colour: 1 })).toBe(false);
    expect(validate({ subsystems: [{ ...subsystem, namespaces: [{ source: 'x', nsid: 0 }] }] })).toBe(false);
    for (const name of fs.readdirSync(samples)) {
      const config = await parseConfig(readConfigText(path.join(samples, name)));
      expect(config.subsystems.length).toBeGreaterThan(0);
      if (name.endsWith('.json')) expect(validate(JSON.parse(fs.readFileSync(path.join(samples, name), 'utf8')))).toBe(true);
      expect(fs.readFileSync(path.join(root, 'man/vioctl-nvmf.5'), 'utf8')).toContain(`${name.replaceAll('-', '\\-')}:`);
    }
  });
});

describe("nvmetcli's config.json", () => {
  const port = (id: number, more: object = {}) => ({
    addr: { adrfam: 'ipv4', traddr: `192.0.2.${id}`, treq: 'not specified', trsvcid: '4420', trtype: 'tcp' },
    ana_groups: [
      { ana: { state: 'optimized' }, grpid: 1 },
      { ana: { state: 'non-optimized' }, grpid: 2 },
    ],
    param: { inline_data_size: '16384', pi_enable: '0' },
    portid: id,
    referrals: [],
    subsystems: ['nqn.2014-08.org.example:a'],
    ...more,
  });
  const file = {
    hosts: [{ nqn: 'nqn.2014-08.org.example:h' }],
    ports: [port(1), port(2)],
    subsystems: [
      {
        allowed_hosts: ['nqn.2014-08.org.example:h'],
        attr: {
          allow_any_host: '0',
          cntlid_max: '65519',
          cntlid_min: '1',
          ieee_oui: '0x000000',
          model: 'Linux',
          serial: 'abc123',
          version: '2.1',
        },
        namespaces: [
          {
            ana: { grpid: '2' },
            ana_grpid: 2,
            device: { nguid: 'ef90689c-6c46-d44c-89c1-4067801309a8', path: '/dev/vg0/a', uuid: '00000000-0000-0000-0000-000000000000' },
            enable: 1,
            nsid: 5,
          },
          { device: { nguid: '00000000-0000-0000-0000-000000000000', path: '/dev/vg0/b' }, enable: 0, nsid: 6 },
        ],
        nqn: 'nqn.2014-08.org.example:a',
      },
    ],
  };

  test('is read as it is', async () => {
    expect(await parse(file)).toEqual({
      listen: ['192.0.2.1:4420', '192.0.2.2:4420'],
      referrals: [],
      notes: ['namespace 6 of nqn.2014-08.org.example:a is not enabled: left out'],
      subsystems: [
        {
          nqn: 'nqn.2014-08.org.example:a',
          serial: 'abc123',
          model: 'Linux',
          cntlids: [1, 65519],
          allowHosts: ['nqn.2014-08.org.example:h'],
          ana: [{ group: 2, state: 2 }],
          namespaces: [{ nsid: 5, source: '/dev/vg0/a', group: 2, ids: { nguid: 'ef90689c6c46d44c89c14067801309a8' } }],
        },
      ],
    });
  });

  test('ANA states that differ from port to port are those of their listeners; keys are named, not copied', async () => {
    const other = port(2, { ana_groups: [{ ana: { state: 'inaccessible' }, grpid: 1 }] });
    const hosts = [
      { nqn: 'nqn.2014-08.org.example:h', dhchap: { key: 'DHHC-1:00:secret:', ctrl_key: '', hash: 'hmac(sha256)', dhgroup: 'null' } },
      { nqn: 'nqn.2014-08.org.example:i', dhchap_key: 'DHHC-1:00:other:', dhchap_ctrl_key: 'DHHC-1:00:third:' },
      { nqn: 'nqn.2014-08.org.example:j' },
    ];
    const read = await parse({ ...file, hosts, ports: [port(1), other] }, '/etc/nvmet/config.json');
    expect(read.subsystems[0]!.ana).toEqual([
      { group: 2, state: 2, listener: '192.0.2.1:4420' },
      { group: 1, state: 3, listener: '192.0.2.2:4420' },
    ]);
    expect(read.keys).toEqual([
      { nqn: 'nqn.2014-08.org.example:h', dhchapSecretFile: 'nvmet:key:/base/config.json#nqn.2014-08.org.example:h' },
      {
        nqn: 'nqn.2014-08.org.example:i',
        dhchapSecretFile: 'nvmet:key:/base/config.json#nqn.2014-08.org.example:i',
        dhchapCtrlSecretFile: 'nvmet:ctrl_key:/base/config.json#nqn.2014-08.org.example:i',
      },
    ]);
    expect(JSON.stringify(read)).not.toMatch(/secret:|other:|third:/);
    await expect(parse({ ...file, hosts }, 'stdin')).rejects.toMatchObject({
      exit: 2,
      message: expect.stringContaining('from files alone'),
    });
  });

  test('a port of another type is left out with a note; wrong values are named', async () => {
    const rdma = port(3, { addr: { trtype: 'rdma', traddr: '192.0.2.3' } });
    expect((await parse({ ...file, ports: [rdma, port(1)] })).notes).toContain('port 3 is rdma, not tcp: left out');
    await expect(parse({ ...file, ports: [rdma] })).rejects.toMatchObject({ exit: 7, message: 'c.json: no port of type tcp' });
    const wrong = { ...file, subsystems: [{ ...file.subsystems[0], namespaces: [{ nsid: 'x', enable: 1, device: { path: '/x' } }] }] };
    await expect(parse(wrong)).rejects.toMatchObject({ exit: 2, message: expect.stringContaining('namespaces[0].nsid: must be a number') });
  });
});
