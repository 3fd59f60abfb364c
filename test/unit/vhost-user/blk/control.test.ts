import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { native } from '../../../../src/native/index.js';
import { openSource, type Source } from '../../../../src/storage/open.js';
import { SourceWatch } from '../../../../src/storage/watch.js';
import { type ControlledDisk, type DiskChange, perform } from '../../../../src/vhost-user/blk/control.js';
import { noStats } from '../../../../src/vhost-user/blk/device.js';

let dir: string;
let log: string[];
const open: Source[] = [];
beforeEach(() => {
  dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-blk-'));
  log = [];
});
afterEach(() => {
  jest.restoreAllMocks();
  for (const { store } of open.splice(0)) native().storage.close(store);
  fs.rmSync(dir, { recursive: true });
});
const at = (name: string): string => path.join(dir, name);
/** A disk of 1 MiB; all changes of its size are told to `told`. */
function served(name: string, socket: string | undefined = at(`${name}.sock`)): ControlledDisk & { told: number[] } {
  if (!fs.existsSync(at(name))) {
    fs.writeFileSync(at(name), '');
    fs.truncateSync(at(name), 1 << 20);
  }
  const source = openSource({ source: at(name), readonly: true });
  open.push(source);
  const told: number[] = [];
  const resized = (bytes: number): number => {
    told.push(bytes);
    return bytes;
  };
  const watch = new SourceWatch(source, { log: (text) => log.push(text), resized });
  return { source, socket, queues: 1, watch, told, state: () => ({ connected: false, running: false }), stats: noStats };
}
const change = async (...[request, disks]: Parameters<typeof perform>): Promise<DiskChange> =>
  (await perform(request, disks)) as DiskChange;

test('reopen: failures that were held back are told before', async () => {
  const disk = served('a');
  jest.spyOn(native().storage, 'failures').mockReturnValue({ count: 2, error: 'EIO' });
  expect(await change({ op: 'reopen' }, [disk])).toMatchObject({ changed: true });
  expect(log).toEqual([expect.stringMatching(/: 2 requests have failed: EIO$/), expect.stringMatching(/ was opened anew$/)]);
});
