import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { native } from '../../../../src/native/index.js';
import { SourceWatch } from '../../../../src/storage/watch.js';
import type { BackEndSession } from '../../../../src/vhost-user/backend/session.js';
import { SizeNews } from '../../../../src/vhost-user/blk/size-news.js';

test('a front-end is told of a new size while its device runs, else when it runs again, once', async () => {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-watch-'));
  const file = path.join(dir, 'img');
  fs.writeFileSync(file, Buffer.alloc(4096));
  const store = native().storage.open(file, {});
  const log: string[] = [];
  const news = new SizeNews((text) => log.push(text));
  const watch = new SourceWatch({ name: file, store } as never, {
    log: (text) => log.push(text),
    resized: (bytes) => {
      news.tell();
      return bytes;
    },
    otherwise: '',
  });
  const told: string[] = [];
  const session = {
    running: true,
    has: () => true,
    back: {
      closed: false,
      request: (name: string) => {
        told.push(name);
        return Promise.resolve(0n);
      },
    },
  };
  const hooks = news.join(session as unknown as BackEndSession);
  const resize = async (size: number): Promise<void> => {
    fs.truncateSync(file, size);
    await watch.measure();
  };
  await resize(8192);
  expect(told).toEqual(['BACKEND_CONFIG_CHANGE_MSG']);
  session.running = false;
  await resize(16384);
  await resize(20480);
  expect(told).toHaveLength(1);
  session.running = true;
  hooks.onRunning!(true);
  hooks.onRunning!(true);
  expect(told).toHaveLength(2);
  hooks.onClose!(undefined);
  await resize(4096);
  expect(told).toHaveLength(2);
  expect(log).toHaveLength(4);
  watch.close();
  native().storage.close(store);
  fs.rmSync(dir, { recursive: true });
});
