import type { Socket } from 'node:net';
import { connectUnix } from '../vm/qmp.js';
import { eventually } from './wait.js';

/** QEMU's qtest protocol: a machine without a CPU whose memory and ports are read and written from outside. */
export class Qtest {
  readonly #socket: Socket;
  #buffer = '';
  #waiting: { resolve: (line: string) => void; reject: (err: Error) => void }[] = [];

  private constructor(socket: Socket) {
    this.#socket = socket;
    socket.setEncoding('utf8').on('data', (text: string) => {
      this.#buffer += text;
      for (let end = this.#buffer.indexOf('\n'); end >= 0; end = this.#buffer.indexOf('\n')) {
        const line = this.#buffer.slice(0, end).trim();
        this.#buffer = this.#buffer.slice(end + 1);
        if (/^(OK|FAIL|ERR)/.test(line)) this.#waiting.shift()?.resolve(line);
      }
    });
    const gone = (): void => {
      for (const { reject } of this.#waiting.splice(0)) reject(new Error('QEMU has ended'));
    };
    socket.on('close', gone).on('error', gone);
  }

  static async open(file: string, alive: () => boolean): Promise<Qtest> {
    return new Qtest(await connectUnix(file, 30, alive));
  }

  close(): void {
    this.#socket.destroy();
  }

  async ask(line: string): Promise<string> {
    const answer = await new Promise<string>((resolve, reject) => {
      this.#waiting.push({ resolve, reject });
      this.#socket.write(`${line}\n`);
    });
    if (!answer.startsWith('OK')) throw new Error(`${line}: ${answer}`);
    return answer.slice(3);
  }

  async get(width: 'b' | 'w' | 'l' | 'q', address: bigint): Promise<bigint> {
    return BigInt(await this.ask(`read${width} 0x${address.toString(16)}`));
  }
  async set(width: 'b' | 'w' | 'l' | 'q', address: bigint, value: bigint | number): Promise<void> {
    await this.ask(`write${width} 0x${address.toString(16)} 0x${value.toString(16)}`);
  }
  async read(address: bigint, size: number): Promise<Buffer> {
    return Buffer.from((await this.ask(`read 0x${address.toString(16)} 0x${size.toString(16)}`)).slice(2), 'hex');
  }
  async write(address: bigint, data: Uint8Array): Promise<void> {
    await this.ask(`write 0x${address.toString(16)} 0x${data.length.toString(16)} 0x${Buffer.from(data).toString('hex')}`);
  }
  /** A PCI configuration space, through the ports 0xcf8 and 0xcfc. */
  pci(device: number) {
    const select = (offset: number): Promise<string> =>
      this.ask(`outl 0xcf8 0x${(0x80000000 + device * 0x800 + (offset & 0xfc)).toString(16)}`);
    return {
      read: async (offset: number): Promise<number> => {
        await select(offset);
        return Number(BigInt(await this.ask('inl 0xcfc')) & 0xffffffffn);
      },
      write: async (offset: number, value: number): Promise<void> => {
        await select(offset);
        await this.ask(`outl 0xcfc 0x${(value >>> 0).toString(16)}`);
      },
    };
  }
}

/** Configuration structure types of virtio's PCI capabilities. */
const COMMON = 1;
const NOTIFY = 2;
const SHARED_MEMORY = 8;

/** Where a queue's descriptors, rings and buffers lie in guest memory. */
const ringAt = (queue: number): bigint => 0x100000n + BigInt(queue) * 0x10000n;

/** A virtio-pci device (virtio 1.3, 4.1) as firmware and driver bring it up. */
export class VirtioPci {
  readonly qtest: Qtest;
  /** Guest-physical address and size of each shared memory region, by id. */
  readonly shmem = new Map<number, { address: bigint; size: bigint }>();
  #common = 0n;
  #notify = 0n;
  #notifyStep = 0;
  /** Requests on each queue since the start. */
  #done = new Map<number, number>();

  constructor(qtest: Qtest) {
    this.qtest = qtest;
  }

  /** Places the BARs and finds the structures. */
  async place(device: number): Promise<void> {
    const pci = this.qtest.pci(device);
    let low = 0xe0000000;
    let high = 0x8_0000_0000n;
    const bars: bigint[] = [];
    for (let bar = 0; bar < 6; bar++) {
      const at = 0x10 + 4 * bar;
      await pci.write(at, 0xffffffff);
      const mask = await pci.read(at);
      if (mask === 0 || mask & 1) continue;
      const wide = (mask & 6) === 4;
      if (wide) {
        await pci.write(at + 4, 0xffffffff);
        const upper = await pci.read(at + 4);
        const size = (~((BigInt(upper) << 32n) | BigInt((mask & ~0xf) >>> 0)) & 0xffff_ffff_ffff_ffffn) + 1n;
        high = ((high + size - 1n) / size) * size;
        bars[bar] = high;
        await pci.write(at, Number(high & 0xffffffffn));
        await pci.write(at + 4, Number(high >> 32n));
        high += size;
        bar++;
      } else {
        const size = (~(mask & ~0xf) >>> 0) + 1;
        low = Math.ceil(low / size) * size;
        bars[bar] = BigInt(low);
        await pci.write(at, low);
        low += size;
      }
    }
    await pci.write(4, 6); // memory and bus master
    for (let at = (await pci.read(0x34)) & 0xfc; at !== 0; ) {
      const head = await pci.read(at);
      if ((head & 0xff) === 9) {
        const bar = await pci.read(at + 4);
        const address = (bars[bar & 0xff] ?? 0n) + BigInt(await pci.read(at + 8));
        const type = head >>> 24;
        if (type === COMMON) this.#common = address;
        if (type === NOTIFY) {
          this.#notify = address;
          this.#notifyStep = await pci.read(at + 16);
        }
        if (type === SHARED_MEMORY) {
          const upper = BigInt(await pci.read(at + 16)) << 32n;
          const size = BigInt(await pci.read(at + 12)) | (BigInt(await pci.read(at + 20)) << 32n);
          this.shmem.set((bar >> 8) & 0xff, { address: address + upper, size });
        }
      }
      at = (head >>> 8) & 0xfc;
    }
  }

  /** Reset, features, queues, DRIVER_OK. */
  async start(features = 0n, queues = 1): Promise<void> {
    const q = this.qtest;
    const common = this.#common;
    await this.reset();
    this.#done.clear();
    await q.set('b', common + 0x14n, 1);
    await q.set('b', common + 0x14n, 3);
    await q.set('l', common + 8n, 0);
    await q.set('l', common + 12n, features & 0xffffffffn);
    await q.set('l', common + 8n, 1);
    await q.set('l', common + 12n, 1n | (features >> 32n)); // VERSION_1
    await q.set('b', common + 0x14n, 0xb);
    if (((await q.get('b', common + 0x14n)) & 8n) === 0n) throw new Error('the device does not take the features');
    for (let queue = 0; queue < queues; queue++) {
      const at = ringAt(queue);
      await q.write(at, Buffer.alloc(0x3000));
      await q.set('w', common + 0x16n, queue);
      await q.set('w', common + 0x18n, 64);
      await q.set('q', common + 0x20n, at);
      await q.set('q', common + 0x28n, at + 0x1000n);
      await q.set('q', common + 0x30n, at + 0x2000n);
      await q.set('w', common + 0x1cn, 1);
    }
    await q.set('b', common + 0x14n, 0xf);
  }

  /** The same device in a machine to which this one has moved. */
  movedTo(qtest: Qtest): VirtioPci {
    const moved = new VirtioPci(qtest);
    moved.#common = this.#common;
    moved.#notify = this.#notify;
    moved.#notifyStep = this.#notifyStep;
    moved.#done = new Map(this.#done);
    return moved;
  }

  /** One request, alone on its queue: what the device writes back. */
  async request(queue: number, out: Uint8Array, inSize: number): Promise<Buffer> {
    const q = this.qtest;
    const at = ringAt(queue);
    const data = at + 0x8000n;
    const desc = Buffer.alloc(32);
    desc.writeBigUInt64LE(data, 0);
    desc.writeUInt32LE(out.length, 8);
    desc.writeUInt16LE(1, 12);
    desc.writeUInt16LE(1, 14);
    desc.writeBigUInt64LE(data + 0x4000n, 16);
    desc.writeUInt32LE(inSize, 24);
    desc.writeUInt16LE(2, 28);
    await q.write(data, out);
    await q.write(data + 0x4000n, Buffer.alloc(inSize, 0xff));
    await q.write(at, desc);
    const before = this.#done.get(queue) ?? 0;
    const after = (before + 1) & 0xffff;
    this.#done.set(queue, after);
    await q.set('w', at + 0x1004n + BigInt(2 * (before % 64)), 0);
    await q.set('w', at + 0x1002n, after);
    await q.set('w', this.#notify + BigInt(queue * this.#notifyStep), queue);
    const answered = async (): Promise<boolean> => (await q.get('w', at + 0x2002n)) === BigInt(after);
    await eventually(answered);
    if (!(await answered())) throw new Error('the device has not answered');
    return q.read(data + 0x4000n, inSize);
  }

  async reset(): Promise<void> {
    await this.qtest.set('b', this.#common + 0x14n, 0);
  }
}
