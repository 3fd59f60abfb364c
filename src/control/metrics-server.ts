/** Serves metrics over HTTP. Nobody proves who he is: the text tells names and counters, and nothing can be changed here. */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { wrap } from '../common/errors.js';
import { printable } from '../common/escape.js';
import { listenError } from '../common/listen.js';
import { type ListeningSocket, listenAt } from '../native/listen.js';
import { contentTypes, type MetricsFormat } from './metrics-text.js';

/** Where metrics are served: a UNIX socket, or an address and port. */
export type MetricsPlace = { path: string } | { address: string; port: number };

/** Connections at a time. */
const maxConnections = 32;
/** Bytes of a request's head. */
const maxHead = 8192;
/** Milliseconds until a request must be complete, and in which its answer must make progress. */
const requestTime = 5000;
/** Requests on one connection. */
const maxRequests = 1000;
/** Milliseconds in which one text serves all who ask. */
const freshTime = 500;
/** Of a UNIX socket: who collects metrics is often of another user, and of a group of the server's. */
const socketMode = 0o660;

/** A running server of metrics. */
export interface MetricsServer {
  /** Where it is, with the port that was taken. */
  place: MetricsPlace;
  close(): Promise<void>;
}

/** Starts serving. @param text makes the text of an answer @throws VioError */
export async function serveMetrics(place: MetricsPlace, text: (format: MetricsFormat) => string): Promise<MetricsServer> {
  const kept = new Map<MetricsFormat, { text: string; until: number }>();
  const current = (format: MetricsFormat): string => {
    const now = performance.now();
    const known = kept.get(format);
    if (known && known.until > now) return known.text;
    const fresh = text(format);
    kept.set(format, { text: fresh, until: now + freshTime });
    return fresh;
  };
  const server = createServer(
    {
      maxHeaderSize: maxHead,
      headersTimeout: requestTime,
      requestTimeout: requestTime,
      keepAliveTimeout: requestTime,
      connectionsCheckingInterval: 1000,
    },
    (request, response) => answer(request, response, current),
  );
  server.maxConnections = maxConnections;
  server.maxRequestsPerSocket = maxRequests;
  server.setTimeout(2 * requestTime, (socket) => socket.destroy());
  server.on('clientError', (_err, socket) => socket.destroy());
  const file = 'path' in place ? listenAt(place.path, { mode: socketMode }) : undefined;
  await listen(server, place, file);
  server.unref();
  const at = server.address();
  return {
    place: typeof at === 'object' && at && 'address' in place ? { address: at.address, port: at.port } : place,
    close: async () => {
      server.closeAllConnections();
      file?.removeFile();
      await new Promise<void>((resolve) => server.close(() => resolve()));
    },
  };
}

/** @param file of a place that is a path: node:net would take its name for text @throws VioError */
async function listen(server: Server, place: MetricsPlace, file: ListeningSocket | undefined): Promise<void> {
  try {
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.once('listening', resolve);
      server.listen('address' in place ? { host: place.address, port: place.port, ipv6Only: true } : { fd: file!.take() });
    });
  } catch (err) {
    throw 'address' in place ? listenError(place.address, place.port, err) : wrap(`listen on ${printable(place.path)}`, err);
  }
  server.on('error', () => {}); // of an accept: want of descriptors passes
}

function answer(request: IncomingMessage, response: ServerResponse, text: (format: MetricsFormat) => string): void {
  const refusal = refusalOf(request);
  if (refusal) {
    const [status, message] = refusal;
    response.writeHead(status, {
      'Content-Type': 'text/plain; charset=utf-8',
      Connection: 'close',
      ...(status === 405 && { Allow: 'GET, HEAD' }),
    });
    response.end(`${message}\n`);
    return;
  }
  const format = /application\/openmetrics-text/.test(request.headers.accept ?? '') ? 'openmetrics' : 'prometheus';
  const body = Buffer.from(text(format));
  response.writeHead(200, { 'Content-Type': contentTypes[format], 'Content-Length': body.length, 'Cache-Control': 'no-store' });
  response.end(request.method === 'HEAD' ? undefined : body);
}

/** Why a request is refused: status and message. */
function refusalOf({ url = '', method, headers }: IncomingMessage): [status: number, message: string] | undefined {
  if (url.replace(/\?.*$/s, '') !== '/metrics') return [404, 'metrics are at /metrics'];
  if (method !== 'GET' && method !== 'HEAD') return [405, 'only GET and HEAD'];
  // what comes behind the head of such a request has no meaning
  if (headers['transfer-encoding'] !== undefined || Number(headers['content-length'] ?? 0) > 0)
    return [400, 'a request for metrics has no body'];
  return undefined;
}
