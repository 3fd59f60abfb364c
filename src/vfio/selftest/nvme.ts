import { Exit, VioError } from '../../common/errors.js';
import { native } from '../../native/index.js';
import { Irq, type Session } from '../session/session.js';
import type { DmaPage, DmaPages } from './pages.js';
import { type Check, Interrupts, until } from './proof.js';

/** Controller properties (NVM Express Base Specification 2.1, figure 33). */
const CAP = 0x00;
const VS = 0x08;
const CC = 0x14;
const CSTS = 0x1c;
const AQA = 0x24;
const ASQ = 0x28;
const ACQ = 0x30;
const doorbells = 0x1000;

const entries = 16;
const SQE = 64;
const CQE = 16;
const pageSize = 4096;

/** The admin queue pair of a controller that is open through VFIO: one command at a time. */
export class AdminQueue {
  readonly #session: Session;
  readonly #submissions: DmaPage;
  readonly #completions: DmaPage;
  readonly #stride: number;
  readonly #timeout: number;
  #tail = 0;
  #head = 0;
  #phase = 1;
  #cid = 0;

  private constructor(session: Session, pages: DmaPages) {
    this.#session = session;
    this.#submissions = pages.page('submissions');
    this.#completions = pages.page('completions');
    const cap = session.load(0, CAP, 8);
    this.#stride = 4 << Number((cap >> 32n) & 0xfn);
    this.#timeout = Math.max(500, Number((cap >> 24n) & 0xffn) * 500);
  }

  /** Disables the controller, gives it the queues and enables it. */
  static async start(session: Session, pages: DmaPages): Promise<AdminQueue> {
    if (session.load(0, CAP, 8) === 0xffff_ffff_ffff_ffffn)
      throw new VioError(`${session.bdf}: the controller does not answer`, { code: 'EIO', hint: 'it was removed, or sleeps in D3cold' });
    const queue = new AdminQueue(session, pages);
    const ready = (want: bigint) => () => {
      const csts = session.load(0, CSTS, 4);
      if ((csts & 2n) !== 0n) throw new VioError(`${session.bdf}: the controller reports a fatal state (CSTS.CFS)`, { code: 'EIO' });
      return (csts & 1n) === want;
    };
    session.store(0, CC, 4, 0);
    await until(`${session.bdf}: disable`, queue.#timeout, ready(0n));
    session.store(0, AQA, 4, ((entries - 1) << 16) | (entries - 1));
    session.store(0, ASQ, 8, queue.#submissions.address);
    session.store(0, ACQ, 8, queue.#completions.address);
    session.store(0, CC, 4, (4 << 20) | (6 << 16) | 1); // IOCQES 16 bytes, IOSQES 64 bytes, 4 KiB pages, EN
    await until(`${session.bdf}: enable`, queue.#timeout, ready(1n));
    return queue;
  }

  /** Puts one command into the queue. @param data device address of the page for its data @returns its identifier */
  submit(opcode: number, cdw10: number, data: bigint): number {
    const cid = this.#cid++ & 0xffff;
    const sqe = Buffer.alloc(SQE);
    sqe.writeUInt8(opcode, 0);
    sqe.writeUInt16LE(cid, 2);
    sqe.writeBigUInt64LE(data, 24); // PRP1
    sqe.writeUInt32LE(cdw10, 40);
    native().vfio.writeMemory(this.#submissions.memory, this.#tail * SQE, sqe);
    this.#tail = (this.#tail + 1) % entries;
    this.#session.store(0, doorbells, 4, this.#tail);
    return cid;
  }

  /** Waits for the completion of the command. @throws VioError with its status */
  async complete(cid: number, milliseconds: number): Promise<void> {
    const cqe = Buffer.alloc(CQE);
    await until(`${this.#session.bdf}: command`, milliseconds, () => {
      native().vfio.readMemory(this.#completions.memory, this.#head * CQE, cqe);
      return (cqe.readUInt16LE(14) & 1) === this.#phase;
    });
    this.#head = (this.#head + 1) % entries;
    if (this.#head === 0) this.#phase ^= 1;
    this.#session.store(0, doorbells + this.#stride, 4, this.#head);
    const status = cqe.readUInt16LE(14) >> 1;
    if (cqe.readUInt16LE(12) !== cid)
      throw new VioError(`${this.#session.bdf}: completion of command ${cqe.readUInt16LE(12)}, not ${cid}`, {
        code: 'EPROTO',
        exit: Exit.damaged,
      });
    if (status !== 0) throw new VioError(`${this.#session.bdf}: the command failed with status 0x${status.toString(16)}`, { code: 'EIO' });
  }

  /** Disables the controller: it forgets the queues. */
  async stop(): Promise<void> {
    this.#session.store(0, CC, 4, 0);
    await until(`${this.#session.bdf}: disable`, this.#timeout, () => (this.#session.load(0, CSTS, 4) & 1n) === 0n);
  }
}

const text = (bytes: Buffer, at: number, size: number): string => bytes.toString('latin1', at, at + size).trim();

/** Identify through the admin queue: the controller reads the command and writes data and completion, then interrupts. */
export async function selftestNvme(session: Session, pages: DmaPages): Promise<Check[]> {
  const { vfio } = native();
  const page = pages.page('identify');
  const marker = Buffer.alloc(pageSize, 0xa5);
  vfio.writeMemory(page.memory, 0, marker);
  const index = [Irq.MSIX, Irq.MSI, Irq.INTX].find((i) => session.irqs().some((irq) => irq.index === i))!;
  const interrupts = new Interrupts(session, index);
  try {
    const admin = await AdminQueue.start(session, pages);
    const version = Number(session.load(0, VS, 4));
    const start = performance.now();
    const cid = admin.submit(6, 1, page.address); // Identify, CNS 1: controller
    const came = await interrupts.next(2000);
    const after = performance.now() - start;
    await admin.complete(cid, 2000);
    const data = vfio.readMemory(page.memory, 0, Buffer.alloc(pageSize));
    await admin.stop();
    const written = !data.equals(marker);
    const kind = ['INTx', 'MSI', 'MSI-X'][index];
    return [
      {
        name: 'identity',
        ok: written,
        detail: `NVMe ${version >>> 16}.${(version >>> 8) & 0xff}, ${text(data, 24, 40)}, serial ${text(data, 4, 20)}`,
      },
      { name: 'dma to device', ok: true, detail: 'Identify was fetched from the admin submission queue' },
      {
        name: 'dma from device',
        ok: written,
        detail: written ? `${pageSize} bytes of Identify data and the completion` : 'the data page was not written',
      },
      { name: 'interrupt', ok: came, detail: came ? `${kind} after ${after.toFixed(1)} ms` : `no ${kind} in 2 s` },
    ];
  } finally {
    interrupts.close();
  }
}
