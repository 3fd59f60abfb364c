// Saved machines: a guest that has loaded its kernel and waits for its job, as a QEMU migration file. Restoring it takes
// a fraction of a boot. Made on first use of a machine; the oldest go when there are many.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { cached, cacheRoot } from './cache.js';
import { clockStands } from './guest.js';
import { bootstrap, type Machine, machineArgs, machineKey } from './machine.js';
import { connectUnix, Qmp } from './qmp.js';

/** Snapshots kept, about 110 MB each. */
const KEEP = 20;

const STANDS = "the guest's clock stands still";

/** The migration file of the machine in the state before its job. Rejects when the machine cannot be saved. */
export async function snapshot(machine: Machine): Promise<string> {
  const dir = await cached(`snapshot-${machineKey(machine)}`, async (part) => {
    const file = path.join(part, 'state');
    try {
      await save(machine, file);
    } catch (e) {
      if (!(e instanceof Error) || !e.message.startsWith(STANDS)) throw e;
      await save(machine, file);
    }
  });
  utimesSync(dir, new Date(), new Date());
  const others = readdirSync(cacheRoot()).filter((n) => /^snapshot-[0-9a-f]+$/.test(n));
  const age = new Map(others.map((n) => [n, statSync(path.join(cacheRoot(), n), { throwIfNoEntry: false })?.mtimeMs ?? 0]));
  others.sort((a, b) => (age.get(b) ?? 0) - (age.get(a) ?? 0));
  for (const n of others.slice(KEEP)) rmSync(path.join(cacheRoot(), n), { recursive: true, force: true });
  return path.join(dir, 'state');
}

async function save(machine: Machine, file: string): Promise<void> {
  const dir = mkdtempSync(path.join(tmpdir(), 'vm-'));
  try {
    writeFileSync(path.join(dir, 'initrd'), Buffer.concat([readFileSync(machine.kernel.initrd), bootstrap(true)]));
    const argv = machine.qemu.argv('qemu-system-x86_64', machineArgs(machine, dir));
    const child = spawn('setpriv', ['--pdeathsig', 'KILL', ...argv], {
      stdio: ['pipe', 'ignore', 'pipe'],
      env: { ...process.env, ...machine.qemu.env },
    });
    let words = '';
    child.stderr.on('data', (b: Buffer) => {
      words += b.toString();
    });
    const ended = once(child, 'close');
    try {
      // the guest shall be saved while its end of the port is connected, so that it sleeps in read()
      const job = await connectUnix(path.join(dir, 'job'), 60);
      const qmp = await Qmp.open(path.join(dir, 'qmp'));
      const read = (name: string) => (existsSync(path.join(dir, name)) ? readFileSync(path.join(dir, name), 'utf8') : '');
      await until(180, () => {
        if (clockStands(read('console'))) throw new Error(STANDS);
        return read('ctl').includes('waiting\n');
      });
      await sleep(100);
      await qmp.run('migrate-set-parameters', { 'max-bandwidth': 2 ** 40 });
      await qmp.run('migrate', { uri: `file:${file}` });
      await until(60, async () => {
        const { status, 'error-desc': why } = (await qmp.run('query-migrate')) as { status?: string; 'error-desc'?: string };
        if (status === 'failed') throw new Error(`guest cannot be saved: ${why}`);
        return status === 'completed';
      });
      job.destroy();
      qmp.close();
    } catch (e) {
      throw new Error(`${e instanceof Error ? e.message : String(e)}${words ? `\n${words}` : ''}`);
    } finally {
      child.kill('SIGKILL');
      await ended;
    }
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
}

async function until(seconds: number, test: () => boolean | Promise<boolean>): Promise<void> {
  const end = Date.now() + seconds * 1000;
  while (!(await test())) {
    if (Date.now() > end) throw new Error(`guest was not ready to be saved within ${seconds} s`);
    await sleep(50);
  }
}
