// Small guests of a QEMU build, for making migration files and for reading guest memory back.
import { type ChildProcess, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { closeSync, createReadStream, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { QemuBuild } from '../vm/qemu.js';
import { Qmp } from '../vm/qmp.js';

/**
 * A boot sector that never ends: adds one to a word in each page between 64 and 576 KiB, over and over.
 * cli; 1: mov bx,1000h; 2: mov es,bx; inc word es:[0]; invlpg es:[0]; add bx,100h; cmp bx,9000h; jb 2b; jmp 1b
 * (without invlpg the emulation of 7.2 writes on through entries of its TLB that no longer track what is written)
 */
export function dirtyingDisk(): Buffer {
  const disk = Buffer.alloc(1 << 20);
  Buffer.from('fabb00108ec326ff060000260f013e000081c3000181fb009072e9ebe4', 'hex').copy(disk);
  disk.writeUInt16LE(0xaa55, 510);
  return disk;
}

/**
 * Firmware of a pseries machine that enters 256 entries into its hash page table, each in a group of its own, and then removes and
 * enters them one after the other for ever: one or two of the 256 are out at any time. Hypercalls of PAPR: H_ENTER 8, H_REMOVE 4.
 * li r14,0; 1: li r3,8; li r4,0; mulli r5,r14,8; li r6,1; li r7,1010h; sc 1; addi r14,r14,1; cmpwi r14,256; blt 1b
 * li r15,0; li r3,4; li r4,0; mulli r5,r15,8; li r6,0; sc 1; 2: addi r16,r15,1; andi. r16,r16,255
 * li r3,4; li r4,0; mulli r5,r16,8; li r6,0; sc 1; li r3,8; li r4,0; mulli r5,r15,8; li r6,1; li r7,1010h; sc 1; mr r15,r16; b 2b
 */
export function hashTableFirmware(): Buffer {
  const code = [
    '39c00000 38600008 38800000 1cae0008 38c00001 38e01010 44000022 39ce0001 2c0e0100 4180ffe0',
    '39e00000 38600004 38800000 1caf0008 38c00000 44000022 3a0f0001 721000ff',
    '38600004 38800000 1cb00008 38c00000 44000022 38600008 38800000 1caf0008 38c00001 38e01010 44000022 7e0f8378 4bffffc8',
  ];
  return Buffer.concat([Buffer.alloc(0x100), Buffer.from(code.join('').replaceAll(' ', ''), 'hex')]);
}

export interface Migration {
  uri: string;
  capabilities?: string[];
  parameters?: Record<string, unknown>;
  /** what to do while it runs: for guests that write faster than they are sent */
  meanwhile?: (qmp: Qmp) => Promise<void>;
  /** QEMU reports a failure although the stream is whole (no return path into a file) */
  mayFail?: boolean;
  /** disk contents as well (block migration, up to 9.0) */
  disks?: boolean;
  /** True once the stream has left, where the build then waits for an answer that no file gives. */
  written?: () => boolean;
}

/** One running QEMU. */
export class TestGuest {
  readonly qmp: Qmp;
  readonly #child: ChildProcess;

  private constructor(child: ChildProcess, qmp: Qmp) {
    this.#child = child;
    this.qmp = qmp;
  }

  /** Starts a guest that is paused until it is told to go on. Stop it in any case. */
  static async start(build: QemuBuild, dir: string, args: readonly string[]): Promise<TestGuest> {
    const socket = path.join(dir, 'qmp');
    rmSync(socket, { force: true });
    const common = ['-display', 'none', '-nodefaults', '-S', '-accel', 'tcg', '-qmp', `unix:${socket},server=on,wait=off`];
    const argv = build.argv('qemu-system-x86_64', [...common, ...args]);
    const log = openSync(path.join(dir, 'qemu.log'), 'w');
    const child = spawn(argv[0], argv.slice(1), { env: { ...process.env, ...build.env }, stdio: ['ignore', 'ignore', log] });
    closeSync(log);
    try {
      const died = once(child, 'exit').then(() => {
        throw new Error('it ended');
      });
      return new TestGuest(child, await Promise.race([Qmp.open(socket, 60), died]));
    } catch (err) {
      child.kill('SIGKILL');
      throw new Error(`QEMU did not start: ${(err as Error).message}: ${readFileSync(path.join(dir, 'qemu.log'), 'utf8').slice(-2000)}`);
    }
  }

  /** Migrates and waits for the end. */
  async migrate(m: Migration): Promise<void> {
    if (m.capabilities) {
      await this.qmp.run('migrate-set-capabilities', { capabilities: m.capabilities.map((capability) => ({ capability, state: true })) });
    }
    if (m.parameters) await this.qmp.run('migrate-set-parameters', m.parameters);
    await this.qmp.run('migrate', { uri: m.uri, ...(m.disks && { blk: true }) });
    await m.meanwhile?.(this.qmp);
    for (let i = 0; i < 3000; i++) {
      const { status, 'error-desc': why } = (await this.qmp.run('query-migrate')) as { status?: string; 'error-desc'?: string };
      if (status === 'completed' || (status === 'failed' && m.mayFail) || m.written?.()) return;
      if (status === 'failed' || status === 'cancelled') throw new Error(`migration ${status}: ${why}`);
      await sleep(20);
    }
    throw new Error('migration did not end');
  }

  /** Loads a stream (`-incoming defer`) and waits until that is done. */
  async load(uri: string, capabilities: string[] = []): Promise<void> {
    const set = capabilities.map((capability) => ({ capability, state: true }));
    if (set.length > 0) await this.qmp.run('migrate-set-capabilities', { capabilities: set });
    await this.qmp.run('migrate-incoming', { uri });
    for (let i = 0; i < 3000; i++) {
      const { status } = (await this.qmp.run('query-status')) as { status: string };
      if (status !== 'inmigrate') return;
      await sleep(20);
    }
    throw new Error('the incoming migration did not end');
  }

  /** SHA-256 of guest-physical memory, as QEMU itself reads it (QMP pmemsave). */
  async memoryHash(dir: string, at: number, size: number): Promise<string> {
    const hash = createHash('sha256');
    const file = path.join(dir, 'pmem');
    const step = 256 << 20;
    for (let done = 0; done < size; done += step) {
      await this.qmp.run('pmemsave', { val: at + done, size: Math.min(step, size - done), filename: file });
      for await (const bytes of createReadStream(file)) hash.update(bytes as Buffer);
      rmSync(file);
    }
    return hash.digest('hex');
  }

  async stop(): Promise<void> {
    this.qmp.close();
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const ended = once(this.#child, 'exit');
    this.#child.kill('SIGKILL');
    await ended;
  }
}

/** Writes a file and returns its path. */
export function put(dir: string, name: string, bytes: Buffer): string {
  const file = path.join(dir, name);
  writeFileSync(file, bytes);
  return file;
}
