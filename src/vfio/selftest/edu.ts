import { native } from '../../native/index.js';
import { Irq, type Session } from '../session/session.js';
import type { DmaPages } from './pages.js';
import { type Check, Interrupts, until } from './proof.js';

/** Registers of QEMU's edu device (docs/specs/edu.rst). */
const ID = 0x00;
const LIVENESS = 0x04;
const RAISE = 0x60;
const ACKNOWLEDGE = 0x64;
const DMA_SOURCE = 0x80;
const DMA_DESTINATION = 0x88;
const DMA_COUNT = 0x90;
const DMA_COMMAND = 0x98;
const START = 1;
const TO_MEMORY = 2;
/** The device's own 4 KiB of memory, in its DMA engine's addresses. */
const deviceBuffer = 0x40000;
/** Its DMA mask unless told otherwise. */
const dmaLimit = 1n << 28n;

/** Copies between device addresses; resolves when the engine is idle again. */
export async function eduDma(
  session: Session,
  source: number | bigint,
  destination: number | bigint,
  count: number,
  toMemory: boolean,
): Promise<void> {
  session.store(0, DMA_SOURCE, 8, source);
  session.store(0, DMA_DESTINATION, 8, destination);
  session.store(0, DMA_COUNT, 8, count);
  session.store(0, DMA_COMMAND, 8, START | (toMemory ? TO_MEMORY : 0));
  await until(`${session.bdf}: DMA`, 5000, () => (session.load(0, DMA_COMMAND, 8) & 1n) === 0n);
}

/** Device memory to RAM, for tests of what the IOMMU blocks. */
export const eduWrite = (session: Session, iova: bigint, count: number): Promise<void> => eduDma(session, deviceBuffer, iova, count, true);
/** RAM to device memory. */
export const eduRead = (session: Session, iova: bigint, count: number): Promise<void> => eduDma(session, iova, deviceBuffer, count, false);

/** Identity, RAM to device to RAM, one interrupt. */
export async function selftestEdu(session: Session, pages: DmaPages): Promise<Check[]> {
  const checks: Check[] = [];
  const id = Number(session.load(0, ID, 4));
  session.store(0, LIVENESS, 4, 0x12345678);
  const inverted = Number(session.load(0, LIVENESS, 4));
  const alive = (id & 0xff) === 0xed && inverted === ~0x12345678 >>> 0;
  checks.push({ name: 'identity', ok: alive, detail: `edu ${id >>> 24}.${(id >>> 16) & 0xff}` });
  const from = pages.page('selftest-from', dmaLimit);
  const to = pages.page('selftest-to', dmaLimit);
  const { vfio } = native();
  const size = 4095; // the engine's bound check wants less than its 4 KiB
  const pattern = Buffer.from(Uint8Array.from({ length: size }, (_, i) => (i * 7 + (i >> 8)) & 0xff));
  vfio.writeMemory(from.memory, 0, pattern);
  await eduRead(session, from.address, size);
  await eduWrite(session, to.address, size);
  const back = vfio.readMemory(to.memory, 0, Buffer.alloc(size));
  const wrong = pattern.findIndex((byte, i) => byte !== back[i]);
  const detail = wrong < 0 ? `${size} bytes` : `differs at byte ${wrong}`;
  checks.push({ name: 'dma to device', ok: wrong < 0, detail }, { name: 'dma from device', ok: wrong < 0, detail });
  const index = session.irqs().find((irq) => irq.index === Irq.MSI) ? Irq.MSI : Irq.INTX;
  const interrupts = new Interrupts(session, index);
  try {
    const start = performance.now();
    session.store(0, RAISE, 4, 1);
    const came = await interrupts.next(2000);
    session.store(0, ACKNOWLEDGE, 4, 1);
    const kind = index === Irq.MSI ? 'MSI' : 'INTx';
    checks.push({
      name: 'interrupt',
      ok: came,
      detail: came ? `${kind} after ${(performance.now() - start).toFixed(1)} ms` : `no ${kind} in 2 s`,
    });
  } finally {
    interrupts.close();
  }
  return checks;
}
