import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { bounded } from '../../../../src/common/text/log.js';
import { native } from '../../../../src/native/index.js';
import { serveBackEnd } from '../../../../src/vhost-user/backend/serving.js';
import { windowDevice } from '../../../../src/vhost-user/shmem/device.js';
import { ShmemServer } from '../../../../src/vhost-user/shmem/server.js';
import { Listener } from '../../../../src/vhost-user/wire/listener.js';

test('a front-end that causes message after message fills no log', () => {
  const lines: string[] = [];
  let time = 0;
  const log = bounded(
    (text) => lines.push(text),
    () => time,
  );
  for (let i = 0; i < 1000; i++) log(`ring broke ${i}`);
  expect(lines).toHaveLength(51);
  expect(lines[49]).toBe('ring broke 49');
  time = 20000;
  log('later');
  expect(lines.slice(51)).toEqual(['950 more messages', 'later']);
});

test('nor does one that connects again and again', async () => {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-serving-'));
  const lines: string[] = [];
  const server = new ShmemServer(new Map([[0, 0x1000n]]));
  const end = new AbortController();
  let ended = 0;
  const serving = serveBackEnd(
    Listener.at(path.join(dir, 's')),
    {
      device: windowDevice(server, { queues: 1, slots: false, configSize: 16 }),
      onLog: (text) => lines.push(text),
      onSession: () => ({ onClose: () => void ended++ }),
    },
    end.signal,
  );
  for (let i = 0; i < 120; i++) {
    fs.closeSync(native().vhostUser.connect(path.join(dir, 's')));
    while (ended <= i) await new Promise((resolve) => setTimeout(resolve, 1));
  }
  end.abort();
  await serving;
  server.close();
  fs.rmSync(dir, { recursive: true });
  expect(lines).toHaveLength(51);
  expect(lines.filter((line) => line === 'connection ended')).toHaveLength(50);
});
