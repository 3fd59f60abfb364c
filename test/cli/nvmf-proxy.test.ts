/** `nvmf proxy` between our host and our target. */
import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import net from 'node:net';
import { plainEnv, program } from '../support/cli.js';
import { nvmf, type Serve, serve } from '../support/nvme-serve.js';

let target: Serve;
beforeAll(async () => {
  target = await serve(['ram:4M']);
});
afterAll(() => target?.stop());

interface Line {
  event: string;
  [key: string]: unknown;
}

/** Runs `use` with a proxy in front of the target; gives the records that it told. */
async function through(faults: string[], use: (port: number) => Promise<void>): Promise<Line[]> {
  const args = [
    'nvmf',
    'proxy',
    '--listen',
    ':0',
    '--to',
    `127.0.0.1:${target.port}`,
    '--ndjson',
    ...faults.flatMap((f) => ['--fault', f]),
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
  expect(read).toMatchObject({ dir: 'h2c', qid: 1, flags: ['hdgst'], fields: { nsid: 1, slba: '0x0', nlb: 256 } });
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
}, 60000);

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
