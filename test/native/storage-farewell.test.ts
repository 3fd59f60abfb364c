/** The end of a source that takes long: the event loop goes on, others wait for it, and so does the end of the process. */
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { native } from '../../src/native/index.js';
import { addonFile } from '../support/addon.js';
import { FaultDisk, noFaultDisk } from '../support/fault-disk.js';
import { NbdServer } from '../support/nbd-server.js';
import { openLater } from '../support/open-later.js';
import { skip } from '../support/skip.js';
import { eventually } from '../support/wait.js';

const { storage } = native();

test('a device that writes back slowly: it is closed off the event loop, and who opens it again waits', async () => {
  const missing = noFaultDisk() ?? (process.getuid?.() !== 0 ? 'needs root' : undefined);
  if (missing) return skip('the end of a slow device', missing);
  const disk = await FaultDisk.open(4 << 20);
  const { status, stdout } = spawnSync('losetup', ['--find', '--show', disk.file], { encoding: 'utf8' });
  const device = stdout.trim();
  try {
    if (status !== 0) return skip('the end of a slow device', 'needs loop devices');
    const store = storage.open(device, {});
    const fd = fs.openSync(device, 'r+');
    const data = Buffer.alloc(65536, 'last');
    fs.writeSync(fd, data, 0, data.length, 1 << 20);
    fs.closeSync(fd);
    await disk.set({ write_delay: 2 });
    storage.close(store);
    expect(await storage.farewells(0)).toBe(false); // it still writes
    const again = await openLater(device);
    expect(await storage.farewells(0)).toBe(true);
    expect(await disk.read(1 << 20, data.length)).toEqual(data);
    await disk.set({ write_delay: 0 });
    storage.close(again);
    expect(await storage.farewells(30_000)).toBe(true);
  } finally {
    await disk.set({ write_delay: 0 });
    if (status === 0) spawnSync('losetup', ['--detach', device]);
    await disk.close();
  }
});

test('a process that closes a remote source and exits at once says goodbye to its server', async () => {
  if (spawnSync('nbdkit', ['--version']).status !== 0) return skip('the end of an NBD source', 'needs nbdkit');
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-farewell-'));
  const log = path.join(dir, 'log');
  const server = await NbdServer.start(path.join(dir, 's'), (socket) => ['sh', '-c', `exec nbdkit -v -f -U ${socket} memory 1M 2> ${log}`]);
  try {
    const program = `
      const { storage } = require(process.argv[1]);
      storage.openNbd({ uri: process.argv[2], timeout: 5000 }).then((store) => {
        storage.close(store);
        process.exit(0);
      });`;
    const child = spawn(process.execPath, ['-e', program, addonFile, server.uri], { stdio: 'inherit' });
    expect((await once(child, 'exit'))[0]).toBe(0);
    const said = (): string => fs.readFileSync(log, 'utf8');
    await eventually(() => /NBD_CMD_DISC/.test(said()));
    expect(said()).toMatch(/client sent NBD_CMD_DISC/);
  } finally {
    await server.stop();
    fs.rmSync(dir, { recursive: true });
  }
});
