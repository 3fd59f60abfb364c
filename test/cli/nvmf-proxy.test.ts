/** `nvmf proxy` between our host and our target. */
import { execFileSync, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import fs from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { Background } from '../support/background.js';
import { plainEnv, program } from '../support/cli.js';
import { nvmf, type ServedTarget, serveTarget } from '../support/nvme-target.js';

let target: ServedTarget;
beforeAll(async () => {
  target = await serveTarget(['ram:4M']);
});
afterAll(() => target?.stop());

interface Line {
  event: string;
  [key: string]: unknown;
}

/** Runs `use` with a proxy in front of the target; gives the records that it told. */
async function through(
  faults: string[],
  use: (port: number) => Promise<void>,
  { listen = ':0', pcap }: { listen?: string; pcap?: string } = {},
): Promise<Line[]> {
  const args = [
    'nvmf',
    'proxy',
    '--listen',
    listen,
    '--to',
    `127.0.0.1:${target.port}`,
    '--ndjson',
    ...faults.flatMap((f) => ['--fault', f]),
    ...(pcap === undefined ? [] : ['--pcap', pcap]),
  ];
  const child = spawn(process.execPath, [program, ...args], { env: plainEnv(), stdio: ['ignore', 'pipe', 'inherit'] });
  let text = '';
  child.stdout.on('data', (chunk: Buffer) => {
    text += chunk;
  });
  const ended = new Promise((resolve) => child.on('close', resolve));
  try {
    while (!text.includes('\n') && child.exitCode === null) await new Promise((resolve) => setTimeout(resolve, 5));
    await use(JSON.parse(text.split('\n')[0]!).port);
  } finally {
    child.kill('SIGTERM');
  }
  expect(await ended).toBe(0);
  return text
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));
}
const host = (port: number, verb: string, ...args: string[]) => nvmf([verb, '-s', String(port), '-n', target.nqn, ...args]);

test('passes everything on and tells every PDU', async () => {
  const data = randomBytes(300_000);
  const records = await through([], async (port) => {
    const at = ['-s', String(port), '-n', target.nqn];
    expect(await nvmf(['write', ...at, '-g', '-G', '-i', '2'], { input: data })).toMatchObject({ status: 0 });
    expect((await nvmf(['read', ...at, '-g', '-G', '--count', '300000'])).stdout.equals(data)).toBe(true);
  });
  expect(records[0]).toMatchObject({ event: 'listening', address: '127.0.0.1' });
  const pdus = records.filter((r) => r.event === 'pdu');
  expect(new Set(pdus.map((r) => r.type))).toEqual(new Set(['ICReq', 'ICResp', 'CapsuleCmd', 'CapsuleResp', 'R2T', 'H2CData', 'C2HData']));
  expect(pdus.find((r) => r.command === 'fabrics connect')).toMatchObject({ qid: 0, fields: { subnqn: target.nqn, sqsize: 31 } });
  // The write read its last block first, to keep the rest of it.
  const [last, read] = pdus.filter((r) => r.command === 'read' && r.type === 'CapsuleCmd');
  expect(last).toMatchObject({ fields: { nsid: 1, slba: '0x249', nlb: 1 } });
  expect(read).toMatchObject({ dir: 'h2c', qid: 1, flags: ['hdgst'], fields: { nsid: 1, slba: '0x0', nlb: 586 } });
  expect(pdus.find((r) => r.command === 'flush' && r.type === 'CapsuleResp')).toMatchObject({
    status: 'Successful Completion (00h)',
    latency: expect.any(Number),
  });
  const count = (event: string) => records.filter((r) => r.event === event).length;
  expect(count('opened')).toBe(5);
  expect(count('closed')).toBeGreaterThan(2);
});

test('faults: a status, spoiled digests, a dropped completion, delay', async () => {
  const records = await through(['status:2/81,command=read,count=1'], async (port) => {
    expect(await host(port, 'read', '--count', '512')).toMatchObject({
      status: 1,
      stderr: expect.stringContaining('Unrecovered Read Error (2/81h)'),
    });
    expect(await host(port, 'read', '--count', '512')).toMatchObject({ status: 0 });
  });
  expect(records.filter((r) => r.faults)).toHaveLength(1);
  await through(['ddgst,type=C2HData,qid=1,count=1'], async (port) => {
    expect(await host(port, 'read', '--count', '512', '-G')).toMatchObject({ status: 0 }); // tried again
  });
  await through(['ddgst,type=C2HData,qid=1'], async (port) => {
    expect(await host(port, 'read', '--count', '512', '-G')).toMatchObject({
      status: 5,
      stderr: expect.stringContaining('data digest error'),
    });
  });
  await through(['hdgst,dir=c2h,qid=1,after=1'], async (port) => {
    expect(await host(port, 'read', '--count', '512', '-g')).toMatchObject({
      status: 5,
      stderr: expect.stringContaining('Header Digest Error'),
    });
  });
  await through(['status:0/06,type=CapsuleResp,qid=1,command=read', 'hdgst,dir=h2c,command=flush'], async (port) => {
    // The digest of a changed completion is right again.
    expect(await host(port, 'read', '--count', '512', '-g')).toMatchObject({
      status: 1,
      stderr: expect.stringContaining('Internal Error (06h)'),
    });
  });
  await through(['drop,type=CapsuleResp,command=read'], async (port) => {
    expect(await host(port, 'read', '--count', '512', '--timeout', '700ms')).toMatchObject({ status: 124 });
  });
  await through(['delay:80ms,command=keep alive,dir=c2h'], async (port) => {
    const { stdout } = await host(port, 'ping', '--count', '2', '--interval', '1ms', '--json');
    expect(JSON.parse(stdout.toString()).min).toBeGreaterThan(79000);
  });
});

test('faults in what the host sends, and in every step of a transfer', async () => {
  const data = randomBytes(100_000);
  const write = (port: number, ...args: string[]) =>
    nvmf(['write', '-s', String(port), '-n', target.nqn, '--timeout', '900ms', ...args], { input: data });
  const small = (port: number, ...args: string[]) =>
    nvmf(['write', '-s', String(port), '-n', target.nqn, ...args], { input: data.subarray(0, 4096) });
  const kept = async () => (await host(target.port, 'read', '--count', '100000')).stdout;

  // data that arrives spoiled is refused by the target, said, and sent again by the host
  for (const [fault, run] of [
    ['ddgst,type=H2CData,count=1', (port: number) => write(port, '-G')],
    ['ddgst,type=CapsuleCmd,qid=1,command=write,count=1', (port: number) => small(port, '-G')],
  ] as const) {
    const records = await through([fault], async (port) => {
      expect(await run(port)).toMatchObject({ status: 0 });
    });
    expect(records.filter((r) => r.faults)).toHaveLength(1);
    expect(records.filter((r) => r.status === 'Transient Transport Error (22h)')).toHaveLength(1);
  }
  expect((await kept()).subarray(0, 4096).equals(data.subarray(0, 4096))).toBe(true);
  // every time: the write fails, and nothing of it is stored
  const before = await kept();
  await through(['ddgst,type=H2CData'], async (port) => {
    const other = randomBytes(100_000);
    const done = await nvmf(['write', '-s', String(port), '-n', target.nqn, '-G'], { input: other });
    expect(done.status).toBe(1);
    expect(done.stderr).toContain('Transient Transport Error (22h)');
  });
  expect((await kept()).equals(before)).toBe(true);

  const spoiled = await through(['hdgst,dir=h2c,qid=1,after=1'], async (port) => {
    expect(await small(port, '-g')).toMatchObject({ status: 5, stderr: expect.stringContaining('Header Digest Error') });
  });
  expect(spoiled.find((r) => r.type === 'C2HTermReq')).toMatchObject({ dir: 'c2h', fields: { fes: 3 } });
  const answered = await through(['hdgst,dir=c2h,type=CapsuleResp,qid=1,after=1'], async (port) => {
    expect((await small(port, '-g')).status).toBe(5);
  });
  // the host says why it leaves
  expect(answered.find((r) => r.type === 'H2CTermReq')).toMatchObject({ dir: 'h2c', fields: { fes: 3, fei: expect.any(Number) } });

  for (const fault of ['drop,type=R2T', 'drop,type=H2CData', 'drop,type=CapsuleCmd,command=write'])
    await through([fault], async (port) => {
      expect({ fault, status: (await write(port)).status }).toEqual({ fault, status: 124 });
    });
  for (const fault of ['drop,type=ICResp', 'drop,type=ICReq', 'drop,command=fabrics connect'])
    await through([fault], async (port) => {
      expect({ fault, status: (await host(port, 'identify', '--timeout', '600ms')).status }).toEqual({ fault, status: 124 });
    });
  await through(['drop,type=C2HData,command=read'], async (port) => {
    // a completion without the data it completes is the target's fault, as the host sees it
    expect((await host(port, 'read', '--count', '512')).status).toBe(5);
  });
  await through(['status:1/84,command=fabrics connect,qid=0'], async (port) => {
    expect(await host(port, 'identify')).toMatchObject({ status: expect.any(Number), stderr: expect.stringContaining('Invalid Host') });
  });
  let took = 0;
  const slow = await through(
    ['delay:120ms,type=C2HData,command=read,qid=1', 'delay:120ms,type=CapsuleCmd,command=read,qid=1'],
    async (port) => {
      const started = performance.now();
      expect((await host(port, 'read', '--count', '512')).stdout.length).toBe(512);
      took = performance.now() - started;
    },
  );
  expect(took).toBeGreaterThan(240);
  expect(slow.filter((r) => r.faults)).toHaveLength(2);
});

test('garbage is passed on and told, and wrong rules are wrong usage', async () => {
  const records = await through([], async (port) => {
    const socket = net.connect(port, '127.0.0.1');
    socket.write(Buffer.from('GET / HTTP/1.1\r\nHost: x\r\n\r\n'));
    await new Promise((resolve) => socket.on('close', resolve).resume());
  });
  expect(records.map((r) => r.event)).toEqual(expect.arrayContaining(['passing', 'closed']));
  expect(records.find((r) => r.type === 'C2HTermReq')).toMatchObject({ dir: 'c2h', fields: { fes: expect.any(Number) } });
  for (const fault of ['explode', 'delay', 'delay:x', 'status:zz', 'drop,type=Nothing', 'drop,every=0', 'drop,what=1'])
    expect(await nvmf(['proxy', '--listen', ':0', '--to', ':1', '--fault', fault])).toMatchObject({ status: 2 });
  expect(await nvmf(['proxy', '--listen', 'nowhere', '--to', ':1'])).toMatchObject({ status: 2 });
});

describe('--pcap', () => {
  let dir: string;
  beforeAll(() => {
    dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-pcap-'));
  });
  afterAll(() => fs.rmSync(dir, { recursive: true }));

  /** What tshark makes of a capture: lines of the fields, tab-separated. */
  const tshark = (file: string, filter: string, ...fields: string[]): string[][] =>
    execFileSync(
      'tshark',
      ['-n', '-o', 'tcp.check_checksum:TRUE', '-o', 'ip.check_checksum:TRUE', '-r', file, '-Y', filter, '-T', 'fields'].concat(
        fields.flatMap((field) => ['-e', field]),
      ),
      { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] },
    )
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => line.split('\t'));

  test.each(['127.0.0.1', '[::1]'])('tshark finds every PDU of a host at %s, and nothing malformed', async (address) => {
    const file = path.join(dir, `${address.length}.pcapng`);
    const data = randomBytes(300_000);
    const records = await through(
      [],
      async (port) => {
        const at = ['-a', address.replace(/[[\]]/g, ''), '-s', String(port), '-n', target.nqn];
        expect(await nvmf(['write', ...at, '-g', '-G', '-i', '2'], { input: data })).toMatchObject({ status: 0 });
        expect((await nvmf(['read', ...at, '--count', '300000'])).stdout.equals(data)).toBe(true);
      },
      { pcap: file, listen: `${address}:0` },
    );
    const kinds = ['ICReq', 'ICResp', 'H2CTermReq', 'C2HTermReq', 'CapsuleCmd', 'CapsuleResp', 'H2CData', 'C2HData', '', 'R2T'];
    const told = records.filter((r) => r.event === 'pdu').map((r) => r.type as string);
    const seen = tshark(file, 'nvme-tcp', 'nvme-tcp.type').flatMap(([types]) => types!.split(',').map((type) => kinds[Number(type)]!));
    expect(seen.sort()).toEqual(told.sort());
    expect(
      tshark(file, '_ws.malformed || tcp.checksum.status == 0 || ip.checksum.status == 0 || tcp.analysis.flags', 'frame.number'),
    ).toEqual([]);
  });

  test('a file that cannot be written ends the proxy with one error', async () => {
    for (const [file, status] of [
      ['/dev/full', 1],
      [path.join(dir, 'none', 'x'), 1],
    ] as const) {
      const ended = await nvmf(['proxy', '--listen', ':0', '--to', ':1', '--pcap', file]);
      expect([ended.status, ended.stderr.trim().split('\n').length]).toEqual([status, 1]);
      expect(ended.stderr).toContain(file);
    }
  });

  test('an injected fault is the comment of its packet', async () => {
    const file = path.join(dir, 'fault.pcapng');
    await through(['status:6,command=read'], async (port) => void (await host(port, 'read', '--count', '4096')), { pcap: file });
    expect(tshark(file, 'frame.comment', 'frame.comment')).toEqual([['fault: status:6,command=read']]);
  });
});

describe('what fails around the proxy', () => {
  let dir: string;
  beforeAll(() => {
    dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-proxy-'));
  });
  afterAll(() => fs.rmSync(dir, { recursive: true }));
  const at = (name: string): string => path.join(dir, name);
  const start = async (to: number, ...more: string[]): Promise<{ proxy: Background; port: number }> => {
    const proxy = Background.vioctl(['nvmf', 'proxy', '--listen', ':0', '--to', `127.0.0.1:${to}`, '--ndjson', ...more]);
    const [, port] = await proxy.sees(/"port":(\d+)/);
    return { proxy, port: Number(port) };
  };

  test('a target that is down ends the connections of its hosts, not the proxy', async () => {
    const gone = net.createServer().listen(0, '127.0.0.1');
    await new Promise((resolve) => gone.once('listening', resolve));
    const { port: nobody } = gone.address() as net.AddressInfo;
    await new Promise((resolve) => gone.close(resolve));
    const { proxy, port } = await start(nobody, '--pcap', at('down'));
    for (let i = 0; i < 5; i++) expect((await host(port, 'identify')).status).not.toBe(0);
    expect(await proxy.stop()).toBe(0);
    expect(proxy.stdout.match(/"event":"closed"/g)).toHaveLength(5);
    expect(proxy.stderr).not.toMatch(/^\s+at /m);
  });

  test('the reader of stdout or of the capture goes away: traffic passes on, and the status is 0', async () => {
    execFileSync('mkfifo', [at('fifo')]);
    const reader = spawn('head', ['-c', '10', at('fifo')], { stdio: 'ignore' });
    const { proxy, port } = await start(target.port, '--pcap', at('fifo'));
    proxy.child.stdout!.destroy();
    for (let i = 0; i < 3; i++) expect((await host(port, 'identify')).status).toBe(0);
    expect(await proxy.stop()).toBe(0);
    expect(reader.exitCode).toBe(0);
    expect(proxy.stderr.trim().split('\n').sort()).toEqual([
      expect.stringMatching(/write .*fifo: EPIPE.*; traffic still passes, but the capture ends here/),
      expect.stringMatching(/write stdout: .*the record ends here/),
    ]);
  });

  test('a wrong command line leaves an earlier capture as it is; a new one is for its owner alone', async () => {
    fs.writeFileSync(at('old'), 'earlier');
    for (const wrong of [
      ['--fault', 'typo'],
      ['--to', 'nowhere:x'],
      ['--listen', `127.0.0.1:${target.port}`],
    ]) {
      const given = [...wrong, ...(wrong[0] === '--to' ? [] : ['--to', ':1']), ...(wrong[0] === '--listen' ? [] : ['--listen', ':0'])];
      expect((await nvmf(['proxy', ...given, '--pcap', at('old')])).status).toBeGreaterThan(0);
      expect(fs.readFileSync(at('old'), 'utf8')).toBe('earlier');
    }
    expect((await nvmf(['proxy', '--listen', ':0', '--to', ':1', '--pcap', '-'])).status).toBe(2);
    const { proxy } = await start(target.port, '--pcap', at('new'));
    expect(fs.statSync(at('new')).mode & 0o777).toBe(0o600);
    expect(await proxy.stop()).toBe(0);
  });
});
