/**
 * A fuzzer of the native host: a relay to a good target changes what the target sends. PDUs come malformed, early, late, twice, half,
 * not at all, in another order, or although nobody expects them. Everything follows from the seed and from what the target sends.
 */
import fs from 'node:fs';
import path from 'node:path';
import { native } from '../../src/native/index.js';
import { encodePdu, PduFlag, pdus } from '../../src/nvme/wire/index.js';
import { generator, type Random } from './nvme-fuzz.js';
import { hostid, hostnqn } from './nvme-raw.js';
import { brokenTarget, type Change } from './nvme-relay.js';
import { type ServedTarget, serveTarget } from './nvme-target.js';

const nqn = 'nqn.2014-08.org.nvmexpress:fuzzed';
const SIZE = 1 << 20;
const PART = 96 << 10;

/** A PDU of any type that a target sends, or must not send. Its digests are right more often than not. */
function invented(r: Random, digests: number): Buffer {
  const good = r.chance(0.8) ? digests : r.below(4);
  const build = { headerDigest: (good & 1) !== 0, dataDigest: (good & 2) !== 0, crc32c: native().common.crc32c };
  const cccid = r.chance(0.7) ? r.below(32) : r.number(16);
  const data = Buffer.alloc(r.pick([1, 4, 512, 4096, 65536]), r.below(256));
  switch (r.below(6)) {
    case 0: {
      const answer = encodePdu(pdus.capsuleResp, {}, { ...build, fill: (h) => void h.writeUInt16LE(cccid, 20) });
      if (!build.headerDigest) answer.writeUInt16LE(r.chance(0.5) ? 0 : r.number(16), 22);
      return answer;
    }
    case 1: {
      const fields = { cccid, datao: r.chance(0.5) ? 0 : r.number(32), datal: r.chance(0.8) ? data.length : r.number(32) };
      return encodePdu(pdus.c2hData, fields, {
        ...build,
        data,
        flags: r.pick([0, PduFlag.last, PduFlag.success, PduFlag.last | PduFlag.success]),
      });
    }
    case 2:
      return encodePdu(pdus.r2t, { cccid, ttag: r.number(16), r2to: r.chance(0.5) ? 0 : r.number(32), r2tl: r.number(32) }, build);
    case 3:
      return encodePdu(pdus.c2hTermReq, { fes: r.below(8), fei: r.number(32) });
    case 4:
      return encodePdu(pdus.icResp, { maxh2cdata: r.chance(0.5) ? 65536 : r.number(32), dgst: r.below(4), cpda: r.below(40) });
    default:
      return Buffer.from(Array.from({ length: 1 + r.below(200) }, () => r.below(256)));
  }
}

/** What becomes of one PDU. */
function mutated(r: Random, pdu: Buffer, digests: number): { out: Buffer[]; dead?: boolean; held?: Buffer } {
  const at = r.chance(0.7) ? r.below(Math.min(pdu.length, 24)) : r.below(pdu.length);
  switch (r.below(9)) {
    case 0:
      pdu[at] = r.chance(0.5) ? pdu[at]! ^ (1 << r.below(8)) : r.below(256);
      return { out: [pdu] };
    case 1: // the length
      pdu.writeUInt32LE(r.number(32), 4);
      return { out: [pdu] };
    case 2: // half, and nothing more
      return { out: [pdu.subarray(0, r.below(pdu.length))], dead: true };
    case 3: // half, and then the rest of the stream
      return { out: [pdu.subarray(0, r.below(pdu.length))] };
    case 4:
      return { out: [pdu, pdu] };
    case 5:
      return { out: [] };
    case 6: // behind the next one
      return { out: [], held: pdu };
    case 7: // early
      return { out: [invented(r, digests), pdu] };
    default: // late, or after the end
      return { out: [pdu, invented(r, digests)] };
  }
}

export interface HostFuzz {
  /** One association: it is opened, reads and writes, and is closed. @returns what became of it */
  round(seed: number): Promise<string>;
  close(): Promise<void>;
}

/** @param dir for the disk and for data */
export async function hostFuzz(dir: string): Promise<HostFuzz> {
  const disk = path.join(dir, 'disk');
  const file = path.join(dir, 'data');
  fs.writeFileSync(disk, Buffer.alloc(SIZE, 0x11));
  const target: ServedTarget = await serveTarget([disk, '--nqn', nqn, '--discovery-port', 'none', '--quiet']);
  let r = generator(0);
  let rate = 0;
  const states = new WeakMap<object, { held: Buffer[]; dead: boolean }>();
  const change: Change = (pdu, connection) => {
    let state = states.get(connection);
    if (!state) states.set(connection, (state = { held: [], dead: false }));
    if (state.dead) return [];
    const { out, dead = false, held } = r.chance(rate) ? mutated(r, pdu, connection.digests) : { out: [pdu] };
    const all = [...out, ...state.held];
    state.held = held ? [held] : [];
    state.dead = dead;
    return all;
  };
  const relay = await brokenTarget(target.port, change);
  const { nvmeHost } = native();

  const attempt = async (checked: boolean): Promise<string> => {
    const digest = checked || r.chance(0.3);
    const host = await nvmeHost.hostOpen({
      ...{ addresses: [{ host: '127.0.0.1', port: relay.port }], hostnqn, hostid, subnqn: nqn, nsid: 1 },
      ...{ queues: 1 + r.below(2), entries: 32, keepAliveMs: 0, timeoutMs: 250, lossMs: 0, flowControl: r.chance(0.5), replay: false },
      ...{ headerDigest: digest, dataDigest: digest || r.chance(0.3) },
    }).done;
    const copy = async (write: boolean, offset: number): Promise<string> => {
      const fd = fs.openSync(file, 'r+');
      const what = { fd, write, offset: BigInt(offset), length: BigInt(PART), chunk: r.pick([4096, 16384, PART]), depth: 1 + r.below(16) };
      const { error, bytes } = await nvmeHost.hostCopy(host, { ...what, fua: false, deallocate: false }).done;
      fs.closeSync(fd);
      if (error === '' && bytes !== BigInt(PART)) throw new Error(`${bytes} bytes without an error`);
      return error;
    };
    try {
      const offset = 4096 * r.below((SIZE - PART) / 4096);
      const data = Buffer.alloc(PART, r.below(256));
      data.writeUInt32LE(r.below(2 ** 32), r.below(PART - 4));
      fs.writeFileSync(file, data);
      const written = await copy(true, offset);
      if (written !== '') return written;
      if (
        checked &&
        !fs
          .readFileSync(disk)
          .subarray(offset, offset + PART)
          .equals(data)
      )
        throw new Error('a write that succeeded is not there');
      fs.writeFileSync(file, '');
      const read = await copy(false, offset);
      if (read !== '') return read;
      if (checked && !fs.readFileSync(file).equals(data)) throw new Error('a read that succeeded has other data');
      return 'ok';
    } finally {
      await nvmeHost.hostClose(host);
    }
  };
  return {
    round: async (seed) => {
      r = generator(seed);
      rate = r.pick([0, 0.005, 0.02, 0.1]);
      const checked = r.chance(0.7);
      try {
        return await attempt(checked);
      } catch (err) {
        const { code } = err as NodeJS.ErrnoException;
        if (code === undefined) throw new Error(`seed ${seed}: ${(err as Error).message}`);
        return code;
      }
    },
    close: async () => {
      relay.close();
      await target.stop();
    },
  };
}

/** Descriptors, threads and memory (MiB) of a process. */
export function usage(pid: number | 'self'): { fds: number; threads: number; rss: number } {
  const status = fs.readFileSync(`/proc/${pid}/status`, 'utf8');
  const rss = Number(/^VmRSS:\s+(\d+)/m.exec(status)![1]) / 1024;
  return { fds: fs.readdirSync(`/proc/${pid}/fd`).length, threads: fs.readdirSync(`/proc/${pid}/task`).length, rss };
}
