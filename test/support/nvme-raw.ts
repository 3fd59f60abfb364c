/** The least that a test needs to put chosen bytes on an NVMe/TCP connection. */
import net from 'node:net';
import {
  commonHeader,
  connectCmd,
  connectData,
  dynamicCntlid,
  encodePdu,
  Fctype,
  icReq,
  pdus,
  psdtSgl,
  sqe,
} from '../../src/nvme/wire/index.js';

export const hostnqn = 'nqn.2014-08.org.nvmexpress:uuid:11111111-2222-4333-8444-555555555555';
export const hostid = Buffer.from('11111111222243338444555555555555', 'hex');

export const icRequest = (fields: Parameters<typeof icReq.encode>[0] = {}): Buffer => encodePdu(pdus.icReq, fields);

/** A command capsule without digests. */
export function capsule(command: Buffer, data?: Buffer): Buffer {
  const pdu = Buffer.alloc(72 + (data?.length ?? 0));
  commonHeader.encode({ type: pdus.capsuleCmd.type, hlen: 72, pdo: data ? 72 : 0, plen: pdu.length }, pdu);
  command.copy(pdu, 8);
  data?.copy(pdu, 72);
  return pdu;
}

/** Connect to a queue; for I/O queues give the controller. */
export function connectCapsule(
  subnqn: string,
  options: { qid?: number; cntlid?: number; size?: number; kato?: number; cid?: number; host?: string } = {},
): Buffer {
  const command = Buffer.alloc(64);
  sqe.encode({ opcode: 0x7f, fctype: Fctype.connect, psdt: psdtSgl, cid: options.cid ?? 0, sglLength: 1024, sglId: 1 }, command);
  connectCmd.encode({ qid: options.qid ?? 0, sqsize: (options.size ?? 32) - 1, kato: options.kato ?? 0 }, command);
  return capsule(
    command,
    connectData.encode({ hostid, cntlid: options.cntlid ?? dynamicCntlid, subnqn, hostnqn: options.host ?? hostnqn }),
  );
}

/** Property Set CC = enable. */
export function enableCapsule(cid = 1): Buffer {
  const command = sqe.encode({ opcode: 0x7f, fctype: Fctype.propertySet, psdt: psdtSgl, cid, sglId: 0x5a, cdw11: 0x14 });
  command.writeUInt32LE(0x460001, 48);
  return capsule(command);
}

/** A socket with what it received; `ended` once the other side is done. */
export class Peer {
  readonly socket: net.Socket;
  received = Buffer.alloc(0);
  ended = false;
  #wake: () => void = () => {};

  private constructor(socket: net.Socket) {
    this.socket = socket;
    const over = () => {
      this.ended = true;
      this.#wake();
    };
    socket.on('data', (chunk) => {
      this.received = Buffer.concat([this.received, chunk]);
      this.#wake();
    });
    socket.on('end', over).on('close', over).on('error', over);
  }

  static open(port: number): Promise<Peer> {
    return new Promise((resolve, reject) => {
      const socket = net.connect({ host: '127.0.0.1', port, noDelay: true });
      socket.once('error', reject);
      socket.once('connect', () => {
        socket.off('error', reject);
        resolve(new Peer(socket));
      });
    });
  }

  /** Waits until `done`, or for at most `ms`. @returns whether it came */
  async until(done: () => boolean, ms = 30_000): Promise<boolean> {
    const deadline = performance.now() + ms;
    while (!done()) {
      const left = deadline - performance.now();
      if (left <= 0) return false;
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, Math.min(left, 50));
        this.#wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
    return true;
  }

  /** Takes the next whole PDU, or undefined when none comes. */
  async pdu(ms = 30_000): Promise<Buffer | undefined> {
    const whole = () => this.received.length >= 8 && this.received.length >= this.received.readUInt32LE(4);
    await this.until(() => whole() || this.ended, ms);
    if (!whole()) return undefined;
    const size = this.received.readUInt32LE(4);
    const pdu = this.received.subarray(0, size);
    this.received = this.received.subarray(size);
    return pdu;
  }

  close(): void {
    this.socket.destroy();
  }
}
