/** Hosts that only say who they are: they cannot use up what the host that can prove it may have, nor take its queues. */
import { randomBytes } from 'node:crypto';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import type { About } from '../../src/common/text/log.js';
import { native } from '../../src/native/index.js';
import { formatChapKey, formatTlsKey } from '../../src/nvme/auth/keys.js';
import { tlsPsk } from '../../src/nvme/auth/tls-psk.js';
import { Bench } from '../../src/nvme/conform/bench.js';
import type { RawConnection } from '../../src/nvme/conform/raw.js';
import { Controller, type ControllerOptions, Namespace } from '../../src/nvme/host/index.js';
import { KeyRing } from '../../src/nvme/target/security/keyring.js';
import { Subsystem } from '../../src/nvme/target/subsystem.js';
import { Target, type TargetSetup } from '../../src/nvme/target/target.js';
import { discoveryNqn } from '../../src/nvme/wire/index.js';
import { eventually } from '../support/wait.js';

const nqn = 'nqn.2014-08.org.example:locked';
const hostnqn = 'nqn.2014-08.org.example:victim';
const hostid = Buffer.alloc(16, 7);
const key = { hash: 1, bytes: randomBytes(32) };
const psk = { hash: 1, bytes: randomBytes(32) };

let dir: string;
let target: Target;
let bench: Bench;
let options: ControllerOptions;
let messages: string[];
let about: (About | undefined)[];
function setUp(keys: object, setup: TargetSetup = {}): void {
  [messages, about] = [[], []];
  const log = (text: string, of?: About) => {
    messages.push(text);
    about.push(of);
  };
  target = new Target(native().nvme, { keys: new KeyRing([keys]), log, ...setup });
  const subsystem = new Subsystem(native().nvme, { nqn });
  subsystem.add({ source: 'ram:1048576' });
  target.addSubsystem(subsystem);
  const { port } = target.listen('127.0.0.1', 0);
  options = { address: '127.0.0.1', port, timeout: 90_000, subnqn: nqn, hostnqn, hostid, ioQueues: 1 };
  bench = new Bench({ address: '127.0.0.1', port, subnqn: nqn, hostnqn, hostid, cap: { mqes: 127 }, chap: { key } } as never);
}
beforeEach(() => {
  dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-strangers-'));
  fs.writeFileSync(path.join(dir, 'chap'), formatChapKey(key), { mode: 0o600 });
  fs.writeFileSync(path.join(dir, 'tls'), formatTlsKey(psk), { mode: 0o600 });
});
afterEach(async () => {
  bench.close();
  await target.stop();
  fs.rmSync(dir, { recursive: true, force: true });
});
const locked = (setup: TargetSetup = {}) => setUp({ dhchapSecretFile: path.join(dir, 'chap') }, setup);
/** The host with the key: connects, and reads a block. */
const comes = async (more: Partial<ControllerOptions> = { chap: { key } }): Promise<Controller> => {
  const host = await Controller.connect({ ...options, ...more });
  await new Namespace(host, await host.namespace(1)).read(0n, Buffer.alloc(512));
  return host;
};
/** Somebody who says that it is that host. */
const claims = async (fields: Parameters<Bench['connect']>[1] = {}): Promise<[RawConnection, Awaited<ReturnType<Bench['connect']>>]> => {
  const connection = await bench.initialised();
  return [connection, await bench.connect(connection, fields)];
};
const busy = { kind: 'cqe', sct: 1, sc: 0x81 };

describe('where hosts have to authenticate', () => {
  test('claims do not count; connections that have authenticated do, and are refused beyond the limit', async () => {
    locked();
    target.setHostLimits('any', { connections: 3 });
    for (let i = 0; i < 6; i++) expect((await claims())[1]).toMatchObject({ kind: 'cqe', sct: 0, sc: 0 });
    for (let i = 0; i < 3; i++) expect((await claims({ subnqn: discoveryNqn }))[1]).toMatchObject({ kind: 'cqe', sct: 0, sc: 0 });
    const first = await comes();
    await expect(comes()).rejects.toMatchObject({ exit: expect.any(Number) }); // its admin queue is the third, its I/O queue one too many
    expect(messages.some((text) => text.includes('limit of 3 connections of this host'))).toBe(true);
    await first.disconnect();
    const again = await comes();
    await again.disconnect();
  });

  test('two that authenticate at once do not share the last connection', async () => {
    locked();
    target.setHostLimits(hostnqn, { connections: 2 });
    const all = await Promise.allSettled(Array.from({ length: 4 }, () => Controller.connect({ ...options, ioQueues: 0, chap: { key } })));
    const good = all.flatMap((one) => (one.status === 'fulfilled' ? [one.value] : []));
    const alive = await Promise.allSettled(good.map((host) => host.keepAlive()));
    expect(alive.filter(({ status }) => status === 'fulfilled').length).toBe(2);
    for (const host of good) host.close();
  });

  test('a queue of its controller that somebody else has asked for is still its own', async () => {
    locked();
    const host = await Controller.connect({ ...options, ioQueues: 0, chap: { key } });
    const [thief, outcome] = await claims({ qid: 1, cntlid: host.cntlid, sqsize: 31 });
    expect(outcome).toMatchObject({ kind: 'cqe', sct: 0, sc: 0 });
    const subsystem = target.subsystems.get(nqn)!;
    expect(subsystem.controllers.get(host.cntlid)!.queues.size).toBe(0);
    await host.disconnect();
    // with its association, the queue that nobody has proved to own goes too
    expect((await thief.next()).kind).toBe('closed');
    await (await comes()).disconnect();
  });

  test('the limit of the whole target makes room for who comes', async () => {
    locked({ limits: { connections: 4, controllers: 4 } });
    for (let i = 0; i < 4; i++) expect((await claims())[1]).toMatchObject({ kind: 'cqe', sct: 0, sc: 0 });
    const host = await comes();
    await host.disconnect();
  });

  test('I/O queues that nobody has proved make room as associations do, the oldest first', async () => {
    locked({ limits: { connections: 4 } });
    const host = await Controller.connect({ ...options, ioQueues: 0, chap: { key } });
    const asks = async (qid: number) => {
      const [connection, outcome] = await claims({ qid, cntlid: host.cntlid, sqsize: 31 });
      expect(outcome).toMatchObject({ kind: 'cqe', sct: 0, sc: 0 });
      return connection;
    };
    const queues = [await asks(1), await asks(2), await asks(3)];
    const [, outcome] = await claims({ hostnqn: `${hostnqn}2` });
    expect(outcome).toMatchObject({ kind: 'cqe', sct: 0, sc: 0 });
    expect((await queues[0]!.next()).kind).toBe('closed');
    for (const qid of [4, 5]) await asks(qid); // their own go, not the association that has just come
    for (const queue of queues) expect((await queue.next()).kind).toBe('closed');
    const { controllers } = target.subsystems.get(nqn)!;
    expect([...controllers.values()].map(({ hostnqn: of }) => of)).toEqual([hostnqn, `${hostnqn}2`]);
    await host.disconnect();
  });

  test('an I/O queue that is asked for again and again is one connection', async () => {
    locked();
    const host = await Controller.connect({ ...options, ioQueues: 0, chap: { key } });
    const { joining } = target.subsystems.get(nqn)!.controllers.get(host.cntlid)!;
    const all: RawConnection[] = [];
    for (let i = 0; i < 10; i++) all.push((await claims({ qid: 1 + (i % 2), cntlid: host.cntlid, sqsize: 31 }))[0]);
    expect(joining.size).toBe(2);
    for (const queue of all.slice(0, -2)) expect((await queue.next()).kind).toBe('closed');
    await host.disconnect();
  });

  test('a proof that comes when the queue has been given up makes no queue of it', async () => {
    locked();
    const host = await Controller.connect({ ...options, ioQueues: 0, chap: { key } });
    const { joining, queues } = target.subsystems.get(nqn)!.controllers.get(host.cntlid)!;
    for (const late of [false, true]) {
      const [queue] = await claims({ qid: 1, cntlid: host.cntlid, sqsize: 31 });
      if (late) joining.clear(); // as a reset does while the last message is looked at
      await bench.prove(queue).catch(() => {});
      expect(queues.size).toBe(late ? 0 : 1);
      queue.close();
      await eventually(() => queues.size === 0);
    }
    await host.disconnect();
  });

  test('an I/O queue makes no room for one controller more than the limit', async () => {
    locked({ limits: { controllers: 1 } });
    const host = await Controller.connect({ ...options, ioQueues: 0, chap: { key } });
    expect((await claims({ qid: 1, cntlid: host.cntlid, sqsize: 31 }))[1]).toMatchObject({ kind: 'cqe', sct: 0, sc: 0 });
    expect((await claims({ hostnqn: `${hostnqn}2` }))[1]).toMatchObject(busy);
    await host.disconnect();
  });
});

test('a flush that fails behind a shutdown is told as a message about its host', async () => {
  setUp({});
  target.flush = () => Promise.reject(new Error('flush disk: EIO'));
  const host = await comes({});
  await host.disconnect();
  await eventually(() => messages.some((text) => text.includes('EIO')));
  const at = messages.findIndex((text) => text.includes('EIO'));
  expect(messages[at]).toMatch(/^127\.0\.0\.1 port \d+: controller \d+: flush disk: EIO$/);
  expect(about[at]).toMatchObject({ event: 'flush-failed', peer: expect.stringMatching(/^127\.0\.0\.1 port \d+$/), host: hostnqn });
  target.flush = async () => {}; // for the end
});

test('where hosts may use TLS, those without it are counted apart', async () => {
  setUp({ tlsKeyFile: path.join(dir, 'tls') }, { tlsMode: 'allow' });
  target.setHostLimits(hostnqn, { connections: 2 });
  for (let i = 0; i < 2; i++) expect((await claims())[1]).toMatchObject({ kind: 'cqe', sct: 0, sc: 0 });
  expect((await claims())[1]).toMatchObject(busy);
  const host = await comes({ tls: [tlsPsk(psk, hostnqn, nqn)] });
  await host.disconnect();
});

test('where nobody can prove anything, claims count', async () => {
  setUp({});
  target.setHostLimits(hostnqn, { connections: 2 });
  for (let i = 0; i < 2; i++) expect((await claims())[1]).toMatchObject({ kind: 'cqe', sct: 0, sc: 0 });
  expect((await claims())[1]).toMatchObject(busy);
});
