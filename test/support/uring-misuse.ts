import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { BufferRing, FileTable, Op, Operations, prep, type Request, Ring, requestOps, Setup, SqeFlag } from '../../src/uring/index.js';

/** What a run did; every fault is thrown. */
export interface FuzzCount {
  rings: number;
  accepted: number;
  refused: number;
  called: number;
}

const GUARD = 64;
/** Milliseconds in which every promise must have settled once its ring is closed. */
const SETTLE = 10_000;
const op = (name: string): number => requestOps.find((o) => o.name === name)!.value;

/** Numbers from a seed (xorshift32): the same calls each time. */
function random(seed: number): (below: number) => number {
  let state = seed | 1;
  return (below) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % below;
  };
}

/** A view between guards; what lies around it must never change. */
function guarded(size: number, shared: boolean): { view: Buffer; intact: () => boolean } {
  const memory = shared ? new SharedArrayBuffer(size + 2 * GUARD) : new ArrayBuffer(size + 2 * GUARD);
  const block = Buffer.from(memory as ArrayBuffer).fill(0x5a);
  return {
    view: block.subarray(GUARD, GUARD + size),
    intact: () => block.length === 0 || [...block.subarray(0, GUARD), ...block.subarray(GUARD + size)].every((byte) => byte === 0x5a),
  };
}

/**
 * Random valid and invalid calls on rings that are closed at random moments, by programs whose callbacks throw, close and queue more; memory is
 * transferred away and collected meanwhile. Checks that every accepted request is called back exactly once, and that
 * nothing around a buffer is written.
 */
export async function fuzzRings(seed: number, steps: number): Promise<FuzzCount> {
  const pick = random(seed);
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-uring-misuse-'));
  const fifo = path.join(dir, 'fifo');
  spawnSync('mkfifo', [fifo]);
  const file = path.join(dir, 'file');
  fs.writeFileSync(file, Buffer.alloc(10_000, 'file'));
  const fds = [fs.openSync(file, 'r+'), fs.openSync(fifo, 'r+'), fs.openSync('/dev/zero', 'r'), fs.openSync('/dev/null', 'w'), -1, 100_000];
  const count: FuzzCount = { rings: 0, accepted: 0, refused: 0, called: 0 };
  try {
    while (steps > 0) {
      const part = Math.min(steps, 20 + pick(200));
      steps -= part;
      await oneRing(pick, part, { fds, file }, count);
    }
  } finally {
    for (const fd of fds.slice(0, 4)) fs.closeSync(fd);
    fs.rmSync(dir, { recursive: true });
  }
  return count;
}

async function oneRing(
  pick: (below: number) => number,
  steps: number,
  on: { fds: number[]; file: string },
  count: FuzzCount,
): Promise<void> {
  const entries = [1, 2, 3, 8, 64][pick(5)]!;
  const require = [0, 0, 0, Setup.sqpoll, Setup.rDisabled][pick(5)]!;
  const ring = new Ring({ entries, require, ...(pick(3) === 0 && { cqEntries: entries }), watch: pick(5) > 0, registered: pick(2) === 0 });
  count.rings++;
  const table = new FileTable(ring);
  if (pick(3) > 0) table.registerSparse(1 + pick(8));
  const io = new Operations(ring);
  const pending = new Map<number, string>();
  const guards: (() => boolean)[] = [];
  const promises: Promise<unknown>[] = [];
  let buffers: BufferRing | undefined;
  let number = 0;
  const caught = (err: unknown): void => {
    const code = (err as { code?: string }).code;
    if (code === undefined && (err as Error).message !== 'mine') throw err;
    count.refused++;
  };
  /** A promise that must settle, whatever it says. */
  const settles = (start: () => Promise<unknown>): void => {
    promises.push((async () => start())().catch(caught));
  };
  /** A callback that counts, and sometimes does what it should not. */
  const done = (what: string): ((result: number) => void) => {
    const id = number++;
    pending.set(id, what);
    return (result) => {
      if (!pending.delete(id)) throw new Error(`${what} was called back twice, now with ${result}`);
      count.called++;
      const mood = pick(40);
      if (mood === 0) ring.close();
      if (mood === 1) queue();
      if (mood === 2) throw Object.assign(new Error('mine'), { code: 'MINE' });
    };
  };
  const attempt = (what: string, call: (finished: (result: number) => void) => void): void => {
    const id = number;
    const finished = done(what);
    try {
      call(finished);
      count.accepted++;
    } catch (err) {
      pending.delete(id);
      caught(err);
    }
  };
  const buffer = (): Buffer => {
    const { view, intact } = guarded([0, 1, 8, 100, 4096][pick(5)]!, pick(4) === 0);
    guards.push(intact);
    return view;
  };
  const offset = (): number => [0, -1, 5, 9_999, 20_000, -2, 1.5, Number.NaN][pick(8)]!;
  const queue = (): void => {
    const fd = on.fds[pick(on.fds.length)]!;
    const name = Buffer.from(`${on.file}\0`);
    const soon = (): AbortSignal => AbortSignal.timeout(pick(5));
    const step = (): Request =>
      [prep.nop(), prep.read(fd, buffer(), 0), prep.openat('/none'), prep.timeout(pick(3)), prep.fsync(fd)][pick(5)]!;
    const calls: (() => void)[] = [
      () => attempt('read', (f) => ring.read(fd, buffer(), offset(), f)),
      () => attempt('write', (f) => ring.write(on.fds[3]!, buffer(), offset(), f)),
      () => attempt('nop', (f) => ring.push({ opcode: Op.nop }, f)),
      () => attempt('push', (f) => ring.push({ opcode: Op.read, fd, buffer: buffer(), length: pick(5000), offset: pick(100) }, f)),
      () => attempt('vector', (f) => ring.push({ opcode: op('readv'), fd, buffer: Buffer.alloc(16), length: pick(3) }, f)),
      () =>
        attempt('timeout', (f) => ring.push({ opcode: Op.timeout, buffer: BigInt64Array.of(0n, BigInt(pick(2_000_000))), length: 1 }, f)),
      () => attempt('whole', (f) => ring.readWhole(name, 0, pick(9), buffer(), f)),
      () => attempt('open', (f) => ring.openSlot(name, 0, pick(9), 0, f)),
      () => attempt('close', (f) => ring.closeSlot(pick(9), f)),
      () => attempt('linked', (f) => ring.push({ opcode: Op.nop, flags: 4 }, f)),
      () =>
        attempt('moved', (f) => {
          const view = new Uint8Array(4096);
          ring.read(on.fds[2]!, view, 0, f);
          structuredClone(view.buffer, { transfer: [view.buffer] });
        }),
      () => attempt('cancelled', (f) => ring.cancel(ring.push({ opcode: Op.read, fd: on.fds[1]!, buffer: buffer(), offset: -1 }, f))),
      () => settles(() => io.read(fd, buffer(), -1, { timeout: pick(5) })),
      () => settles(() => io.poll(fd, 1 + pick(4), { signal: soon() })),
      () =>
        settles(() => io.chain(Array.from({ length: pick(5) }, step), { hard: pick(2) === 0, ...(pick(3) === 0 && { signal: soon() }) })),
      () => settles(() => io.cancel([{ any: true }, { file: fd }, { file: fd, all: true }, { token: pick(20) }][pick(4)]!)),
      () => settles(() => io.readFixed(fd, buffer(), pick(3), 0, { timeout: 1 + pick(5) })),
      () => settles(() => ring.room(1 + pick(10))),
      () => {
        const signal = soon();
        settles(async () => {
          let left = pick(4);
          for await (const _ of io.createReadStream(on.file, { highWaterMark: 1 + pick(3000), signal })) if (left-- === 0) break;
        });
      },
      () => {
        const [group, signal] = [buffers, soon()];
        if (group) settles(async () => { for await (const chunk of io.chunks(on.fds[1]!, group, { signal })) if (chunk.length > pick(100)) break; }); // biome-ignore format: a line
      },
      () => {
        const group = buffers;
        attempt('picked', (f) =>
          ring.push(
            { opcode: Op.read, fd, flags: SqeFlag.bufferSelect, bufIndex: group?.group ?? pick(3), length: pick(400) },
            (n, flags) => {
              const id = BufferRing.idOf(flags);
              if (group && id !== undefined && n >= 0) group.take(id, n);
              if (group && id !== undefined && n >= 0 && pick(4) > 0) group.give(id);
              f(n);
            },
          ),
        );
      },
    ];
    calls[pick(calls.length)]!();
  };
  const quiet = (run: () => void): void => {
    try {
      run();
    } catch (err) {
      caught(err);
    }
  };
  for (let i = 0; i < steps && !ring.closed; i++) {
    queue();
    const mood = pick(60);
    if (mood < 8) quiet(() => ring.submit());
    if (mood === 8) quiet(() => ring.submit(1, 1));
    if (mood === 9) await new Promise((resolve) => setImmediate(resolve));
    if (mood === 10) await new Promise((resolve) => setTimeout(resolve, pick(4)));
    if (mood === 11) (globalThis as { gc?: () => void }).gc?.();
    if (mood === 12) quiet(() => ring.enable());
    if (mood === 13) quiet(() => table.update(pick(9), [on.fds[pick(on.fds.length)]!]));
    if (mood === 14) quiet(() => ring.register(pick(40), Buffer.alloc(pick(300)), pick(10)));
    if (mood === 15 && pick(3) === 0) quiet(() => ring.close());
    if (mood === 16) quiet(() => ring.buffers.register([buffer(), buffer()]));
    if (mood === 17) quiet(() => ring.buffers.update(pick(3), [pick(3) === 0 ? null : buffer()]));
    if (mood === 18) quiet(() => ring.buffers.unregister());
    if (mood === 19) quiet(() => ring.buffers.clone(ring, { from: pick(2), replace: pick(2) === 0 }));
    if (mood === 20) quiet(() => { buffers = new BufferRing(ring, { count: 1 << pick(4), size: 1 + pick(300) }); }); // biome-ignore format: a line
    if (mood === 21) quiet(() => buffers?.unregister());
    if (mood === 22) quiet(() => ring.reserve(pick(100)));
    if (mood === 23) fs.writeSync(on.fds[1]!, 'some data for readers of the pipe');
  }
  for (let i = 0; i < 100 && !(ring.closed && ring.fd === -1); i++) quiet(() => ring.close());
  await new Promise((resolve) => setImmediate(resolve));
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise((resolve) => {
    timer = setTimeout(resolve, SETTLE, 'late');
  });
  if ((await Promise.race([Promise.all(promises), late])) === 'late') throw new Error('a promise that never settles');
  clearTimeout(timer);
  if (pending.size > 0) throw new Error(`never called back: ${[...pending.values()].join(', ')}`);
  if (ring.inFlight !== 0) throw new Error(`${ring.inFlight} under way in a closed ring`);
  if (!guards.every((intact) => intact())) throw new Error('memory around a buffer was written');
}
