import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { FrontEnd } from '../../src/vhost-user/frontend/frontend.js';
import { receive } from '../../src/vhost-user/wire/meeting.js';
import { Background } from '../support/background.js';
import { ConnectingBackEnd } from '../support/connecting-back-end.js';

/** Back-ends that connect to their front-end, as they do to a QEMU whose socket has server=on. */
let dir: string;
let server: Background;
const at = (name: string): string => path.join(dir, name);
beforeAll(async () => {
  dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-listen-'));
  fs.writeFileSync(at('img'), Buffer.alloc(1 << 20));
  server = Background.vioctl(['vhost-user', 'serve', 'blk', at('b'), '--file', at('img')]);
  await server.sees(/serving/);
});
afterAll(async () => {
  await server.stop();
  fs.rmSync(dir, { recursive: true });
});

test('probe waits for the back-end, names what it offers, and removes its socket', async () => {
  const probe = Background.vioctl(['vhost-user', 'probe', '--listen', at('p'), '--device', 'blk', '--json']);
  await probe.sees(/waiting for a back-end at /);
  const backEnd = new ConnectingBackEnd(at('b'), at('p'));
  expect(await probe.exited).toBe(0);
  await backEnd.stop();
  expect(JSON.parse(probe.stdout)).toMatchObject({ config: { fields: { capacity: 2048 } } });
  expect(fs.existsSync(at('p'))).toBe(false);
});

test('probe: nobody comes in time, or a signal comes first', async () => {
  const late = Background.vioctl(['vhost-user', 'probe', '--listen', at('late'), '--timeout', '200ms']);
  expect(await late.exited).toBe(124);
  expect(late.stderr).toMatch(/no back-end has connected to .* within 200ms/);
  const stopped = Background.vioctl(['vhost-user', 'probe', '--listen', at('late')]);
  await stopped.sees(/waiting/);
  expect(await stopped.stop('SIGINT')).toBe(130);
  expect(fs.existsSync(at('late'))).toBe(false);
});

test('check: the back-end connects again for every case', async () => {
  const check = Background.vioctl(['vhost-user', 'check', '--listen', at('c'), '--json']);
  const backEnd = new ConnectingBackEnd(at('b'), at('c'));
  expect(await check.exited).toBe(0);
  await backEnd.stop();
  const { cases } = JSON.parse(check.stdout) as { cases: { result: string }[] };
  expect(cases.length).toBeGreaterThan(20);
  expect(cases.filter(({ result }) => result === 'not ok')).toEqual([]);
  expect(backEnd.connections).toBeGreaterThanOrEqual(cases.length);
});

test('trace between a VMM that serves and a back-end that connects', async () => {
  const vmm = receive(at('vmm'));
  const trace = Background.vioctl(['vhost-user', 'trace', '--vmm-serves', '--once', '--ndjson', '--listen', at('t'), at('vmm')]);
  await trace.sees(/listening at /);
  const backEnd = new ConnectingBackEnd(at('b'), at('t'));
  const front = new FrontEnd(await vmm.next(10_000));
  expect(await front.number('GET_FEATURES')).toBeGreaterThan(0n);
  front.close();
  vmm.close();
  expect(await trace.exited).toBe(0);
  await backEnd.stop();
  const [request, reply] = trace.stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as { op: string; from: string });
  expect([request, reply]).toMatchObject([
    { op: 'GET_FEATURES', from: 'front-end' },
    { op: 'GET_FEATURES', from: 'back-end' },
  ]);
});
