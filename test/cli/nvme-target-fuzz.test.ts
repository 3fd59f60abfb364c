import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { NvmOpcode, rwCmd, sqe } from '../../src/nvme/wire/index.js';
import { capsule, connectCapsule, enableCapsule, icRequest, Peer } from '../support/nvme-raw.js';
import { connectHost, serveTarget } from '../support/nvme-target.js';

/** Seconds of each kind; `.ci/run` and whoever looks for trouble gives more. */
const seconds = Number(process.env.VIOCTL_FUZZ_SECONDS ?? 6);

/** Mulberry32: the same bytes for the same seed. */
function generator(seed: number) {
  let state = seed >>> 0;
  const next = (): number => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
  return {
    below: (n: number) => Math.floor(next() * n),
    chance: (p: number) => next() < p,
    /** A number of `bits` bits, often an extreme one. */
    number: (bits: number) => {
      const kind = next();
      if (kind < 0.3) return Math.floor(next() * 16);
      if (kind < 0.4) return 2 ** bits - 1 - Math.floor(next() * 4);
      if (kind < 0.5) return 2 ** Math.floor(next() * bits);
      return Math.floor(next() * 2 ** bits);
    },
  };
}
type Random = ReturnType<typeof generator>;

/** A command whose fields are of the right kind, with values that need not be. */
function randomCommand(r: Random, cid: number): { command: Buffer; data: Buffer | undefined } {
  const opcodes = [0, 1, 2, 5, 8, 9, 0x0c, 0x19, 2, 6, 8, 9, 0x0a, 0x0c, 0x18, 0x7f, r.below(256)];
  const data = r.chance(0.4) ? Buffer.alloc([16, 512, 4096, 1024, r.below(16000) + 1][r.below(5)]!, r.below(256)) : undefined;
  const command = sqe.encode({
    opcode: opcodes[r.below(opcodes.length)]!,
    fuse: r.chance(0.1) ? r.below(4) : 0,
    psdt: r.chance(0.95) ? 1 : r.below(4),
    cid,
    nsid: [1, 2, 0, 0xffff_ffff, 3, r.number(32)][r.below(6)]!,
    sglLength: r.chance(0.7) ? (data?.length ?? 4096) : r.number(32),
    sglId: r.chance(0.9) ? (data ? 1 : 0x5a) : r.below(256),
    sglAddress: r.chance(0.95) ? 0n : BigInt(r.number(32)),
    cdw10: r.number(32),
    cdw11: r.chance(0.7) ? 0 : r.number(32),
    cdw12: r.chance(0.7) ? r.below(64) : r.number(32),
    cdw13: r.number(32),
    cdw14: r.chance(0.8) ? 0 : r.number(32),
  });
  // not a shutdown or reset of the controller every other time
  if (command[0] === 0x7f) command[4] = [0, 1, 4, 5, 6, 8, r.below(256)][r.below(7)]!;
  return { command, data };
}

test('random PDUs and random commands: the target serves and verifies, with the memory and descriptors it had before', async () => {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'nvmf-'));
  const file = path.join(dir, 'disk.img');
  fs.writeFileSync(file, '');
  fs.truncateSync(file, 32 << 20);
  const target = await serveTarget([file, 'ram:16M,bs=4096', '--quiet', '--threads', '2']);
  const { pid } = target.child;
  const fds = () => fs.readdirSync(`/proc/${pid}/fd`).length;
  const rss = () => Number(/^VmRSS:\s+(\d+)/m.exec(fs.readFileSync(`/proc/${pid}/status`, 'utf8'))![1]) * 1024;
  /** A host that behaves writes and reads back; its identity is its own. */
  const serves = async (round: number) => {
    const host = await connectHost(target, { ioQueues: 1, dataDigest: true });
    const at = (opcode: number) => rwCmd.encode({ slba: 60000n, nlb: 63 }, sqe.encode({ opcode, nsid: 1 }));
    const data = Buffer.alloc(32768, `round ${round} `);
    await host.queues[0]!.run(at(NvmOpcode.write), { out: data });
    const back = Buffer.alloc(32768);
    await host.queues[0]!.run(at(NvmOpcode.read), { into: back });
    expect(back.equals(data)).toBe(true);
    await host.disconnect();
  };
  /** Admin queue and I/O queue of a controller, enabled. */
  const association = async (): Promise<Peer[]> => {
    const admin = await Peer.open(target.port);
    admin.socket.write(icRequest());
    await admin.pdu();
    admin.socket.write(connectCapsule(target.nqn, { kato: 2000 }));
    const cntlid = (await admin.pdu())!.readUInt16LE(8);
    admin.socket.write(enableCapsule());
    await admin.pdu();
    const io = await Peer.open(target.port);
    io.socket.write(Buffer.concat([icRequest(), connectCapsule(target.nqn, { qid: 1, cntlid, size: 128 })]));
    await io.pdu();
    await io.pdu();
    return [admin, io];
  };
  await serves(0);
  const before = { fds: fds(), rss: 0 };
  let rounds = 0;
  let sent = 0;
  for (const mutate of [true, false]) {
    for (const seed of [1, 20260, 0xdecade]) {
      const r = generator(seed + (mutate ? 7 : 0));
      const end = Date.now() + (seconds * 1000) / 3;
      while (Date.now() < end) {
        const peers = await association();
        for (let i = 0; i < 40; i++) {
          const peer = peers[r.below(2)]!;
          const { command, data } = randomCommand(r, i);
          let pdu = capsule(command, data && command[39] === 1 ? data : undefined);
          if (mutate) {
            if (r.chance(0.1)) pdu = icRequest({ hpda: r.below(256), dgst: r.below(256), maxr2t: r.number(32) });
            for (let n = r.below(4); n > 0; n--) pdu[r.below(r.chance(0.7) ? Math.min(24, pdu.length) : pdu.length)] = r.below(256);
            if (r.chance(0.1)) pdu = pdu.subarray(0, r.below(pdu.length));
          }
          if (peer.socket.writable) peer.socket.write(pdu);
          sent++;
        }
        await peers[1]!.until(() => peers[1]!.ended || peers[1]!.received.length > 20000, 20);
        for (const peer of peers) peer.close();
        if (++rounds === 20) before.rss = rss();
      }
      await serves(rounds);
    }
  }
  // keep-alive and the handshake deadline end whatever was left open
  const deadline = Date.now() + 12_000;
  while (fds() > before.fds && Date.now() < deadline) await new Promise((resolve) => setTimeout(resolve, 100));
  expect(fds()).toBeLessThanOrEqual(before.fds);
  expect(rounds).toBeGreaterThan(20);
  const grown = rss() - before.rss;
  // the sanitised addon keeps freed memory for a while
  if (!process.env.VIOCTL_ADDON) expect(grown).toBeLessThan(64 << 20);
  await serves(rounds);
  expect(await target.stop()).toBe(0);
  console.log(`${rounds} associations, ${sent} PDUs; ${grown >> 10} KiB more than before`);
  fs.rmSync(dir, { recursive: true, force: true });
}, 240_000);
