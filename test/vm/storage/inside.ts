// What the storage programs share inside a guest: devices, servers, the kernel's host, facts for the test outside.
import { execFileSync, spawnSync } from 'node:child_process';
import fs from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { Background } from '../../support/background.js';
import type { Outcome } from '../../support/served-disk.js';

export type Engine = 'uring' | 'sync';
export const engines: readonly Engine[] = ['uring', 'sync'];

/** Tells the test outside something: one line of JSON, in the order of the calls. */
export const fact = (name: string, value: unknown): void => {
  fs.writeSync(1, `FACT ${JSON.stringify([name, value])}\n`);
};

/** Runs a shell command. @throws with its output if it fails */
export const sh = (command: string): string => execFileSync('/bin/sh', ['-ec', command], { encoding: 'utf8' }).trim();

/** Runs a shell command that may fail. */
export function attempt(command: string): { status: number; text: string } {
  const { status, stdout, stderr } = spawnSync('/bin/sh', ['-c', command], { encoding: 'utf8', timeout: 60_000 });
  return { status: status ?? -1, text: `${stdout}${stderr}`.trim() };
}

/** A loop device over a new sparse file. */
export function loop(name: string, mib: number, options = ''): { file: string; device: string } {
  const file = `/run/${name}.img`;
  sh(`truncate -s ${mib}M ${file}`);
  return { file, device: sh(`losetup ${options} --show -f ${file}`) };
}

/** A device-mapper device of one target. @param target name and arguments @returns its path */
export function dm(name: string, sectors: number, target: string, options = ''): string {
  sh(`dmsetup create ${name} ${options} --noudevsync --table '0 ${sectors} ${target}' && dmsetup mknodes ${name}`);
  return `/dev/mapper/${name}`;
}

/** Replaces the target below a device in use, with dirty pages above it. */
export const dmSwap = (name: string, sectors: number, target: string): string =>
  sh(
    `dmsetup load ${name} --table '0 ${sectors} ${target}'; dmsetup suspend --noudevsync --nolockfs --noflush ${name}; dmsetup resume --noudevsync ${name}`,
  );

export interface Target {
  server: Background;
  port: number;
  nqn: string;
  control: string;
}
let servers = 0;

/** `nvmf serve`, ready. */
export async function serveNvmf(args: string[], nqn = `nqn.2014-08.org.nvmexpress:lab${servers}`): Promise<Target> {
  const control = `/run/ctl${servers++}`;
  const listen = ['--listen', '127.0.0.1:0', '--discovery-port', 'none', '--control', control, '--nqn', nqn];
  const server = Background.vioctl(['nvmf', 'serve', ...args, ...listen, '--ndjson']);
  const [line] = await server.sees(/^\{.*\}$/m, 60_000);
  return { server, port: (JSON.parse(line) as { listen: { port: number }[] }).listen[0]!.port, nqn, control };
}

/** `vhost-user serve blk` of SOCKET=SOURCE, ready. */
export async function serveBlk(args: string[]): Promise<Background> {
  const server = Background.vioctl(['vhost-user', 'serve', 'blk', ...args]);
  await server.sees(/^serving /m, 60_000);
  return server;
}

/** Waits until something is so. */
export async function until<T>(what: string, look: () => T | undefined | false, seconds = 60): Promise<T> {
  for (const end = Date.now() + seconds * 1000; ; ) {
    const found = look();
    if (found !== undefined && found !== false) return found;
    if (Date.now() > end) throw new Error(`never: ${what}`);
    await sleep(20);
  }
}

/** Connects the kernel's host. @returns the block device of each namespace by its NSID */
export async function kernelHost(target: Target, namespaces: number): Promise<Map<number, string>> {
  sh(`nvme connect -t tcp -a 127.0.0.1 -s ${target.port} -n ${target.nqn} -i 2 -k 30`);
  return until(`${namespaces} namespaces of ${target.nqn}`, () => {
    const found = new Map<number, string>();
    for (const name of fs.readdirSync('/sys/block')) {
      if (!/^nvme\d+n\d+$/.test(name)) continue;
      const attr = (file: string): string => {
        try {
          return fs.readFileSync(`/sys/block/${name}/${file}`, 'latin1').trim();
        } catch {
          return '';
        }
      };
      if (attr('device/subsysnqn') === target.nqn && fs.existsSync(`/dev/${name}`)) found.set(Number(attr('nsid')), `/dev/${name}`);
    }
    return found.size === namespaces && found;
  });
}

/** The kernel's host writes through its page cache, and makes it durable. @returns `ok` or the error */
export function kernelWrite(device: string, at: number, text: string): Outcome {
  const fd = fs.openSync(device, 'r+');
  try {
    fs.writeSync(fd, Buffer.alloc(4096, text), 0, 4096, at);
    fs.fsyncSync(fd);
    return 'ok';
  } catch (err) {
    return `error ${(err as NodeJS.ErrnoException).code}`;
  } finally {
    fs.closeSync(fd);
  }
}

/** The kernel's host makes what it has written durable: on an empty page cache, a Flush command. */
export function kernelFlush(device: string): Outcome {
  const fd = fs.openSync(device, 'r+');
  try {
    fs.fsyncSync(fd);
    return 'ok';
  } catch (err) {
    return `error ${(err as NodeJS.ErrnoException).code}`;
  } finally {
    fs.closeSync(fd);
  }
}

/** Runs the program's steps; the status tells whether all came to their end. */
export function main(run: () => Promise<void>): void {
  run().then(
    () => process.exit(0),
    (err: Error) => {
      console.error(err.stack);
      process.exit(1);
    },
  );
}
