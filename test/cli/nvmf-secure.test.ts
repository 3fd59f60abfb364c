/** Authentication and TLS of `nvmf serve`, as users and strangers meet them. */
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import fs from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { native } from '../../src/native/index.js';
import { formatChapKey, formatTlsKey, transformedKey } from '../../src/nvme/auth/keys.js';
import { tlsPsk } from '../../src/nvme/auth/tls-psk.js';
import { Bench } from '../../src/nvme/conform/bench.js';
import { Controller, Namespace } from '../../src/nvme/host/index.js';
import { AdminOpcode, authCmd, authProtocol, Fctype } from '../../src/nvme/wire/index.js';
import { plainEnv, program } from '../support/cli.js';
import { compileC } from '../support/compile.js';
import { searchMemory } from '../support/memory-search.js';
import { nvmf, type ServedTarget, serveTarget } from '../support/nvme-target.js';

const nqn = 'nqn.2014-08.org.example:secure';
const hostnqn = 'nqn.2014-08.org.example:host';
let dir: string;
const at = (name: string) => path.join(dir, name);
const chap = {
  host: { hash: 1, bytes: randomBytes(32) },
  ctrl: { hash: 2, bytes: randomBytes(48) },
  other: { hash: 0, bytes: randomBytes(64) },
};
const tls = { sha256: { hash: 1, bytes: randomBytes(32) }, sha384: { hash: 2, bytes: randomBytes(48) } };
beforeAll(() => {
  dir = fs.mkdtempSync(path.join(os.tmpdir(), 'nvmf-secure-'));
  for (const [name, key] of Object.entries(chap)) fs.writeFileSync(at(name), formatChapKey(key), { mode: 0o600 });
  for (const [name, key] of Object.entries(tls)) fs.writeFileSync(at(name), formatTlsKey(key), { mode: 0o600 });
});
afterAll(() => fs.rmSync(dir, { recursive: true, force: true }));

const base = (target: ServedTarget) => ['-s', String(target.port), '-n', nqn, '-q', hostnqn];
const good = async (target: ServedTarget, ...keys: string[]) => {
  const { status, stderr } = await nvmf(['identify', ...base(target), ...keys, '--json']);
  expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
};
const refused = async (target: ServedTarget, exit: number, ...keys: string[]) => {
  const { status, stdout } = await nvmf(['identify', ...base(target), ...keys, '--json']);
  expect({ status, out: stdout.length }).toEqual({ status: exit, out: 0 });
};

describe('DH-HMAC-CHAP', () => {
  let target: ServedTarget;
  beforeAll(async () => {
    const keys = ['--dhchap-secret-file', at('host'), '--dhchap-ctrl-secret-file', at('ctrl')];
    target = await serveTarget(['ram:16M', '--nqn', nqn, ...keys]);
  });
  afterAll(async () => expect(await target.stop()).toBe(0));

  test('right, wrong and missing keys; data in both directions', async () => {
    const keys = ['--dhchap-secret-file', at('host')];
    await good(target, ...keys);
    await good(target, ...keys, '--dhchap-ctrl-secret-file', at('ctrl'));
    await refused(target, 6);
    await refused(target, 6, '--dhchap-secret-file', at('other'));
    await refused(target, 6, ...keys, '--dhchap-ctrl-secret-file', at('other'));
    const data = randomBytes(300_000);
    expect((await nvmf(['write', ...base(target), ...keys, '-i', '2'], { input: data })).status).toBe(0);
    expect((await nvmf(['read', ...base(target), ...keys, '--count', '300000'])).stdout.equals(data)).toBe(true);
  });

  test('nothing but authentication passes before it', async () => {
    const bench = new Bench({ address: '127.0.0.1', port: target.port, subnqn: nqn, hostnqn, hostid: Buffer.alloc(16, 7) } as never);
    try {
      const admin = await bench.initialised();
      expect(await bench.connect(admin)).toMatchObject({ kind: 'cqe', sc: 0 });
      const required = { kind: 'cqe', sct: 1, sc: 0x91, dnr: true };
      for (let opcode = 0; opcode < 0x7f; opcode += 3) expect(await admin.command({ opcode }, { read: 4096 })).toMatchObject(required);
      expect(await bench.getProperty(admin, 0x1c)).toMatchObject(required);
      expect(await bench.setProperty(admin, 0x14, 0x460001n)).toMatchObject(required);
      const auth = (fctype: number, fields: Parameters<typeof authCmd.encode>[0], options: object) =>
        admin.command(
          { opcode: AdminOpcode.fabrics, fctype },
          { ...options, tweak: (sqe) => void authCmd.encode({ ...authProtocol, ...fields }, sqe) },
        );
      // wrong fields of the commands are refused, and change nothing
      for (const wrong of [{ secp: 0 }, { spsp0: 2 }, { spsp1: 0 }, { length: 0 }, { length: 71 }, { length: 0xffff_ffff }])
        expect(await auth(Fctype.authSend, { length: 72, ...wrong }, { data: Buffer.alloc(72), inCapsule: true })).toMatchObject({
          kind: 'cqe',
          sct: 0,
        });
      expect(await auth(Fctype.authReceive, { length: 8 }, { read: 4096 })).toMatchObject({ kind: 'cqe', sct: 0, sc: 0x0f });
      // out of turn: AUTH_Failure1, then the end
      const failure = await auth(Fctype.authReceive, { length: 4096 }, { read: 4096 });
      expect(failure).toMatchObject({ kind: 'cqe', sct: 0, sc: 0 });
      expect([...(failure as { data: Buffer }).data.subarray(0, 8)]).toEqual([0, 0xf1, 0, 0, 0, 0, 1, 7]);
      expect((await admin.next()).kind).toBe('closed');
    } finally {
      bench.close();
    }
    await good(target, '--dhchap-secret-file', at('host'));
  });
});

test('those who only claim to be a host do not use up its limit, nor that of the target', async () => {
  const [control, keys] = [at('claimed'), ['--dhchap-secret-file', at('host')]];
  const limits = ['--max-connections', '6', '--max-controllers', '6'];
  const target = await serveTarget(['ram:16M', '--nqn', nqn, '--control', control, ...limits, ...keys]);
  expect((await nvmf(['ctl', control, 'limits', '--host', 'any', 'connections=2'])).status).toBe(0);
  const bench = new Bench({ address: '127.0.0.1', port: target.port, subnqn: nqn, hostnqn, hostid: Buffer.alloc(16, 7) } as never);
  try {
    for (let i = 0; i < 4; i++) expect(await bench.connect(await bench.initialised())).toMatchObject({ kind: 'cqe', sc: 0 });
    await good(target, ...keys);
    for (let i = 0; i < 8; i++)
      expect(await bench.connect(await bench.initialised(), { hostnqn: `${hostnqn}${i}` })).toMatchObject({ sc: 0 });
    await good(target, ...keys);
  } finally {
    bench.close();
  }
  expect(await target.stop()).toBe(0);
});

test('keys rotate: tried, done, already done; hosts that are connected stay', async () => {
  const [control, file, tlsFile] = [at('rotate'), at('rotated'), at('rotated-tls')];
  const write = (name: string, text: string) => fs.writeFileSync(name, text, { mode: 0o600 });
  write(file, formatChapKey(chap.host));
  write(tlsFile, formatTlsKey(tls.sha256));
  const keys = ['--dhchap-secret-file', `${hostnqn}=${file}`, '--tls-key-file', tlsFile];
  const target = await serveTarget(['ram:16M', '--nqn', nqn, '--control', control, ...keys]);
  const rotate = async (...options: string[]) => {
    const { status, stdout, stderr } = await nvmf(['ctl', control, 'keys', 'rotate', ...options]);
    return { status, stdout: stdout.toString(), stderr };
  };
  const unchanged = { status: 0, stdout: 'nothing to do: already done\n', stderr: '' };
  const identity = (key: typeof tls.sha256) => tlsPsk(key, hostnqn, nqn);
  const ends = { address: '127.0.0.1', port: target.port, timeout: 90_000, subnqn: nqn, hostnqn, hostid: Buffer.alloc(16, 5) };
  const connect = (key: typeof chap.host, psk: typeof tls.sha256) =>
    Controller.connect({ ...ends, ioQueues: 1, chap: { key }, tls: [identity(psk)] });
  const connected = await connect(chap.host, tls.sha256);
  expect(await rotate()).toEqual(unchanged);

  // a key that cannot be used: nothing changes
  write(file, 'DHHC-1:00:x:');
  expect((await rotate()).status).toBe(2);
  await (await connect(chap.host, tls.sha256)).disconnect();
  write(file, formatChapKey(chap.other));
  write(tlsFile, formatTlsKey(tls.sha384));
  const dry = await rotate('--dry-run');
  expect(dry).toMatchObject({ status: 0, stdout: expect.stringContaining(`new keys of host ${hostnqn}`) });
  await (await connect(chap.host, tls.sha256)).disconnect();
  expect(await rotate()).toEqual({ status: 0, stdout: `new keys of ${hostnqn}\nnew keys of every host\n`, stderr: '' });
  expect(await rotate()).toEqual(unchanged);

  await expect(connect(chap.host, tls.sha384)).rejects.toMatchObject({ exit: 6, code: 'EKEYREJECTED' });
  await expect(connect(chap.other, tls.sha256)).rejects.toMatchObject({ exit: 6, code: 'EKEYREJECTED' });
  await (await connect(chap.other, tls.sha384)).disconnect();
  const disk = new Namespace(connected, await connected.namespace(1));
  const block = randomBytes(512);
  const back = Buffer.alloc(512);
  await disk.write(3n, block);
  await disk.read(3n, back);
  expect(back.equals(block)).toBe(true);
  await connected.disconnect();
  expect(await target.stop()).toBe(0);
});

describe.each(['sha256', 'sha384'] as const)('TLS, %s', (hash) => {
  let target: ServedTarget;
  beforeAll(async () => {
    target = await serveTarget(['ram:16M', '--nqn', nqn, '--tls-key-file', at(hash)]);
  });
  afterAll(async () => expect(await target.stop()).toBe(0));

  test('right and wrong keys, data, discovery', async () => {
    const keys = ['--tls-key-file', at(hash)];
    await good(target, ...keys);
    await refused(target, 6, '--tls-key-file', at(hash === 'sha256' ? 'sha384' : 'sha256'));
    await refused(target, 1);
    const data = randomBytes(3_000_001);
    expect((await nvmf(['write', ...base(target), ...keys, '-i', '3', '-g', '-G'], { input: data })).status).toBe(0);
    const read = await nvmf(['read', ...base(target), ...keys, '--count', '3000001', '--chunk', '1M', '-i', '2']);
    expect(read.stdout.equals(data)).toBe(true);
    const { stdout } = await nvmf(['discover', '-s', String(target.port), '-q', hostnqn, ...keys, '--json']);
    for (const record of JSON.parse(stdout.toString()).records) {
      expect(record.sectype).toBe('tls13');
      expect(record.treq).toMatch(/^required/);
    }
  });

  test('strangers: garbage, plaintext, half a handshake, many of them', async () => {
    const icReq = Buffer.alloc(128);
    icReq.set([0, 0, 128, 0, 128]);
    const hello = native().nvmeHost.tlsTake(native().nvmeHost.tlsClient('nobody', Buffer.alloc(32, 1)), Buffer.alloc(0)).out;
    const garbage = [
      icReq,
      Buffer.from('GET / HTTP/1.1\r\n\r\n'),
      Buffer.from([0x16]),
      Buffer.alloc(20_000, 0x16),
      randomBytes(5000),
      hello,
    ];
    for (let at = 1; at < hello.length; at += 17) {
      const spoilt = Buffer.from(hello);
      spoilt[at]! ^= 0x55;
      garbage.push(spoilt, hello.subarray(0, at));
    }
    const sockets = await Promise.all(
      garbage.map(
        (bytes) =>
          new Promise<net.Socket>((resolve) => {
            const socket = net.connect(target.port, '127.0.0.1', () => socket.write(bytes, () => resolve(socket)));
            socket.on('error', () => resolve(socket)).resume();
          }),
      ),
    );
    await good(target, '--tls-key-file', at(hash)); // while they are there
    for (const socket of sockets) socket.destroy();
    expect(target.child.exitCode).toBeNull();
  });

  test('a key is good for the host and the subsystem that it names', async () => {
    const key = tlsPsk(tls[hash], `${hostnqn}2`, nqn);
    const client = native().nvmeHost.tlsClient(key.identity, key.psk);
    expect(native().nvmeHost.tlsTake(client, Buffer.alloc(0)).established).toBe(false);
    const options = { address: '127.0.0.1', port: target.port, timeout: 90_000, subnqn: nqn, hostid: Buffer.alloc(16, 9), tls: [key] };
    await expect(Controller.connect({ ...options, hostnqn })).rejects.toMatchObject({ exit: 6 });
    await (await Controller.connect({ ...options, hostnqn: `${hostnqn}2` })).disconnect();
  });
});

test.each([0, 1] as const)('OpenSSL as a TLS host, identity of version %d', async (version) => {
  const target = await serveTarget(['ram:16M', '--nqn', nqn, '--tls-key-file', at('sha256'), '--tls', 'allow']);
  const { identity, psk } = tlsPsk(tls.sha256, hostnqn, nqn, version);
  const icReq = Buffer.alloc(128);
  icReq.set([0, 0, 128, 0, 128]);
  fs.writeFileSync(at('icreq'), icReq);
  const command = `(cat icreq; sleep 1) | timeout 3 openssl s_client -connect 127.0.0.1:${target.port} -tls1_3 -psk ${psk.toString('hex')} -psk_identity '${identity}' -quiet 2>err | head -c 128`;
  const answer = execFileSync('sh', ['-c', command], { cwd: dir });
  expect([answer.length, answer[0]]).toEqual([128, 1]); // ICResp
  await good(target); // allowed: without TLS too
  expect(await target.stop()).toBe(0);
});

/** A relay to a target that refuses identities of version 1 in a ClientHello, as SPDK does. `hellos` are the versions that came. */
async function olderTarget(port: number): Promise<{ port: number; hellos: number[]; close: () => void }> {
  const hellos: number[] = [];
  const server = net.createServer((host) => {
    let hello = Buffer.alloc(0);
    const take = (chunk: Buffer): void => {
      hello = Buffer.concat([hello, chunk]);
      if (hello.length < 5 || hello.length < 5 + hello.readUInt16BE(3)) return;
      host.off('data', take);
      hellos.push(hello.includes('NVMe1R') ? 1 : 0);
      if (hellos.at(-1) === 1) return void host.end(Buffer.from('15030300020273', 'hex')); // unknown_psk_identity
      const target = net.connect(port, '127.0.0.1');
      for (const socket of [host, target]) socket.on('error', () => target.destroy());
      target.write(hello);
      host.pipe(target).pipe(host);
    };
    host.on('data', take).on('error', () => {}); // the host may reset
  });
  await once(server.listen(0, '127.0.0.1'), 'listening');
  return { port: (server.address() as net.AddressInfo).port, hellos, close: () => server.close() };
}

test.each(['sha256', 'sha384'] as const)('a target that knows a key of %s under its identity of version 0 only', async (hash) => {
  const target = await serveTarget(['ram:16M', '--nqn', nqn, '--tls-key-file', at(hash)]);
  const older = await olderTarget(target.port);
  const where = ['-s', String(older.port), '-n', nqn, '-q', hostnqn];
  const keys = ['--tls-key-file', at(hash)];
  try {
    expect(await nvmf(['identify', ...where, ...keys])).toMatchObject({ status: 0, stderr: '' });
    expect(older.hellos.splice(0)).toEqual([1, 0]);
    const data = randomBytes(300_000);
    expect(await nvmf(['write', ...where, ...keys, '-i', '3'], { input: data })).toMatchObject({ status: 0 });
    expect(older.hellos.splice(0)).toEqual([1, 0, 0, 0, 0]); // the other connections begin with what was taken
    expect((await nvmf(['read', ...where, ...keys, '--count', '300000'])).stdout.equals(data)).toBe(true);
    fs.writeFileSync(at('wrong'), formatTlsKey({ ...tls[hash], bytes: randomBytes(tls[hash].bytes.length) }), { mode: 0o600 });
    const wrong = await nvmf(['identify', ...where, '--tls-key-file', at('wrong')]);
    expect(wrong).toMatchObject({ status: 6, stderr: expect.stringContaining('the target has another key') });
  } finally {
    older.close();
  }
  expect(await target.stop()).toBe(0);
});

test('keys are in no argument, no log, no answer of the control socket', async () => {
  const control = at('ctl');
  const keys = ['--dhchap-secret-file', at('host'), '--tls-key-file', at('sha256')];
  const target = await serveTarget(['ram:16M', '--nqn', nqn, '--control', control, ...keys]);
  await good(target, ...keys);
  await refused(target, 6, '--dhchap-secret-file', at('other'), '--tls-key-file', at('sha256'));
  const list = await nvmf(['ctl', control, 'list', '--json']);
  const told = `${fs.readFileSync(`/proc/${target.child.pid}/cmdline`, 'utf8')}${target.messages()}${list.stdout}`;
  const secrets = [chap.host.bytes, tls.sha256.bytes];
  for (const secret of secrets) {
    expect(told).not.toContain(secret.toString('base64').slice(0, 20));
    expect(told).not.toContain(secret.toString('hex').slice(0, 20));
  }
  expect(await target.stop()).toBe(0);
});

/** Root may look into every process by CAP_SYS_PTRACE: without it, root is a user like others. */
function asUser(): string[] {
  const effective = /^CapEff:\s*(\w+)$/m.exec(fs.readFileSync('/proc/self/status', 'utf8'))![1]!;
  const traces = (BigInt(`0x${effective}`) >> 19n) & 1n;
  return traces ? ['setpriv', '--bounding-set', '-sys_ptrace', '--inh-caps', '-sys_ptrace'] : [];
}

test.each(['dhchap-secret-file', 'tls-key-file', undefined])('who may look into a server with %s', async (option) => {
  const keys = option ? [`--${option}`, at(option === 'tls-key-file' ? 'sha256' : 'host')] : [];
  const serve = ['nvmf', 'serve', 'ram:1M', '--nqn', nqn, '--listen', '127.0.0.1:0', '--ndjson', ...keys];
  const [command, ...args] = [...asUser(), process.execPath, program, ...serve];
  const child = spawn(command!, args, { env: plainEnv(), stdio: ['ignore', 'pipe', 'inherit'] });
  const ended = once(child, 'exit');
  try {
    await once(child.stdout, 'data');
    // the kernel asks for the same right as for a trace (proc_pid_exe(5))
    const [look, ...at] = [...asUser(), 'readlink', '-v', `/proc/${child.pid}/exe`];
    const { status, stdout, stderr } = spawnSync(look!, at, { encoding: 'utf8' });
    if (option) expect({ status, stdout, stderr }).toEqual({ status: 1, stdout: '', stderr: expect.stringContaining('Permission denied') });
    else expect({ status, stdout, stderr }).toEqual({ status: 0, stdout: `${fs.realpathSync(process.execPath)}\n`, stderr: '' });
  } finally {
    child.kill();
    await ended;
  }
});

/** Every form in which a key may lie in memory or in a log. */
function formsOf(): Map<string, Buffer> {
  const forms = new Map<string, Buffer>();
  for (const [name, key, nqnOf] of [
    ['host', chap.host, hostnqn],
    ['ctrl', chap.ctrl, nqn],
  ] as const) {
    forms.set(`${name}: bytes`, key.bytes);
    forms.set(`${name}: text`, Buffer.from(key.bytes.toString('base64').slice(0, 40)));
    forms.set(`${name}: hexadecimal`, Buffer.from(key.bytes.toString('hex')));
    forms.set(`${name}: transformed`, transformedKey(key, nqnOf));
  }
  forms.set('TLS: bytes', tls.sha256.bytes);
  forms.set('TLS: text', Buffer.from(tls.sha256.bytes.toString('base64').slice(0, 40)));
  forms.set('TLS: PSK', tlsPsk(tls.sha256, hostnqn, nqn).psk);
  return forms;
}

test('a core dump and the log of a target and of a host that is connected have no key', async () => {
  const keys = ['--dhchap-secret-file', at('host'), '--dhchap-ctrl-secret-file', at('ctrl'), '--tls-key-file', at('sha256')];
  const target = await serveTarget(['ram:16M', '--nqn', nqn, ...keys]);
  await good(target, ...keys);
  await refused(target, 6, '--dhchap-secret-file', at('other'), '--tls-key-file', at('sha256'));
  const args = [program, 'nvmf', 'bench', ...base(target), ...keys, '--runtime', '10m', '--iodepth', '1'];
  const host = spawn(process.execPath, args, { env: plainEnv(), stdio: ['ignore', 'pipe', 'pipe'] });
  const ended = once(host, 'exit');
  try {
    while ((target.messages().match(/is authenticated/g) ?? []).length < 2 && host.exitCode === null) await sleep(50);
    expect(host.exitCode).toBeNull();
    if (process.getuid!() !== 0) {
      expect(() => searchMemory(target.child.pid!, formsOf())).toThrow(/EACCES/); // nor may anybody else look
      return;
    }
    const forms = formsOf();
    // what is searched for can be found: the names of both ends by this search, the keys in this process
    const names = new Map([['name', Buffer.from(nqn)]]);
    for (const { pid } of [target.child, host]) expect(searchMemory(pid!, names).length).toBeGreaterThan(0);
    const here = new Set(searchMemory(process.pid, forms).map(({ what }) => what));
    expect([...forms.keys()].filter((what) => !here.has(what) && !/bytes|PSK|transformed/.test(what))).toEqual([]);
    expect(searchMemory(target.child.pid!, forms)).toEqual([]);
    expect(searchMemory(host.pid!, forms)).toEqual([]);
    for (const [what, bytes] of forms) expect([what, Buffer.from(target.messages()).includes(bytes)]).toEqual([what, false]);
  } finally {
    host.kill();
    await ended;
  }
  expect(await target.stop()).toBe(0);
});

test('a Node without a function of OpenSSL: exit 7 and the reason; all else works', async () => {
  const library = compileC('test/support/programs/without-function.c', at('without.so'), ['-shared', '-fPIC']);
  const without = (name: string) => ({ LD_PRELOAD: library, WITHOUT_FUNCTION: name });
  const chapKey = ['--dhchap-secret-file', at('host')];
  const tlsKey = ['--tls-key-file', at('sha256')];
  const locked = await serveTarget(['ram:1M', '--nqn', nqn, ...chapKey, ...tlsKey, '--tls', 'allow']);
  const unsupported = { status: 7, stderr: expect.stringMatching(/OpenSSL/) };
  for (const name of ['TLS_server_method', 'SSL_CTX_set_psk_find_session_callback', 'ERR_clear_error']) {
    const env = without(name);
    expect(await nvmf(['serve', 'ram:1M', ...tlsKey, '--listen', '127.0.0.1:0'], { env })).toMatchObject(unsupported);
    expect(await nvmf(['identify', ...base(locked), ...tlsKey], { env })).toMatchObject(unsupported);
    expect(await nvmf(['identify', ...base(locked), ...chapKey], { env })).toMatchObject({ status: 0, stderr: '' });
  }
  const env = without('BN_mod_exp_mont_consttime');
  expect(await nvmf(['identify', ...base(locked), ...chapKey], { env })).toMatchObject(unsupported);
  expect(await locked.stop()).toBe(0);
  const open = await serveTarget(['ram:1M', '--nqn', nqn], without('SSL_new'));
  await good(open);
  expect(await open.stop()).toBe(0);
});
