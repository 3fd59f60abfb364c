/**
 * The control protocol: lines of JSON over a UNIX socket, one request at a time.
 *
 * The client begins with a hello, `{"control":1,"service":"dma map"}`, and the server answers in the same form. Then each request,
 * `{"op":"list","args":{},"fds":0}`, gets one answer: `{"result":…,"fds":0}` or `{"error":{…}}`. Descriptors travel with the
 * line that counts them in `fds` (SCM_RIGHTS). The hello and the form of an error stay the same in every version.
 */
import { codeOf, Exit, type ExitStatus, reason, VioError } from '../common/errors.js';

/** Version of the protocol. Another one is refused, with both versions. */
export const controlVersion = 1;
/** Longest request, in bytes with its newline. */
export const maxRequest = 64 * 1024;
/** Longest answer, in bytes with its newline: 65,535 mappings are some 10 MiB. */
export const maxAnswer = 64 * 1024 * 1024;
/** Clients at a time. */
export const maxClients = 16;
/** Milliseconds that a client may take until a whole request is there. */
export const idleTime = 30_000;
/** Milliseconds that a peer may take no byte of what is sent to it. */
export const stallTime = 5_000;
/** Descriptors in one message (SCM_MAX_FD is 253). More of them are spread over several messages. */
export const fdsPerMessage = 250;
/** Descriptors of one answer. */
export const maxAnswerFds = 1 << 17;

/** A request as it came. */
export interface Request {
  op: string;
  args: Record<string, unknown>;
  /** Descriptors that it announces. */
  fds: number;
}

/** An error on its way to the client. */
export interface WireError {
  message: string;
  code: string;
  exit: number;
  hint?: string;
  details?: Record<string, unknown>;
}

/** The peer broke the protocol: exit 5. */
export const protocolError = (message: string): VioError => new VioError(message, { code: 'EPROTO', exit: Exit.damaged });

/** The object of a line. @throws EPROTO */
export function parseLine(text: string): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw protocolError('not a control message: no JSON');
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw protocolError('not a control message: no object');
  return value as Record<string, unknown>;
}

export const helloLine = (service: string): string => JSON.stringify({ control: controlVersion, service });

/** The version that a hello names; programs older than the protocol name none, which is version 0. */
export const versionOf = (hello: Record<string, unknown>): number => (Number.isSafeInteger(hello.control) ? (hello.control as number) : 0);

/** Two versions that do not understand each other. */
export const versionError = (server: number, client: number): VioError =>
  new VioError(`the server speaks version ${server} of the control protocol, the client version ${client}`, {
    code: 'VERSION',
    exit: Exit.unsupported,
    hint: 'use the vioctl that started the server, or start the server again with this one',
  });

/** Checks the first line of a client. @throws VERSION, SERVICE, EPROTO */
export function checkHello(text: string, service: string): void {
  const hello = parseLine(text);
  if (versionOf(hello) !== controlVersion) throw versionError(controlVersion, versionOf(hello));
  if (hello.service !== service)
    throw new VioError(`this is the control socket of "vioctl ${service}"`, { code: 'SERVICE', exit: Exit.refused });
}

/** Checks a request. @throws EPROTO */
export function parseRequest(text: string): Request {
  const { op, args = {}, fds = 0 } = parseLine(text);
  if (typeof op !== 'string') throw protocolError('the request names no operation');
  if (typeof args !== 'object' || args === null || Array.isArray(args)) throw protocolError('the arguments are no object');
  if (!Number.isSafeInteger(fds) || (fds as number) < 0) throw protocolError('the number of descriptors is no number');
  return { op, args: args as Record<string, unknown>, fds: fds as number };
}

/** Any thrown value as it travels: errors of the kernel keep their name, all else is INTERNAL. */
export function toWire(err: unknown): WireError {
  const { message, code, exit, hint, details } =
    err instanceof VioError ? err : new VioError(reason(err), { code: codeOf(err) ?? 'INTERNAL', exit: Exit.failed });
  return { message, code, exit, ...(hint !== undefined && { hint }), ...(details !== undefined && { details }) };
}

export const errorLine = (err: unknown): string => JSON.stringify({ control: controlVersion, error: toWire(err) });

const statuses: ReadonlySet<unknown> = new Set(Object.values(Exit).filter((status) => status !== Exit.ok));

/** The error that a server sent. A field of another type than it should have is left out. */
export function fromWire(error: unknown): VioError {
  const { message, code, exit, hint, details } = (typeof error === 'object' && error !== null ? error : {}) as Record<string, unknown>;
  return new VioError(typeof message === 'string' ? message : 'the server reports an error of an unknown form', {
    code: typeof code === 'string' ? code : 'EPROTO',
    exit: statuses.has(exit) ? (exit as ExitStatus) : Exit.failed,
    hint: typeof hint === 'string' ? hint : undefined,
    details: typeof details === 'object' && details !== null ? (details as Record<string, unknown>) : undefined,
  });
}
