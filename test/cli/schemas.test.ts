// The JSON of real runs against the schemas, which allow nothing that they do not name here.
import { spawn } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { gunzipSync } from 'node:zlib';
import type { ValidateFunction } from 'ajv/dist/2020.js';
import { allCommands } from '../../src/cli/help/man.js';
import { Background } from '../support/background.js';
import { program, vioctl } from '../support/cli.js';
import { type ServedTarget, serveTarget } from '../support/nvme-target.js';
import { PciTree } from '../support/pci-tree.js';
import { ajv, checkJson as check, type Json, schemaOf, schemas, strict, validator } from '../support/schemas.js';

const root = path.resolve(program, '..', '..');
/** Runs a command with --json and, where it has lines, with --ndjson unless `lines` is false. @returns the document */
function both(words: string[], options: Parameters<typeof vioctl>[1] = {}, statuses = [0], lines = true): Json {
  const id = ids.find((one) => words.slice(0, one.split(' ').length).join(' ') === one)!;
  const run = (format: string) => {
    const { status, stdout, stderr } = vioctl([...words, format], options);
    expect({ words, stderr, as: statuses.includes(status!) ? 'expected' : status }).toEqual({ words, stderr, as: 'expected' });
    return stdout;
  };
  const document = JSON.parse(run('--json')) as Json;
  check(id, document);
  seen.add(id);
  if (lines && schemaOf(id).$defs && 'record' in (schemaOf(id).$defs as Json))
    for (const line of run('--ndjson').trim().split('\n')) if (line !== '') check(id, JSON.parse(line), true);
  return document;
}

let ids: string[] = [];
/** Schemas of files that are read; the tests of the readers check them. */
const configurations = ['nvmf-config.json', 'vhost-user-config.json'];
/** Commands whose output was checked. */
const seen = new Set<string>();
let dir: string;
beforeAll(async () => {
  ids = (await allCommands()).map(({ doc }) => doc.id);
  dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-schemas-'));
});
afterAll(() => fs.rmSync(dir, { recursive: true }));

test('every command with JSON has a schema, which is a valid one, and nothing else has', async () => {
  const wanted = (await allCommands()).filter(({ command }) => command.formats.length > 0).map(({ doc }) => doc.id);
  const documents = [...wanted.map((id) => `${id.replaceAll(' ', '-')}.json`), ...configurations];
  expect(fs.readdirSync(schemas).sort()).toEqual(documents.sort());
  for (const id of wanted) {
    expect({ id, valid: ajv.validateSchema(schemaOf(id)) }).toEqual({ id, valid: true });
    validator(id, false);
  }
});

test('a schema rejects what is not so', () => {
  const right = { unmapped: 'a', changed: true, done: true };
  const validate = validator('dma unmap', false);
  expect(validate(right)).toBe(true);
  for (const wrong of [{ ...right, done: 'yes' }, { unmapped: 'a', done: true }, { ...right, more: 1 }, []])
    expect(validate(wrong)).toBe(false);
});

test('vfio', () => {
  const tree = new PciTree();
  try {
    tree.driver('vfio-pci');
    tree.driver('nvme');
    tree.device('0000:01:00.0', { driver: 'nvme', group: 4 });
    tree.device('0000:02:00.0', { driver: 'vfio-pci', override: 'vfio-pci', group: 5 });
    tree.igb('0000:03:00.0');
    const env = { VIOCTL_SYSROOT: tree.dir };
    expect(both(['vfio', 'list'], { env }).devices).toHaveLength(3);
    both(['vfio', 'show', '01:00.0'], { env });
    both(['vfio', 'doctor'], { env }, [0, 1, 7]);
    both(['vfio', 'bind', '01:00.0', '--dry-run'], { env });
    both(['vfio', 'unbind', '02:00.0', '--dry-run'], { env });
    both(['vfio', 'restore', '--dry-run'], { env });
    both(['vfio', 'sriov', '03:00.0'], { env });
    both(['vfio', 'sriov', '03:00.0', '--vfs', '2', '--dry-run'], { env });
    fs.writeFileSync(path.join(dir, 'devices.yaml'), 'devices:\n  - device: 0000:01:00.0\n    driver: vfio\n  - device: 0000:09:00.0\n');
    tree.device('0000:04:00.0', { group: 6 });
    const config = Buffer.alloc(256);
    config.writeUInt32LE(0x10fb8086, 0);
    config[4] = 2; // memory space
    tree.file('/sys/bus/pci/devices/0000:04:00.0/config', config);
    tree.file('/sys/bus/pci/devices/0000:04:00.0/resource', `0xfe000000 0xfe000fff 0x40200\n${'0x0 0x0 0x0\n'.repeat(12)}`);
    tree.file('/sys/bus/pci/devices/0000:04:00.0/resource0', Buffer.alloc(4096, 7));
    both(['vfio', 'config', '04:00.0'], { env });
    both(['vfio', 'config', '04:00.0', '0.l'], { env });
    both(['vfio', 'bar', '04:00.0', '0', 'read', '10'], { env });
    both(['vfio', 'bar', '04:00.0', '0', 'dump', '--size', '64'], { env });
    both(['vfio', 'apply', path.join(dir, 'devices.yaml'), '--check'], { env }, [1, 4]);
  } finally {
    tree.remove();
  }
});

test('dma', () => {
  expect(both(['dma', 'plan', '--reserved', '/dev/null', '--aw', '48', 'a=64K,below4g', 'b=2M'])).toMatchObject({ entries: 2 });
});

test('uring', () => {
  const at = (name: string) => path.join(dir, name);
  fs.writeFileSync(at('data'), 'x'.repeat(10000));
  fs.writeFileSync(Buffer.concat([Buffer.from(`${dir}/`), Buffer.from([0x6e, 0xff])]), 'y');
  const names = Buffer.concat([Buffer.from(`${at('data')}\n${dir}/`), Buffer.from([0x6e, 0xff]), Buffer.from(`\n${at('missing')}\n`)]);
  both(['uring', 'sum'], { input: names }, [1]);
  both(['uring', 'sync'], { input: names }, [1]);
  fs.writeFileSync(at('sums'), vioctl(['uring', 'sum', at('data')]).stdout);
  both(['uring', 'sum', '--check', at('sums')]);
  if (both(['uring', 'probe'], {}, [0, 7]).available !== true) return;
  both(['uring', 'register', at('data'), at('missing')], {}, [1]);
  both(['uring', 'bench', at('data'), '--rounds', '1', '--reads', '100']);
  both(['uring', 'list']);
});

test('uring inspect', async () => {
  const holder = spawn(process.execPath, [program, 'uring', 'register', '--hold', program, '--json'], {
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  try {
    const ready = await new Promise((resolve) => {
      holder.stdout.once('data', () => resolve(true));
      holder.once('exit', () => resolve(false));
    });
    if (ready) expect(both(['uring', 'inspect', String(holder.pid)]).rings).toHaveLength(1);
  } finally {
    holder.kill('SIGTERM');
  }
});

describe('nvmf', () => {
  let target: ServedTarget;
  const control = () => path.join(dir, 'nvmf.sock');
  beforeAll(async () => {
    target = await serveTarget(['ram:4M', '--control', control()]);
  });
  afterAll(async () => {
    await target.stop();
  });
  const host = (...words: string[]) => [...words, '-s', String(target.port), '-n', target.nqn];

  test('serve and ctl', () => {
    check('nvmf serve', target.document);
    seen.add('nvmf serve');
    for (const action of [['list'], ['stats'], ['add', 'ram:1M', '--dry-run']]) both(['nvmf', 'ctl', control(), ...action]);
  });

  test('each verb of ctl has an answer of its own type, done, tried and repeated', () => {
    const [name, peer] = ['nqn.2014-08.org.example:h', '127.0.0.2:0'];
    const of = (type: string): ValidateFunction => {
      const { $defs } = strict(schemaOf('nvmf ctl')) as { $defs: Json };
      return ajv.compile({ $ref: `#/$defs/${type}`, $defs });
    };
    /** Types of which a line was checked: one that was done, and one that was tried. */
    const lined = new Set<string>();
    const ctl = (type: string, ...words: string[]): Json => {
      const kind = `${type} ${words.includes('--dry-run')}`;
      const document = both(['nvmf', 'ctl', control(), ...words], {}, [0, 4], !lined.has(kind));
      lined.add(kind);
      const validate = of(type);
      expect({ words, valid: validate(document), errors: validate.errors }).toEqual({ words, valid: true, errors: null });
      return document;
    };
    /** The dry run, the change, and once more, which changes nothing. */
    const change = (type: string, ...words: string[]) => {
      const tried = ctl(type, ...words, '--dry-run');
      expect(tried).toMatchObject({ changed: false, dryRun: true, would: expect.any(Array) });
      expect((tried.would as string[]).length).toBeGreaterThan(0);
      const { status, stdout } = vioctl(['nvmf', 'ctl', control(), ...words, '--json']);
      expect({ words, status, document: JSON.parse(stdout) }).toMatchObject({ words, status: 0, document: { changed: true } });
      const again = ctl(type, ...words);
      expect(again).toMatchObject({ changed: false });
      expect(again).not.toHaveProperty('would');
    };
    const [first] = target.namespaces;
    change('SubsystemAnswer', 'add', 'ram:1M,nsid=9');
    change('SubsystemAnswer', 'mask', '9', name);
    change('SubsystemAnswer', 'limits', '9', 'iops=100/200', 'bps=1M');
    change('HostAnswer', 'host', 'add', name);
    change('HostAnswer', 'host', 'any', 'off');
    change('HostAnswer', 'host', 'any', 'on');
    change('HostAnswer', 'host', 'remove', name);
    change('LimitsAnswer', 'limits', 'controllers=99', 'queues=3');
    change('HostLimitsAnswer', 'limits', '--host', name, 'connections=9', 'bytes=1M');
    change('HostLimitsAnswer', 'limits', '--host', name, 'connections=none', 'bytes=none');
    change('AnaAnswer', 'ana', '1', 'non-optimized');
    change('ReferralAnswer', 'referral', 'add', '192.0.2.1', '--nqn', 'nqn.2014-08.org.example:discovery');
    change('ReferralAnswer', 'referral', 'remove', '192.0.2.1');
    change('DrainAnswer', 'drain');
    change('DrainAnswer', 'drain', 'off');
    const listeners = () =>
      (ctl('ControlList', 'list').listeners as { address: string; port: number }[]).filter((one) => one.address === '127.0.0.2');
    expect(ctl('ListenerAnswer', 'listener', 'add', peer, '--advertise', '192.0.2.9:4420')).toMatchObject({ changed: true });
    const at = `127.0.0.2:${listeners()[0]!.port}`;
    change('ListenerAnswer', 'listener', 'ana', at, 'inaccessible', '--group', '1');
    for (const { port } of listeners()) change('ListenerAnswer', 'listener', 'remove', `127.0.0.2:${port}`);
    expect(ctl('KickAnswer', 'kick', '--host', name)).toMatchObject({ changed: false, ended: 0 });
    expect(ctl('KeysAnswer', 'keys', 'rotate')).toMatchObject({ changed: false, hosts: [] });
    expect(ctl('SubsystemAnswer', 'resize', String(first!.nsid))).toMatchObject({ changed: false });
    expect(ctl('SubsystemAnswer', 'reopen', String(first!.nsid), '--dry-run')).toMatchObject({ dryRun: true });
    ctl('StatsAnswer', 'stats');
    fs.writeFileSync(path.join(dir, 'saved.json'), JSON.stringify(ctl('ConfigFile', 'save')));
    expect(ctl('LoadReport', 'load', path.join(dir, 'saved.json'), '--check')).toMatchObject({ changes: [], dryRun: true });
    change('SubsystemAnswer', 'remove', '9');
    change('SubsystemAnswer', 'add', '--nqn', 'nqn.2014-08.org.example:other', '--allow-host', name);
    change('SubsystemAnswer', 'remove', '--nqn', 'nqn.2014-08.org.example:other');
  });

  test('what hosts print', () => {
    both(
      ['nvmf', 'discover', '-s', String((target.document as { discovery?: { port: number }[] }).discovery?.[0]?.port ?? target.port)],
      {},
      [0, 1],
    );
    both(host('nvmf', 'identify'));
    for (const page of ['smart', 'error', 'fw']) both(host('nvmf', 'logs', page), {}, [0, 2]);
    both([...host('nvmf', 'ping'), '--count', '2']);
    both([...host('nvmf', 'bench'), '--runtime', '200ms']);
    both([...host('nvmf', 'bench'), '--dry-run']);
    both([...host('nvmf', 'write'), '--count', '4K'], { input: Buffer.alloc(4096) });
    both([...host('nvmf', 'conform'), '--only', 'h21*'], {}, [0, 4]);
    both([...host('nvmf', 'conform'), '--only', 'h21*', '--dry-run']);
  });

  test('proxy', async () => {
    const to = `127.0.0.1:${target.port}`;
    const proxy = Background.vioctl(['nvmf', 'proxy', '--listen', '127.0.0.1:0', '--to', to, '--fault', 'delay:1ms', '--ndjson']);
    try {
      await proxy.sees(/"port":\d+.*\n/);
      const { port } = JSON.parse(proxy.stdout.split('\n')[0]!) as { port: number };
      expect(vioctl(['nvmf', 'identify', '-s', String(port), '-n', target.nqn]).status).toBe(0);
    } finally {
      await proxy.stop();
    }
    checkLines('nvmf proxy', proxy.stdout, 10);
  });
});

test('vhost-user', async () => {
  const [image, socket] = [path.join(dir, 'disk.img'), path.join(dir, 'disk.sock')];
  fs.writeFileSync(image, Buffer.alloc(1 << 20));
  const control = path.join(dir, 'disk.ctl');
  const server = Background.vioctl(['vhost-user', 'serve', 'blk', `${socket}=${image}`, '--control', control, '--json']);
  try {
    await server.sees(/^\}$/m);
    check('vhost-user serve blk', JSON.parse(server.stdout));
    seen.add('vhost-user serve blk');
    both(['vhost-user', 'list']);
    both(['vhost-user', 'list', '--installed']);
    both(['vhost-user', 'probe', socket]);
    both(['vhost-user', 'ctl', control, 'throttle', 'iops=5/10', 'bps=1M']);
    for (const action of ['list', 'stats', 'resize']) both(['vhost-user', 'ctl', control, action]);
    both(['vhost-user', 'ctl', control, 'throttle', 'iops=none', '--dry-run']);
    both(['vhost-user', 'check', socket, '--only', 'feature'], {}, [0, 1, 4]);
  } finally {
    await server.stop();
  }
});

/** Lines of a program that runs until it is stopped. */
function checkLines(id: string, text: string, least: number): void {
  const lines = text.trim().split('\n');
  expect(lines.length).toBeGreaterThanOrEqual(least);
  for (const line of lines) check(id, JSON.parse(line), true);
  seen.add(id);
}

test('vhost-user trace', async () => {
  const [image, socket, front] = ['traced.img', 'traced.sock', 'front.sock'].map((name) => path.join(dir, name)) as [
    string,
    string,
    string,
  ];
  fs.writeFileSync(image, Buffer.alloc(1 << 20));
  const server = Background.vioctl(['vhost-user', 'serve', 'blk', `${socket}=${image}`, '--json']);
  const trace = Background.vioctl(['vhost-user', 'trace', socket, '--listen', front, '--ndjson']);
  try {
    await server.sees(/^\}$/m);
    await trace.sees(/listening/);
    expect(vioctl(['vhost-user', 'probe', front]).status).toBe(0);
    await trace.sees(/GET_CONFIG/);
  } finally {
    await trace.stop();
    await server.stop();
  }
  checkLines('vhost-user trace', trace.stdout, 5);
});

test('vhost-user shmem', async () => {
  const [file, socket] = ['window.data', 'window.sock'].map((name) => path.join(dir, name)) as [string, string];
  fs.writeFileSync(file, Buffer.alloc(8192, 1));
  const server = Background.vioctl(['vhost-user', 'shmem', 'serve', socket, '--region', '0=16M', '--map', `0:0=${file}:rw`, '--json']);
  let window: Background | undefined;
  try {
    await server.sees(/^\}$/m);
    check('vhost-user shmem serve', JSON.parse(server.stdout));
    seen.add('vhost-user shmem serve');
    window = Background.vioctl(['vhost-user', 'shmem', 'window', socket, '--ndjson']);
    await window.sees(/"event": ?"map/);
    both(['vhost-user', 'shmem', 'list', `${socket}.ctl`]);
    both(['vhost-user', 'shmem', 'map', `${socket}.ctl`, `0:2M=${file}:ro`]);
    both(['vhost-user', 'shmem', 'unmap', `${socket}.ctl`, '0:2M']);
  } finally {
    await window?.stop();
    await server.stop();
  }
  checkLines('vhost-user shmem window', window!.stdout, 2);
});

test('migration', () => {
  const at = (name: string) => path.join(dir, name);
  fs.writeFileSync(at('a'), gunzipSync(fs.readFileSync(path.join(root, 'test/fixtures/migration/vfio-mtty.mig.gz'))));
  fs.writeFileSync(at('cut'), fs.readFileSync(at('a')).subarray(0, 10000));
  both(['migration', 'dump', at('a'), '--fields']);
  both(['migration', 'verify', at('a')]);
  both(['migration', 'verify', at('a'), '--against', at('a')]);
  both(['migration', 'verify', at('cut')], {}, [5]);
  both(['migration', 'stat', at('a'), '--duplicates']);
  both(['migration', 'diff', at('a'), at('cut'), '--ram'], {}, [5]);
  both(['migration', 'ram', at('a'), '-o', at('mem')]);
  both(['migration', 'convert', at('a'), '--to', 'mapped-ram', '-o', at('mapped')]);
});

test('nothing else has a schema, but for what only devices make', () => {
  // The lab checks these (test/vm/vfio-failures.test.ts).
  const elsewhere = ['vfio irq', 'vfio reset', 'vfio selftest', 'dma map', 'dma list', 'dma unmap'];
  const named = (id: string) => `${id.replaceAll(' ', '-')}.json`;
  const left = fs
    .readdirSync(schemas)
    .filter((file) => !configurations.includes(file) && ![...seen, ...elsewhere].some((id) => named(id) === file));
  // Without io_uring there are no rings to show.
  expect(left.filter((file) => seen.has('uring register') || !file.startsWith('uring'))).toEqual([]);
});
