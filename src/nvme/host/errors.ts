import { Exit, type ExitStatus, VioError, wrap } from '../../common/errors.js';
import { commandName, fatalErrorText, Status, type StatusField, statusCode, statusText } from '../wire/index.js';

/** A command that the controller completed with an error. */
export class NvmeError extends VioError {
  readonly status: StatusField;
  /** Command-specific result. */
  readonly dw0: number;

  constructor(what: string, status: StatusField, dw0: number, queue: 'admin' | 'io') {
    super(`${what}: ${statusText(status, queue)}`, {
      code: `NVME_${statusCode(status).replace('/', '_')}`,
      exit: exitOf(status),
      hint: hintOf(status),
      details: { sct: status.sct, sc: status.sc, dnr: status.dnr, dw0 },
    });
    this.name = 'NvmeError';
    this.status = status;
    this.dw0 = dw0;
  }
}

const is = (status: StatusField, row: { sct: number; sc: number }) => status.sct === row.sct && status.sc === row.sc;

function exitOf(status: StatusField): ExitStatus {
  if (is(status, Status.connectInvalidHost) || is(status, Status.authenticationRequired)) return Exit.permission;
  if (is(status, Status.invalidOpcode)) return Exit.unsupported;
  return Exit.failed;
}

function hintOf(status: StatusField): string | undefined {
  if (is(status, Status.connectInvalidHost))
    return 'the target does not admit this host NQN or has no such subsystem: --hostnqn, --nqn; vioctl nvmf discover';
  if (is(status, Status.connectInvalidParameters)) return 'vioctl nvmf discover shows the subsystem NQNs of the target';
  if (is(status, Status.lbaOutOfRange)) return 'vioctl nvmf identify --namespace-id N shows the size of the namespace';
  if (is(status, Status.invalidNamespace)) return 'vioctl nvmf identify lists the namespaces';
  if (is(status, Status.writeProtected)) return 'the target serves this namespace read-only';
  return undefined;
}

/** What a command was, for messages: `identify`, `fabrics connect`. */
export const nameOf = (sqe: Buffer, queue: 'admin' | 'io'): string => commandName(sqe.readUInt8(0), sqe.readUInt8(4), queue);

/** True where repeating the command may help: transport errors and what the controller did not mark otherwise. */
export function mayRetry(err: unknown): boolean {
  if (err instanceof NvmeError)
    return (
      !err.status.dnr &&
      (is(err.status, Status.transientTransport) || is(err.status, Status.interrupted) || is(err.status, Status.namespaceNotReady))
    );
  return err instanceof DigestError;
}

/** Data arrived with a wrong digest: the command failed, the connection is good. */
export class DigestError extends VioError {
  constructor(what: string) {
    super(`${what}: data digest error on received data`, { code: 'EBADMSG', exit: Exit.damaged });
    this.name = 'DigestError';
  }
}

/** Time ran out. */
export const timedOut = (what: string, ms: number): VioError =>
  new VioError(`${what}: no answer within ${ms / 1000} s`, { code: 'ETIMEDOUT', exit: Exit.timeout, hint: '--timeout sets the limit' });

/** A connection that could not be made, or broke: the cause and the hint follow from the errno. */
export function unreachable(where: string, err: NodeJS.ErrnoException): VioError {
  switch (err.code) {
    case 'ENOTFOUND':
    case 'EAI_NONAME':
      return new VioError(`${where}: no such host`, { code: 'ENOTFOUND', hint: 'getent hosts NAME asks the resolver' });
    case 'EAI_AGAIN':
      return new VioError(`${where}: the resolver does not answer`, { code: 'EAI_AGAIN', hint: 'resolvectl status' });
    case 'ECONNREFUSED':
      return wrap(where, err, { hint: 'nothing listens there: vioctl nvmf serve, --trsvcid' });
    default:
      return wrap(where, err);
  }
}

/** The connection ended while something was expected of it. */
export const closedByTarget = (where: string): VioError =>
  new VioError(`${where}: the target closed the connection`, { code: 'ECONNRESET', exit: Exit.failed });

/** TLS did not come about: in most cases, the two sides have different keys. */
export const tlsFailed = (where: string, err: Error): VioError =>
  new VioError(`${where}: the TLS handshake or a record of it failed: the target has another key, or speaks no TLS`, {
    code: 'EKEYREJECTED',
    exit: Exit.permission,
    hint: 'vioctl nvmf discover shows whether the target uses TLS (SECTYPE, TREQ)',
    cause: err,
  });

/** What the native host says about an error: the part behind the errno. */
export const detailOf = (message: string): string => /'(.*)'$/s.exec(message)?.[1] ?? '';

/** A connection that ended by a wrong PDU, of the target or, as it says, of ours. @param message of the native host */
export function brokeProtocol(where: string, message: string): VioError {
  const detail = detailOf(message);
  const [ended, fes, fei] = /C2HTermReq, FES (\d+), FEI (\d+)/.exec(detail) ?? [];
  const what = ended
    ? `the target ended the connection: ${fatalErrorText(Number(fes), Number(fei))}`
    : `the target broke the protocol${detail && `: ${detail}`}`;
  return new VioError(`${where}: ${what}`, { code: 'EPROTO', exit: Exit.damaged });
}

/** Why a connection could not be made or ended: an error of the native host in our words. @param timeout of the user, in milliseconds */
export function connectionError(where: string, timeout: number, err: unknown): VioError {
  const { code, syscall, message } = err as NodeJS.ErrnoException;
  if (syscall === 'getaddrinfo')
    return unreachable(where, Object.assign(new Error(), { code: code === 'EAGAIN' ? 'EAI_AGAIN' : 'ENOTFOUND' }));
  switch (code) {
    case 'ETIMEDOUT':
      return syscall === 'connect' ? unreachable(where, err as Error) : timedOut(where, timeout);
    case 'EKEYREJECTED':
      return tlsFailed(where, err as Error);
    case 'ECONNRESET':
      return closedByTarget(where);
    case 'EPROTO':
      return brokeProtocol(where, message);
    case 'EOPNOTSUPP':
      return new VioError(`${where}: ${detailOf(message)}`, {
        code,
        exit: Exit.unsupported,
        hint: message.includes('digest') ? 'leave out --hdr-digest and --data-digest' : undefined,
      });
    default:
      return unreachable(where, err as Error);
  }
}
