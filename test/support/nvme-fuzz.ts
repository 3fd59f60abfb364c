/**
 * A mutation fuzzer of an NVMe/TCP target that pipelines: commands behind ICReq and CONNECT that have not been answered,
 * data before and after the completions of other commands, several queues at once, connections cut anywhere. Everything
 * it does follows from the seed and from what the target sends.
 */
import fs from 'node:fs';
import { Controller } from '../../src/nvme/host/controller.js';
import { AdminOpcode, encodePdu, Fctype, NvmOpcode, PduFlag, pdus, psdtSgl, r2t, rwCmd, sqe } from '../../src/nvme/wire/index.js';
import { capsule, connectCapsule, enableCapsule, hostid, hostnqn, icRequest, Peer } from './nvme-raw.js';
import { type ServedTarget, serveTarget } from './nvme-target.js';

/** Mulberry32: the same numbers for the same seed. */
export function generator(seed: number) {
  let state = seed >>> 0;
  const next = (): number => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
  const below = (n: number) => Math.floor(next() * n);
  return {
    below,
    chance: (p: number) => next() < p,
    pick: <T>(list: readonly T[]): T => list[below(list.length)]!,
    /** A number of `bits` bits, often an extreme one. */
    number: (bits: number) => {
      const kind = next();
      if (kind < 0.3) return below(16);
      if (kind < 0.4) return 2 ** bits - 1 - below(4);
      if (kind < 0.5) return 2 ** below(bits);
      return below(2 ** bits);
    },
  };
}
export type Random = ReturnType<typeof generator>;

const opcodes = [0, 1, 1, 1, 2, 2, 5, 5, 8, 9, 9, 0x0c, 0x19, 0x19, 6, 0x0a, 0x18, 0x7f, 0x7f];
const fctypes = [0, 1, 1, 4, 4, 5, 6, 8, 8];

/** A command whose fields are of the right kind, with values that need not be, and its data. */
export function randomCommand(r: Random, cid: number): { command: Buffer; data: Buffer | undefined } {
  const opcode = r.chance(0.95) ? r.pick(opcodes) : r.below(256);
  const data = r.chance(0.5) ? Buffer.alloc(r.pick([16, 32, 512, 4096, 1024, r.below(16000) + 1]), r.below(256)) : undefined;
  const inCapsule = data !== undefined && r.chance(0.4);
  const size = data?.length ?? r.pick([512, 4096, 65536, 1 << 20]);
  const command = sqe.encode({
    opcode,
    fuse: r.chance(0.1) ? r.below(4) : 0,
    psdt: r.chance(0.97) ? psdtSgl : r.below(4),
    cid,
    nsid: r.pick([1, 1, 2, 2, 0, 0xffff_ffff, 3, r.number(32)]),
    sglLength: r.chance(0.85) ? size : r.number(32),
    sglId: r.chance(0.93) ? (inCapsule ? 1 : 0x5a) : r.below(256),
    sglAddress: r.chance(0.97) ? 0n : BigInt(r.number(32)),
    cdw10: r.chance(0.5) ? r.below(4096) : r.number(32),
    cdw11: r.chance(0.9) ? 0 : r.number(32),
    cdw12: r.chance(0.6) ? Math.max(0, size / 512 - 1) | (r.chance(0.2) ? 1 << 30 : 0) : r.chance(0.5) ? r.below(64) : r.number(32),
    cdw13: r.number(32),
    cdw14: r.chance(0.8) ? 0 : r.number(32),
  });
  if (opcode === AdminOpcode.fabrics) {
    command[4] = r.chance(0.9) ? r.pick(fctypes) : r.below(256);
    if (command[4] === Fctype.propertySet) {
      // CC: enabled, disabled, shut down, or anything
      command.writeUInt32LE(0x14, 44);
      command.writeUInt32LE(r.pick([0x460001, 0x460001, 0x460000, 0x464001, r.number(32)]), 48);
    }
  }
  return { command, data };
}

/** Changes a few bytes, or cuts the end off. */
function mutate(r: Random, pdu: Buffer): Buffer {
  for (let n = r.below(4); n > 0; n--) pdu[r.below(r.chance(0.7) ? Math.min(24, pdu.length) : pdu.length)] = r.below(256);
  return r.chance(0.1) ? pdu.subarray(0, r.below(pdu.length)) : pdu;
}

/** One connection of the fuzzer: it keeps what R2Ts ask for and answers it now, later, wrongly or never. */
class Lane {
  readonly peer: Peer;
  readonly #r: Random;
  readonly #count: (sent: number) => void;
  readonly #owed: { cccid: number; ttag: number; datao: number; left: number }[] = [];
  #cid = 1;
  completions = 0;

  constructor(peer: Peer, r: Random, count: (sent: number) => void) {
    this.peer = peer;
    this.#r = r;
    this.#count = count;
  }

  write(...bytes: Buffer[]): void {
    this.#count(bytes.length);
    if (this.peer.socket.writable) this.peer.socket.write(Buffer.concat(bytes));
  }

  commands(n: number, mutating: boolean): Buffer[] {
    const r = this.#r;
    return Array.from({ length: n }, () => {
      const { command, data } = randomCommand(r, r.chance(0.95) ? this.#cid++ & 0xffff : r.below(65536));
      const pdu = capsule(command, command[39] === 1 ? data : undefined);
      return mutating && r.chance(0.3) ? mutate(r, pdu) : pdu;
    });
  }

  /** Takes what has come: R2Ts are owed data from then on. */
  take(): void {
    const { peer } = this;
    while (peer.received.length >= 8) {
      const size = peer.received.readUInt32LE(4);
      if (size < 8 || size > 2 << 20 || peer.received.length < size) return;
      const pdu = peer.received.subarray(0, size);
      peer.received = peer.received.subarray(size);
      if (pdu[0] === 5) this.completions++;
      if (pdu[0] !== 9) continue;
      const { cccid, ttag, r2tl } = r2t.decode(pdu);
      this.#owed.push({ cccid, ttag, datao: 0, left: r2tl });
    }
  }

  /** Pays some of the data that is owed, in pieces, from any of the commands. */
  pay(mutating: boolean): void {
    const r = this.#r;
    for (let n = r.below(6); n > 0 && this.#owed.length > 0; n--) {
      const at = r.below(this.#owed.length);
      const owed = this.#owed[at]!;
      if (r.chance(0.1)) continue;
      const datal = r.chance(0.6) ? owed.left : Math.min(owed.left, 4 * (1 + r.below(2048)));
      const { cccid, ttag, datao } = owed;
      const pdu = encodePdu(
        pdus.h2cData,
        { cccid, ttag, datao, datal },
        { data: Buffer.alloc(datal, r.below(256)), flags: datal === owed.left ? PduFlag.last : 0 },
      );
      owed.datao += datal;
      owed.left -= datal;
      if (owed.left === 0) this.#owed.splice(at, 1);
      const out = mutating && r.chance(0.1) ? mutate(r, pdu) : pdu;
      if (r.chance(0.1)) {
        // cut by TCP, with whatever the target does in between
        const cut = r.below(out.length);
        this.write(out.subarray(0, cut));
        if (this.peer.socket.writable) this.peer.socket.write(out.subarray(cut));
      } else this.write(out);
    }
  }
}

export interface FuzzOptions {
  port: number;
  /** The subsystem that is attacked. */
  nqn: string;
  seed: number;
  /** Ends after so many PDUs, or at this time by performance.now(). */
  pdus: number;
  until?: number;
  /** Associations at a time. */
  lanes?: number;
}

/** Attacks the target. @returns PDUs sent, associations made and completions received */
export async function fuzz(options: FuzzOptions): Promise<{ pdus: number; associations: number; completions: number }> {
  const { port, nqn } = options;
  const total = { pdus: 0, associations: 0, completions: 0 };
  const over = () => total.pdus >= options.pdus || performance.now() >= (options.until ?? Number.POSITIVE_INFINITY);
  const association = async (r: Random): Promise<void> => {
    const mutating = r.chance(0.4);
    const lanes: Lane[] = [];
    const open = async () => {
      const lane = new Lane(await Peer.open(port), r, (sent) => {
        total.pdus += sent;
      });
      lanes.push(lane);
      return lane;
    };
    const behind = (lane: Lane) => (r.chance(0.6) ? lane.commands(r.below(30), mutating) : []);
    const admin = await open();
    const connect = connectCapsule(nqn, { kato: 2000, size: r.pick([2, 32, 128]) });
    const pipelined = r.chance(0.5);
    admin.write(icRequest(), connect, ...(pipelined ? behind(admin) : []));
    // the controller's identifier is in the answer to the CONNECT, wherever that stands
    let cntlid = 0xffff;
    const answered = () => {
      for (let at = 0; at + 24 <= admin.peer.received.length; at += Math.max(8, admin.peer.received.readUInt32LE(at + 4)))
        if (admin.peer.received[at] === 5 && admin.peer.received.readUInt16LE(at + 20) === 0) {
          cntlid = admin.peer.received.readUInt16LE(at + 8);
          return true;
        }
      return admin.peer.ended;
    };
    await admin.peer.until(answered, 3000);
    admin.write(enableCapsule(), ...behind(admin));
    for (let qid = 1 + r.below(3); qid > 0; qid--) {
      const io = await open();
      const again = r.chance(0.1) ? [connectCapsule(nqn, { qid, cntlid, cid: r.below(3) })] : [];
      io.write(
        icRequest(),
        connectCapsule(nqn, { qid: r.chance(0.95) ? qid : r.below(8), cntlid, size: r.pick([2, 16, 128, 1024]) }),
        ...behind(io),
        ...again,
      );
      if (r.chance(0.5)) await io.peer.until(() => io.peer.received.length > 128 || io.peer.ended, 100);
    }
    for (let turn = 3 + r.below(20); turn > 0 && !lanes.every((lane) => lane.peer.ended); turn--) {
      for (let n = 1 + r.below(4); n > 0; n--) {
        const lane = r.pick(lanes);
        lane.write(...lane.commands(r.below(8), mutating));
        lane.take();
        lane.pay(mutating);
      }
      // an answer, or a moment: the target works on all of its queues meanwhile
      await new Promise((resolve) => (r.chance(0.8) ? setImmediate(resolve) : setTimeout(resolve, r.below(8))));
      if (r.chance(0.03)) r.pick(lanes).peer.close();
    }
    for (const lane of lanes) {
      lane.take();
      total.completions += lane.completions;
      // Node spins on a socket that is reset while its end is on the way
      if (r.chance(0.5) || lane.peer.socket.writableEnded) lane.peer.close();
      else lane.peer.socket.resetAndDestroy();
    }
    total.associations++;
  };
  await Promise.all(
    Array.from({ length: options.lanes ?? 4 }, async (_, lane) => {
      const r = generator(options.seed * 31 + lane);
      while (!over()) await association(r);
    }),
  );
  return total;
}

/** The attacked target, and one beside the attack whose data is checked all the time. */
export interface Attacked {
  target: ServedTarget;
  /** The subsystem to attack. */
  nqn: string;
  fds(): number;
  rss(): number;
  /** Writes and reads of another host on another subsystem, until it is told to end. @throws when data is wrong */
  verify(): { stop(): Promise<number> };
}

const attackedNqn = 'nqn.2014-08.org.example:attacked';
const verifiedNqn = 'nqn.2014-08.org.example:verified';

/**
 * Starts `nvmf serve` with a subsystem to attack and one to verify.
 * @param stall milliseconds that the target's JavaScript stands still at a time, as often as it runs
 */
export async function serveAttacked(dir: string, args: { engine: string; threads?: number; stall?: number }): Promise<Attacked> {
  for (const name of ['attacked.img', 'verified.img']) {
    fs.writeFileSync(`${dir}/${name}`, '');
    fs.truncateSync(`${dir}/${name}`, 32 << 20);
  }
  const config = {
    listen: ['127.0.0.1:0'],
    threads: args.threads ?? 2,
    engine: args.engine,
    subsystems: [
      { nqn: attackedNqn, namespaces: [{ source: 'attacked.img' }, { source: 'ram:16M', blockSize: 4096 }] },
      { nqn: verifiedNqn, namespaces: [{ source: 'verified.img' }, { source: 'ram:8M', blockSize: 4096 }] },
    ],
  };
  fs.writeFileSync(`${dir}/target.json`, JSON.stringify(config));
  const stall = args.stall
    ? { NODE_OPTIONS: `--require ${require.resolve('./programs/stalled-javascript.cjs')}`, VIOCTL_TEST_STALL: String(args.stall) }
    : undefined;
  const target = await serveTarget(['--config', `${dir}/target.json`, '--quiet'], stall);
  const { pid } = target.child;
  return {
    target,
    nqn: attackedNqn,
    fds: () => fs.readdirSync(`/proc/${pid}/fd`).filter((fd) => !isEventfd(`/proc/${pid}/fd/${fd}`)).length,
    rss: () => Number(/^VmRSS:\s+(\d+)/m.exec(fs.readFileSync(`/proc/${pid}/status`, 'utf8'))![1]) * 1024,
    verify: () => verifier(target.port),
  };
}

/** Eventfds belong to threads and to the event loop, some from their first use on: no host can make one. */
function isEventfd(link: string): boolean {
  try {
    return fs.readlinkSync(link) === 'anon_inode:[eventfd]';
  } catch {
    return false; // closed meanwhile
  }
}

/** Keeps a model of both namespaces and compares. */
function verifier(port: number): { stop(): Promise<number> } {
  const r = generator(77);
  const spaces = [
    { nsid: 1, bytes: 512, data: Buffer.alloc(8 << 20) },
    { nsid: 2, bytes: 4096, data: Buffer.alloc(8 << 20) },
  ];
  let going = true;
  let done = 0;
  const run = async () => {
    const host = await Controller.connect({
      address: '127.0.0.1',
      port,
      timeout: 60_000,
      subnqn: verifiedNqn,
      hostnqn,
      hostid,
      ioQueues: 2,
      dataDigest: true,
    });
    const transfer = async (write: boolean, space: (typeof spaces)[number], at: number, size: number) => {
      const command = rwCmd.encode(
        { slba: BigInt(at / space.bytes), nlb: size / space.bytes - 1, fua: r.chance(0.1) ? 1 : 0 },
        sqe.encode({ opcode: write ? NvmOpcode.write : NvmOpcode.read, nsid: space.nsid }),
      );
      const model = space.data.subarray(at, at + size);
      const queue = r.pick(host.queues);
      done++;
      if (write) {
        model.fill(`${done} `);
        await queue.run(command, { out: model });
        return;
      }
      const into = Buffer.alloc(size);
      await queue.run(command, { into });
      if (!into.equals(model)) throw new Error(`namespace ${space.nsid} at ${at}: wrong data in ${size} bytes`);
    };
    for (const space of spaces) for (let at = 0; at < space.data.length; at += 1 << 20) await transfer(true, space, at, 1 << 20);
    while (going) {
      const space = r.pick(spaces);
      const size = 4096 << r.below(6);
      await transfer(r.chance(0.5), space, size * r.below(space.data.length / size), size);
    }
    for (const space of spaces) for (let at = 0; at < space.data.length; at += 1 << 20) await transfer(false, space, at, 1 << 20);
    await host.disconnect();
    return done;
  };
  const ended = run();
  ended.catch(() => {}); // reported by stop
  return {
    stop: () => {
      going = false;
      return ended;
    },
  };
}
