/** `nvmf serve --metrics`: what it tells, and whom it does not let in its way. */
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import http from 'node:http';
import net from 'node:net';
import path from 'node:path';
import { Namespace } from '../../src/nvme/host/index.js';
import { vioctl } from '../support/cli.js';
import { connectHost, type ServedTarget, serveTarget, withFolder } from '../support/nvme-target.js';
import { skip, which } from '../support/skip.js';

interface Reply {
  status: number;
  headers: http.IncomingHttpHeaders;
  body: string;
}

/** Asks for metrics. @param where port of loopback, or path of a socket */
function ask(where: number | string, options: http.RequestOptions = {}, body = ''): Promise<Reply> {
  const place = typeof where === 'number' ? { host: '127.0.0.1', port: where } : { socketPath: where };
  return new Promise((resolve, reject) => {
    const request = http.request({ ...place, path: '/metrics', agent: false, ...options }, (response) => {
      let text = '';
      response.setEncoding('utf8').on('data', (part: string) => {
        text += part;
      });
      response.on('end', () => resolve({ status: response.statusCode!, headers: response.headers, body: text }));
    });
    request.on('error', reject);
    request.end(body);
  });
}

const portOf = (target: ServedTarget): number => (target.document as { metrics: { port: number } }).metrics.port;
const values = (body: string, name: string): [labels: string, value: number][] =>
  [...body.matchAll(new RegExp(`^${name}(\\{.*\\})? ([-+0-9.e]+)$`, 'gm'))].map((match) => [match[1] ?? '', Number(match[2])]);
const value = (body: string, name: string, ...having: string[]): number | undefined =>
  values(body, name).find(([labels]) => having.every((one) => labels.includes(one)))?.[1];

const hostile = 'nqn.2014-08.org.example:"}\\ 1';

test('subsystem, namespace, host and queue are counted; promtool accepts the text', async () => {
  const target = await serveTarget(['ram:1M', 'ram:1M,group=2', '--metrics', ':0']);
  const host = await connectHost(target, { ioQueues: 2, queueSize: 16, hostnqn: hostile });
  try {
    const namespace = new Namespace(host, await host.namespace(1));
    await namespace.write(0n, Buffer.alloc(8192, 1));
    await namespace.read(0n, Buffer.alloc(8192));
    await namespace.flush();
    const { status, headers, body } = await ask(portOf(target));
    expect(status).toBe(200);
    expect(headers['content-type']).toBe('text/plain; version=0.0.4; charset=utf-8');
    expect(Number(headers['content-length'])).toBe(Buffer.byteLength(body));
    const ns = ['nsid="1"'];
    expect(value(body, 'vioctl_nvmf_namespace_bytes_total', ...ns, 'kind="write"')).toBe(8192);
    expect(value(body, 'vioctl_nvmf_namespace_bytes_total', ...ns, 'kind="read"')).toBe(8192);
    expect(value(body, 'vioctl_nvmf_namespace_commands_total', ...ns, 'kind="flush"')).toBe(1);
    expect(value(body, 'vioctl_nvmf_namespace_commands_total', 'nsid="2"', 'kind="write"')).toBe(0);
    expect(value(body, 'vioctl_nvmf_namespace_error_latched', ...ns)).toBe(0);
    expect(value(body, 'vioctl_nvmf_ana_state', 'group="2"', 'vioctl_nvmf_ana_state="optimized"')).toBe(1);
    const counts = values(body, 'vioctl_nvmf_namespace_latency_seconds_count').find(([l]) => l.includes('"1"') && l.includes('write'));
    expect(counts?.[1]).toBe(value(body, 'vioctl_nvmf_namespace_commands_total', ...ns, 'kind="write"'));
    expect(value(body, 'vioctl_nvmf_namespace_latency_seconds_sum', ...ns, 'kind="write"')).toBeGreaterThan(0);
    // buckets only grow, up to the count
    const buckets = values(body, 'vioctl_nvmf_namespace_latency_seconds_bucket').filter(
      ([l]) => l.includes('nsid="1"') && l.includes('write'),
    );
    expect(buckets.length).toBeGreaterThan(20);
    for (const [i, [, upTo]] of buckets.entries()) expect(upTo).toBeGreaterThanOrEqual(buckets[i - 1]?.[1] ?? 0);
    expect(buckets.at(-1)![1]).toBe(counts?.[1]);
    expect(value(body, 'vioctl_nvmf_host_bytes_total', 'host="nqn.2014-08.org.example:\\"}\\\\ 1"', 'kind="write"')).toBe(8192);
    const queues = values(body, 'vioctl_nvmf_queue_bytes_total').filter(([labels]) => labels.includes('kind="write"'));
    expect(queues.map(([labels]) => /qid="(\d+)"/.exec(labels)?.[1]).sort()).toEqual(['1', '2']);
    expect(queues.reduce((sum, [, bytes]) => sum + bytes, 0)).toBe(8192);
    if (!which('promtool')) return skip('the text by promtool', 'promtool is missing');
    const lint = spawnSync('promtool', ['check', 'metrics'], { input: body, encoding: 'utf8' });
    expect({ status: lint.status, problems: lint.stdout + lint.stderr }).toEqual({ status: 0, problems: '' });
  } finally {
    await host.disconnect();
    await target.stop();
  }
});

describe('the server of metrics', () => {
  let target: ServedTarget;
  let port: number;
  beforeAll(async () => {
    target = await serveTarget(['ram:1M', '--metrics', '127.0.0.1:0']);
    port = portOf(target);
  });
  afterAll(() => target.stop());

  test('OpenMetrics for who asks for it, and only GET and HEAD of /metrics', async () => {
    const open = await ask(port, { headers: { accept: 'application/openmetrics-text;version=1.0.0;q=0.5,text/plain;q=0.1' } });
    expect(open.headers['content-type']).toBe('application/openmetrics-text; version=1.0.0; charset=utf-8');
    expect(open.body).toMatch(/# TYPE vioctl_nvmf_bytes counter\n/);
    expect(open.body).toMatch(/\n# EOF\n$/);
    const head = await ask(port, { method: 'HEAD' });
    expect([head.status, head.body]).toEqual([200, '']);
    expect(Number(head.headers['content-length'])).toBeGreaterThan(1000);
    expect((await ask(port, { path: '/metrics?x=1' })).status).toBe(200);
    for (const other of ['/', '/metrics/', '/../metrics', '//metrics', '/%6detrics'])
      expect((await ask(port, { path: other })).status).toBe(404);
    for (const method of ['POST', 'PUT', 'DELETE', 'OPTIONS', 'TRACE'])
      expect(await ask(port, { method })).toMatchObject({ status: 405, headers: { allow: 'GET, HEAD' } });
    expect((await ask(port, { headers: { 'content-length': '3' } }, 'abc')).status).toBe(400);
  });

  /** What comes back for bytes, until the server closes. */
  async function raw(bytes: string): Promise<string> {
    const socket = net.connect(port, '127.0.0.1');
    let text = '';
    socket.setEncoding('utf8').on('data', (part: string) => {
      text += part;
    });
    socket.on('error', () => {});
    socket.write(bytes);
    await new Promise((resolve) => socket.once('close', resolve));
    return text;
  }

  test('no endless head, no garbage, no silence', async () => {
    expect(await raw(`GET /metrics HTTP/1.1\r\nHost: x\r\nX: ${'a'.repeat(100_000)}\r\n\r\n`)).not.toContain('200 OK');
    expect(await raw('\x00\x01\x02 not http\r\n\r\n')).not.toContain('200 OK');
    expect(await raw('GET /metrics HTTP/1.1\r\nHost: x\r\n')).not.toContain('200 OK'); // its end never comes
  });

  test('connections beyond the limit are closed, and it serves again when they go', async () => {
    const sockets = Array.from({ length: 64 }, () => net.connect(port, '127.0.0.1').on('error', () => {}));
    const open = () => sockets.filter((socket) => !socket.destroyed).length;
    while (open() > 32) await new Promise((resolve) => setTimeout(resolve, 20));
    for (const socket of sockets) socket.destroy();
    for (;;) {
      const done = await ask(port).catch(() => undefined);
      if (done?.status === 200) break;
    }
  });
});

test('a UNIX socket that its group may use; it goes with the server, and a wrong address is a usage error', async () =>
  withFolder(async (dir) => {
    const socket = path.join(dir, 'm.sock');
    const target = await serveTarget(['ram:1M', '--metrics', socket]);
    expect(fs.statSync(socket).mode & 0o777).toBe(0o660);
    expect((await ask(socket)).body).toContain('vioctl_nvmf_connections 0');
    const second = vioctl(['nvmf', 'serve', 'ram:1M', '--listen', ':0', '--metrics', socket]);
    expect(second).toMatchObject({ status: 1, stderr: expect.stringContaining('EADDRINUSE') });
    expect(await target.stop()).toBe(0);
    expect(fs.existsSync(socket)).toBe(false);
    const wrong = vioctl(['nvmf', 'serve', 'ram:1M', '--listen', ':0', '--metrics', '1.2.3.4.5:1']);
    expect(wrong).toMatchObject({ status: 2, stderr: expect.stringContaining('not an address') });
  }));
