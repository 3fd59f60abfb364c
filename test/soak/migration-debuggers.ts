/**
 * crash and drgn on the ELF core of an x86-64 kernel with its debug information: `npm run soak -- migration-debuggers`. Fetches
 * 860 MB and keeps 660 MB of them in the cache. The guest has a random base (KASLR) and no device that tells where VMCOREINFO is.
 */
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { memory, uri, withGuest } from '../peers/migration-memory.js';
import { Suite } from '../vm/apt.js';
import { cached } from '../vm/cache.js';
import { kernel } from '../vm/kernels.js';
import { qemu } from '../vm/qemu.js';

const TOOLS = ['crash', 'python3-drgn', 'libkdumpfile10', 'libsnappy1v5'];

/** The tools, and the kernel's ELF file with debug information. */
async function tools(release: string): Promise<{ root: string; vmlinux: string }> {
  const root = await cached(`kernel-debug-${release}`, async (part) => {
    const suite = await Suite.open('bookworm');
    await suite.unpack(TOOLS, part);
    await suite.unpack([`linux-image-${release}-dbg`], part, { only: ['./usr/lib/debug/boot/vmlinux-*'] });
  });
  return { root, vmlinux: path.join(root, 'usr/lib/debug/boot', `vmlinux-${release}`) };
}

const SCRIPT = `
import drgn, sys
from drgn.helpers.linux.pid import for_each_task
p = drgn.Program()
p.set_core_dump(sys.argv[1])
p.load_debug_info([sys.argv[2]])
print(p["init_uts_ns"].name.release.string_().decode(), *[t.comm.string_().decode() for t in for_each_task(p)])
print(p.stack_trace(1))
print(p.stack_trace(2))
`;

const expect = (what: string, text: string, wanted: RegExp): void => {
  if (!wanted.test(text)) throw new Error(`${what}: expected ${wanted}, came:\n${text}`);
  console.log(`${what}: right`);
};

async function main(): Promise<void> {
  const { vmlinuz, release } = await kernel('6.1');
  const { root, vmlinux } = await tools(release);
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-soak-'));
  const [console_, stream, core] = ['console', 'stream', 'core'].map((name) => path.join(dir, name)) as [string, string, string];
  const linux = ['-kernel', vmlinuz, '-append', 'panic=0 console=ttyS0', '-serial', `file:${console_}`];
  await withGuest(await qemu('10'), dir, ['-M', 'q35', '-m', '512', '-smp', '2', ...linux], async (guest) => {
    await guest.qmp.run('cont');
    for (let i = 0; i < 600 && !/end Kernel panic/.test(fs.readFileSync(console_, 'latin1')); i++) await sleep(200);
    await guest.qmp.run('stop');
    await guest.migrate({ uri: uri('10', stream) });
  });
  const { vmcoreinfo, cpus } = await memory(stream, core, { as: 'elf' });
  expect('VMCOREINFO and CPUs', `${vmcoreinfo} ${cpus}`, /^memory 2$/);
  const env = { ...process.env, LD_LIBRARY_PATH: path.join(root, 'usr/lib/x86_64-linux-gnu') };
  const commands = path.join(dir, 'commands');
  fs.writeFileSync(commands, 'sys\nbt 1\nquit\n');
  const said = execFileSync(path.join(root, 'usr/bin/crash'), ['-s', '-i', commands, vmlinux, core], { env, encoding: 'utf8' });
  expect('crash, system', said, new RegExp(`RELEASE: ${release}[\\s\\S]*PANIC: "Kernel panic - not syncing: VFS`));
  expect('crash, stack', said, /panic at[\s\S]*mount_block_root at[\s\S]*kernel_init at[\s\S]*ret_from_fork at/);
  const python = { ...env, PYTHONPATH: path.join(root, 'usr/lib/python3/dist-packages') };
  const tasks = execFileSync('/usr/bin/python3', ['-c', SCRIPT, core, vmlinux], { env: python, encoding: 'utf8' });
  // Task 1 ran into the panic on a CPU, with registers of its note; task 2 waits.
  expect('drgn, stack of a CPU', tasks, /#\d+ +panic[\s\S]*mount_block_root[\s\S]*kernel_init[\s\S]*ret_from_fork/);
  expect('drgn, stack of a task that waits', tasks, /context_switch[\s\S]*__schedule[\s\S]*schedule[\s\S]*kthreadd[\s\S]*ret_from_fork/);
  expect('drgn, tasks', tasks, new RegExp(`^${release} swapper/0 kthreadd `));
  fs.rmSync(dir, { recursive: true, force: true });
}

main().catch((err: Error) => {
  console.error(err);
  process.exitCode = 1;
});
