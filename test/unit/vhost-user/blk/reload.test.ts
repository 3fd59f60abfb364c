/** A reload whose steps fail, and one beside other changes. */
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { VioError } from '../../../../src/common/errors.js';
import { ask } from '../../../../src/control/client.js';
import { native } from '../../../../src/native/index.js';
import type { ControlledDisk, DiskSet, WantedDisks } from '../../../../src/vhost-user/blk/model.js';
import { reload } from '../../../../src/vhost-user/blk/reload.js';
import { serveBlk } from '../../../../src/vhost-user/blk/serving.js';

afterEach(() => jest.restoreAllMocks());

test.each([
  ['with the disk gone all the same', true, 8],
  ['with the disk still there', false, 1],
])('an end that fails %s: status %#', async (_what, goes, exit) => {
  const disk = { socket: '/s', options: { socket: '/s', source: { source: '/a' } }, source: { name: '/a' } } as unknown as ControlledDisk;
  const disks = [disk];
  const remove = async (): Promise<void> => {
    if (goes) disks.pop();
    throw new VioError('flush /a: EIO', { code: 'EIO' });
  };
  await expect(reload({ disks, find: () => undefined, remove } as unknown as DiskSet, [])).rejects.toMatchObject({
    code: 'PARTLY',
    exit,
    message: expect.stringContaining('EIO'),
  });
});

describe('a server', () => {
  let dir: string;
  const at = (name: string): string => path.join(dir, name);
  const held: (() => void)[] = [];
  let end: AbortController;
  let served: Promise<unknown>;
  let change: (wanted: WantedDisks) => Promise<string[]>;
  const call = <T>(op: string, args: object = {}): Promise<T> =>
    ask<T>(at('ctl'), { service: 'vhost-user serve blk', timeout: 30_000 }, op, args).then(({ result }) => result as T);
  const list = async (): Promise<unknown[]> => (await call<{ disks: { socket: string }[] }>('list')).disks.map(({ socket }) => socket);
  const load = (...names: string[]) => {
    const disks = names.map((name) => ({ socket: at(`${name}.sock`), source: at(name) }));
    return call('load', { file: { text: JSON.stringify({ disks }), name: 'c.json', folder: dir } });
  };
  const wanted = (...names: string[]) => names.map((name) => ({ socket: at(`${name}.sock`), source: { source: at(name) } }));

  beforeEach(async () => {
    dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-reload-'));
    for (const name of ['a', 'b', 'c']) fs.writeFileSync(at(name), Buffer.alloc(1 << 16));
    end = new AbortController();
    await new Promise<void>((ready, failed) => {
      served = serveBlk(
        {
          ...{ disks: wanted('a'), queues: 1, engine: 'sync', spinMicroseconds: 0, control: at('ctl'), onLog: () => {} },
          onReload: async (reload) => {
            change = reload;
          },
          onReady: async () => ready(),
        },
        end.signal,
      );
      served.catch(failed);
    });
  });
  afterEach(async () => {
    for (const go of held.splice(0)) go(); // of a test that has failed
    end.abort();
    await served;
    fs.rmSync(dir, { recursive: true });
  });

  /** Holds back the answers of a function of the addon. */
  function hold(name: 'farewells' | 'openLater'): { called: Promise<void>; go: () => void } {
    const { storage } = native();
    const real = storage[name].bind(storage) as (...args: unknown[]) => Promise<unknown>;
    let go = (): void => {};
    const gate = new Promise<void>((resolve) => {
      go = resolve;
    });
    const called = new Promise<void>((resolve) => {
      jest.spyOn(storage, name).mockImplementation((async (...args: unknown[]) => {
        resolve();
        await gate;
        return await real(...args);
      }) as never);
    });
    held.push(go);
    return { called, go };
  }

  test('what is asked while a disk goes is answered without it', async () => {
    const farewell = hold('farewells');
    const removed = call('remove', { disk: at('a.sock'), path: at('a.sock') });
    await farewell.called;
    expect(await list()).toEqual([]);
    expect(await call('save')).toMatchObject({ disks: [] });
    farewell.go();
    expect(await removed).toMatchObject({ changed: true });
  });

  test('what comes while a reload is under way is held to what it allows, and to what it serves', async () => {
    const opening = hold('openLater');
    const reloaded = change({ disks: wanted('a', 'b'), sources: [] });
    await opening.called;
    const loaded = load('a', 'b', 'c');
    const added = call('add', { add: { socket: at('c.sock'), source: { source: at('c') } } });
    const again = call('add', { add: { socket: at('b.sock'), source: { source: at('b') } } });
    for (const refused of [loaded, added]) refused.catch(() => {}); // looked at below
    await new Promise((resolve) => setTimeout(resolve, 50));
    opening.go();
    expect(await reloaded).toHaveLength(1);
    for (const refused of [loaded, added])
      await expect(refused).rejects.toMatchObject({ message: expect.stringContaining('does not allow') });
    expect(await again).toMatchObject({ changed: false });
    expect(await list()).toEqual([at('a.sock'), at('b.sock')]);
  });

  test('a source that wants a ring of a server without one', async () => {
    const no = { exit: 2, message: expect.stringMatching(/engine=uring .* the server is sync/) };
    for (const dryRun of [true, false])
      await expect(
        call('add', { add: { socket: at('c.sock'), source: { source: at('c'), engine: 'uring' } }, dryRun }),
      ).rejects.toMatchObject(no);
    const file = { text: JSON.stringify({ disks: [{ socket: 'c.sock', source: 'c', engine: 'uring' }] }), name: 'c.json', folder: dir };
    await expect(call('load', { file })).rejects.toMatchObject(no);
    expect(await list()).toEqual([at('a.sock')]);
  });
});
