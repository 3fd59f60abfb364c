/** Random PDUs and random commands against our target: it lives, serves, verifies, and keeps neither memory nor descriptors. */
import { randomBytes } from 'node:crypto';
import fs from 'node:fs';
import { Bench, type Facts } from '../../src/nvme/conform/bench.js';
import { learn } from '../../src/nvme/conform/index.js';
import { Controller, type ControllerOptions, Namespace } from '../../src/nvme/host/index.js';
import { encodePdu, pdus, sqe } from '../../src/nvme/wire/index.js';
import { effort } from '../support/effort.js';
import { type ServedTarget, serveTarget } from '../support/nvme-target.js';
import { eventually } from '../support/wait.js';

/** Seconds per seed and kind; three seeds and two kinds make half a minute. */
const seconds = effort(1, 5);
const seeds = [1, 20, 300];

/** mulberry32: the same numbers for the same seed. */
function generator(seed: number): (below: number) => number {
  let state = seed >>> 0;
  return (below) => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) % below;
  };
}
type Random = ReturnType<typeof generator>;

const interesting = [0, 1, 2, 0x7f, 0x80, 0xff, 0xffff, 0x7fffffff, 0x80000000, 0xffffffff, 4096, 512, 1024, 65536];
const number32 = (r: Random) => (r(2) === 0 ? interesting[r(interesting.length)]! : r(0xffffffff));

let target: ServedTarget;
let facts: Facts;
let options: ControllerOptions;
beforeAll(async () => {
  target = await serveTarget(['ram:8M']);
  options = {
    address: '127.0.0.1',
    port: target.port,
    timeout: 90_000,
    hostnqn: 'nqn.2014-08.org.example:fuzz',
    hostid: Buffer.alloc(16, 3),
    subnqn: target.nqn,
    ioQueues: 1,
  };
  facts = await learn(options);
});
afterAll(() => target?.stop());

const rss = () => Number(/VmRSS:\s+(\d+)/.exec(fs.readFileSync(`/proc/${target.child.pid}/status`, 'utf8'))![1]);
const descriptors = () => fs.readdirSync(`/proc/${target.child.pid}/fd`).length;

/** Bytes that were right, changed in a few places, cut, doubled, or followed by noise. */
function mutate(pdu: Buffer, r: Random): Buffer {
  const out = Buffer.from(pdu);
  for (let i = r(4); i >= 0; i--) {
    const at = r(3) === 0 ? r(8) : r(out.length);
    if (r(3) === 0 && at + 4 <= out.length) out.writeUInt32LE(number32(r), at);
    else out.writeUInt8(r(256), at);
  }
  const kind = r(10);
  if (kind === 0) return out.subarray(0, 1 + r(out.length));
  if (kind === 1) return Buffer.concat([out, out]);
  if (kind === 2) return Buffer.concat([out, Buffer.from(Array.from({ length: r(300) }, () => r(256)))]);
  return out;
}

/** One connection in a random state gets a few mutated PDUs. */
async function mutatedPdus(r: Random): Promise<void> {
  const bench = new Bench(facts);
  try {
    const state = r(4);
    const digests = { headerDigest: r(4) === 0, dataDigest: r(4) === 0 };
    const connection =
      state === 0
        ? await bench.raw()
        : state === 1
          ? await bench.initialised(digests)
          : state === 2
            ? (await bench.admin(digests)).admin
            : (await bench.session(digests)).io;
    const capsule = (opcode: number, data?: Buffer) =>
      connection.capsule(
        { opcode, nsid: 1, cdw10: r(16384), cdw12: r(8) },
        data ? { data, inCapsule: r(2) === 0, length: data.length } : { read: 512 * (1 + r(8)) },
      ).pdu;
    const samples = [
      () => encodePdu(pdus.icReq, {}),
      () => capsule(2),
      () => capsule(1, Buffer.alloc(512 * (1 + r(8)), r(256))),
      () => capsule(6),
      () => connection.h2c({ cccid: r(4), ttag: r(4), datao: 0, datal: 512 }, Buffer.alloc(512)),
      () => encodePdu(pdus.h2cTermReq, { fes: r(7) }, { data: Buffer.alloc(r(129)) }),
    ];
    for (let i = 1 + r(5); i > 0; i--) connection.send(mutate(samples[r(samples.length)]!(), r));
    await connection.next(r(3) === 0 ? 30 : 3);
  } finally {
    bench.close();
  }
}

/** Commands of the right shape with random contents, on the admin queue or an I/O queue. */
async function randomCommands(r: Random): Promise<void> {
  const bench = new Bench(facts);
  try {
    const { admin, io } = await bench.session();
    const connection = r(2) === 0 ? admin : io;
    const opcodes =
      connection === admin ? [0x02, 0x06, 0x08, 0x09, 0x0a, 0x0c, 0x18, 0x7f] : [0x00, 0x01, 0x02, 0x05, 0x08, 0x09, 0x0c, 0x19, 0x7f];
    for (let i = 1 + r(20); i > 0; i--) {
      const opcode = r(8) === 0 ? r(256) : opcodes[r(opcodes.length)]!;
      const data = (opcode & 3) === 1 && r(3) > 0 ? Buffer.alloc(16 * (1 + r(256)), r(256)) : undefined;
      const { pdu } = connection.capsule(
        {
          opcode,
          nsid: r(3) === 0 ? number32(r) : 1,
          cdw10: number32(r),
          cdw11: r(2) === 0 ? 0 : number32(r),
          cdw12: r(2) === 0 ? r(16) : number32(r),
          cdw13: number32(r),
          cdw14: number32(r),
          cdw15: number32(r),
        },
        {
          ...(data && { data, inCapsule: true }),
          length: r(4) === 0 ? number32(r) : (data?.length ?? 512 * r(32)),
          tweak: (entry) => {
            // Property Set would only reset the controller again and again.
            if (entry[0] === 0x7f && entry[4] === 0) sqe.set(entry, 'fctype', 4);
            if (r(10) === 0) entry.writeUInt8(r(256), 39);
            if (r(20) === 0) entry.writeUInt8(r(256), 1);
          },
        },
      );
      connection.send(pdu);
    }
    for (let i = 0; i < 4; i++) if ((await connection.next(5)).kind !== 'cqe') break;
  } finally {
    bench.close();
  }
}

async function serves(): Promise<void> {
  const controller = await Controller.connect({ ...options, headerDigest: true, dataDigest: true });
  const ns = new Namespace(controller, await controller.namespace(1));
  const data = randomBytes(65536);
  await ns.write(64n, data);
  const back = Buffer.alloc(data.length);
  await ns.read(64n, back);
  await ns.flush();
  expect(back.equals(data)).toBe(true);
  await controller.disconnect();
}

test.each([
  ['mutated PDUs', mutatedPdus],
  ['random commands', randomCommands],
] as const)('%s', async (_name, round) => {
  const run = async (r: Random, end: number) => {
    let rounds = 0;
    for (; rounds < 4 || performance.now() < end; rounds++) await round(r);
    return rounds;
  };
  await run(generator(7), performance.now() + 500); // buffers and pools grow to their size
  await serves();
  const before = { rss: rss(), fds: descriptors() };
  let rounds = 0;
  for (const seed of seeds) {
    const end = performance.now() + seconds * 1000;
    rounds += (await Promise.all([seed, seed + 1].map((one) => run(generator(one), end)))).reduce((a, b) => a + b, 0);
    await serves();
  }
  expect(target.child.exitCode).toBe(null);
  // Connections that ended are given up at once; a moment for the last ones.
  await eventually(() => descriptors() <= before.fds);
  expect(descriptors()).toBeLessThanOrEqual(before.fds);
  console.log(
    `${_name}: ${rounds} rounds of seeds ${seeds.join(', ')} and their successors, ${rss() - before.rss} KiB more than before, ${descriptors()} of ${before.fds} descriptors`,
  );
  expect(rss() - before.rss).toBeLessThan(48 * 1024);
});
