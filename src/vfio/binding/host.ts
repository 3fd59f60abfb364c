import { execFile } from 'node:child_process';
import fs from 'node:fs';
import { codeOf, Exit, VioError } from '../../common/errors.js';
import { printable } from '../../common/escape.js';
import type { Sysroot } from '../../common/sysroot.js';
import { Modules } from '../devices/modules.js';
import type { Host } from '../transaction/move.js';
import { ChildWriter, FileWriter } from '../transaction/writer.js';
import { reloadCommands } from './persist-files.js';

/** Runs modprobe. @throws VioError MODPROBE (7) with its message */
function modprobe(module: string): Promise<void> {
  return new Promise((resolve, reject) => {
    execFile('modprobe', [module], { timeout: 30_000 }, (err, _stdout, stderr) => {
      if (!err) return resolve();
      const why = codeOf(err) === 'ENOENT' ? 'there is no modprobe program' : printable(stderr.trim().split('\n').at(-1) || err.message);
      reject(
        new VioError(`cannot load module ${module}: ${why}`, {
          code: 'MODPROBE',
          exit: Exit.unsupported,
          hint: 'install the modules package of the running kernel; a kernel built without the module needs CONFIG_VFIO_PCI',
          cause: err,
        }),
      );
    });
  });
}

/** Runs ip(8). @throws VioError IP (1), or 7 without the program */
function ip(args: readonly string[]): Promise<string> {
  return new Promise((resolve, reject) => {
    execFile('ip', args, { timeout: 10_000, maxBuffer: 16 << 20 }, (err, stdout, stderr) => {
      if (!err) return resolve(stdout);
      const missing = codeOf(err) === 'ENOENT';
      const why = missing ? 'there is no ip program' : printable(stderr.trim().split('\n').at(-1) || err.message);
      reject(
        new VioError(`ip ${args.join(' ')}: ${why}`, {
          code: 'IP',
          ...(missing && { exit: Exit.unsupported }),
          hint: missing ? 'install iproute2' : undefined,
          cause: err,
        }),
      );
    });
  });
}

/**
 * Records of /dev/kmsg (Documentation/ABI/testing/dev-kmsg) about a device, no older than a time. Each read(2) gives one
 * record: `priority,sequence,microseconds,flags;text`.
 * @param after microseconds since boot
 */
export function kernelMessages(root: Sysroot, bdf: string, after: number): string[] {
  const found: string[] = [];
  let fd: number;
  try {
    fd = fs.openSync(root.path('/dev/kmsg'), fs.constants.O_RDONLY | fs.constants.O_NONBLOCK);
  } catch {
    return found; // not permitted, or none in this container: the errno has to do
  }
  try {
    const record = Buffer.alloc(8192);
    for (let n = 0; n < 100_000; n++) {
      let size: number;
      try {
        size = fs.readSync(fd, record, 0, record.length, null);
      } catch (err) {
        if (codeOf(err) === 'EPIPE') continue; // records were overwritten while we read
        break; // EAGAIN: that was the last one
      }
      if (size === 0) break;
      const match = /^\d+,\d+,(\d+),[^;]*;(.*)/.exec(record.toString('utf8', 0, size));
      if (match && Number(match[1]) >= after && match[2]!.includes(bdf)) found.push(match[2]!);
    }
  } finally {
    fs.closeSync(fd);
  }
  return found;
}

/** The running system. @param modules that of a census, whose files are read already */
export function systemHost(root: Sysroot, pid: number, modules: Modules = new Modules(root)): Host {
  const real = root.root === '/';
  return {
    root,
    modules,
    writer: real ? new ChildWriter(root) : new FileWriter(root),
    modprobe: real ? modprobe : async () => {}, // a tree of files has no kernel to load modules into
    ip: real ? ip : async () => '',
    kernelMessages: (bdf, since) => {
      if (!real) return [];
      const uptime = Number((root.attr('/proc/uptime') ?? '0').split(' ')[0]);
      // the kernel's log clock and the uptime may differ by some milliseconds
      return kernelMessages(root, bdf, (uptime - (performance.now() - since) / 1000) * 1e6 - 20_000);
    },
    pid,
  };
}

/**
 * Tells systemd and udev of changed files, where they run.
 * @returns what went wrong, for a warning: the files are in place and count from the next boot on
 */
export async function reload(root: Sysroot, changed: readonly string[]): Promise<string[]> {
  const failures: string[] = [];
  if (root.root !== '/') return failures;
  for (const [program = '', ...args] of reloadCommands(root, changed)) {
    await new Promise<void>((resolve) => {
      execFile(program, args, { timeout: 10_000 }, (err) => {
        if (err) failures.push(`${[program, ...args].join(' ')}: ${printable(err.message.split('\n')[0] ?? '')}`);
        resolve();
      });
    });
  }
  return failures;
}
