/** Bulk data between a namespace and a descriptor, without JavaScript on its way (native/nvme/host/copy.h). */
import { errnoText } from '../../common/errno.js';
import { Exit, usage, VioError, wrap } from '../../common/errors.js';
import { placeText } from '../../common/text/place.js';
import { native } from '../../native/index.js';
import type { CopyOptions, CopyResult, HostFacts, HostOptions, RemoteNamespace } from '../../native/nvme-host.js';
import { decodeStatus } from '../wire/index.js';
import { NativeAuthenticator } from './authenticator.js';
import type { ControllerOptions } from './controller.js';
import { brokeProtocol, closedByTarget, connectionError, DigestError, detailOf, NvmeError, timedOut } from './errors.js';

/** A namespace that is open in the native host. */
export class OpenNamespace {
  readonly facts: HostFacts;
  readonly #options: ControllerOptions;
  readonly #host: RemoteNamespace;

  private constructor(options: ControllerOptions, host: RemoteNamespace) {
    this.#options = options;
    this.#host = host;
    this.facts = native().nvmeHost.hostFacts(host);
  }

  /**
   * Connects. @param nsid undefined: the only namespace that there is @param signal ends it
   * @throws usage error if there are several namespaces; VioError
   */
  static async open(options: ControllerOptions, nsid: number | undefined, signal: AbortSignal): Promise<OpenNamespace> {
    const { options: told, failed } = nativeOptions(options, nsid);
    const { done, stop } = native().nvmeHost.hostOpen(told);
    signal.addEventListener('abort', stop, { once: true });
    try {
      return new OpenNamespace(options, await done);
    } catch (err) {
      signal.throwIfAborted();
      throw failed(err);
    } finally {
      signal.removeEventListener('abort', stop);
    }
  }

  close(): Promise<void> {
    return native().nvmeHost.hostClose(this.#host);
  }

  /** Starts a copy; what went wrong is in its result. */
  copy(options: CopyOptions) {
    return native().nvmeHost.hostCopy(this.#host, options);
  }

  /** The error of a copy that failed. @param file as the user named the other end */
  failure(result: CopyResult, file: string): VioError {
    const { error, where, lost, lostWhy } = result;
    if (where === 'cut') return new VioError(`${file}: the file became shorter while it was sent`, { code: error });
    if (where !== 'namespace') return wrap(file, Object.assign(new Error(error), { code: error }));
    const at = placeText(this.#options);
    if (error === 'ENOTCONN' && lost === 'ETIMEDOUT') return timedOut(at, this.#options.timeout);
    if (error === 'ENOTCONN' && (lost === 'EPROTO' || lost === 'EBADMSG')) return brokeProtocol(at, lostWhy);
    if (error === 'EBADMSG') return new DigestError(at);
    // without a connection that was lost: the only path answered that it does not work
    if (error === 'ENOTCONN' && (lost !== '' || result.status === 0)) return closedByTarget(at);
    if (result.status !== 0) return new NvmeError('command', decodeStatus(result.status << 1), 0, 'io');
    return new VioError(`${at}: ${error}: ${errnoText(error) ?? 'unknown'}`, { code: error });
  }
}

/**
 * What the native host is told. Nothing is connected again, and nothing replayed, unless that is changed.
 * @returns also what makes an error of connecting one in our words
 */
export function nativeOptions(
  options: ControllerOptions,
  nsid: number | undefined,
): { options: HostOptions; failed: (err: unknown) => Error } {
  const authenticator = options.chap && new NativeAuthenticator(options);
  return {
    options: {
      addresses: [{ host: options.address, port: options.port }],
      hostnqn: options.hostnqn,
      subnqn: options.subnqn,
      hostid: options.hostid,
      nsid: nsid ?? 0,
      queues: options.ioQueues ?? 1,
      entries: options.queueSize ?? 128,
      keepAliveMs: options.keepAlive ?? 0,
      timeoutMs: options.timeout,
      lossMs: 0,
      headerDigest: options.headerDigest ?? false,
      dataDigest: options.dataDigest ?? false,
      flowControl: !options.sqFlowControlOff,
      replay: false,
      tls: options.tls,
      authenticator: authenticator?.handle,
    },
    failed: (err) => {
      authenticator?.close();
      return authenticator?.failure ?? connectError(options, nsid, err);
    },
  };
}

/** Why a namespace could not be opened: the native host's errors, in the words of the host commands. */
function connectError(options: ControllerOptions, nsid: number | undefined, err: unknown): Error {
  const { code, syscall, status, result, message } = err as NodeJS.ErrnoException & { status?: number; result?: number };
  const where = placeText(options);
  const detail = detailOf(message);
  if (status !== undefined) {
    const what = detail.replace(/: status .*$/, '');
    return new NvmeError(nsid === undefined ? what : `${what} (namespace ${nsid})`, decodeStatus(status << 1), result ?? 0, 'admin');
  }
  if (syscall === 'namespaces') {
    const names = detail.split(': ')[1];
    return usage(`the subsystem has ${detail.split(':')[0]} namespaces`, names && `--namespace-id ${names}`);
  }
  switch (code) {
    case 'EACCES':
      return new VioError('the target asks for authentication', {
        code: 'ENOKEY',
        exit: Exit.permission,
        hint: '--dhchap-secret-file FILE gives the key of this host',
      });
    case 'ELOOP':
      return new VioError(`${where}: this target would serve itself`, { code: 'ELOOP', exit: Exit.refused });
    case 'ENXIO':
      return new VioError(detail, { code, hint: 'vioctl nvmf identify lists the namespaces' });
    default:
      return connectionError(where, options.timeout, err);
  }
}

/** A part of a namespace in bytes. */
export interface ByteRange {
  offset: bigint;
  length: bigint;
}

/** A range as the options of commands give it: in bytes, or in blocks. */
export interface WantedRange {
  offset?: bigint | undefined;
  count?: bigint | undefined;
  'start-block'?: bigint | undefined;
  blocks?: bigint | undefined;
}

/**
 * The bytes that are meant; the rest of the namespace where no count is given.
 * @throws VioError when they are not in the namespace
 */
export function wantedRange({ size, blockSize }: HostFacts, wanted: WantedRange): ByteRange {
  const bytes = (blocks: bigint | undefined) => (blocks === undefined ? undefined : blocks * BigInt(blockSize));
  const offset = wanted.offset ?? bytes(wanted['start-block']) ?? 0n;
  const count = wanted.count ?? bytes(wanted.blocks);
  if (offset > size || offset + (count ?? 0n) > size)
    throw new VioError(`${count === undefined ? '' : `${count} bytes at `}offset ${offset}: beyond the namespace's ${size} bytes`, {
      code: 'ERANGE',
      exit: Exit.failed,
      hint: 'vioctl nvmf identify shows the sizes',
    });
  return { offset, length: count ?? size - offset };
}

/** What a write did. */
export interface WriteSummary {
  /** namespace */
  nsid: number;
  /** where the data begins in the namespace */
  offset: bigint;
  /** bytes written; null in a dry run with a pipe, whose size is unknown */
  bytes: number | null;
  /** blocks that were overwritten in part */
  mergedBlocks: number;
  /** a Flush succeeded after the writes */
  flushed: boolean;
  /** duration of the copy */
  seconds: number;
}

/** What became of the bytes of a write that failed: for its message, and for `details`. */
export function writtenSoFar({ bytes, durable }: CopyResult): { text: string; details: { written: number; durable: number } } {
  const text =
    durable === bytes ? `the first ${bytes} bytes are written` : `of the first ${bytes} bytes, ${durable} are known to be durable`;
  return { text, details: { written: Number(bytes), durable: Number(durable) } };
}

/**
 * The error of a write that did not do all that was asked; undefined if it did.
 * @param exact the input must fill the range @param file as the user named the input
 */
export function writeFailure(ns: OpenNamespace, result: CopyResult, range: ByteRange, exact: boolean, file: string): Error | undefined {
  const { details } = writtenSoFar(result);
  if (result.error !== '') {
    const failure = ns.failure(result, file);
    return new VioError(`${failure.message}; ${writtenSoFar(result).text}`, {
      code: failure.code,
      exit: failure.exit,
      hint: failure.hint,
      details: { ...failure.details, ...details },
    });
  }
  if (result.overlong)
    return new VioError(`the input is longer than the ${range.length} bytes there are from offset ${range.offset} on; those were written`, {
      code: 'ENOSPC',
      details,
    });
  if (exact && result.bytes < range.length)
    return new VioError(`the input ended after ${result.bytes} of ${range.length} bytes; those were written`, { code: 'ENODATA', details });
  return undefined;
}
