/** What `save` writes is what the target is: loaded again it changes nothing. And the end of a target while it is changed. */
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { native } from '../../../../src/native/index.js';
import type { ConfigFile } from '../../../../src/nvme/target/config/description.js';
import { parseConfig } from '../../../../src/nvme/target/config/read.js';
import type { TargetConfig } from '../../../../src/nvme/target/serve/config.js';
import { perform } from '../../../../src/nvme/target/serve/control.js';
import type { ControlRequest } from '../../../../src/nvme/target/serve/requests.js';
import { type Running, serve } from '../../../../src/nvme/target/serve/serve.js';
import { bindSocket } from '../../../../src/nvme/target/sockets.js';
import { openSourceLater } from '../../../../src/storage/open.js';

let dir: string;
const running = new Set<Running>();
beforeEach(() => {
  dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-save-'));
  for (const name of ['a', 'b']) fs.writeFileSync(path.join(dir, name), Buffer.alloc(64 << 10));
});
afterEach(async () => {
  for (const one of running) await one.stop();
  running.clear();
  fs.rmSync(dir, { recursive: true });
});

const parse = (file: object): Promise<TargetConfig> => parseConfig({ text: JSON.stringify(file), name: 'c.json', folder: dir });
async function start(file: object, options: Partial<TargetConfig> = {}): Promise<Running> {
  const one = await serve(native().nvme, { engine: 'sync', ...(await parse(file)), ...options }, () => {}, { options });
  running.add(one);
  return one;
}
const ctl = (to: Running, request: ControlRequest) => perform(request, native().nvme, to.target, to.configuration);
const load = async (to: Running, file: object, dryRun = false) => to.configuration.load(await parse(file), { dryRun });
const places = ({ target }: Running) => target.listeners.map(({ address, port, discoveryOnly }) => [address, port, discoveryOnly]);

const nqn = 'nqn.2014-08.org.example:save';
const base: ConfigFile = { listen: ['127.0.0.1:0'], subsystems: [{ nqn, namespaces: [{ nsid: 1, source: 'a' }] }] };

/** Saves, loads that into the same target, and starts a fresh one from it: both listen where the first one did. */
async function expectFixedPoint(one: Running, options: Partial<TargetConfig> = {}): Promise<void> {
  const [saved, before] = [one.configuration.save(), places(one)];
  expect(await load(one, saved, true)).toEqual({ changed: false, dryRun: true, changes: [] });
  expect(await load(one, saved)).toEqual({ changed: false, changes: [] });
  expect(one.configuration.save()).toEqual(saved);
  expect(places(one)).toEqual(before);
  const limits = { ...one.target.limits };
  await one.stop();
  running.delete(one);
  const fresh = await start(saved, options);
  const any = (saved.listen ?? []).some((text) => text.endsWith(':0'));
  if (!any) expect(places(fresh).sort()).toEqual(before.sort());
  expect(fresh.target.limits).toEqual(limits);
  expect(fresh.configuration.save()).toEqual(saved);
}

describe('save', () => {
  test('after the last listener was removed: a start from it listens nowhere', async () => {
    const one = await start(base);
    const [{ port } = { port: 0 }] = one.target.listeners;
    await ctl(one, { op: 'listener', action: 'remove', at: `127.0.0.1:${port}` });
    expect(one.target.listeners).toEqual([]);
    expect(one.configuration.save()).toMatchObject({ listen: [] });
    await expectFixedPoint(one);
  });

  test('after a listener came: discovery ports that nobody has asked for do not come with it', async () => {
    const one = await start({ ...base, discoveryPort: 0 });
    expect(one.target.listeners.length).toBe(2);
    await ctl(one, { op: 'listener', action: 'add', at: '127.0.0.2:0' });
    expect(one.target.listeners.length).toBe(3);
    await expectFixedPoint(one);
  });

  test.each(['127.8.0.11', '127.8.0.12'])(
    'after a listener came on %s: the port of discovery stays one that need not be free',
    async (at) => {
      const address = '127.8.0.11'; // of this test alone, with the port of discovery
      const { fd, port } = bindSocket(address, 0);
      fd.close();
      const one = await start({ ...base, listen: [`${address}:${port}`] });
      expect(one.target.listeners.length).toBe(2);
      await ctl(one, { op: 'listener', action: 'add', at: `${at}:0` });
      await ctl(one, { op: 'listener', action: 'add', at: `${at}:0`, discoveryOnly: true });
      const saved = one.configuration.save();
      expect(saved.listenDiscovery).toEqual([`${at}:${one.target.listeners.at(-1)!.port}`]);
      await expectFixedPoint(one);
      for (const each of running) await each.stop();
      running.clear();
      const other = bindSocket(address, 8009);
      try {
        expect((await start(saved)).target.listeners.length).toBe(3);
      } finally {
        other.fd.close();
      }
    },
  );

  test('after the listener of the discovery port was removed, and then the others', async () => {
    const one = await start({ ...base, discoveryPort: 0 });
    const { port } = one.target.listeners.find(({ discoveryOnly }) => discoveryOnly)!;
    await ctl(one, { op: 'listener', action: 'remove', at: `127.0.0.1:${port}` });
    expect((await load(one, one.configuration.save())).changes).toEqual([]);
    await ctl(one, { op: 'listener', action: 'remove', at: `127.0.0.1:${one.target.listeners[0]!.port}` });
    await expectFixedPoint(one);
  });

  test('after one address of a name was removed', async () => {
    const one = await start({ ...base, listen: [], discoveryPort: 'none' });
    // as a name with two addresses would have them
    for (const address of ['127.0.0.1', '127.0.0.2']) one.target.listen(address, 0, false, undefined, { asked: 'both.example:0' });
    const [first] = one.target.listeners;
    await ctl(one, { op: 'listener', action: 'remove', at: `127.0.0.1:${first!.port}` });
    expect(one.configuration.save().listen).toEqual([`127.0.0.2:${one.target.listeners[0]!.port}`]);
    await expectFixedPoint(one);
  });

  test('the engine of a source; changing it opens the source anew', async () => {
    const file = (engine: 'auto' | 'sync') => ({ ...base, subsystems: [{ nqn, namespaces: [{ nsid: 1, source: 'a', engine }] }] });
    const one = await start(file('sync'));
    expect(one.configuration.save().subsystems[0]!.namespaces).toEqual([{ nsid: 1, source: path.join(dir, 'a'), engine: 'sync' }]);
    expect((await load(one, file('auto'))).changes).toHaveLength(2);
    expect(one.configuration.save().subsystems[0]!.namespaces).toEqual([{ nsid: 1, source: path.join(dir, 'a') }]);
    expect((await load(one, base)).changes).toEqual([]);
    await load(one, file('sync'));
    await expectFixedPoint(one);
  });

  test('a limit that is the default again, though the command line has another one', async () => {
    const one = await start(base, { maxControllers: 7 });
    await ctl(one, { op: 'limits', target: { controllers: 512 } });
    await expectFixedPoint(one);
  });
});

describe('a listener that cannot be had at the last moment', () => {
  test('leaves the target as it was, and no socket behind', async () => {
    const one = await start({ ...base, discoveryPort: 'none' });
    const saved = one.configuration.save();
    const [b1, b2] = [bindSocket('127.0.0.1', 0), bindSocket('127.0.0.1', 0)];
    for (const { fd } of [b1, b2]) fd.close();
    const listen = one.target.listen.bind(one.target);
    let calls = 0;
    one.target.listen = (...args) => {
      if (++calls === 2) throw new Error('no descriptors');
      return listen(...args);
    };
    const wanted = {
      ...base,
      listen: ['127.0.0.1:0', `127.0.0.1:${b1.port}`, `127.0.0.1:${b2.port}`],
      subsystems: [{ nqn, namespaces: [{ nsid: 2, source: 'b' }] }],
    };
    await expect(load(one, wanted)).rejects.toThrow('no descriptors');
    expect(one.configuration.save()).toEqual(saved);
    for (const { port } of [b1, b2]) bindSocket('127.0.0.1', port).fd.close();
    native().storage.close((await openSourceLater({ source: path.join(dir, 'b') })).store);
    expect((await load(one, { ...wanted, discoveryPort: 'none' })).changed).toBe(true);
    expect(one.target.listeners.every(({ opening }) => !opening)).toBe(true);
  });
});

test('a listener that has come lets hosts in, although a step behind it failed', async () => {
  const one = await start({ ...base, discoveryPort: 'none' });
  one.target.adopt = () => {
    throw new Error('no memory');
  };
  const wanted = {
    ...{ ...base, discoveryPort: 'none', listen: [...base.listen!, '127.0.0.2:0'] },
    subsystems: [{ nqn, namespaces: [...base.subsystems[0]!.namespaces, { nsid: 2, source: 'b' }] }],
  };
  await expect(load(one, wanted)).rejects.toThrow('no memory');
  expect(one.target.listeners.map(({ address, opening }) => [address, opening])).toEqual([
    ['127.0.0.1', undefined],
    ['127.0.0.2', false],
  ]);
});

describe('a target that ends while it is changed', () => {
  const second = {
    ...base,
    subsystems: [
      {
        nqn,
        namespaces: [
          { nsid: 1, source: 'a' },
          { nsid: 2, source: 'b' },
        ],
      },
    ],
  };
  const free = async () => {
    for (const name of ['a', 'b']) native().storage.close((await openSourceLater({ source: path.join(dir, name) })).store);
  };

  test('gives back what a load has opened', async () => {
    const one = await start(base);
    const before = fs.readdirSync('/proc/self/fd').length;
    const loading = load(one, { ...second, listen: ['127.0.0.1:0', '127.0.0.1:0,advertise=192.0.2.1:1'] });
    const stopped = one.stop();
    await expect(loading).rejects.toMatchObject({ code: 'ECANCELED' });
    await stopped;
    await free();
    await expect(load(one, second)).rejects.toMatchObject({ code: 'ECANCELED' });
    expect(fs.readdirSync('/proc/self/fd').length).toBeLessThanOrEqual(before);
  });

  test('waits for a load that has begun to change it', async () => {
    const one = await start(base);
    const removed: string[] = [];
    const remove = one.target.remove.bind(one.target);
    let stopped: Promise<void> | undefined;
    one.target.remove = async (...args) => {
      stopped = one.stop().then(() => void removed.push('stopped'));
      await new Promise((resolve) => setImmediate(resolve));
      await remove(...args);
      removed.push('removed');
    };
    const loading = load(one, { ...base, subsystems: [{ nqn, namespaces: [{ nsid: 2, source: 'b' }] }] });
    await loading;
    await stopped;
    expect(removed).toEqual(['removed', 'stopped']);
    await free();
  });

  test('gives back what nvmf ctl has opened', async () => {
    const one = await start(base);
    const adding = ctl(one, { op: 'add', namespace: { source: path.join(dir, 'b') } });
    const stopped = one.stop();
    await expect(adding).rejects.toMatchObject({ code: 'ECANCELED' });
    await stopped;
    await free();
  });
});
