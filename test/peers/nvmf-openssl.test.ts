/** TLS of `nvmf serve` and of its host against OpenSSL's own client and server. */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import fs from 'node:fs';
import net, { type AddressInfo } from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { formatTlsKey } from '../../src/nvme/auth/keys.js';
import { tlsPsk } from '../../src/nvme/auth/tls-psk.js';
import { encodePdu, pdus } from '../../src/nvme/wire/index.js';
import { nvmf, type ServedTarget, serveTarget } from '../support/nvme-target.js';

const nqn = 'nqn.2014-08.org.example:openssl';
const hostnqn = 'nqn.2014-08.org.example:host';
const key = { hash: 1, bytes: randomBytes(32) };
const { identity, psk } = tlsPsk(key, hostnqn, nqn);
let dir: string;
const at = (name: string) => path.join(dir, name);
beforeAll(() => {
  dir = fs.mkdtempSync(path.join(os.tmpdir(), 'nvmf-openssl-'));
  fs.writeFileSync(at('key'), formatTlsKey(key), { mode: 0o600 });
});
afterAll(() => fs.rmSync(dir, { recursive: true, force: true }));

/** A port that was free a moment ago: s_server tells none that the system has chosen. */
async function freePort(): Promise<number> {
  const server = net.createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}

/** Ends on its own when the other side has ended the connection. */
async function output(child: ChildProcess): Promise<{ out: Buffer; err: string }> {
  const out: Buffer[] = [];
  let err = '';
  child.stdout!.on('data', (data: Buffer) => void out.push(data));
  child.stderr!.on('data', (data: Buffer) => {
    err += data;
  });
  await once(child, 'close');
  return { out: Buffer.concat(out), err };
}

describe('openssl s_client', () => {
  let target: ServedTarget;
  beforeAll(async () => {
    target = await serveTarget(['ram:1M', '--nqn', nqn, '--tls-key-file', at('key')]);
  });
  afterAll(async () => expect(await target.stop()).toBe(0));

  /** Sends an ICReq and ends once something has come, or the connection has ended. */
  const client = async (args: string[], secret: Buffer = psk): Promise<{ out: Buffer; err: string }> => {
    const words = ['s_client', '-connect', `127.0.0.1:${target.port}`, '-psk', secret.toString('hex'), '-quiet', ...args];
    const child = spawn('openssl', words, { stdio: ['pipe', 'pipe', 'pipe'] });
    child.stdin.on('error', () => {}); // it may be gone before it has read
    child.stdin.write(encodePdu(pdus.icReq, {}));
    child.stdout.once('data', () => child.kill());
    return output(child);
  };

  test.each([
    ['as it should be', ['-tls1_3', '-psk_identity', identity]],
    ['that could do without a fresh key exchange', ['-tls1_3', '-psk_identity', identity, '-allow_no_dhe_kex']],
    [
      'with more than one cipher suite',
      ['-tls1_3', '-psk_identity', identity, '-ciphersuites', 'TLS_AES_256_GCM_SHA384:TLS_AES_128_GCM_SHA256'],
    ],
    ['with another group', ['-tls1_3', '-psk_identity', identity, '-groups', 'P-384']],
  ])('a client %s is answered', async (_what, args) => {
    const { out } = await client(args);
    expect([out.length, out[0]]).toEqual([128, 1]); // ICResp
  });

  test.each([
    ['another identity', ['-tls1_3', '-psk_identity', identity.replace('host', 'h0st')], psk],
    ['another key', ['-tls1_3', '-psk_identity', identity], randomBytes(32)],
    ['a key without an identity', ['-tls1_3'], psk],
    ['another cipher suite', ['-tls1_3', '-psk_identity', identity, '-ciphersuites', 'TLS_CHACHA20_POLY1305_SHA256'], psk],
    ['the suite of the other hash function', ['-tls1_3', '-psk_identity', identity, '-ciphersuites', 'TLS_AES_256_GCM_SHA384'], psk],
    ['TLS 1.2', ['-tls1_2', '-psk_identity', identity], psk],
  ])('a client with %s is refused', async (_what, args, secret) => {
    const { out, err } = await client(args, secret);
    expect({ out: out.length, err }).toEqual({ out: 0, err: expect.stringMatching(/alert|error|errno/i) });
  });
});

describe('openssl s_server', () => {
  /** What an OpenSSL server hears of our host, and how our host ends. */
  async function host(args: string[]): Promise<{ heard: Buffer; status: number | null; stderr: string }> {
    const port = await freePort();
    const server = spawn('openssl', ['s_server', '-accept', `127.0.0.1:${port}`, '-naccept', '1', '-quiet', ...args], {
      stdio: ['pipe', 'pipe', 'pipe'],
    });
    const ended = output(server);
    server.stdin.on('error', () => {}); // it may end before it has read
    server.stdin.write(encodePdu(pdus.icResp, { maxh2cdata: 8192 }));
    await listening(port);
    const options = ['-s', String(port), '-n', nqn, '-q', hostnqn, '--tls-key-file', at('key'), '--timeout', '3s'];
    const { status, stderr } = await nvmf(['identify', ...options]);
    server.kill();
    return { heard: (await ended).out, status, stderr };
  }
  /** Waits until a port is listened on, without a connection to it. */
  async function listening(port: number): Promise<void> {
    const hex = port.toString(16).toUpperCase().padStart(4, '0');
    while (!fs.readFileSync('/proc/net/tcp', 'utf8').includes(`0100007F:${hex} 00000000:0000 0A`))
      await new Promise((resolve) => setTimeout(resolve, 20));
  }
  const right = ['-tls1_3', '-nocert', '-psk', psk.toString('hex'), '-psk_identity', identity];

  test('our host sends ICReq and Connect', async () => {
    const { heard } = await host(right);
    expect([heard[0], heard.readUInt32LE(4)]).toEqual([0, 128]);
    expect([heard[128], heard[128 + 8], heard[128 + 12]]).toEqual([4, 0x7f, 1]); // CapsuleCmd, fabrics, Connect
    expect(heard.includes(Buffer.from(hostnqn))).toBe(true);
  });

  test.each([
    ['another key', () => ['-tls1_3', '-nocert', '-psk', randomBytes(32).toString('hex'), '-psk_identity', identity]],
    ['no key, but a certificate', () => ['-tls1_3', '-cert', at('cert'), '-key', at('cert')]],
    ['TLS 1.2 alone', () => ['-tls1_2', '-nocert', '-psk', psk.toString('hex'), '-psk_identity', identity]],
    ['another cipher suite', () => [...right, '-ciphersuites', 'TLS_CHACHA20_POLY1305_SHA256']],
  ])('our host takes no server with %s', async (_what, args) => {
    const subject = ['-subj', '/CN=localhost', '-days', '2', '-keyout', at('cert'), '-out', at('crt')];
    if (!fs.existsSync(at('cert'))) {
      execFileSync('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', ...subject], {
        stdio: 'ignore',
      });
      fs.appendFileSync(at('cert'), fs.readFileSync(at('crt')));
    }
    expect(await host(args())).toMatchObject({ status: 6, heard: Buffer.alloc(0) });
  });
});
