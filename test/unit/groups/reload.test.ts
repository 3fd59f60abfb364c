/** SIGHUP of `nvmf serve`: what it says is in use is in use. */
import { randomBytes } from 'node:crypto';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { ServiceManager } from '../../../src/cli/systemd.js';
import { reload } from '../../../src/groups/nvmf/reload.js';
import { native } from '../../../src/native/index.js';
import { formatChapKey } from '../../../src/nvme/auth/keys.js';
import { parseConfig } from '../../../src/nvme/target/config/read.js';
import { type Running, serve } from '../../../src/nvme/target/serve/serve.js';

const nqn = 'nqn.2014-08.org.example:reload';
const hostnqn = 'nqn.2014-08.org.example:host';
let dir: string;
let running: Running;
const writeKey = (bytes: Buffer) => fs.writeFileSync(path.join(dir, 'key'), formatChapKey({ hash: 1, bytes }), { mode: 0o600 });
const parse = (namespaces: object[]) => {
  const file = { listen: ['127.0.0.1:0'], keys: [{ dhchapSecretFile: 'key' }], subsystems: [{ nqn, namespaces }] };
  return parseConfig({ text: JSON.stringify(file), name: 'c.json', folder: dir });
};
const inUse = () => running.target.keys.chapKeys(hostnqn)?.host?.bytes;
beforeEach(async () => {
  dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-reload-'));
  writeKey(Buffer.alloc(32, 1));
  running = await serve(native().nvme, { engine: 'sync', ...(await parse([])) }, () => {});
});
afterEach(async () => {
  await running.stop();
  fs.rmSync(dir, { recursive: true });
});
/** A reload, and what is done after it has begun. */
async function reloaded(meanwhile: () => void): Promise<string[]> {
  const lines: string[] = [];
  const read = async () => {
    meanwhile();
    return parse([{ nsid: 1, source: 'ram:64K' }]);
  };
  await reload(running, 'c.json', read, new ServiceManager({}), (line) => lines.push(line));
  return lines;
}

test('keys, and what else the file says', async () => {
  const wanted = randomBytes(32);
  const lines = await reloaded(() => writeKey(wanted));
  expect(lines).toEqual(['read c.json again:', '  use the new keys of every host', expect.stringContaining('add ram:65536')]);
  expect(running.target.subsystems.get(nqn)!.namespaces.size).toBe(1);
  expect(inUse()).toEqual(wanted);
});

test('a file of a key that is spoilt already: nothing changes', async () => {
  fs.writeFileSync(path.join(dir, 'key'), 'spoilt');
  const lines = await reloaded(() => {});
  expect(lines).toEqual([expect.stringMatching(/^c\.json is not in use, the server goes on as before: /)]);
  expect(running.target.subsystems.get(nqn)!.namespaces.size).toBe(0);
  expect(inUse()).toEqual(Buffer.alloc(32, 1));
});
