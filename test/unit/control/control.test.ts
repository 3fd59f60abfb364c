import { execFile, spawnSync } from 'node:child_process';
import fs from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import fc from 'fast-check';
import { VioError } from '../../../src/common/errors.js';
import { ask, ControlClient } from '../../../src/control/client.js';
import { controlVersion, errorLine, fromWire, maxRequest, parseLine, parseRequest, toWire } from '../../../src/control/protocol.js';
import { type Asked, ControlServer, mayUse, type ServerOptions, type Service } from '../../../src/control/server.js';
import { native } from '../../../src/native/index.js';
import { OwnedFd } from '../../../src/native/owned-fd.js';
import { skip } from '../../support/skip.js';
import { eventually } from '../../support/wait.js';

const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-control-'));
const at = (name: string) => path.join(dir, name);
afterAll(() => fs.rmSync(dir, { recursive: true }));
const openFds = () => fs.readdirSync('/proc/self/fd').length;
const echo: Service = { name: 'test serve', handle: ({ op, args }) => ({ result: { op, args } }) };
const options = { service: 'test serve' };
const hello = `${JSON.stringify({ control: controlVersion, service: 'test serve' })}\n`;
const request = (op: string, args: object = {}) => `${JSON.stringify({ op, args, fds: 0 })}\n`;

let servers: ControlServer[] = [];
const serve = (service: Service = echo, more: ServerOptions = {}, name = 'sock') => {
  const server = new ControlServer(at(name), service, more);
  servers.push(server);
  return server;
};
afterEach(() => {
  for (const server of servers) server.close();
  servers = [];
});

/** A client that speaks bytes: everything that the server said until it, or we, ended the connection. */
class Raw {
  readonly socket: net.Socket;
  text = '';
  readonly closed: Promise<string>;
  #look: () => void = () => {};

  constructor(name = 'sock') {
    this.socket = net.connect({ path: at(name), allowHalfOpen: true });
    this.socket.on('error', () => {});
    this.socket.setEncoding('utf8');
    this.socket.on('data', (chunk) => {
      this.text += chunk;
      this.#look();
    });
    this.socket.on('end', () => this.socket.end());
    this.closed = new Promise((resolve) => this.socket.once('close', () => resolve(this.text)));
  }

  write(data: string | Buffer): this {
    this.socket.write(data);
    return this;
  }

  /** Waits for that many whole lines, or the end. */
  lines(count: number): Promise<Record<string, never>[]> {
    return new Promise((resolve) => {
      const whole = () => this.text.split('\n').slice(0, -1);
      const done = () => resolve(whole().map((line) => JSON.parse(line)));
      this.#look = () => {
        if (whole().length >= count) done();
      };
      this.#look();
      void this.closed.then(done);
    });
  }
}
const lastOf = (text: string) => JSON.parse(text.trimEnd().split('\n').at(-1)!);

describe('requests', () => {
  test('are answered in turn on one connection; the socket is for its owner, and goes with the server', async () => {
    const server = serve();
    expect(fs.statSync(at('sock')).mode & 0o777).toBe(0o600);
    const client = await ControlClient.connect(at('sock'), options);
    for (const op of ['a', 'b', 'c']) expect((await client.request(op, { x: op })).result).toEqual({ op, args: { x: op } });
    client.close();
    server.close();
    expect(fs.existsSync(at('sock'))).toBe(false);
  });

  test('the handler knows who asks', async () => {
    serve({ name: 'test serve', handle: ({ peer }) => ({ result: peer }) });
    expect((await ask(at('sock'), options, 'who')).result).toEqual({
      pid: process.pid,
      uid: process.getuid!(),
      gid: process.getgid!(),
    });
  });

  test('errors keep code, status, hint and details; others are named too', async () => {
    const errors: Record<string, unknown> = {
      known: new VioError('no x', { code: 'ENOENT', exit: 3, hint: 'try y', details: { z: 1 } }),
      system: Object.assign(new Error('open failed'), { code: 'EACCES' }),
      bug: new TypeError('x is not a function'),
    };
    serve({ name: 'test serve', handle: ({ op }) => Promise.reject(errors[op]) });
    const client = await ControlClient.connect(at('sock'), options);
    await expect(client.request('known')).rejects.toMatchObject({
      message: 'no x',
      code: 'ENOENT',
      exit: 3,
      hint: 'try y',
      details: { z: 1 },
    });
    await expect(client.request('system')).rejects.toMatchObject({ code: 'EACCES', exit: 1, message: 'EACCES (Permission denied)' });
    await expect(client.request('bug')).rejects.toMatchObject({ code: 'INTERNAL', exit: 1 });
    client.close();
  });

  test('an answer that is no JSON is an error, not the end of the server', async () => {
    serve({ name: 'test serve', handle: ({ op }) => ({ result: op === 'bad' ? 1n : op }) });
    await expect(ask(at('sock'), options, 'bad')).rejects.toMatchObject({ code: 'INTERNAL' });
    expect((await ask(at('sock'), options, 'good')).result).toBe('good');
  });

  test('large answers arrive whole', async () => {
    const maps = Array.from({ length: 65_535 }, (_, i) => ({ name: `m${i}ü`, iova: `0x${i.toString(16)}000`, size: 4096 }));
    serve({ name: 'test serve', handle: () => ({ result: maps }) });
    expect((await ask(at('sock'), options, 'list')).result).toEqual(maps);
  });

  test('no answer in time', async () => {
    serve({ name: 'test serve', handle: () => new Promise(() => {}) });
    const client = await ControlClient.connect(at('sock'), options);
    await expect(client.request('x', {}, [], 30)).rejects.toMatchObject({ code: 'ETIMEDOUT', exit: 124 });
    client.close();
  });

  test('a client may ask again as soon as it has the answer, before the server has gone on', async () => {
    serve();
    const { vhostUser } = native();
    const fd = vhostUser.connect(at('sock'));
    const real = vhostUser.send.bind(vhostUser);
    let asked = 0;
    const send = jest.spyOn(vhostUser, 'send').mockImplementation((to, data, fds) => {
      const sent = real(to, data, fds);
      if (to !== fd && asked++ < 3) real(fd, Buffer.from(request(`r${asked}`)), []);
      return sent;
    });
    let text = '';
    try {
      real(fd, Buffer.from(hello), []);
      const bytes = Buffer.alloc(4096);
      await eventually(() => {
        const size = vhostUser.receive(fd, bytes, []);
        if (size > 0) text += bytes.toString('utf8', 0, size);
        return text.split('\n').length > 4 || text.includes('error');
      });
    } finally {
      send.mockRestore();
      fs.closeSync(fd);
    }
    expect(
      text
        .trimEnd()
        .split('\n')
        .slice(1)
        .map((line) => JSON.parse(line).result?.op),
    ).toEqual(['r1', 'r2', 'r3']);
  });

  test('a client that ends its half after the request gets the answer', async () => {
    serve({ name: 'test serve', handle: async ({ op }) => ({ result: op }) });
    const raw = new Raw();
    raw.write(hello);
    await raw.lines(1);
    raw.socket.end(request('late'));
    expect(lastOf(await raw.closed)).toEqual({ result: 'late', fds: 0 });
  });
});

describe('descriptors', () => {
  test('arrive in order, more than one message can carry, with a short answer and a slow reader', async () => {
    const files = Array.from({ length: 600 }, (_, i) => {
      fs.writeFileSync(at(`f${i}`), String(i));
      return fs.openSync(at(`f${i}`), 'r');
    });
    serve({ name: 'test serve', handle: () => ({ result: 0, fds: files }) });
    const before = openFds();
    const { result, fds } = await ask(at('sock'), options, 'x');
    expect(result).toBe(0);
    expect(fds.map(({ fd }) => fs.readFileSync(`/proc/self/fd/${fd}`, 'utf8'))).toEqual(files.map((_, i) => String(i)));
    for (const fd of fds) fd.close();
    for (const fd of files) fs.closeSync(fd);
    await eventually(() => openFds() <= before - files.length);
  });

  test('of a request reach the handler; what it does not take is closed', async () => {
    const taken: OwnedFd[] = [];
    const handle = ({ op, fds }: Asked) => {
      if (op === 'take') taken.push(fds.shift()!);
      return { result: fds.length };
    };
    serve({ name: 'test serve', requestFds: 2, handle });
    fs.writeFileSync(at('file'), 'content');
    const open = () => new OwnedFd(fs.openSync(at('file'), 'r'));
    const client = await ControlClient.connect(at('sock'), options);
    const before = openFds();
    expect((await client.request('take', {}, [open(), open()])).result).toBe(1);
    expect(fs.readFileSync(taken[0]!.fd, 'utf8')).toBe('content');
    taken[0]!.close();
    expect((await client.request('leave', {}, [open()])).result).toBe(1);
    expect(openFds()).toBeLessThanOrEqual(before);
    await expect(client.request('many', {}, [open(), open(), open()])).rejects.toMatchObject({ code: 'EPROTO' });
    client.close();
    await eventually(() => openFds() < before);
  });

  test.each([
    ['with the hello', hello, 0, 1],
    ['where none are asked for', request('x'), 0, 1],
    ['unannounced', request('x'), 1, 1],
    ['a flood of them', request('x'), 1, 253],
    ['announced and not sent', `${JSON.stringify({ op: 'x', fds: 1 })}\n`, 1, 0],
  ])('nobody asked for, %s: refused, and none stays open', async (_name, line, requestFds, count) => {
    let handled = 0;
    serve({ name: 'test serve', requestFds, handle: () => ({ result: ++handled }) });
    const { vhostUser } = native();
    const fd = vhostUser.connect(at('sock'));
    const answers = async (): Promise<string> => {
      const bytes = Buffer.alloc(4096);
      for (;;) {
        const size = vhostUser.receive(fd, bytes, []);
        if (size > 0) return bytes.toString('utf8', 0, size);
        await new Promise((resolve) => setTimeout(resolve, 2));
      }
    };
    if (line !== hello) {
      vhostUser.send(fd, Buffer.from(hello), []);
      await answers();
    }
    const before = openFds();
    const null0 = fs.openSync('/dev/null', 'r');
    vhostUser.send(fd, Buffer.from(line), Array(count).fill(null0));
    expect(JSON.parse(await answers()).error).toMatchObject({ code: 'EPROTO', exit: 5 });
    fs.closeSync(null0);
    fs.closeSync(fd);
    await eventually(() => openFds() < before);
    expect(handled).toBe(0);
    expect((await ask(at('sock'), options, 'good')).result).toBe(1);
  });
});

describe('versions and services', () => {
  test.each([
    ['a later one', JSON.stringify({ control: 7, service: 'test serve' }), /version 1 .* version 7/],
    ['a later one of another form', JSON.stringify({ control: 8, anything: [] }), /version 1 .* version 8/],
    ['one from before the protocol', JSON.stringify({ op: 'list' }), /version 1 .* version 0/],
  ])('a client of %s gets one error with both versions', async (_name, line, message) => {
    serve();
    const text = await new Raw().write(`${line}\n`).closed;
    expect(text.trimEnd().split('\n')).toHaveLength(1);
    expect(lastOf(text)).toEqual({
      control: controlVersion,
      error: expect.objectContaining({ code: 'VERSION', exit: 7, message: expect.stringMatching(message) }),
    });
  });

  test.each([
    [{ control: 7, error: { message: 'unknown to us', code: 'X', exit: 1 } }, /other: the server speaks version 7 .* version 1/],
    [{ control: 9, service: 'test serve' }, /version 9 .* version 1/],
    [{ ok: false, message: 'not a request', code: 'BAD_REQUEST', exit: 5 }, /version 0 .* version 1/],
  ])('a server that answers %j is told of with both versions', async (answer, message) => {
    const server = net.createServer((socket) => {
      socket.on('error', () => {});
      socket.once('data', () => socket.end(`${JSON.stringify(answer)}\n`, () => socket.destroy()));
    });
    await new Promise<void>((resolve) => server.listen(at('other'), resolve));
    await expect(ask(at('other'), options, 'x')).rejects.toMatchObject({
      code: 'VERSION',
      exit: 7,
      message: expect.stringMatching(message),
    });
    await new Promise((resolve) => server.close(resolve));
  });

  test('the socket of another command names it', async () => {
    serve();
    await expect(ask(at('sock'), { service: 'other serve' }, 'x')).rejects.toMatchObject({
      code: 'SERVICE',
      exit: 3,
      message: `${at('sock')}: this is the control socket of "vioctl test serve"`,
    });
  });
});

describe('who may use it', () => {
  test('the same user and root', () => {
    const peer = (uid: number) => ({ pid: 1, uid, gid: 0 });
    expect([mayUse(peer(1000), 1000), mayUse(peer(0), 1000), mayUse(peer(1001), 1000), mayUse(peer(1000), 0)]).toEqual([
      true,
      true,
      false,
      false,
    ]);
  });

  test('another user is refused, even where the file lets it in', async () => {
    if (process.getuid!() !== 0) return skip('the control socket and another user', 'only root can become one');
    serve();
    fs.chmodSync(dir, 0o711);
    fs.chmodSync(at('sock'), 0o666);
    const program = `const s = require('net').connect(${JSON.stringify(at('sock'))}); s.on('data', (d) => process.stdout.write(d));
      s.on('error', (err) => console.error(err));`;
    const said = await new Promise<string>((resolve, reject) =>
      execFile(process.execPath, ['-e', program], { uid: 65534, gid: 65534, cwd: '/' }, (err, stdout) =>
        err ? reject(err) : resolve(stdout),
      ),
    );
    expect(lastOf(said).error).toMatchObject({ code: 'EACCES', exit: 6 });
  });
});

describe('the socket file', () => {
  test('of a dead server is replaced, of a live one not, nor any other file', async () => {
    serve();
    expect(() => new ControlServer(at('sock'), echo)).toThrow(expect.objectContaining({ code: 'EADDRINUSE' }));
    expect((await ask(at('sock'), options, 'x')).result).toEqual({ op: 'x', args: {} });
    const bind = `process.on('SIGUSR1', () => {}); require('net').createServer().listen(${JSON.stringify(at('dead'))}, () => process.kill(process.pid, 'SIGKILL'))`;
    spawnSync(process.execPath, ['-e', bind]);
    expect(fs.statSync(at('dead')).isSocket()).toBe(true);
    serve(echo, {}, 'dead');
    expect((await ask(at('dead'), options, 'x')).result).toEqual({ op: 'x', args: {} });
    fs.writeFileSync(at('precious'), 'precious');
    expect(() => new ControlServer(at('precious'), echo)).toThrow(expect.objectContaining({ code: 'EEXIST', exit: 3 }));
    expect(fs.readFileSync(at('precious'), 'utf8')).toBe('precious');
  });

  test('of a successor stays when the first server ends', () => {
    const first = serve();
    fs.renameSync(at('sock'), at('moved'));
    serve();
    first.close();
    expect(fs.existsSync(at('sock'))).toBe(true);
  });

  test('nobody there: what the caller makes of it', async () => {
    await expect(ask(at('none'), options, 'x')).rejects.toMatchObject({ code: 'ENOENT', message: expect.stringContaining(at('none')) });
    const unreachable = () => new VioError('start it first', { exit: 3 });
    await expect(ask(at('none'), { ...options, unreachable }, 'x')).rejects.toMatchObject({ message: 'start it first', exit: 3 });
  });
});

describe('hostile clients', () => {
  test.each([
    ['garbage', 'garbage\n', 'EPROTO'],
    ['binary', Buffer.from([0, 255, 254, 10]), 'EPROTO'],
    ['null', 'null\n', 'EPROTO'],
    ['a list', '[]\n', 'EPROTO'],
    ['an endless line', Buffer.alloc(4 * maxRequest, 0x61), 'EPROTO'],
    ['an empty line', '\n', 'EPROTO'],
    ['two messages at once', hello + request('x'), 'EPROTO'],
  ])('%s is refused, once', async (_name, bytes, code) => {
    serve();
    const text = await new Raw().write(bytes as string).closed;
    expect(text.trimEnd().split('\n')).toHaveLength(1);
    expect(lastOf(text).error.code).toBe(code);
  });

  test.each([
    ['no operation', '{}\n'],
    ['arguments that are no object', '{"op":"x","args":[]}\n'],
    ['a wrong number of descriptors', '{"op":"x","fds":-1}\n'],
  ])('%s: refused, and the connection goes on', async (_name, line) => {
    serve();
    const raw = new Raw().write(hello);
    await raw.lines(1);
    raw.write(line);
    expect((await raw.lines(2))[1]!.error).toMatchObject({ code: 'EPROTO', exit: 5 });
    raw.write(request('good'));
    expect((await raw.lines(3))[2]).toEqual({ result: { op: 'good', args: {} }, fds: 0 });
    raw.socket.destroy();
  });

  test('half a line and silence end after the idle time, however slowly bytes drip', async () => {
    serve(echo, { idle: 400 });
    const silent = new Raw();
    const half = new Raw().write(hello.slice(0, 9));
    const slow = new Raw();
    const drip = setInterval(() => slow.write('{'), 5);
    for (const raw of [silent, half]) expect(lastOf(await raw.closed).error.code).toBe('ETIMEDOUT');
    await slow.closed; // what it was told is lost when it writes on
    clearInterval(drip);
    expect((await ask(at('sock'), options, 'x')).result).toEqual({ op: 'x', args: {} });
  });

  test('many connections make room for one that asks; one whose request runs is left alone', async () => {
    let finish: (answer: { result: string }) => void = () => {};
    let waiting = false;
    const handle = ({ op }: Asked) => {
      if (op !== 'wait') return { result: op };
      waiting = true;
      return new Promise<{ result: string }>((resolve) => {
        finish = resolve;
      });
    };
    serve({ name: 'test serve', handle }, { clients: 4 });
    const before = openFds();
    const client = await ControlClient.connect(at('sock'), options);
    const waits = client.request('wait');
    await eventually(() => waiting);
    const crowd: Raw[] = [];
    for (let i = 0; i < 40; i++) {
      const raw = new Raw();
      await new Promise((resolve) => raw.socket.once('connect', resolve));
      crowd.push(raw);
    }
    for (const { closed } of crowd.slice(0, 30)) expect(lastOf(await closed).error.code).toBe('EBUSY');
    expect((await ask(at('sock'), options, 'x')).result).toBe('x');
    finish({ result: 'done' });
    expect((await waits).result).toBe('done');
    client.close();
    for (const { socket } of crowd) socket.destroy();
    await eventually(() => openFds() <= before);
  });

  test('all places busy: the next one hears so', async () => {
    let begun: () => void = () => {};
    const runs = new Promise<void>((resolve) => {
      begun = resolve;
    });
    const handle = () => {
      begun();
      return new Promise<never>(() => {});
    };
    serve({ name: 'test serve', handle }, { clients: 1 });
    const client = await ControlClient.connect(at('sock'), options);
    const waits = client.request('wait');
    await runs;
    await expect(ask(at('sock'), options, 'x')).rejects.toMatchObject({ code: 'EBUSY' });
    client.close();
    await expect(waits).rejects.toMatchObject({ code: 'ECONNRESET' });
  });

  test('an idle client that has to make room hears why at its next request', async () => {
    serve(echo, { clients: 1 });
    const first = await ControlClient.connect(at('sock'), options);
    expect((await ask(at('sock'), options, 'x')).result).toEqual({ op: 'x', args: {} });
    await expect(first.request('y')).rejects.toMatchObject({ code: 'EBUSY' });
    first.close();
  });

  test('who leaves in the middle of a request or an answer costs nothing', async () => {
    let running = 0;
    const answer = 'x'.repeat(8 << 20);
    const handle = async () => {
      running++;
      await new Promise((resolve) => setTimeout(resolve, 5));
      return { result: answer };
    };
    serve({ name: 'test serve', handle });
    const before = openFds();
    for (let i = 0; i < 10; i++) {
      const raw = new Raw().write(hello);
      await raw.lines(1);
      raw.write(i % 2 ? request('x') : request('x').slice(0, -4));
      if (i % 2) await new Promise((resolve) => raw.socket.once('data', resolve));
      raw.socket.destroy();
    }
    expect(((await ask(at('sock'), options, 'x')).result as string).length).toBe(answer.length);
    expect(running).toBe(6);
    await eventually(() => openFds() <= before);
  });

  test('a server without a free descriptor goes on when there is one', async () => {
    serve();
    const { vhostUser } = native();
    const accept = jest.spyOn(vhostUser, 'accept').mockImplementationOnce(() => {
      throw Object.assign(new Error('accept4'), { code: 'EMFILE' });
    });
    expect((await ask(at('sock'), options, 'x')).result).toEqual({ op: 'x', args: {} });
    expect(accept.mock.calls.length).toBeGreaterThan(1);
    accept.mockRestore();
  });
});

describe('any input', () => {
  test('lines are the same in whatever pieces they come', async () => {
    serve();
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.dictionary(fc.string({ unit: 'binary' }), fc.jsonValue(), { maxKeys: 3 }), { minLength: 1, maxLength: 4 }),
        fc.array(fc.integer({ min: 1, max: 40 }), { minLength: 1, maxLength: 8 }),
        async (list, cuts) => {
          const raw = new Raw();
          for (const [i, line] of [hello, ...list.map((args) => request('op', args))].entries()) {
            const bytes = Buffer.from(line);
            for (let from = 0, n = 0; from < bytes.length; n++) {
              const to = Math.min(bytes.length, from + cuts[n % cuts.length]!);
              await new Promise((resolve) => raw.socket.write(bytes.subarray(from, to), resolve));
              from = to;
            }
            const lines = await raw.lines(i + 1);
            if (i > 0) expect(lines[i]).toEqual({ result: { op: 'op', args: JSON.parse(JSON.stringify(list[i - 1])) }, fds: 0 });
          }
          raw.socket.destroy();
        },
      ),
      { numRuns: 30 },
    );
  });

  test('a changed conversation ends in answers or one error, and others are served', async () => {
    serve(echo, { idle: 40 });
    const before = openFds();
    const good = Buffer.from(request('op', { name: 'ring', list: [1, 2] }));
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom('hello', 'request'),
        fc.array(fc.tuple(fc.nat(good.length - 1), fc.nat(255)), { minLength: 1, maxLength: 4 }),
        fc.nat(good.length),
        async (which, changes, cut) => {
          const raw = new Raw();
          const bytes = Buffer.from(which === 'hello' ? hello : good).subarray(0, cut === 0 ? undefined : Math.max(1, cut));
          for (const [where, value] of changes) bytes[where % bytes.length] = value;
          if (which === 'request') {
            raw.write(hello);
            await raw.lines(1);
          }
          raw.write(bytes);
          const lines = (await raw.closed)
            .trimEnd()
            .split('\n')
            .filter((line) => line !== '') // on a slow machine the idle time may end before the first byte
            .map((line) => JSON.parse(line));
          expect(lines.filter((line) => line.error).length).toBeLessThanOrEqual(2);
          for (const line of lines) expect(line.error ?? line.result ?? line.service).toBeDefined();
        },
      ),
      { numRuns: 40 },
    );
    expect((await ask(at('sock'), options, 'x')).result).toEqual({ op: 'x', args: {} });
    await eventually(() => openFds() <= before);
  });

  test('what is no request is EPROTO, never another error', () => {
    fc.assert(
      fc.property(
        fc.oneof(
          fc.string(),
          fc.json(),
          fc.record({ op: fc.jsonValue(), args: fc.jsonValue(), fds: fc.jsonValue() }).map((v) => JSON.stringify(v)),
        ),
        (text) => {
          try {
            const { op, args, fds } = parseRequest(text);
            expect([typeof op, typeof args, Array.isArray(args), Number.isSafeInteger(fds)]).toEqual(['string', 'object', false, true]);
          } catch (err) {
            expect(err).toMatchObject({ code: 'EPROTO', exit: 5 });
          }
        },
      ),
    );
  });

  test('errors survive the way; any other value becomes an error', () => {
    fc.assert(
      fc.property(
        fc.string(),
        fc.string(),
        fc.constantFrom(1, 2, 3, 4, 5, 6, 7, 124),
        fc.option(fc.string(), { nil: undefined }),
        (message, code, exit, hint) => {
          const err = new VioError(message, { code, exit: exit as never, hint });
          expect(fromWire(parseLine(errorLine(err)).error)).toMatchObject({ message, code, exit, hint });
        },
      ),
    );
    fc.assert(
      fc.property(
        fc.jsonValue(),
        fc.record({ message: fc.jsonValue(), code: fc.jsonValue(), exit: fc.jsonValue(), hint: fc.jsonValue() }),
        (any, record) => {
          for (const value of [any, record]) {
            const err = fromWire(value);
            expect([typeof err.message, typeof err.code, err.exit > 0]).toEqual(['string', 'string', true]);
          }
        },
      ),
    );
    expect(toWire('text')).toEqual({ message: 'text', code: 'INTERNAL', exit: 1 });
  });
});
