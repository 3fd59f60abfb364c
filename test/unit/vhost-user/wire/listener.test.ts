import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { ControlServer } from '../../../../src/control/server.js';
import { native } from '../../../../src/native/index.js';
import type { OwnedFd } from '../../../../src/native/owned-fd.js';
import { Listener } from '../../../../src/vhost-user/wire/listener.js';

const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-listener-'));
const file = path.join(dir, 's');
let listener: Listener;
const callers: number[] = [];
const call = (): void => void callers.push(native().vhostUser.connect(file));
beforeEach(() => {
  listener = Listener.at(file);
});
afterEach(() => {
  jest.restoreAllMocks();
  listener.close();
  for (const fd of callers.splice(0)) fs.closeSync(fd);
});
afterAll(() => fs.rmSync(dir, { recursive: true }));

/** The next accepts fail. */
function failing(code: string, times: number) {
  const { vhostUser } = native();
  const accept = vhostUser.accept.bind(vhostUser);
  let left = times;
  return jest.spyOn(vhostUser, 'accept').mockImplementation((fd) => {
    if (left-- > 0) throw Object.assign(new Error(`accept4: ${code}`), { code });
    return accept(fd);
  });
}

test.each(['EMFILE', 'ENFILE', 'ENOBUFS', 'ENOMEM'])('%s: a caller waits in the queue, without a busy loop', async (code) => {
  const accept = failing(code, 2);
  call();
  const fd = await listener.next();
  expect(accept).toHaveBeenCalledTimes(3);
  fd.close();
});

test('the same for a listener that takes every caller', async () => {
  const accept = failing('EMFILE', 1);
  const taken: OwnedFd[] = [];
  const both = new Promise<void>((resolve) => listener.start((fd) => taken.push(fd) === 2 && resolve()));
  call();
  call();
  await both;
  expect(accept.mock.results.filter((r) => r.type === 'throw')).toHaveLength(1);
  for (const fd of taken) fd.close();
});

test('any other error of an accept is told to who waits; the listener can be used again', async () => {
  const accept = failing('EINVAL', 1);
  call();
  await expect(listener.next()).rejects.toMatchObject({ code: 'EINVAL' });
  expect(accept).toHaveBeenCalledTimes(1);
  (await listener.next()).close();
});

test('a signal and a close end the rest', async () => {
  const accept = failing('EMFILE', 1000);
  call();
  const end = new AbortController();
  const next = listener.next(end.signal);
  while (accept.mock.calls.length === 0) await new Promise((resolve) => setTimeout(resolve, 1));
  end.abort(new Error('enough'));
  await expect(next).rejects.toThrow('enough');
  listener.start(() => {});
  while (accept.mock.calls.length < 2) await new Promise((resolve) => setTimeout(resolve, 1));
  listener.close();
  await new Promise((resolve) => setTimeout(resolve, 150));
  expect(accept).toHaveBeenCalledTimes(2);
});

test.each([
  ['a listener', () => Listener.at(path.join(dir, 'x'))],
  ['a control socket', () => new ControlServer(path.join(dir, 'x'), { name: 'x', handle: () => ({ result: null }) })],
])('%s removes its file, unless another one is there by now', (_what, listen) => {
  const at = path.join(dir, 'x');
  listen().close();
  expect(fs.existsSync(at)).toBe(false);
  for (const put of [() => void fs.writeFileSync(at, 'another'), () => Listener.at(at)]) {
    const first = listen();
    fs.rmSync(at);
    const other = put();
    const { ino } = fs.lstatSync(at);
    first.close();
    first.close();
    expect(fs.lstatSync(at).ino).toBe(ino);
    if (other) other.close();
    else fs.rmSync(at);
    expect(fs.existsSync(at)).toBe(false);
  }
  // and one whose file has gone
  const gone = listen();
  fs.rmSync(at);
  gone.close();
});
