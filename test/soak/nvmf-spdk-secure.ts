/**
 * TLS and DH-HMAC-CHAP between vioctl and SPDK, with each as target and as host: `VIOCTL_SPDK=DIR npm run soak -- nvmf-spdk-secure`. Every
 * kind of key, right, wrong and missing; each hash function and group; what is written is compared on both sides.
 */
import { randomBytes } from 'node:crypto';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { formatChapKey, formatTlsKey, type Key } from '../../src/nvme/auth/keys.js';
import { noSpdk, SpdkTarget, spdkNqn, spdkPerf } from '../peers/spdk.js';
import { nvmf, type ServedTarget, serveTarget } from '../support/nvme-target.js';
import { freePort } from '../vm/devices.js';

const SIZE = 16 << 20;
const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-spdk-'));
const at = (name: string): string => path.join(dir, name);
/** Subsystems of SPDK's target: behind a listener with TLS, and behind one without, for hosts that authenticate. */
const secureNqn = `${spdkNqn}-tls`;
const chapNqn = `${spdkNqn}-chap`;
const nqn = 'nqn.2014-08.org.nvmexpress:near';
const hostOf = (name: string): string => `nqn.2014-08.org.nvmexpress:host-${name}`;

const key = (hash: number, size: number): Key => ({ hash, bytes: randomBytes(size) });
const tlsKeys: Record<string, Key> = { sha256: key(1, 32), sha384: key(2, 48), none32: key(0, 32), none48: key(0, 48) };
const chapKeys: Record<string, Key> = { null: key(0, 32), sha256: key(1, 32), sha384: key(2, 48), sha512: key(3, 64) };
const hashes = ['sha256', 'sha384', 'sha512'];
const groups = ['null', 'ffdhe2048', 'ffdhe3072', 'ffdhe4096', 'ffdhe6144', 'ffdhe8192'];

/** @returns its path */
function write(name: string, text: string): string {
  fs.writeFileSync(at(name), text, { mode: 0o600 });
  return at(name);
}

const check = (ok: boolean, what: string): void => {
  if (!ok) throw new Error(what);
};

/** Runs `vioctl nvmf VERB`. @throws Error unless it ends with 0 */
async function must(args: string[], input?: Buffer): Promise<Buffer> {
  const { status, stdout, stderr } = await nvmf(args, input ? { input } : {});
  check(status === 0, `nvmf ${args.join(' ')}: status ${status}: ${stderr}`);
  return stdout;
}

/** The same, and the target has to refuse it. */
async function refused(args: string[], statuses: number[]): Promise<void> {
  const { status, stderr } = await nvmf(args);
  check(statuses.includes(status ?? -1), `nvmf ${args.join(' ')}: status ${status}, not ${statuses.join(' or ')}: ${stderr}`);
}

/** Writes and reads through a host of ours. @returns what `file` holds there now */
async function data(where: string[], file: string): Promise<void> {
  for (const options of [
    ['-i', '1'],
    ['-g', '-G', '-i', '4', '--chunk', '8K'],
  ]) {
    const [bytes, offset] = [randomBytes(3_000_001), 512 * 77];
    await must(['write', ...where, ...options, '--offset', `${offset}`], bytes);
    const back = await must(['read', ...where, ...options, '--offset', `${offset}`, '--count', `${bytes.length}`]);
    check(back.equals(bytes), `wrong data through ${where.join(' ')} ${options.join(' ')}`);
    const stored = Buffer.alloc(bytes.length);
    const fd = fs.openSync(file, 'r');
    fs.readSync(fd, stored, 0, stored.length, offset);
    fs.closeSync(fd);
    check(stored.equals(bytes), `wrong data in ${file} by ${where.join(' ')} ${options.join(' ')}`);
  }
}

/** SPDK's host attaches a namespace of ours, and its target gives it to a host of ours: data passes both. */
async function throughSpdk(far: SpdkTarget, target: ServedTarget, file: string, ...keys: string[]): Promise<void> {
  const place = ['-t', 'tcp', '-a', '127.0.0.1', '-s', `${target.port}`, '-f', 'ipv4', '-n', nqn];
  far.rpc('bdev_nvme_attach_controller', '-b', 'near', ...place, ...keys);
  try {
    far.rpc('nvmf_subsystem_add_ns', spdkNqn, 'nearn1', '-n', '2');
    await data(['-s', `${far.port}`, '-n', spdkNqn, '--namespace-id', '2'], file);
    far.rpc('nvmf_subsystem_remove_ns', spdkNqn, '2');
  } finally {
    far.rpc('bdev_nvme_detach_controller', 'near');
  }
}

function spdkRefused(far: SpdkTarget, target: ServedTarget, ...keys: string[]): void {
  const place = ['-t', 'tcp', '-a', '127.0.0.1', '-s', `${target.port}`, '-f', 'ipv4', '-n', nqn];
  let attached = true;
  try {
    far.rpc('bdev_nvme_attach_controller', '-b', 'wrong', ...place, ...keys);
  } catch (err) {
    attached = false;
    if (!/Input\/output error|Invalid argument|Operation not permitted|Permission denied/.test(String(err))) throw err;
  }
  check(!attached, `SPDK attached with ${keys.join(' ')}`);
}

/** Our hosts and SPDK's target by TLS. */
async function tlsToSpdk(far: SpdkTarget): Promise<void> {
  const port = await freePort();
  far.rpc('nvmf_create_subsystem', secureNqn);
  far.rpc('bdev_aio_create', at('disk-tls'), 'disk-tls', '512');
  far.rpc('nvmf_subsystem_add_ns', secureNqn, 'disk-tls');
  far.rpc('nvmf_subsystem_add_listener', secureNqn, '-t', 'tcp', '-a', '127.0.0.1', '-s', `${port}`, '--secure-channel');
  for (const name of Object.keys(tlsKeys)) {
    const host = hostOf(name);
    far.rpc('nvmf_subsystem_add_host', secureNqn, host, '--psk', `tls-${name}`);
    const where = ['-s', `${port}`, '-n', secureNqn, '-q', host];
    const keys = ['--tls-key-file', at(`tls-${name}`)];
    await must(['identify', ...where, ...keys]);
    await data([...where, ...keys], at('disk-tls'));
    await must(['ping', ...where, ...keys, '--count', '3', '--interval', '1ms']);
    await refused(['identify', ...where, '--tls-key-file', at(`wrong-tls-${name}`)], [6]);
    await refused(['identify', ...where, '--timeout', '5s'], [1, 124]);
    console.log(`our host, SPDK's target, TLS key ${name}: data right; a wrong key and none refused`);
  }
  const source = `nvme+tcp://127.0.0.1:${port}/${secureNqn}/1,queues=2,hostnqn=${hostOf('sha384')},tls-key-file=${at('tls-sha384')}`;
  const relay = await serveTarget([source, '--nqn', nqn, '--discovery-port', 'none']);
  await data(['-s', `${relay.port}`, '-n', nqn], at('disk-tls'));
  check((await relay.stop()) === 0, `a relay ended badly: ${relay.messages()}`);
  console.log("a source on SPDK's target by TLS: data right");
}

/** SPDK's hosts and our target by TLS. */
async function tlsFromSpdk(far: SpdkTarget): Promise<void> {
  const keys = Object.keys(tlsKeys).flatMap((name) => ['--tls-key-file', `${hostOf(name)}=${at(`tls-${name}`)}`]);
  fs.writeFileSync(at('disk-near'), Buffer.alloc(SIZE));
  const target = await serveTarget([at('disk-near'), '--nqn', nqn, '--discovery-port', 'none', ...keys]);
  for (const name of Object.keys(tlsKeys)) {
    const host = hostOf(name);
    await throughSpdk(far, target, at('disk-near'), '-q', host, '--psk', `tls-${name}`);
    spdkRefused(far, target, '-q', host, '--psk', `wrong-tls-${name}`);
    spdkRefused(far, target, '-q', host);
    const load = ['-t', '1', '-o', '4096', '-q', '32', '-w', 'randread', '-S', 'ssl', '--psk-path', at(`tls-${name}`)];
    const said = spdkPerf(target.port, `${nqn} hostnqn:${host}`, ...load);
    check(Number(/^Total\s*:\s*([\d.]+)/m.exec(said)?.[1]) > 0, `no requests: ${said}`);
    console.log(`SPDK's host, our target, TLS key ${name}: data right; a wrong key and none refused`);
  }
  check((await target.stop()) === 0, `our target ended badly: ${target.messages()}`);
}

/** Our hosts and SPDK's target, which asks for authentication. */
async function chapToSpdk(far: SpdkTarget): Promise<void> {
  far.rpc('nvmf_create_subsystem', chapNqn);
  far.rpc('bdev_aio_create', at('disk-chap'), 'disk-chap', '512');
  far.rpc('nvmf_subsystem_add_ns', chapNqn, 'disk-chap');
  far.rpc('nvmf_subsystem_add_listener', chapNqn, '-t', 'tcp', '-a', '127.0.0.1', '-s', `${far.port}`);
  const names = Object.keys(chapKeys);
  for (const [i, name] of names.entries()) {
    const controller = names[(i + 1) % names.length]!;
    for (const both of [false, true]) {
      const host = hostOf(`${name}-${both ? 'both' : 'one'}`);
      far.rpc(
        'nvmf_subsystem_add_host',
        chapNqn,
        host,
        '--dhchap-key',
        `chap-${name}`,
        ...(both ? ['--dhchap-ctrlr-key', `chap-${controller}`] : []),
      );
      const where = ['-s', `${far.port}`, '-n', chapNqn, '-q', host];
      const own = ['--dhchap-secret-file', at(`chap-${name}`)];
      const keys = both ? [...own, '--dhchap-ctrl-secret-file', at(`chap-${controller}`)] : own;
      await data([...where, ...keys], at('disk-chap'));
      await refused(['identify', ...where, '--dhchap-secret-file', at(`wrong-chap-${name}`)], [6]);
      await refused(['identify', ...where], [6]);
      await refused(['identify', ...where, ...own, '--dhchap-ctrl-secret-file', at(`wrong-chap-${controller}`)], [6]);
    }
    console.log(`our host, SPDK's target, DH-HMAC-CHAP key ${name}, of the host and of both: data right; wrong keys and none refused`);
  }
}

/** SPDK's hosts and our target, which asks for authentication: each hash function and group. */
async function chapFromSpdk(far: SpdkTarget): Promise<void> {
  const names = Object.keys(chapKeys);
  const keys = names.flatMap((name, i) => [
    ...['--dhchap-secret-file', `${hostOf(name)}=${at(`chap-${name}`)}`],
    ...['--dhchap-ctrl-secret-file', `${hostOf(name)}=${at(`chap-${names[(i + 1) % names.length]}`)}`],
  ]);
  const target = await serveTarget([at('disk-near'), '--nqn', nqn, '--discovery-port', 'none', ...keys]);
  for (const [i, name] of names.entries()) {
    const [host, controller] = [hostOf(name), names[(i + 1) % names.length]];
    const own = ['-q', host, '--dhchap-key', `chap-${name}`];
    await throughSpdk(far, target, at('disk-near'), ...own);
    await throughSpdk(far, target, at('disk-near'), ...own, '--dhchap-ctrlr-key', `chap-${controller}`);
    spdkRefused(far, target, '-q', host, '--dhchap-key', `wrong-chap-${name}`);
    spdkRefused(far, target, '-q', host);
    spdkRefused(far, target, ...own, '--dhchap-ctrlr-key', `wrong-chap-${controller}`);
    console.log(`SPDK's host, our target, DH-HMAC-CHAP key ${name}, of the host and of both: data right; wrong keys and none refused`);
  }
  const place = ['-t', 'tcp', '-a', '127.0.0.1', '-s', `${target.port}`, '-f', 'ipv4', '-n', nqn, '-q', hostOf('sha512')];
  for (const hash of hashes)
    for (const group of groups) {
      far.rpc('bdev_nvme_set_options', '--dhchap-digests', hash, '--dhchap-dhgroups', group);
      far.rpc('bdev_nvme_attach_controller', '-b', 'one', ...place, '--dhchap-key', 'chap-sha512', '--dhchap-ctrlr-key', 'chap-null');
      far.rpc('bdev_nvme_detach_controller', 'one');
    }
  console.log(`SPDK's host, our target: ${hashes.length} hash functions with ${groups.length} groups`);
  check((await target.stop()) === 0, `our target ended badly: ${target.messages()}`);
}

async function main(): Promise<void> {
  const missing = noSpdk();
  if (missing) return console.log(`skipped: ${missing}`);
  for (const name of ['disk', 'disk-tls', 'disk-chap']) fs.writeFileSync(at(name), Buffer.alloc(SIZE));
  const far = new SpdkTarget(dir, at('disk'), await freePort());
  await far.start();
  const add = (name: string, text: string): unknown => far.rpc('keyring_file_add_key', name, write(name, text));
  for (const [name, { hash, bytes }] of Object.entries(tlsKeys)) {
    add(`tls-${name}`, formatTlsKey({ hash, bytes }));
    add(`wrong-tls-${name}`, formatTlsKey(key(hash, bytes.length)));
  }
  for (const [name, { hash, bytes }] of Object.entries(chapKeys)) {
    add(`chap-${name}`, formatChapKey({ hash, bytes }));
    add(`wrong-chap-${name}`, formatChapKey(key(hash, bytes.length)));
  }
  await tlsToSpdk(far);
  await tlsFromSpdk(far);
  await chapToSpdk(far);
  await chapFromSpdk(far);
  await far.kill();
}

main()
  .catch((err: Error) => {
    console.error(err);
    process.exitCode = 1;
  })
  .finally(() => {
    fs.rmSync(dir, { recursive: true, force: true });
    process.exit();
  });
