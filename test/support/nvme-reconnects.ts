/** A server whose source is a namespace of another target, and whose connections to it are cut again and again. */
import { randomBytes } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { Background } from './background.js';
import { usage } from './nvme-host-fuzz.js';
import { brokenTarget } from './nvme-relay.js';
import { serveTarget } from './nvme-target.js';
import { NvmeDisk } from './served-disk.js';

export const reconnectsSize = 1 << 20;
const far = 'nqn.2014-08.org.nvmexpress:far';
const near = 'nqn.2014-08.org.nvmexpress:near';

export interface Reconnects {
  /** Associations that the server lost, which had an admin queue and two I/O queues. */
  cuts: number;
  /** After the first tenth, and at the end. */
  before: ReturnType<typeof usage>;
  after: ReturnType<typeof usage>;
}

/** A target on loopback whose namespace 1 is a file of zeroes of `reconnectsSize` bytes. */
export interface FarTarget {
  port: number;
  nqn: string;
  file: string;
  stop(): Promise<unknown>;
}
async function ownTarget(dir: string): Promise<FarTarget> {
  const file = path.join(dir, 'disk');
  fs.writeFileSync(file, Buffer.alloc(reconnectsSize));
  const { port, nqn, stop } = await serveTarget([file, '--nqn', far, '--discovery-port', 'none', '--quiet']);
  return { port, nqn, file, stop };
}

/**
 * Cuts the connections `rounds` times, in the midst of requests, and compares all data.
 * @param target a target of ours unless given; stopped at the end
 * @throws Error for a request that failed, or for wrong data
 */
export async function reconnects(dir: string, rounds: number, target?: FarTarget): Promise<Reconnects> {
  const { port: farPort, nqn, file, stop } = target ?? (await ownTarget(dir));
  const relay = await brokenTarget(farPort, (pdu) => [pdu]);
  const source = `nvme+tcp://127.0.0.1:${relay.port}/${nqn}/1,queues=2`;
  const server = Background.vioctl(['nvmf', 'serve', source, '--nqn', near, '--listen', '127.0.0.1:0', '--discovery-port', 'none']);
  const [, port] = await server.sees(/on 127\.0\.0\.1:(\d+)/);
  const disk = await NvmeDisk.open(Number(port), near);
  const model = Buffer.alloc(reconnectsSize);
  let before = usage(server.child.pid!);
  let cuts = 0;
  for (let round = 0; round < rounds; round++) {
    const writes = Array.from({ length: 4 }, (_, i) => {
      const data = randomBytes(8192);
      const at = ((round * 4 + i) * 8192) % reconnectsSize;
      data.copy(model, at);
      return disk.write(at, data, i === 3);
    });
    if (relay.cut() > 0) cuts++;
    const outcomes = await Promise.all(writes);
    if (round % 8 === 7) outcomes.push(await disk.flush());
    const bad = outcomes.find((one) => one !== 'ok');
    if (bad) throw new Error(`round ${round}: ${bad}`);
    if (round === Math.floor(rounds / 10)) before = usage(server.child.pid!);
  }
  if ((await disk.flush()) !== 'ok') throw new Error('the flush at the end failed');
  const after = usage(server.child.pid!);
  disk.close();
  const status = await server.stop();
  relay.close();
  await stop();
  if (status !== 0) throw new Error(`the server ended with ${status}: ${server.stderr}`);
  if (!fs.readFileSync(file).equals(model)) throw new Error('the far target has other data');
  return { cuts, before, after };
}
