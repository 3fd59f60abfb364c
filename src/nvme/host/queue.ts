/** One queue of a controller and its connection, for single commands: PDUs and checks are native (native/nvme/host/lone_queue.h). */
import { codeOf, VioError } from '../../common/errors.js';
import { placeText } from '../../common/text/place.js';
import { native } from '../../native/index.js';
import type { QueueHandle, TlsKey } from '../../native/nvme-host.js';
import { awaitOpenssl } from '../auth/openssl.js';
import { decodeStatus, type StatusField } from '../wire/index.js';
import { connectionError, DigestError, detailOf, NvmeError, nameOf, timedOut } from './errors.js';

/** Where and how to connect. */
export interface Endpoint {
  address: string;
  port: number;
  headerDigest?: boolean;
  dataDigest?: boolean;
  /** The key of TLS under each identity that may be tried; without it, there is no TLS. */
  tls?: readonly TlsKey[] | undefined;
  /** Longest time for connecting and for each command, in milliseconds. */
  timeout: number;
}

/** A completion, success or not. */
export interface Completion {
  status: StatusField;
  dw0: number;
  dw1: number;
  sqhd: number;
  /** From the submission to the completion. */
  nanoseconds: number;
}

/** Data of a command: `out` is written to the controller, `into` is filled when the controller has completed the command. */
export type Transfer = { out: Buffer } | { into: Buffer } | undefined;

/** Data that every target takes in an admin capsule, in bytes. */
const adminCapsule = 8192;

export class Queue {
  /** 0 is the admin queue. */
  readonly qid: number;
  readonly endpoint: Endpoint;
  /** Bytes of data that fit a command capsule; the controller may raise them after Identify. */
  inCapsule: number;
  readonly #handle: QueueHandle;
  #load = 0;
  #error: Error | undefined;

  private constructor(qid: number, endpoint: Endpoint, handle: QueueHandle) {
    this.qid = qid;
    this.endpoint = endpoint;
    this.inCapsule = qid === 0 ? adminCapsule : 0;
    this.#handle = handle;
    native()
      .nvmeHost.queueOver(handle)
      .catch((err: unknown) => this.#lost(err));
  }

  /**
   * Connects and negotiates.
   * @param entries of the queue, as Connect will say: one less can be outstanding
   * @throws VioError: refused, unreachable, timed out, a digest not granted, an ICResp that breaks the protocol
   */
  static async open(qid: number, endpoint: Endpoint, entries: number): Promise<Queue> {
    const { address, port, headerDigest = false, dataDigest = false, timeout, tls } = endpoint;
    const options = { host: address, port, qid, entries, headerDigest, dataDigest, timeoutMs: milliseconds(timeout), tls };
    try {
      return new Queue(qid, endpoint, await awaitOpenssl(() => native().nvmeHost.queueOpen(options)));
    } catch (err) {
      if (err instanceof VioError) throw err;
      throw connectionError(whereOf(qid, endpoint), timeout, err);
    }
  }

  /** Commands outstanding or waiting for a place. */
  get load(): number {
    return this.#load;
  }
  /** Why the connection is lost, if it is. */
  get error(): Error | undefined {
    return this.#error;
  }

  /**
   * Submits a command; CID, PSDT and SGL are filled in on the way. Waits for a place in the queue.
   * @param sqe 64 bytes @param timeout in milliseconds; Infinity: none
   * @returns the completion, whatever its status
   * @throws VioError when the connection is lost, time runs out, or data comes with a wrong digest
   */
  async send(sqe: Buffer, transfer?: Transfer, timeout = this.endpoint.timeout): Promise<Completion> {
    if (this.#error) throw this.#error;
    const { inCapsule } = this;
    const out = transfer && 'out' in transfer ? transfer.out : undefined;
    const into = transfer && 'into' in transfer ? transfer.into : undefined;
    this.#load++;
    try {
      const command = { sqe, out, size: into?.length ?? 0, timeoutMs: timeout === Infinity ? 0 : milliseconds(timeout), inCapsule };
      const { status, data, ...rest } = await native().nvmeHost.queueRun(this.#handle, command);
      if (into) data!.copy(into);
      return { ...rest, status: decodeStatus(status) };
    } catch (err) {
      const name = nameOf(sqe, this.qid === 0 ? 'admin' : 'io');
      if (codeOf(err) === 'EBADMSG') throw new DigestError(name);
      // this command took too long, and the others went with it
      const own = codeOf(err) === 'ETIMEDOUT' && detailOf((err as Error).message) !== '';
      this.#lost(own ? timedOut(`${whereOf(this.qid, this.endpoint)}: ${name}`, timeout) : err);
      throw this.#error;
    } finally {
      this.#load--;
    }
  }

  /** As send, and an error status is thrown. @throws NvmeError */
  async run(sqe: Buffer, transfer?: Transfer, what?: string): Promise<Completion> {
    const completion = await this.send(sqe, transfer);
    const { sct, sc } = completion.status;
    if (sct !== 0 || sc !== 0) {
      const queue = this.qid === 0 ? 'admin' : 'io';
      throw new NvmeError(what ?? nameOf(sqe, queue), completion.status, completion.dw0, sqe.readUInt8(0) === 0x7f ? 'admin' : queue);
    }
    return completion;
  }

  /** Ends the connection; what is outstanding fails. */
  close(): void {
    this.#lost(new VioError(`${whereOf(this.qid, this.endpoint)}: closed`, { code: 'ECANCELED' }));
    native().nvmeHost.queueClose(this.#handle);
  }

  #lost(err: unknown): void {
    this.#error ??= err instanceof VioError ? err : connectionError(whereOf(this.qid, this.endpoint), this.endpoint.timeout, err);
  }
}

/** Whole milliseconds that 32 bits hold, at least one. */
const milliseconds = (time: number): number => Math.min(Math.max(1, Math.ceil(time)), 0xffff_ffff);

const whereOf = (qid: number, endpoint: Endpoint): string => `${placeText(endpoint)}${qid > 0 ? ` queue ${qid}` : ''}`;
