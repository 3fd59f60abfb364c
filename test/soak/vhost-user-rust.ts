/**
 * `serve blk` under a front-end on rust-vmm's crates: `npm run soak -- vhost-user-rust [--rounds N] [--mib N]`. Needs cargo and rustc on
 * PATH. Per engine, N rounds write the disk and read it back, each by other features, and find what the round before left; the server
 * lives on, is ended by SIGTERM or by SIGKILL between them. The file has to hold the same, and one wrong byte in it has to be noticed.
 */
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { rustVmmFrontEnd } from '../peers/rust-vmm.js';
import { Background } from '../support/background.js';

const { values } = parseArgs({
  args: process.argv.slice(1),
  options: { rounds: { type: 'string', default: '16' }, mib: { type: 'string', default: '8' } },
});
const [rounds, size] = [Number(values.rounds), Number(values.mib) << 20];

/** The front-end's ways; bit i of a round's number takes the i-th. */
const WAYS = ['slots', 'events', 'indirect', 'inflight'];
/** What happens to the server after a round, in turn. */
const ENDS = ['SIGTERM', undefined, 'SIGKILL', undefined] as const;

/** Word i of the file is `seed << 32 | i`. */
function holds(file: string, seed: number): boolean {
  const data = fs.readFileSync(file);
  for (let at = 0; at < size; at += 8) if (data.readUInt32LE(at) !== at / 8 || data.readUInt32LE(at + 4) !== seed) return false;
  return data.length === size;
}

async function engineRounds(frontEnd: string, dir: string, engine: 'uring' | 'sync'): Promise<void> {
  const [socket, file, serial] = [path.join(dir, `${engine}.sock`), path.join(dir, `${engine}.img`), `rust-${engine}`];
  fs.writeFileSync(file, Buffer.alloc(size));
  const start = async (): Promise<Background> => {
    const server = Background.vioctl(['vhost-user', 'serve', 'blk', socket, '--file', file, '--engine', engine, '--serial', serial]);
    await server.sees(/^serving /m);
    return server;
  };
  const run = (seed: number, before: number, ways: readonly string[]) =>
    spawnSync(frontEnd, [socket, `${size}`, `${seed}`, `${before}`, ...ways], { encoding: 'utf8', timeout: 300_000 });
  let server = await start();
  try {
    for (let round = 0; round < rounds; round++) {
      const ways = WAYS.filter((_, bit) => (round >> bit) & 1);
      const { status, stdout, stderr } = run(round + 1, round, ways);
      const name = `${engine}, round ${round} (${ways.join(', ') || 'plain'})`;
      if (status !== 0) throw new Error(`${name}: ${stderr}\n${server.stderr}`);
      if (!stdout.startsWith(`serial ${serial}\n`)) throw new Error(`${name}: not the serial ${serial}: ${stdout}`);
      if (!holds(file, round + 1)) throw new Error(`${name}: the file does not hold the pattern`);
      console.log(`${name}: ${stdout.trim().split('\n').slice(1).join('; ')}`);
      const end = ENDS[round % ENDS.length];
      if (!end) continue;
      const code = await server.stop(end);
      if (end === 'SIGTERM' && code !== 0) throw new Error(`${name}: exit status ${code} after SIGTERM: ${server.stderr}`);
      server = await start();
    }
    const damaged = fs.openSync(file, 'r+');
    fs.writeSync(damaged, Buffer.of(0xff), 0, 1, size - 4096 + 7);
    fs.closeSync(damaged);
    const { status, stderr } = run(rounds + 1, rounds, []);
    if (status !== 1 || !/data at \d+ are not the pattern/.test(stderr))
      throw new Error(`${engine}: a wrong byte went unnoticed: ${stderr}`);
    const code = await server.stop();
    if (code !== 0) throw new Error(`${engine}: exit status ${code}: ${server.stderr}`);
  } finally {
    await server.stop('SIGKILL');
  }
}

async function main(): Promise<void> {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-rust-'));
  try {
    const frontEnd = await rustVmmFrontEnd(dir);
    for (const engine of ['uring', 'sync'] as const) await engineRounds(frontEnd, dir, engine);
  } finally {
    fs.rmSync(dir, { recursive: true, force: true });
  }
}

void main();
