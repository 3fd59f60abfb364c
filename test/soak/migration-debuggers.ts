/**
 * crash and drgn on the ELF cores of x86-64 and arm64 kernels with their debug information: `npm run soak -- migration-debuggers [amd64 | arm64]`.
 * Fetches 860 MB for each and keeps 660 MB of them in the cache. The guests have a random base (KASLR) and no device that tells where
 * VMCOREINFO is. crash knows one architecture, so that of arm64 is Debian's for arm64, run by qemu-aarch64-static; drgn knows all.
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
import { foreignQemu, qemu } from '../vm/qemu.js';

/** A guest, and how its debuggers are started. */
interface Machine {
  program: string;
  args: readonly string[];
  console: string;
  /** Packages of its crash that are not on this machine. */
  packages: readonly string[];
  crash: (root: string) => { argv: readonly [string, ...string[]]; env?: Record<string, string> };
}

const machines: Record<string, Machine> = {
  amd64: {
    program: 'qemu-system-x86_64',
    args: ['-M', 'q35'],
    console: 'ttyS0',
    packages: ['crash', 'python3-drgn', 'libkdumpfile10', 'libsnappy1v5'],
    crash: (root) => ({ argv: [path.join(root, 'usr/bin/crash')], env: { LD_LIBRARY_PATH: path.join(root, 'usr/lib/x86_64-linux-gnu') } }),
  },
  arm64: {
    program: 'qemu-system-aarch64',
    args: ['-M', 'virt', '-cpu', 'cortex-a57'],
    console: 'ttyAMA0',
    packages: ['crash'],
    crash: (root) => ({ argv: ['qemu-aarch64-static', '-L', root, path.join(root, 'usr/bin/crash')] }),
  },
};

/** Tools of an architecture, its kernel, and the kernel's ELF file with debug information. */
async function tools(name: string, release: string): Promise<{ root: string; vmlinuz: string; vmlinux: string }> {
  const foreign = name !== 'amd64';
  const root = await cached(`kernel-debug-${release}`, async (part) => {
    const suite = await Suite.open('bookworm', foreign ? name : undefined);
    await suite.unpack(machines[name]!.packages, part, { closure: foreign });
    if (foreign) await suite.unpack([`linux-image-${release}`], part, { only: ['./boot/vmlinuz-*'] });
    await suite.unpack([`linux-image-${release}-dbg`], part, { only: ['./usr/lib/debug/boot/vmlinux-*'] });
  });
  const vmlinux = path.join(root, 'usr/lib/debug/boot', `vmlinux-${release}`);
  return { root, vmlinuz: path.join(root, 'boot', `vmlinuz-${release}`), vmlinux };
}

/**
 * What drgn finds. It takes the registers of a note for a task if pr_pid is the PID of the task, which a hypervisor does not know: QEMU
 * writes the number of the CPU and one. So task 1 has its registers if it is on the first CPU; of the others they are given here.
 */
const SCRIPT = `
import drgn, struct, sys
from drgn.helpers.linux.pid import find_task, for_each_task
from drgn.helpers.linux.sched import task_cpu
core, vmlinux = sys.argv[1:]
p = drgn.Program()
p.set_core_dump(core)
p.load_debug_info([vmlinux])
print(p["init_uts_ns"].name.release.string_().decode(), *[t.comm.string_().decode() for t in for_each_task(p)])
print("CPU of task 1:", task_cpu(find_task(p, 1)))
print("== task 1", p.stack_trace(1), sep="\\n")
print("== task 2", p.stack_trace(2), sep="\\n")
file = open(core, "rb").read(1 << 20)
at, = struct.unpack_from("<Q", file, 32)
offset, _, _, size = struct.unpack_from("<QQQQ", file, at + 8)
end, cpu = offset + size, 0
while offset < end:
    name, desc, kind = struct.unpack_from("<III", file, offset)
    body = offset + 12 + (name + 3) // 4 * 4
    if kind == 1:
        regs = p.type("struct pt_regs")
        raw = file[body + 112:body + desc].ljust(drgn.sizeof(regs), b"\\0")[:drgn.sizeof(regs)]
        print(f"== CPU {cpu}", p.stack_trace(drgn.Object.from_bytes_(p, regs, raw)), sep="\\n")
        cpu += 1
    offset = body + (desc + 3) // 4 * 4
`;

const expect = (what: string, text: string, wanted: RegExp): void => {
  if (!wanted.test(text)) throw new Error(`${what}: expected ${wanted}, came:\n${text}`);
  console.log(`${what}: right`);
};

async function check(name: string, dir: string): Promise<void> {
  const machine = machines[name]!;
  const { vmlinuz, release: amd64 } = await kernel('6.1');
  const release = amd64.replace('amd64', name);
  const { root, vmlinux, ...foreign } = await tools(name, release);
  const drgn = name === 'amd64' ? root : (await tools('amd64', amd64)).root;
  const [console_, stream, core] = ['console', 'stream', 'core'].map((file) => path.join(dir, file)) as [string, string, string];
  // isolcpus keeps the task that panics on CPU 0; the random base of arm64 comes from the device tree
  const append = `panic=0 isolcpus=1 console=${machine.console}`;
  const linux = ['-kernel', name === 'amd64' ? vmlinuz : foreign.vmlinuz, '-append', append, '-serial', `file:${console_}`];
  const build = await (name === 'amd64' ? qemu : foreignQemu)('10');
  const program_ = { ...build, argv: (_: string, args?: readonly string[]) => build.argv(machine.program, args) };
  await withGuest(program_, dir, [...machine.args, '-m', '512', '-smp', '2', ...linux], async (guest) => {
    await guest.qmp.run('cont');
    const says = () => fs.readFileSync(console_, 'latin1');
    for (let i = 0; i < 1200 && !/end Kernel panic/.test(says()); i++) await sleep(200);
    if (!/end Kernel panic/.test(says())) throw new Error(`the guest did not come to its panic: ${says().slice(-1000)}`);
    await guest.qmp.run('stop');
    await guest.migrate({ uri: uri('10', stream) });
  });
  const { vmcoreinfo, cpus } = await memory(stream, core, { as: 'elf' });
  expect(`${name}: VMCOREINFO and CPUs`, `${vmcoreinfo} ${cpus}`, /^memory 2$/);

  const stack = `panic[\\s\\S]*mount_block_root[\\s\\S]*kernel_init[\\s\\S]*ret_from_fork`;
  const python = {
    ...process.env,
    LD_LIBRARY_PATH: path.join(drgn, 'usr/lib/x86_64-linux-gnu'),
    PYTHONPATH: path.join(drgn, 'usr/lib/python3/dist-packages'),
  };
  const tasks = execFileSync('/usr/bin/python3', ['-c', SCRIPT, core, vmlinux], { env: python, encoding: 'utf8' });
  expect(`${name}: drgn, tasks`, tasks, new RegExp(`^${release} swapper/0 kthreadd `));
  expect(`${name}: drgn, the task that panics is on CPU 0`, tasks, /^CPU of task 1: .*0$/m);
  expect(`${name}: drgn, its stack`, tasks, new RegExp(`== task 1\\n(?:(?!==)[\\s\\S])*${stack}`));
  expect(`${name}: drgn, stack of a task that waits`, tasks, /== task 2\n(?:(?!==)[\s\S])*__schedule[\s\S]*kthreadd[\s\S]*ret_from_fork/);
  expect(`${name}: drgn, registers of CPU 0`, tasks, new RegExp(`== CPU 0\\n(?:(?!==)[\\s\\S])*${stack}`));
  expect(`${name}: drgn, registers of CPU 1`, tasks, /== CPU 1\n(?:(?!==)[\s\S])*(?:stop_this_cpu|local_cpu_stop)/);

  const commands = path.join(dir, 'commands');
  fs.writeFileSync(commands, 'sys\nbt 1\nquit\n');
  const { argv, env } = machine.crash(root);
  const said = execFileSync(argv[0], [...argv.slice(1), '-s', '-i', commands, vmlinux, core], {
    env: { ...process.env, ...env },
    encoding: 'utf8',
  });
  expect(`${name}: crash, system`, said, new RegExp(`RELEASE: ${release}[\\s\\S]*PANIC: "Kernel panic - not syncing: VFS`));
  expect(`${name}: crash, stack`, said, /panic at[\s\S]*mount_block_root at[\s\S]*kernel_init at[\s\S]*ret_from_fork at/);
}

async function main(): Promise<void> {
  const named = process.argv.slice(1).filter((one) => one in machines);
  for (const name of named.length > 0 ? named : Object.keys(machines)) {
    const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-soak-'));
    await check(name, dir);
    fs.rmSync(dir, { recursive: true, force: true });
  }
}

void main();
