/** A reload: what it leaves alone, what it changes, and that it ends where a fresh start would. */
import { type ChildProcess, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import fc from 'fast-check';
import { native } from '../../../../src/native/index.js';
import { formatChapKey, formatTlsKey } from '../../../../src/nvme/auth/keys.js';
import type { ConfigFile, NamespaceEntry, SubsystemEntry } from '../../../../src/nvme/target/config/description.js';
import { parseConfig } from '../../../../src/nvme/target/config/read.js';
import type { TargetConfig } from '../../../../src/nvme/target/serve/config.js';
import { type Running, serve } from '../../../../src/nvme/target/serve/serve.js';
import { bindSocket } from '../../../../src/nvme/target/sockets.js';
import { openSourceLater } from '../../../../src/storage/open.js';

let dir: string;
const files = ['a', 'b', 'c', 'd'];
beforeAll(() => {
  dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-load-'));
  for (const name of files) fs.writeFileSync(path.join(dir, name), Buffer.alloc(64 << 10));
  for (const name of ['chap1', 'chap2', 'chap3'] as const) writeKey(name);
  writeKey('tls1');
});
afterAll(() => fs.rmSync(dir, { recursive: true }));

/** Writes a new key into a file. @returns its bytes */
function writeKey(name: string): Buffer {
  const key = { hash: 1, bytes: randomBytes(32) };
  fs.writeFileSync(path.join(dir, name), (name.startsWith('tls') ? formatTlsKey : formatChapKey)(key), { mode: 0o600 });
  return key.bytes;
}

const parse = (file: object): Promise<TargetConfig> => parseConfig({ text: JSON.stringify(file), name: 'c.json', folder: dir });
const running = new Set<Running>();
afterEach(async () => {
  for (const one of running) await one.stop();
  running.clear();
});
async function start(file: object): Promise<Running> {
  const one = await serve(native().nvme, { engine: 'sync', ...(await parse(file)) }, () => {});
  running.add(one);
  return one;
}
async function stop(one: Running): Promise<void> {
  running.delete(one);
  await one.stop();
}
const load = async (to: Running, file: object, dryRun = false) => to.configuration.load(await parse(file), { dryRun });

/** What hosts can see: not only what save() says. */
const seen = ({ target }: Running) => ({
  listeners: target.listeners
    .map(({ address, discoveryOnly, advertise }) => `${address} ${discoveryOnly} ${JSON.stringify(advertise)}`)
    .sort(),
  referrals: [...target.referrals],
  limits: { ...target.limits },
  hostLimits: [...target.hostLimits].sort(),
  tls: target.listeners.map(({ address, tls }) => `${address} ${tls}`).sort(),
  policy: target.chapPolicy,
  // in hexadecimal: a target wipes them when it stops
  keys: [nqn('h1'), nqn('h2')].map((host) =>
    [target.keys.chapKeys(host)?.host, ...target.keys.tlsKeys(host)].map((key) => key?.bytes.toString('hex')),
  ),
  subsystems: [...target.subsystems.values()]
    .map((one) => ({
      nqn: one.nqn,
      serial: one.serial,
      model: one.model,
      cntlids: one.cntlids,
      any: one.access.any,
      hosts: [...one.access.hosts].sort(),
      ana: target.listeners.map(({ id, address }) => [address, ...[1, 2, 3].map((group) => one.ana.stateOf(group, id))].join(' ')).sort(),
      namespaces: [...one.namespaces.values()]
        .map(({ nsid, source, group, readonly, blockSize, size, hosts, ids, store }) => ({
          ...{ nsid, source, group, readonly, blockSize, size, hosts: hosts && [...hosts].sort() },
          uuid: ids.uuid.toString('hex'),
          iops: native().storage.limits(store).iops,
        }))
        .sort((x, y) => x.nsid - y.nsid),
    }))
    .sort((x, y) => (x.nqn < y.nqn ? -1 : 1)),
});

const nqn = (name: string) => `nqn.2014-08.org.example:${name}`;
const base: ConfigFile = {
  listen: ['127.0.0.1:0'],
  subsystems: [
    {
      nqn: nqn('x'),
      allowHosts: [nqn('h1')],
      namespaces: [
        { nsid: 1, source: 'a' },
        { nsid: 2, source: 'ram:64K' },
      ],
    },
    { nqn: nqn('y'), namespaces: [{ nsid: 1, source: 'b' }] },
  ],
};

describe('a reload', () => {
  test('of the same file does nothing', async () => {
    const target = await start(base);
    expect(await load(target, base)).toEqual({ changed: false, changes: [] });
    const defaults = { threads: 1, headerDigest: true, dataDigest: true, spinMicroseconds: 50 };
    expect(await load(target, { ...base, ...defaults })).toEqual({ changed: false, changes: [] });
  });

  test('that takes the port of a listener that goes over to another address', async () => {
    const target = await start(base);
    const [first] = target.target.listeners;
    const at = (address: string) => ({ ...base, listen: [`${address}:${first!.port}`], discoveryPort: 'none' });
    await load(target, at('127.0.0.1'));
    await load(target, at('0.0.0.0')); // the kernel refuses the one while the other is there
    expect(target.target.listeners.map(({ address, port }) => [address, port])).toEqual([['0.0.0.0', first!.port]]);
    await load(target, at('127.0.0.1'));
    expect(target.target.listeners.map(({ address }) => address)).toEqual(['127.0.0.1']);
  });

  test('takes nothing away for a source that somebody else has locked', async () => {
    const target = await start(base);
    const kept = target.target.subsystems.get(nqn('y'))!.namespaces.get(1);
    const other = await openSourceLater({ source: path.join(dir, 'c') });
    try {
      const wanted = { ...base, subsystems: [base.subsystems[0], { nqn: nqn('y'), namespaces: [{ nsid: 1, source: 'c' }] }] };
      await expect(load(target, wanted)).rejects.toMatchObject({ code: 'IN_USE' });
      expect(target.target.subsystems.get(nqn('y'))!.namespaces.get(1)).toBe(kept);
    } finally {
      native().storage.close(other.store);
    }
  });

  test('gets at no more through a source that is served than the server was told', async () => {
    const file = (readOnly: boolean) => ({
      ...base,
      sources: ['ram:*'],
      subsystems: [{ nqn: nqn('x'), namespaces: [{ nsid: 1, source: 'a', readOnly }] }],
    });
    const target = await start(file(true));
    expect(await load(target, file(true))).toMatchObject({ changed: false });
    await expect(load(target, file(false))).rejects.toMatchObject({ code: 'NOT_ALLOWED', exit: 3 });
  });

  test('takes keys in, changes them, and lets hosts in without them again', async () => {
    const target = await start(base);
    const { keys } = target.target;
    expect([keys.chap, keys.tls, target.target.listeners[0]!.tls]).toEqual([false, false, undefined]);
    const both = { ...base, keys: [{ host: nqn('h1'), dhchapSecretFile: 'chap1', tlsKeyFile: 'tls1' }], dhchapHashes: ['sha384'] };
    const told = await load(target, both);
    expect(told.changes).toEqual([
      `use the new keys of host ${nqn('h1')}`,
      'use other hash functions or groups for DH-HMAC-CHAP',
      'TLS required for new connections',
    ]);
    expect([keys.chap, keys.tls, target.target.listeners[0]!.tls, target.target.chapPolicy?.hashes]).toEqual([true, true, 'require', [2]]);
    expect(await load(target, both)).toEqual({ changed: false, changes: [] });
    // a file that says nothing of keys does not let everybody in
    expect(await load(target, base)).toEqual({ changed: false, changes: [] });
    expect(target.configuration.save()).toMatchObject({ keys: [{ host: nqn('h1') }], dhchapHashes: ['sha384'] });
    const fresh = writeKey('chap1');
    expect((await load(target, both)).changes).toEqual([`use the new keys of host ${nqn('h1')}`]);
    expect(keys.chapKeys(nqn('h1'))!.host.bytes).toEqual(fresh);
    const none = { ...base, keys: [] };
    expect((await load(target, none)).changes).toEqual([`use the new keys of host ${nqn('h1')}`, 'TLS off for new connections']);
    expect([keys.chap, keys.tls, target.target.listeners[0]!.tls]).toEqual([false, false, undefined]);
  });

  test('with keys that cannot be used changes nothing', async () => {
    const chap = { host: nqn('h1'), dhchapSecretFile: 'chap1' };
    const target = await start({ ...base, keys: [chap] });
    const before = target.target.keys.chapKeys(nqn('h1'))!.host.bytes;
    const copy = Buffer.from(before);
    writeKey('chap1');
    const other = { ...base.subsystems[1]!, namespaces: [{ nsid: 7, source: 'd' }] };
    const wrong: [Partial<ConfigFile>, RegExp][] = [
      [{ keys: [chap, { host: nqn('h2'), dhchapSecretFile: 'missing' }] }, /ENOENT|no such file/],
      [{ keys: [{ ...chap, dhchapCtrlSecretFile: 'chap1' }] }, /must not have the same key/],
      [{ keys: [{ host: nqn('h2'), dhchapSecretFile: 'fd:0' }] }, /cannot come from fd:0 while the target runs/],
      [{ tls: 'allow' }, /without a key/],
      [{ keys: [chap], listen: ['127.0.0.1:0,tls=require'] }, /without a key/],
      // keys are right, and a source is missing
      [{ keys: [chap], subsystems: [{ ...other, namespaces: [{ nsid: 7, source: 'missing' }] }] }, /missing/],
    ];
    for (const [change, why] of wrong) await expect(load(target, { ...base, subsystems: [other], ...change })).rejects.toThrow(why);
    expect(target.target.keys.chapKeys(nqn('h1'))!.host.bytes).toBe(before);
    expect(before).toEqual(copy);
    expect(target.target.subsystems.get(nqn('y'))!.namespaces.has(7)).toBe(false);
  });

  test('over the control socket names only files of keys that the list of sources allows', async () => {
    const sources = ['ram:*', path.join(dir, '[a-d]'), path.join(dir, 'chap[12]')];
    const file = (name: string) => ({ ...base, sources, keys: [{ host: nqn('h1'), dhchapSecretFile: name }] });
    const target = await start(file('chap3'));
    expect(await load(target, file('chap3'))).toMatchObject({ changed: false }); // the server's own
    await load(target, file('chap2'));
    await expect(load(target, file('chap3'))).rejects.toMatchObject({ code: 'NOT_ALLOWED', exit: 3 });
  });

  /** A process that has a descriptor too, as a service manager keeps one; over when the test is. */
  const keepers: ChildProcess[] = [];
  const keep = (fd: number): void => void keepers.push(spawn('sleep', ['600'], { stdio: ['ignore', 'ignore', 'ignore', fd] }));
  afterEach(() => {
    for (const one of keepers.splice(0)) one.kill('SIGKILL');
  });
  /** Whether an epoll of this process has the socket. */
  const polled = (inode: string): boolean =>
    fs.readdirSync('/proc/self/fdinfo').some((fd) => {
      try {
        return new RegExp(`tfd:.* ino:${inode} `).test(fs.readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8'));
      } catch {
        return false; // closed since
      }
    });
  const inodeOf = (fd: number): string => Number(/\d+/.exec(fs.readlinkSync(`/proc/self/fd/${fd}`))![0]).toString(16);

  test('moves a listener that a service manager keeps to another address of its port', async () => {
    const target = await start({ ...base, discoveryPort: 'none' });
    const { port, socket } = target.target.listeners[0]!;
    const at = (address: string) => ({ ...base, listen: [`${address}:${port}`], discoveryPort: 'none' });
    await load(target, at('127.0.0.1'));
    const inode = inodeOf(socket.fd);
    keep(socket.fd);
    expect(polled(inode)).toBe(true);
    await load(target, at('0.0.0.0'));
    expect(polled(inode)).toBe(false);
    expect(target.target.listeners.map(({ address }) => address)).toEqual(['0.0.0.0']);
  });

  test('tells hosts another address without a new socket', async () => {
    const target = await start({ ...base, discoveryPort: 'none' });
    const listener = target.target.listeners[0]!;
    const place = `127.0.0.1:${listener.port}`;
    await load(target, { ...base, listen: [place], discoveryPort: 'none' });
    const wanted = { ...base, listen: [`${place},advertise=192.0.2.1:4420`], discoveryPort: 'none' };
    expect((await load(target, wanted)).changes).toEqual([`tell hosts 192.0.2.1:4420 for ${place}`]);
    expect(target.target.listeners).toEqual([listener]);
    expect(listener.advertise).toEqual({ address: '192.0.2.1', port: 4420 });
    expect((await load(target, wanted)).changed).toBe(false);
  });

  test('leaves sockets alone that a service manager has opened, and ends kept ones that nobody wants', async () => {
    const [opened, kept] = [bindSocket('127.0.0.1', 0), bindSocket('127.0.0.1', 0)];
    keep(opened.fd.fd);
    keep(kept.fd.fd);
    const given = [
      { ...{ address: '127.0.0.1', port: opened.port, name: 'vioctl-nvmf.socket', kept: false }, socket: { ...opened, activated: true } },
      { ...{ address: '127.0.0.1', port: kept.port, name: 'vioctl-listen-x', kept: true }, socket: kept },
    ];
    const config = await parse({ ...base, discoveryPort: 'none' });
    const target = await serve(native().nvme, { engine: 'sync', ...config }, () => {}, { given });
    running.add(target);
    bindSocket('127.0.0.1', kept.port).fd.close();
    expect((await load(target, { ...base, discoveryPort: 'none' })).changed).toBe(false);
    const listener = target.target.listeners.find(({ port }) => port === opened.port)!;
    const inode = inodeOf(listener.socket.fd);
    await target.target.unlisten(listener);
    expect(polled(inode)).toBe(false);
    expect(() => bindSocket('127.0.0.1', opened.port)).toThrow(expect.objectContaining({ code: 'EADDRINUSE' }));
  });

  test('leaves alone what stays, and changes in place what can change there', async () => {
    const target = await start(base);
    const [x, y] = [...target.target.subsystems.values()];
    const [one, two] = [x!.namespaces.get(1)!, x!.namespaces.get(2)!];
    const listener = target.target.listeners[0];
    const { changes } = await load(target, {
      ...base,
      maxControllers: 7,
      referrals: [{ address: '192.0.2.1', port: 8009 }],
      listen: ['127.0.0.1:0', '127.0.0.2:0'],
      subsystems: [
        {
          ...base.subsystems[0],
          allowHosts: [nqn('h2')],
          ana: [{ group: 1, state: 'non-optimized' }],
          namespaces: [
            { nsid: 1, source: 'a', iops: 100, hosts: [nqn('h2')] },
            { nsid: 2, source: 'ram:64K' },
            { nsid: 3, source: 'c' },
          ],
        },
        { nqn: nqn('z'), namespaces: [] },
      ],
    });
    expect(changes).toEqual([
      'listen on 127.0.0.2:0',
      `remove subsystem ${nqn('y')}`,
      `show namespace 1 of ${nqn('x')} to ${nqn('h2')}`,
      expect.stringMatching(/^limit namespace 1 to iops=100/),
      `add ${dir}/c as namespace 3 of ${nqn('x')}`,
      `let ${nqn('h2')} use ${nqn('x')}`,
      `no longer let ${nqn('h1')} use ${nqn('x')}`,
      `add subsystem ${nqn('z')}`,
      `set ANA states of ${nqn('x')}`,
      'limit the target to controllers=7',
      'refer hosts to 192.0.2.1:8009',
    ]);
    expect(target.target.subsystems.get(nqn('x'))).toBe(x);
    expect([x!.namespaces.get(1), x!.namespaces.get(2)]).toEqual([one, two]);
    expect(x!.namespaces.get(1)).toBe(one);
    expect(target.target.subsystems.get(nqn('y'))).not.toBe(y);
    expect(target.target.listeners[0]).toBe(listener);
  });

  test('that cannot be done changes nothing, and leaves nothing open', async () => {
    const target = await start(base);
    const before = [seen(target), target.configuration.save()];
    const open = () => fs.readdirSync('/proc/self/fd').length;
    const descriptors = open();
    const cases: [object, object][] = [
      [{ ...base, subsystems: [{ nqn: nqn('z'), namespaces: [{ source: 'c' }, { source: 'none' }] }] }, { code: 'ENOENT' }],
      [{ ...base, listen: ['127.0.0.1:0', '192.0.2.77:1'] }, { code: 'EADDRNOTAVAIL' }],
      [{ ...base, listen: ['127.0.0.2:0', 'no.such.host.invalid:1'] }, { message: expect.stringContaining('no.such.host.invalid') }],
      [
        { ...base, threads: 3 },
        { exit: 3, message: expect.stringContaining('threads cannot change') },
      ],
      [{ ...base, control: '/x' }, { exit: 3 }],
      [{ ...base, sources: ['**'] }, { exit: 3 }],
      [{ ...base, subsystems: [{ nqn: nqn('z'), namespaces: [{ source: 'c' }, { source: 'c' }] }] }, { exit: 3 }],
      [
        {
          ...base,
          subsystems: [{ nqn: nqn('z'), ana: [{ group: 1, state: 'change', listener: '127.0.0.9:9' }], namespaces: [] }],
          listen: ['127.0.0.2:9'],
        },
        {},
      ],
    ];
    for (const [file, error] of cases) {
      await expect(load(target, file)).rejects.toMatchObject(error);
      expect([seen(target), target.configuration.save()]).toEqual(before);
    }
    expect(open()).toBe(descriptors);
  });

  test('of a file that another process takes meanwhile goes back to what was', async () => {
    const target = await start(base);
    const before = [seen(target), target.configuration.save()];
    const real = native().storage.claim.bind(native().storage);
    const spy = jest.spyOn(native().storage, 'claim').mockImplementationOnce(() => {
      throw Object.assign(new Error('io'), { code: 'EIO', errno: -5, syscall: 'lock' });
    });
    // the file is locked by the namespace that goes: the new one waits for it
    const wanted = { ...base, subsystems: [{ ...base.subsystems[0]!, namespaces: [{ nsid: 1, source: 'a', blockSize: 4096 }] }] };
    await expect(load(target, wanted)).rejects.toMatchObject({ message: expect.stringContaining('EIO') });
    spy.mockImplementation(real);
    expect([seen(target), target.configuration.save()]).toEqual(before);
    spy.mockRestore();
    expect(await load(target, wanted)).toMatchObject({ changed: true });
    expect(target.target.subsystems.get(nqn('x'))!.namespaces.get(1)!.blockSize).toBe(4096);
  });

  test('waits once for the sources of all that it removes', async () => {
    const namespaces = files.map((source) => ({ source }));
    const target = await start({ ...base, subsystems: [{ nqn: nqn('x'), namespaces }] });
    const waits = jest.spyOn(native().storage, 'farewells');
    try {
      await load(target, { ...base, subsystems: [{ nqn: nqn('x'), namespaces: [] }] });
      expect(waits).toHaveBeenCalledTimes(1);
    } finally {
      waits.mockRestore();
    }
  });

  test('with --check finds the same and does nothing; two at a time come one after the other', async () => {
    const target = await start(base);
    const other = { ...base, subsystems: base.subsystems.slice(1) };
    const before = seen(target);
    const dry = await load(target, other, true);
    expect(dry).toEqual({ changed: false, dryRun: true, changes: [`remove subsystem ${nqn('x')}`] });
    expect(seen(target)).toEqual(before);
    const [one, two] = await Promise.all([load(target, other), load(target, base)]);
    expect([one.changed, two.changed]).toEqual([true, true]);
    expect(seen(target)).toEqual(before);
  });

  test('of a namespace that moves to another number or subsystem, or changes its options, takes its file along', async () => {
    const target = await start(base);
    const moved = {
      ...base,
      subsystems: [
        { nqn: nqn('x'), namespaces: [{ nsid: 9, source: 'b' }] },
        { nqn: nqn('y'), namespaces: [{ nsid: 1, source: 'a', readOnly: true, blockSize: 4096 }] },
      ],
    };
    await load(target, moved);
    const after = seen(target);
    await stop(target);
    expect(after).toEqual(seen(await start(moved)));
  });
});

describe('random configurations', () => {
  const host = fc.constantFrom(nqn('h1'), nqn('h2'), nqn('h3'));
  const state = fc.constantFrom('optimized', 'non-optimized', 'inaccessible', 'persistent-loss') as fc.Arbitrary<'optimized'>;
  const hosts = fc.uniqueArray(host, { maxLength: 2 });
  const optional = <T>(value: fc.Arbitrary<T>) => fc.option(value, { nil: undefined });
  const namespace = fc.record(
    {
      nsid: fc.integer({ min: 1, max: 4 }),
      source: fc.constantFrom('ram:64K', 'ram:128K', ...files),
      readOnly: fc.boolean(),
      blockSize: fc.constantFrom(512, 4096),
      group: fc.integer({ min: 1, max: 3 }),
      iops: fc.integer({ min: 1, max: 1000 }),
      hosts,
      uuid: fc.uuid(),
    },
    { requiredKeys: ['nsid', 'source'] },
  );
  const subsystem = fc.record(
    {
      nqn: fc.constantFrom(nqn('x'), nqn('y'), nqn('z')),
      serial: fc.constantFrom('S1', 'S2'),
      cntlids: fc.constantFrom('1-100', '101-200'),
      allowHosts: hosts,
      anyHost: fc.boolean(),
      ana: fc.uniqueArray(fc.record({ group: fc.integer({ min: 1, max: 3 }), state }), { selector: ({ group }) => group, maxLength: 3 }),
      namespaces: fc.uniqueArray(namespace, { selector: ({ nsid }) => nsid, maxLength: 4 }),
    },
    { requiredKeys: ['nqn', 'namespaces'] },
  );
  const key = fc.record(
    {
      host: fc.constantFrom(nqn('h1'), nqn('h2'), undefined),
      dhchapSecretFile: fc.constantFrom('chap1', 'chap2'),
      tlsKeyFile: fc.constant('tls1'),
    },
    { requiredKeys: [] },
  );
  const config = fc
    .record({
      listen: fc.uniqueArray(fc.constantFrom('127.0.0.1:0', '127.0.0.2:0', '127.0.0.3:0,advertise=192.0.2.1:1', '127.0.0.4:0,tls=off'), {
        minLength: 1,
      }),
      referrals: fc.uniqueArray(fc.constantFrom({ address: '192.0.2.1', port: 8009 }, { address: '192.0.2.2', port: 1, nqn: nqn('d') }), {
        selector: ({ port }) => port,
      }),
      maxQueues: optional(fc.integer({ min: 1, max: 64 })),
      hostLimits: fc.uniqueArray(fc.record({ host, queues: fc.integer({ min: 1, max: 64 }) }), {
        selector: (one) => one.host,
        maxLength: 2,
      }),
      // said in each of them: what a file leaves out of these stays
      ...{ keys: fc.uniqueArray(key, { selector: (one) => one.host, maxLength: 2 }), tls: fc.constantFrom('off', 'allow', 'require') },
      ...{ dhchapHashes: fc.constantFrom(['sha256'], ['sha512', 'sha256']), dhchapGroups: fc.constantFrom(['null'], ['ffdhe2048']) },
      subsystems: fc.uniqueArray(subsystem, { selector: (one) => one.nqn, maxLength: 3 }),
    })
    .map((file) => ({ ...file, tls: file.keys.some(({ tlsKeyFile }) => tlsKeyFile) ? file.tls : 'off' }))
    .map((file) => onlyOnce(JSON.parse(JSON.stringify(file)) as ConfigFile));

  /** A file and a UUID are served once: a second namespace of it would be refused. */
  function onlyOnce(file: ConfigFile): ConfigFile {
    const taken = new Set<string>();
    const free = ({ source }: NamespaceEntry) => source.startsWith('ram:') || (!taken.has(source) && taken.add(source));
    return { ...file, subsystems: file.subsystems.map((one: SubsystemEntry) => ({ ...one, namespaces: one.namespaces.filter(free) })) };
  }

  test('a reload ends where a fresh start would, and save and load are a fixed point', async () => {
    await fc.assert(
      fc.asyncProperty(config, config, async (from, to) => {
        const target = await start(from);
        const stays = new Map([...target.target.subsystems.values()].map((one) => [one.nqn, one]));
        const check = await load(target, to, true);
        const { changes } = await load(target, to);
        expect(changes).toEqual(check.changes);
        for (const [name, one] of stays) {
          const replaced = changes.some((line) => /^(remove|replace) subsystem /.test(line) && line.endsWith(name));
          expect(target.target.subsystems.get(name) === one).toBe(!replaced);
        }
        expect(await load(target, to)).toEqual({ changed: false, changes: [] });
        const saved = target.configuration.save();
        const again = await load(target, saved);
        expect(again).toEqual({ changed: false, changes: [] });
        expect(target.configuration.save()).toEqual(saved);
        const after = seen(target);
        await stop(target);
        const fresh = await start(to);
        expect(after).toEqual(seen(fresh));
        await stop(fresh);
        const restored = await start(saved);
        expect(after).toEqual(seen(restored));
        expect(restored.configuration.save()).toEqual(saved);
        await stop(restored);
      }),
      { numRuns: 40 },
    );
  });
});
