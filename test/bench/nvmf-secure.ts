/**
 * What TLS and DH-HMAC-CHAP cost the NVMe/TCP target, in processor time per command.
 *
 *   npm run bench -- nvmf-secure
 */
import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { formatChapKey, formatTlsKey } from '../../src/nvme/auth/keys.js';
import { load, peer, quick, rounds, scratch, serve, tell } from './support/bench.js';

const seconds = quick ? 0.4 : 1.5;
const size = 128 << 10;
/** What one core has to reach by TLS, in bytes per ns, unless OpenSSL's cipher and the plain path together are slower. */
const goalRate = 1.5;

function keyFile(name: string, text: string): string {
  const file = path.join(scratch(), name);
  fs.writeFileSync(file, text, { mode: 0o600 });
  return file;
}

/** Nanoseconds of processor time that OpenSSL's speed(1) takes to encrypt 128 KiB in records of full size. */
function cipherTime(openssl: string, cipher: string): number {
  const argv = ['speed', '-mr', '-seconds', '1', '-bytes', '16384', '-evp', cipher];
  const found = /^\+F:\d+:[^:]+:([\d.]+)$/m.exec(execFileSync(openssl, argv, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }));
  if (!found) throw new Error('openssl speed gave no figure');
  return (size / Number(found[1])) * 1e9;
}

/** 128K reads by TLS beside those without, and beside the cipher alone. */
async function tls(hash: number, bytes: number, cipher: string): Promise<void> {
  const openssl = peer('openssl');
  const what = `128K read QD32 by TLS, ${cipher}`;
  if (openssl === undefined)
    return tell({ what: `${what}: rate of a core to its goal`, values: [], unit: 'x', goal: { atLeast: 1 }, missing: 'openssl' });
  const key = keyFile(`tls-${hash}`, formatTlsKey({ hash, bytes: randomBytes(bytes) }));
  const plain = await serve('ram:64M', '--spin', '0');
  const secure = await serve('ram:64M', '--spin', '0', '--tls-key-file', key);
  const [whole, args] = [
    ['--iodepth', '32', '--bs', '128K', '--rw', 'write'],
    ['--iodepth', '32', '--bs', '128K', '--rw', 'read'],
  ];
  // memory that was never written would be found page by page
  load(plain, 1, ...whole);
  load(secure, 1, ...whole, '--tls-key-file', key);
  const costs: number[] = [];
  const ratios: number[] = [];
  for (let i = 0; i < rounds; i++) {
    const without = load(plain, seconds, ...args).cpu;
    const cost = load(secure, seconds, ...args, '--tls-key-file', key).cpu;
    const most = Math.max(size / goalRate, 1.1 * (without + cipherTime(openssl, cipher)));
    costs.push(cost / 1000);
    ratios.push(most / cost);
  }
  tell({ what: `${what}: rate of a core to its goal`, values: ratios, unit: 'x', goal: { atLeast: 1 }, peer: 'openssl speed, 1.5 GB/s' });
  tell({ what: `${what}: CPU`, values: costs, unit: 'us' });
  await plain.stop();
  await secure.stop();
}

/** Reads of a host that has proved who it is. Without Diffie-Hellman: this is about I/O, not about the exchange before it. */
async function chap(): Promise<void> {
  const key = keyFile('chap', formatChapKey({ hash: 1, bytes: randomBytes(32) }));
  const config = { listen: ['127.0.0.1:0'], spinMicroseconds: 0, dhchapGroups: ['null'] };
  const subsystems = [{ nqn: 'nqn.2014-08.org.example:chap', namespaces: [{ source: 'ram:64M' }] }];
  const plain = await serve('--config', keyFile('plain.json', JSON.stringify({ ...config, subsystems })));
  const keys = [{ dhchapSecretFile: key }];
  const secure = await serve('--config', keyFile('chap.json', JSON.stringify({ ...config, keys, subsystems })));
  const whole = ['--iodepth', '32', '--bs', '128K', '--rw', 'write'];
  load(plain, 1, ...whole);
  load(secure, 1, ...whole, '--dhchap-secret-file', key);
  const args = ['--iodepth', '32'];
  const ratios = Array.from({ length: rounds }, () => {
    const without = load(plain, seconds, ...args).cpu;
    return load(secure, seconds, ...args, '--dhchap-secret-file', key).cpu / without;
  });
  tell({ what: '4K read QD32: CPU with DH-HMAC-CHAP to CPU without', values: ratios, unit: 'x', goal: { atMost: 1.03 } });
  await secure.stop();
  await plain.stop();
}

await tls(1, 32, 'aes-128-gcm');
await tls(2, 48, 'aes-256-gcm');
await chap();
