import { VioError } from '../../common/errors.js';
import { printable } from '../../common/escape.js';

/** How servers of other protocols begin, or answer what they do not understand. */
const greetings: readonly [RegExp, string][] = [
  [/^\{"QMP"/, "QEMU's monitor (QMP)"],
  [/^NBDMAGIC/, 'an NBD server'],
  [/^RFB \d/, 'a VNC server'],
  [/^SSH-/, 'an SSH server'],
  [/^HTTP\//, 'an HTTP server'],
  [/^\s*[{[]/, 'a server that speaks JSON'],
  [/^QEMU /, "QEMU's monitor"],
];

/** What a peer seems to be whose first bytes are no vhost-user message; undefined if they say nothing. */
export function protocolOf(head: Uint8Array): string | undefined {
  const text = Buffer.from(head).toString('latin1');
  return greetings.find(([pattern]) => pattern.test(text))?.[1];
}

/**
 * The error of a probe with what the peer seems to be.
 * @param server the program that serves the socket, where it is known
 */
export function explained(err: unknown, server: { exe: string | null; pid: number } | undefined): unknown {
  if (!(err instanceof VioError) || !['EPROTO', 'ECONNRESET', 'ETIMEDOUT'].includes(err.code)) return err;
  const head = err.details?.head;
  const what = head instanceof Uint8Array ? protocolOf(head) : undefined;
  const by = server?.exe ? `${printable(server.exe)} (pid ${server.pid})` : undefined;
  if (what === undefined && by === undefined) return err;
  const message = what === undefined ? err.message : `this is ${what}, no vhost-user back-end`;
  const hint = what !== undefined ? by && `it is served by ${by}` : [err.hint, `the socket is served by ${by}`].filter(Boolean).join('; ');
  return new VioError(message, { code: err.code, exit: err.exit, hint, cause: err });
}
