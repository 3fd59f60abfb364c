import { Exit, VioError } from '../../common/errors.js';
import { counted } from '../../common/units.js';
import { irqNames, type Session } from './session.js';

/** Interrupt types, as flags spell them; their order is that of VFIO's indexes. */
export const irqTypes = ['intx', 'msi', 'msix', 'err', 'req'] as const;

/** One arrival: `count` is above 1 where several came before the first was seen. */
export interface IrqEvent {
  /** interrupt type: intx, msi, msix, err or req */
  type: string;
  /** number of the vector */
  vector: number;
  /** interrupts that this line stands for */
  count: number;
  /** milliseconds since the interrupts were enabled */
  milliseconds: number;
}

/** Index of the wanted type, or of the best one the device has: MSI-X, MSI, INTx. @throws VioError (7) */
export function irqType(session: Session, wanted: (typeof irqTypes)[number] | undefined): number {
  const has = new Set(session.irqs().map((irq) => irq.index));
  const index = wanted === undefined ? [2, 1, 0].find((i) => has.has(i)) : irqTypes.indexOf(wanted);
  if (index === undefined || !has.has(index))
    throw new VioError(`${session.bdf}: the device has no ${wanted === undefined ? 'interrupt' : wanted.toUpperCase()}`, {
      code: 'NO_IRQ',
      exit: Exit.unsupported,
      hint: `vioctl vfio irq ${session.bdf} list`,
    });
  return index;
}

/** Checks that a device has as many vectors of a type. @throws VioError (usage) */
export function requireVectors(session: Session, index: number, vectors: number): void {
  const count = session.irqs().find((irq) => irq.index === index)?.count ?? 0;
  if (vectors <= count) return;
  const name = irqNames[index]!;
  throw new VioError(`${session.bdf}: ${counted(count, `${name} vector`)} at most, not ${vectors}`, {
    code: 'ERANGE',
    exit: Exit.usage,
    hint: `vioctl vfio irq ${session.bdf} list`,
  });
}

/**
 * Enables interrupts and reports each one until `count` have come, the time is up, or the signal aborts.
 * @returns whether it ended for another reason than time
 */
export function waitForIrqs(
  session: Session,
  options: { type: number; vectors: number; count?: number | undefined; timeout?: number | undefined; signal: AbortSignal },
  report: (event: IrqEvent) => Promise<void>,
): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const start = performance.now();
    let left = options.count ?? Number.POSITIVE_INFINITY;
    const stop = () => end(true);
    const end = (done: boolean): void => {
      clearTimeout(timer);
      options.signal.removeEventListener('abort', stop);
      listener.close();
      resolve(done);
    };
    const listener = session.listen(options.type, options.vectors, (vector, times) => {
      const event = { type: irqNames[options.type]!, vector, count: times, milliseconds: performance.now() - start };
      report(event).catch(reject);
      left -= times;
      if (left <= 0) end(true);
    });
    const timer = options.timeout === undefined ? undefined : setTimeout(() => end(false), options.timeout);
    if (options.signal.aborted) stop();
    else options.signal.addEventListener('abort', stop, { once: true });
  });
}
