/** Sources that hang while a server opens or closes them: nobody else waits. */
import { AdminOpcode, sqe } from '../../src/nvme/wire/index.js';
import { Background } from '../support/background.js';
import { vioctl } from '../support/cli.js';
import { FaultDisk, noFaultDisk } from '../support/fault-disk.js';
import { connectHost, serveTarget } from '../support/nvme-target.js';
import { skip } from '../support/skip.js';
import { at, image, running, serve } from '../support/storage-servers.js';
import { eventually } from '../support/wait.js';

const missing = noFaultDisk();
/** Longer than any answer may take here, on a slow machine too. */
const hang = 60;

test('nvmf: a file system that hangs at open delays only what opens there', async () => {
  if (missing) return skip('nvmf: opening what hangs', missing);
  const disk = await FaultDisk.open(8 << 20);
  const control = at('ctl');
  const target = await serveTarget([image('disk'), disk.file, '--control', control]);
  try {
    const host = await connectHost(target, { ioQueues: 1 });
    const ctl = (...args: string[]): number | null => vioctl(['nvmf', 'ctl', control, ...args], { timeout: 30_000 }).status;
    const start = (...args: string[]) => running.push(Background.vioctl(['nvmf', 'ctl', control, ...args]));
    const alive = async (): Promise<void> => {
      expect((await host.admin.send(sqe.encode({ opcode: AdminOpcode.keepAlive }), undefined)).status.sc).toBe(0);
      expect(ctl('list')).toBe(0);
      expect(ctl('add', 'ram:1M')).toBe(0);
    };
    const opens = async (): Promise<number> => (await disk.ops()).filter((op) => op === 'open').length;
    const before = await opens();
    await disk.set({ open_delay: hang });
    start('reopen', '2');
    start('add', `${disk.file},ro`);
    await eventually(async () => (await opens()) >= before + 2);
    expect(await opens()).toBe(before + 2);
    await alive();
    // another one of the same name waits for the first, and for nobody else
    start('add', `${disk.file},ro`);
    await alive();
    expect(await opens()).toBe(before + 2);
  } finally {
    await disk.close(); // ends what waits for it
    await target.stop('SIGKILL');
  }
});

test('vhost-user: so does one of a disk that is added', async () => {
  if (missing) return skip('vhost-user: opening what hangs', missing);
  const disk = await FaultDisk.open(8 << 20);
  const control = at('ctl');
  try {
    const server = await serve('vhost-user', image('disk'), '--control', control);
    const ctl = (...args: string[]): number | null => vioctl(['vhost-user', 'ctl', control, ...args], { timeout: 30_000 }).status;
    await disk.set({ open_delay: hang });
    running.push(Background.vioctl(['vhost-user', 'ctl', control, 'add', `${at('slow')}=${disk.file}`]));
    const opens = async (): Promise<number> => (await disk.ops()).filter((op) => op === 'open').length;
    await eventually(async () => (await opens()) >= 1);
    expect(ctl('list')).toBe(0);
    expect(ctl('add', `${at('quick')}=ram:1M`)).toBe(0);
    expect(await opens()).toBe(1);
    await disk.close(); // ends what waits for it
    expect(await server.stop()).toBe(0);
  } finally {
    await disk.close();
  }
});
