import { Fid, featureCmd, Oaes, Status } from '../../wire/index.js';
import type { ControllerState } from '../model.js';
import { invalidField, Refusal } from '../refusal.js';

/** I/O queues of a controller. */
export const maxQueues = 64;

/** Features that are one dword, with their values at first; a second number is a mask of what may be set. */
const plain = new Map<number, { first: number; mask: number }>([
  [Fid.arbitration, { first: 0x07, mask: 0xffff_ffff }],
  [Fid.powerManagement, { first: 0, mask: 0 }],
  [Fid.temperatureThreshold, { first: 343, mask: 0x3f_ffff }],
  [Fid.errorRecovery, { first: 0, mask: 0x1_ffff }],
  [Fid.writeAtomicity, { first: 0, mask: 1 }],
]);
/**
 * Events that a host may ask for. The critical warnings of SMART (bits 0 to 5) never come here, since nothing that they
 * are about exists; every controller has to take them. What would be promised without being known is refused.
 */
const subsystemEvents = 0x3f | Oaes.namespaceAttribute | Oaes.ana;
/** Length of the data of Host Behaviour Support. */
const behaviourSize = 512;

/** Features that a controller has, for the log that lists them. */
export const supportedFeatures = (c: ControllerState): number[] =>
  c.subsystem
    ? [
        ...plain.keys(),
        Fid.volatileWriteCache,
        Fid.numberOfQueues,
        Fid.asyncEventConfiguration,
        Fid.keepAliveTimer,
        Fid.hostBehaviour,
        Fid.hostIdentifier,
      ]
    : [Fid.asyncEventConfiguration, Fid.keepAliveTimer];

/** Features of one controller. */
export class Features {
  readonly #values = new Map([...plain].map(([fid, { first }]) => [fid, first]));
  #behaviour = Buffer.alloc(behaviourSize);
  /** FID 0Bh: the events that the host wants. */
  events = 0;
  /** I/O queues granted. */
  queues: number;
  readonly #most: number;

  /** @param most I/O queues that the host may have */
  constructor(most = maxQueues) {
    this.#most = most;
    this.queues = most;
  }

  /** ACRE: the host waits as long as a status tells it to (CRDT1 to CRDT3). */
  get retryDelays(): boolean {
    return this.#behaviour[0] === 1;
  }

  /** Set Features (NVMe Base 2.0, 5.27). @returns dword 0 @throws Refusal */
  set(c: ControllerState, command: Buffer, data: Buffer): number {
    const { fid, save, value } = featureCmd.decode(command);
    if (save) throw new Refusal(Status.featureNotSaveable, { location: 43 });
    if (!c.subsystem && fid !== Fid.asyncEventConfiguration && fid !== Fid.keepAliveTimer) throw invalidField(40);
    const simple = plain.get(fid);
    if (simple) {
      if ((value & ~simple.mask) !== 0) throw invalidField(44);
      this.#values.set(fid, value);
      return 0;
    }
    switch (fid) {
      case Fid.volatileWriteCache:
        if ((value & ~1) !== 0) throw invalidField(44);
        c.setWriteCache(value === 1);
        return 0;
      case Fid.numberOfQueues: {
        const submission = value & 0xffff;
        const completion = value >>> 16;
        if (submission === 0xffff || completion === 0xffff) throw invalidField(44);
        if (c.queues.size > 0) throw new Refusal(Status.sequenceError);
        // one submission and one completion queue make a connection
        this.queues = Math.min(this.#most, submission + 1, completion + 1);
        return ((this.queues - 1) << 16) | (this.queues - 1);
      }
      case Fid.asyncEventConfiguration:
        if ((value & ~(c.subsystem ? subsystemEvents : Oaes.discovery)) !== 0) throw invalidField(44);
        this.events = value;
        return 0;
      case Fid.keepAliveTimer:
        c.setKeepAlive(value);
        return 0;
      case Fid.hostBehaviour:
        if (data.length !== behaviourSize) throw new Refusal(Status.sglLengthInvalid);
        this.#behaviour = Buffer.from(data);
        return 0;
      case Fid.hostIdentifier:
        throw new Refusal(Status.sequenceError); // given by Connect (NVMe Base 2.0, 5.27.1.25)
      default:
        throw invalidField(40);
    }
  }

  /** Get Features (5.15). @returns dword 0, and data for the features that have some @throws Refusal */
  get(c: ControllerState, command: Buffer): { result: number; data?: Buffer } {
    const { fid, sel, value } = featureCmd.decode(command);
    if (sel > 3) throw invalidField(41);
    if (!c.subsystem && fid !== Fid.asyncEventConfiguration && fid !== Fid.keepAliveTimer) throw invalidField(40);
    const simple = plain.get(fid);
    // what the feature can do: changeable (bit 2), none is saveable or of a namespace
    const capabilities = (changeable: boolean): { result: number } => ({ result: changeable ? 4 : 0 });
    const first = sel === 1 || sel === 2;
    if (simple) {
      if (sel === 3) return capabilities(simple.mask !== 0);
      return { result: (first ? simple.first : this.#values.get(fid)!) >>> 0 };
    }
    switch (fid) {
      case Fid.volatileWriteCache:
        return sel === 3 ? capabilities(true) : { result: first || c.writeCache ? 1 : 0 };
      case Fid.numberOfQueues: {
        const queues = (first ? this.#most : this.queues) - 1;
        return sel === 3 ? capabilities(true) : { result: ((queues << 16) | queues) >>> 0 };
      }
      case Fid.asyncEventConfiguration:
        return sel === 3 ? capabilities(true) : { result: first ? 0 : this.events };
      case Fid.keepAliveTimer:
        return sel === 3 ? capabilities(true) : { result: first ? 0 : c.keepAlive };
      case Fid.hostBehaviour:
        if (sel === 3) return capabilities(true);
        c.checkBuffer(command, behaviourSize, false);
        return { result: 0, data: first ? Buffer.alloc(behaviourSize) : this.#behaviour };
      case Fid.hostIdentifier:
        if (sel === 3) return capabilities(false);
        if ((value & 1) === 0) throw invalidField(44); // 64-bit identifiers are not for fabrics
        c.checkBuffer(command, 16, false);
        return { result: 0, data: c.hostid };
      default:
        throw invalidField(40);
    }
  }
}
