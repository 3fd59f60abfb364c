import fs from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { VioError } from '../../../src/common/errors.js';
import { ask, ControlServer } from '../../../src/dma/channel.js';

const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-channel-'));
const at = (name: string) => path.join(dir, name);
afterAll(() => fs.rmSync(dir, { recursive: true }));
const openFds = () => fs.readdirSync('/proc/self/fd').length;

test('a request is answered, descriptors arrive in order, more than one message can carry', async () => {
  const files = Array.from({ length: 600 }, (_, i) => {
    fs.writeFileSync(at(`f${i}`), String(i));
    return fs.openSync(at(`f${i}`), 'r');
  });
  const names = files.map((_, i) => `dma-${i}`);
  const server = new ControlServer(at('sock'), (request) => ({ answer: { ok: true, op: request.op, fds: names }, fds: files }));
  expect(fs.statSync(at('sock')).mode & 0o777).toBe(0o600);
  const { answer, fds } = await ask(at('sock'), { op: 'attach' });
  expect(answer.op).toBe('attach');
  expect([...fds.keys()]).toEqual(names);
  for (const [i, fd] of [...fds.values()].entries()) {
    expect(fs.readFileSync(`/proc/self/fd/${fd}`, 'utf8')).toBe(String(i));
    fs.closeSync(fd);
  }
  for (const fd of files) fs.closeSync(fd);
  server.close();
  expect(fs.existsSync(at('sock'))).toBe(false);
});

test('large answers arrive whole', async () => {
  const maps = Array.from({ length: 65_535 }, (_, i) => ({ name: `m${i}`, iova: `0x${i.toString(16)}000`, size: 4096 }));
  const server = new ControlServer(at('large'), () => ({ answer: { ok: true, maps } }));
  const { answer } = await ask(at('large'), { op: 'list' });
  expect(answer.maps).toEqual(maps);
  server.close();
});

test('errors of the holder keep code, status and hint', async () => {
  const server = new ControlServer(at('err'), () => {
    throw new VioError('no mapping x', { code: 'ENOENT', exit: 3, hint: 'try y' });
  });
  await expect(ask(at('err'), { op: 'unmap', name: 'x' })).rejects.toMatchObject({
    message: 'no mapping x',
    code: 'ENOENT',
    exit: 3,
    hint: 'try y',
  });
  server.close();
});

test.each(['garbage\n', '{"op":"format"}\n', 'null\n', '[]\n'])('a bad request %j is answered with EPROTO', async (line) => {
  const server = new ControlServer(at('bad'), () => ({ answer: { ok: true } }));
  const reply = await new Promise<string>((resolve) => {
    const client = net.connect(at('bad'), () => client.write(line));
    client.on('data', (data) => resolve(data.toString()));
  });
  expect(JSON.parse(reply)).toMatchObject({ ok: false, error: { code: 'EPROTO', exit: 5 } });
  server.close();
});

test('clients that flood, vanish or say nothing cost no descriptor and stop nobody', async () => {
  const before = openFds();
  const server = new ControlServer(at('flood'), () => ({ answer: { ok: true } }));
  const flood = net.connect(at('flood'));
  flood.on('error', () => {});
  const closed = new Promise((resolve) => flood.once('close', resolve));
  flood.write(Buffer.alloc(256 * 1024, 0x61));
  await closed;
  const silent = net.connect(at('flood'));
  await new Promise((resolve) => silent.once('connect', resolve));
  for (let i = 0; i < 50; i++) {
    const gone = net.connect(at('flood'));
    await new Promise((resolve) => gone.once('connect', resolve));
    gone.destroy();
  }
  expect((await ask(at('flood'), { op: 'list' })).answer.ok).toBe(true);
  server.close();
  silent.destroy();
  await new Promise((resolve) => setTimeout(resolve, 50));
  expect(openFds()).toBeLessThanOrEqual(before);
});

test('nobody there; a socket left over is replaced; a served one and a file are not', async () => {
  await expect(ask(at('none'), { op: 'list' })).rejects.toMatchObject({ code: 'ENOENT' });
  const first = new ControlServer(at('twice'), () => ({ answer: { ok: true } }));
  expect(() => new ControlServer(at('twice'), () => ({ answer: { ok: true } }))).toThrow(expect.objectContaining({ code: 'EADDRINUSE' }));
  first.close();
  fs.writeFileSync(at('file'), 'precious');
  expect(() => new ControlServer(at('file'), () => ({ answer: { ok: true } }))).toThrow(
    expect.objectContaining({ code: 'EEXIST', exit: 3 }),
  );
  expect(fs.readFileSync(at('file'), 'utf8')).toBe('precious');
});
