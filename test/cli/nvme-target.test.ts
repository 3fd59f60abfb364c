import { spawn } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { errorEntry, Fctype, NvmOpcode, rwCmd, sqe } from '../../src/nvme/wire/index.js';
import { plainEnv, program, vioctl } from '../support/cli.js';
import { effort } from '../support/effort.js';
import { connectCapsule, enableCapsule, hostnqn, icRequest, Peer } from '../support/nvme-raw.js';
import { connectHost, serveTarget } from '../support/nvme-target.js';

let dir: string;
beforeEach(() => {
  dir = fs.mkdtempSync(path.join(os.tmpdir(), 'nvmf-'));
});
afterEach(() => fs.rmSync(dir, { recursive: true, force: true }));

const image = (name: string, size: number): string => {
  const file = path.join(dir, name);
  fs.writeFileSync(file, '');
  fs.truncateSync(file, size);
  return file;
};

describe('nvmf serve', () => {
  test('ready document, identity that survives a restart, SIGTERM ends it with 0', async () => {
    const args = [image('a.img', 1 << 20), 'ram:2M,bs=4096,nsid=7', `${image('b.img', 1 << 20)},ro`];
    const first = await serveTarget(args);
    expect(first.namespaces).toEqual([
      expect.objectContaining({ nsid: 1, source: path.join(dir, 'a.img'), size: 1 << 20, blockSize: 512, readOnly: false }),
      expect.objectContaining({ nsid: 2, source: path.join(dir, 'b.img'), readOnly: true }),
      expect.objectContaining({ nsid: 7, source: `ram:${2 << 20}`, blockSize: 4096 }),
    ]);
    expect(await first.stop()).toBe(0);
    const second = await serveTarget(args);
    expect(second.namespaces).toEqual(first.namespaces);
    expect(second.nqn).toBe(first.nqn);
    expect(await second.stop('SIGINT')).toBe(0);
    expect(second.messages()).toBe('');
  });

  test.each([
    ['nothing to serve', [], 2, /nothing to serve/],
    ['a missing file', ['/no/such.img'], 1, /open \/no\/such\.img: ENOENT .*\nhint: make it: truncate/],
    ['a folder', ['/tmp'], 1, /EISDIR/],
    ['a block size', ['ram:1M,bs=1024'], 2, /block size 1024/],
    ['a list of hosts that the file does not have', ['--config', '/x', '--allow-host', 'nqn.2014-08.a:x'], 2, /--allow-host and --config/],
    ['an address', ['ram:1M', '--listen', '1.2.3'], 2, /not an address/],
    ['a host name', ['ram:1M', '--listen', 'no-such-host.invalid'], 1, /look up no-such-host\.invalid/],
    ['a scope', ['ram:1M', '--listen', '[fe80::1%none]:0'], 1, /ENODEV/],
    ['the discovery service', ['ram:1M', '--nqn', 'nqn.2014-08.org.nvmexpress.discovery'], 2, /discovery service/],
    ['a host', ['ram:1M', '--allow-host', '*'], 2, /not an NQN: "\*"/],
    ['a serial number', ['ram:1M', '--serial', 'S'.repeat(21)], 2, /serial number: 21 characters/],
    ['a model', ['ram:1M', '--model', 'a\tb'], 2, /model: only printable ASCII/],
    ['controller IDs', ['ram:1M', '--cntlid-range', '5-1'], 2, /not a range of controller IDs/],
    ['an NQN', ['ram:1M', '--nqn', 'x'.repeat(224)], 2, /not an NQN/],
    ['an NSID used twice', ['ram:1M,nsid=2', 'ram:1M,nsid=2'], 1, /has a namespace 2 already/],
    ['a size', ['ram:1X'], 2, /not a size/],
    ['an empty source', ['ram:0'], 1, /./],
  ])('refuses %s', (_what, args, status, message) => {
    const done = vioctl(['nvmf', 'serve', ...args, ...(args.includes('--listen') ? [] : ['--listen', ':0'])]);
    expect(done).toMatchObject({ status, stdout: '' });
    expect(done.stderr).toMatch(message);
  });

  test('a configuration file: subsystems, allowed hosts, identifiers, referrals; wrong keys are named', async () => {
    const config = path.join(dir, 'config.json');
    image('a.img', 1 << 20);
    const nguid = '00112233445566778899aabbccddeeff';
    const good = {
      listen: ['127.0.0.1:0', '[::1]:0'],
      control: path.join(dir, 'ctl'),
      referrals: [{ address: '192.0.2.1', port: 8009 }],
      subsystems: [
        { nqn: 'nqn.2014-08.org.nvmexpress:one', serial: 'S1', namespaces: [{ source: 'a.img', nguid, readOnly: true }] },
        { nqn: 'nqn.2014-08.org.nvmexpress:two', allowHosts: ['nqn.2014-08.org.nvmexpress:other'], namespaces: [{ source: 'ram:1M' }] },
      ],
    };
    fs.writeFileSync(config, JSON.stringify(good));
    const target = await serveTarget(['--config', config, '--listen', '127.0.0.1:0']);
    expect(target.namespaces[0]).toMatchObject({ nguid, source: path.join(dir, 'a.img'), readOnly: true });
    const discovered = vioctl(['nvmf', 'discover', '-s', String(target.port), '-q', hostnqn, '--json']);
    const { records } = JSON.parse(discovered.stdout) as { records: { subnqn: string; subtype: string; traddr: string }[] };
    expect(records.map((r) => [r.subtype, r.subnqn, r.traddr])).toEqual([
      ['current discovery subsystem', 'nqn.2014-08.org.nvmexpress.discovery', '127.0.0.1'],
      ['nvme subsystem', 'nqn.2014-08.org.nvmexpress:one', '127.0.0.1'],
      ['discovery subsystem referral', 'nqn.2014-08.org.nvmexpress.discovery', '192.0.2.1'],
    ]);
    const refused = vioctl(['nvmf', 'identify', '-s', String(target.port), '-n', 'nqn.2014-08.org.nvmexpress:two', '-q', hostnqn]);
    expect(refused.status).not.toBe(0);
    expect(refused.stderr).toMatch(/Invalid Host/);
    expect(await target.stop()).toBe(0);
    expect(fs.existsSync(path.join(dir, 'ctl'))).toBe(false);

    for (const [change, message] of [
      [
        { subsystems: [{ nqn: 'nqn.2014-08.a:x', namespaces: [{ source: 'ram:1M', blocksize: 512 }] }] },
        /subsystems\[0\]\.namespaces\[0\]\.blocksize: is not known/,
      ],
      [{ subsystems: 7 }, /subsystems: must be a list/],
      [{}, /"subsystems" is missing/],
    ] as const) {
      fs.writeFileSync(config, JSON.stringify(change));
      const done = vioctl(['nvmf', 'serve', '--config', config, '--listen', ':0']);
      expect(done.status).toBe(2);
      expect(done.stderr).toMatch(message);
    }
  });
});

test('--config: standard input, a file that is not there, and force for one namespace', async () => {
  const config = (namespace: object) =>
    JSON.stringify({ listen: ['127.0.0.1:0'], subsystems: [{ nqn: 'nqn.2014-08.a:x', namespaces: [namespace] }] });
  const started = vioctl(['nvmf', 'serve', '--config', '-', '--listen', 'nowhere.invalid:1'], { input: config({ source: 'ram:1M' }) });
  expect(started).toMatchObject({ status: 1, stderr: expect.stringContaining('nowhere.invalid') }); // read, and all else was right
  const wrong = vioctl(['nvmf', 'serve', '--config', '-'], { input: config({ source: 'ram:1M', colour: 1 }) });
  expect(wrong).toMatchObject({ status: 2, stderr: expect.stringContaining('stdin.subsystems[0].namespaces[0].colour: is not known') });
  expect(vioctl(['nvmf', 'serve', '--config', path.join(dir, 'none')])).toMatchObject({
    status: 1,
    stderr: expect.stringContaining('ENOENT'),
  });
  const image = path.join(dir, 'image.qcow2');
  fs.writeFileSync(image, Buffer.concat([Buffer.from('QFI\xfb\0\0\0\x03', 'latin1'), Buffer.alloc(1 << 20)]));
  const file = path.join(dir, 'force.json');
  fs.writeFileSync(file, config({ source: image }));
  expect(vioctl(['nvmf', 'serve', '--config', file]).status).not.toBe(0);
  fs.writeFileSync(file, config({ source: image, force: true }));
  const target = await serveTarget(['--config', file]);
  expect(await target.stop()).toBe(0);
});

describe('nvmf ctl', () => {
  test('list, add, resize, ana, kick, remove, stats; a host that is connected sees it all', async () => {
    const socket = path.join(dir, 'ctl');
    const target = await serveTarget([image('a.img', 1 << 20), '--control', socket]);
    const ctl = (...args: string[]) => vioctl(['nvmf', 'ctl', socket, ...args, '--json']);
    const answer = <T>(...args: string[]): T => {
      const done = ctl(...args);
      expect(done.stderr).toBe('');
      return JSON.parse(done.stdout) as T;
    };
    expect(fs.statSync(socket).mode & 0o777).toBe(0o600);
    const host = await connectHost(target, { ioQueues: 1 });
    await host.setFeature(0x0b, 0x900);
    let event = host.nextEvent();
    const extra = image('extra.img', 1 << 20);
    expect(answer<{ namespaces: unknown[] }>('add', `${extra},bs=4096`).namespaces).toHaveLength(2);
    expect(await event).toBe(0x40002);
    expect(await host.namespaces()).toEqual([1, 2]);
    expect((await host.getLog(4, 4096)).subarray(0, 8)).toEqual(Buffer.from([2, 0, 0, 0, 0, 0, 0, 0]));
    expect((await host.namespace(2)).blockSize).toBe(4096);

    event = host.nextEvent();
    fs.truncateSync(extra, 4 << 20);
    answer('resize', '2'); // at once; it may have been noticed by itself already
    expect(answer('resize', '2')).toMatchObject({ changed: false });
    expect(await event).toBe(0x40002);
    expect((await host.namespace(2)).blocks).toBe(1024n);
    await host.getLog(4, 4096);

    // told by nobody: it is noticed within a second or so
    for (const size of [8 << 20, 2 << 20]) {
      event = host.nextEvent();
      fs.truncateSync(extra, size);
      expect(await event).toBe(0x40002);
      expect((await host.namespace(2)).blocks).toBe(BigInt(size / 4096));
      await host.getLog(4, 4096);
    }

    event = host.nextEvent();
    answer('ana', '1', 'inaccessible');
    expect(await event).toBe(0xc0302);
    const read = () =>
      host.queues[0]!.send(rwCmd.encode({ slba: 0n, nlb: 0 }, sqe.encode({ opcode: NvmOpcode.read, nsid: 1 })), {
        into: Buffer.alloc(512),
      });
    expect((await read()).status).toMatchObject({ sct: 3, sc: 2, dnr: false });
    answer('ana', '1', 'optimized');
    expect((await read()).status.sc).toBe(0);

    answer('remove', '2');
    expect(await host.namespaces()).toEqual([1]);
    const stats = answer<{ controllers: { reads: number; hostnqn: string }[] }>('stats');
    expect(stats.controllers).toEqual([expect.objectContaining({ hostnqn, queues: 1, reads: 1 })]);
    expect(answer('kick', '--host', hostnqn, '--dry-run')).toMatchObject({ ended: 0, would: [expect.stringContaining(hostnqn)] });
    expect(answer('kick', '--host', hostnqn)).toEqual({ changed: true, ended: 1 });
    expect(answer<{ controllers: unknown[] }>('list').controllers).toEqual([]);
    expect(vioctl(['nvmf', 'ctl', socket, 'list']).stdout).toContain(target.nqn);

    // repeating a completed change succeeds, and says so
    expect(answer('remove', '9')).toMatchObject({ changed: false });
    expect(answer('remove', '--nqn', 'nqn.2014-08.org.example:none')).toMatchObject({ changed: false });
    expect(answer('add', path.join(dir, 'a.img'))).toMatchObject({ changed: false });
    expect(answer('ana', '1', 'optimized')).toMatchObject({ changed: false });
    expect(answer('kick', '--cntlid', '99')).toMatchObject({ changed: false, ended: 0 });
    expect(vioctl(['nvmf', 'ctl', socket, 'remove', '9']).stdout).toBe('nothing to do: already done\n');
    // a dry run makes all checks, tells, and changes nothing
    const before = ctl('list').stdout;
    const would = (...args: string[]) => answer<{ would: string[]; changed: boolean; dryRun: boolean }>(...args, '--dry-run');
    expect(would('add', 'ram:1M').would).toEqual([`add ram:1048576 as namespace 2 of ${target.nqn}`]);
    const fresh = 'nqn.2014-08.org.example:new';
    expect(would('add', 'ram:1M', '--nqn', fresh).would).toEqual([`add subsystem ${fresh} with ram:1048576`]);
    for (const wrong of [
      ['ram:1M', '--nqn', 'x'],
      ['--allow-host', 'iqn.2014-08.a:x', '--nqn', fresh],
    ])
      expect(ctl('add', ...wrong).status).toBe(2);
    // an open subsystem has no list: one more host would lock out all others
    expect(ctl('add', '--allow-host', 'nqn.2014-08.org.example:h')).toMatchObject({ status: 3, stdout: '' });
    expect(would('remove', '1')).toMatchObject({ changed: false, dryRun: true, would: [expect.stringContaining('remove namespace 1')] });
    expect(would('remove', '--nqn', target.nqn).would).toEqual([`remove subsystem ${target.nqn}`]);
    expect(would('ana', '1', 'change').would).toHaveLength(1);
    expect(would('remove', '9').would).toEqual([]);
    expect(vioctl(['nvmf', 'ctl', socket, 'ana', '1', 'change', '--dry-run']).stdout).toBe(
      `would make ANA group 1 of ${target.nqn} change\n`,
    );
    expect(ctl('add', '/no/such.img', '--dry-run')).toMatchObject({ status: 1, stdout: '' });
    expect(ctl('ana', '77', 'change', '--dry-run').status).toBe(2);
    expect(ctl('list').stdout).toBe(before);
    expect(ctl('resize', '9')).toMatchObject({ status: 1, stdout: '' });
    expect(ctl('ana', '1', 'sideways').status).toBe(2);
    expect(ctl('resize').status).toBe(2);
    expect(ctl('kick').status).toBe(2);
    host.close();
    expect(await target.stop()).toBe(0);
    const gone = ctl('list');
    expect(gone).toMatchObject({ status: 1, stdout: '' });
    expect(JSON.parse(gone.stderr).error.hint).toContain('--control');
  });

  test('add --allow-host adds: who was allowed stays, and stays connected', async () => {
    const socket = path.join(dir, 'ctl');
    const host = (name: string) => `nqn.2014-08.org.example:${name}`;
    const target = await serveTarget(['ram:1M', '--control', socket, '--allow-host', host('a'), '--allow-host', hostnqn]);
    const add = (...args: string[]) => vioctl(['nvmf', 'ctl', socket, 'add', '--json', ...args]);
    const allowed = () =>
      (JSON.parse(vioctl(['nvmf', 'ctl', socket, 'list', '--json']).stdout) as { subsystems: { allowHosts: string[] }[] }).subsystems.map(
        (s) => s.allowHosts,
      );
    const connected = await connectHost(target, { ioQueues: 1 });
    expect(JSON.parse(add('--allow-host', host('b'), '--dry-run').stdout).would).toEqual([`let ${host('b')} use ${target.nqn}`]);
    expect(allowed()).toEqual([[host('a'), hostnqn]]);
    expect(JSON.parse(add('--allow-host', host('b'), '--allow-host', host('a'), '--allow-host', host('b')).stdout).changed).toBe(true);
    expect(JSON.parse(add('--allow-host', host('a')).stdout).changed).toBe(false);
    expect(JSON.parse(add('ram:1M', '--allow-host', host('c')).stdout).namespaces).toHaveLength(2);
    expect(allowed()).toEqual([[host('a'), hostnqn, host('b'), host('c')]]);
    await connected.keepAlive();
    connected.close();
    for (const [name, may] of [
      ['a', true],
      ['b', true],
      ['c', true],
      ['d', false],
    ] as const) {
      const tried = await connectHost(target, { hostnqn: host(name) }).then(
        (c) => c.close(),
        (err: Error) => err.message,
      );
      expect([name, tried === undefined]).toEqual([name, may]);
    }
    // a new subsystem begins with the list that it is given
    const fresh = 'nqn.2014-08.org.example:fresh';
    expect(add('ram:1M', '--nqn', fresh, '--allow-host', host('z')).status).toBe(0);
    expect(allowed()[1]).toEqual([host('z')]);
    expect(await target.stop()).toBe(0);
  });

  test('limits: of the command line, changed at run time, shown by list', async () => {
    const socket = path.join(dir, 'ctl');
    const target = await serveTarget([`${image('a.img', 1 << 20)},iops=1/4/2`, 'ram:1M', '--control', socket]);
    const ctl = (...args: string[]) => vioctl(['nvmf', 'ctl', socket, ...args]);
    expect(ctl('list').stdout).toMatch(/a\.img iops=1\/4\/2\n/);
    const limits = (...args: string[]) => JSON.parse(ctl('limits', ...args, '--json').stdout);
    const host = await connectHost(target, { ioQueues: 1 });
    const read = (nsid: number) =>
      host.queues[0]!.send(rwCmd.encode({ slba: 0n, nlb: 0 }, sqe.encode({ opcode: NvmOpcode.read, nsid })), { into: Buffer.alloc(512) });
    // room for 8 and the one that makes the bucket over-full; more than a few of 40 wait
    let left = 40;
    const reads = Array.from({ length: left }, () => read(1).finally(() => left--));
    expect((await read(2)).status.sc).toBe(0);
    expect(left).toBeGreaterThan(10);
    const list = JSON.parse(ctl('list', '--json').stdout).subsystems[0].namespaces;
    expect(list[0].limits).toMatchObject({ iops: { average: 1, burst: 4, seconds: 2 }, delayed: expect.any(Number) });
    expect(list[0].limits.waiting).toBeGreaterThan(10);
    expect(list[1].limits).toBeUndefined();
    expect(limits('1', 'iops=1/4/2')).toMatchObject({ changed: false });
    expect(limits('1', 'iops=none', 'bps=100M', '--dry-run').would).toEqual([
      'limit namespace 1 to iops=none (was 1/4/2)',
      'limit namespace 1 to bps=100M (was none)',
    ]);
    expect(limits('1', 'iops=none', 'bps=100M')).toMatchObject({ changed: true });
    for (const { status } of await Promise.all(reads)) expect(status.sc).toBe(0);
    expect(ctl('list').stdout).toMatch(/a\.img bps=100M\n/);
    for (const wrong of [['1'], ['1', 'iops=0'], ['1', 'size=5'], ['x', 'iops=5'], ['1', 'bps=1M', 'bps=2M']])
      expect(ctl('limits', ...wrong).status).toBe(2);
    expect(ctl('limits', '7', 'iops=5').status).toBe(1);
    host.close();
    expect(await target.stop()).toBe(0);
  });

  test('add: a source that is served with other options is refused, and the hint says how to change it', async () => {
    const socket = path.join(dir, 'ctl');
    const uuid = '6ba7b810-9dad-11d1-80b4-00c04fd430c8';
    const [plain, full, reader] = ['plain', 'full', 'reader'].map((name) => image(name, 1 << 20)) as [string, string, string];
    const options = `nsid=5,group=2,bs=4096,iops=100/200,bps=1M,zero=unmap,shared=on,uuid=${uuid}`;
    const target = await serveTarget([plain, `${full},${options}`, `${reader},ro`, 'ram:1M,nsid=9', '--control', socket]);
    const add = (source: string) => vioctl(['nvmf', 'ctl', socket, 'add', source]);
    const before = vioctl(['nvmf', 'ctl', socket, 'list']).stdout;
    const done = expect.objectContaining({ status: 0, stdout: 'nothing to do: already done\n' });
    for (const same of [plain, `${plain},nsid=1,ro=off,bs=512,direct=off,iops=none`, full, `${full},${options}`, `${full},format=raw`])
      expect([same, add(same)]).toEqual([same, done]);
    expect(add('ram:1M,nsid=9')).toEqual(done);
    const limits = [
      [`${plain},iops=5`, 'limits 1 iops=5'],
      [`${plain},iops=none,bps=2M/4M`, 'limits 1 iops=none bps=2M/4M'],
      [`${full},iops=100/300`, 'limits 5 iops=100/300'],
      [`${full},iops=none`, 'limits 5 iops=none'],
      [`${reader},ro,iops=5`, 'limits 2 iops=5'],
    ];
    const others = [
      `uuid=${uuid}`,
      'nguid=00112233445566778899aabbccddeeff',
      'direct=on',
      'zero=off',
      'bs=4096',
      'group=2',
      'nsid=7',
      'ro',
    ];
    const refused = [...limits, ...others.map((option) => [`${plain},${option}`, 'remove 1, then add it'])];
    refused.push([`${full},shared=off`, 'remove 5, then add it'], [`${full},iops=5,zero=off`, 'remove 5, then add it']);
    for (const [source, hint] of refused) {
      const { status, stdout, stderr } = add(source!);
      expect([source, status, stdout]).toEqual([source, 3, '']);
      expect(stderr).toContain(`hint: namespace ${/\d/.exec(hint!)![0]} serves it`);
      expect(stderr).toContain(`vioctl nvmf ctl SOCK ${hint}\n`);
    }
    expect(add(`${plain},iops=5`).stderr).toContain('plain: already in use by this process\n');
    // a number that is taken: another refusal, the same way out
    expect(add('ram:1M,nsid=9,iops=5')).toMatchObject({ status: 1, stderr: expect.stringContaining('limits 9 iops=5') });
    expect(vioctl(['nvmf', 'ctl', socket, 'list']).stdout).toBe(before);
    // and when the last subsystem has gone, nobody speaks of several
    expect(vioctl(['nvmf', 'ctl', socket, 'remove', '--nqn', target.nqn]).status).toBe(0);
    expect(add('ram:1M')).toMatchObject({
      status: 1,
      stderr: expect.stringMatching(/: there is no subsystem\nhint: .* add FILE --nqn NQN/),
    });
    expect(await target.stop()).toBe(0);
  });

  test('a stale control socket is replaced, a live one is not', async () => {
    const socket = path.join(dir, 'ctl');
    const first = await serveTarget(['ram:1M', '--control', socket]);
    const second = vioctl(['nvmf', 'serve', 'ram:1M', '--listen', ':0', '--control', socket]);
    expect(second.status).toBe(1);
    expect(second.stderr).toContain('EADDRINUSE');
    expect(await first.stop('SIGKILL')).toBe('SIGKILL');
    expect(fs.existsSync(socket)).toBe(true);
    const third = await serveTarget(['ram:1M', '--control', socket]);
    expect(vioctl(['nvmf', 'ctl', socket, 'list']).status).toBe(0);
    expect(await third.stop()).toBe(0);
  });
});

test('controller IDs of a range only; one that has become free is used again', async () => {
  const target = await serveTarget(['ram:1M', '--cntlid-range', '100-101']);
  const [a, b] = [await connectHost(target), await connectHost(target)];
  expect([a.cntlid, b.cntlid]).toEqual([100, 101]);
  await expect(connectHost(target)).rejects.toThrow(/Connect Controller Busy/);
  await a.disconnect();
  const again = await connectHost(target);
  expect(again.cntlid).toBe(100);
  for (const host of [again, b]) await host.disconnect();
  expect(await target.stop()).toBe(0);
});

test('thousands of namespaces', async () => {
  const target = await serveTarget([...new Array<string>(2999).fill('ram:4K'), 'ram:4K,nsid=16384']);
  const host = await connectHost(target, { ioQueues: 1 });
  const nsids = await host.namespaces();
  expect([nsids.length, nsids[2998], nsids[2999]]).toEqual([3000, 2999, 16384]);
  expect((await host.namespace(16384)).blocks).toBe(8n);
  host.close();
  expect(await target.stop()).toBe(0);
});

test('events that are known are kept, others refused; permanent errors say so; the error log names no transport', async () => {
  const target = await serveTarget(['ram:1M']);
  const host = await connectHost(target, { ioQueues: 1 });
  const status = async (done: Promise<unknown>) => done.then(() => 'kept').catch((err: Error) => err.message);
  for (const events of [0, 0x1f, 0x3f, 0x900, 0x93f])
    expect([events, await status(host.setFeature(0x0b, events))]).toEqual([events, 'kept']);
  for (const events of [0x40, 0x80, 1 << 9, 1 << 16, 1 << 22, 0x8000_0000 | 0])
    expect(await status(host.setFeature(0x0b, events >>> 0))).toMatch(/Invalid Field in Command \(02h, DNR\)/);
  const property = (ofst: number) => {
    const command = sqe.encode({ opcode: 0x7f, fctype: Fctype.propertyGet, cdw11: ofst });
    return host.admin.send(command);
  };
  for (const ofst of [0x0c, 0x20, 0x24, 0x30, 0x38, 0x3c, 0x40, 0x1234])
    expect((await property(ofst)).status).toMatchObject({ sct: 0, sc: 2, dnr: true });
  const command = rwCmd.encode({ slba: 1n << 40n, nlb: 0 }, sqe.encode({ opcode: NvmOpcode.read, nsid: 1 }));
  expect((await host.queues[0]!.send(command, { into: Buffer.alloc(512) })).status).toMatchObject({ sc: 0x80, dnr: true });
  const entry = errorEntry.decode(await host.getLog(1, 64));
  expect(entry).toMatchObject({ lba: 1n << 40n, nsid: 1, trtype: 0 });
  host.close();
  expect(await target.stop()).toBe(0);
});

test('a name is listened on with all its addresses and one port', async () => {
  const target = await serveTarget(['ram:1M', '--listen', 'localhost:0']);
  const { listen } = target.document as { listen: { address: string; port: number }[] };
  expect(listen[0]!.address).toBe('127.0.0.1');
  expect(new Set(listen.map((at) => at.port)).size).toBe(1);
  for (const { address, port } of listen)
    expect(vioctl(['nvmf', 'ping', '-a', address, '-s', String(port), '-n', target.nqn, '--count', '1']).status).toBe(0);
  expect(await target.stop()).toBe(0);
});

test('hosts as SPDK has them: a keep-alive time in every CONNECT, no name unless the target has a list', async () => {
  const open = await serveTarget(['ram:1M']);
  const closed = await serveTarget(['ram:1M', '--allow-host', hostnqn]);
  /** Connects a queue; gives the connection and its status and result. */
  const connect = async (target: typeof open, options: Parameters<typeof connectCapsule>[1]) => {
    const peer = await Peer.open(target.port);
    peer.socket.write(Buffer.concat([icRequest(), connectCapsule(target.nqn, { kato: 10_000, ...options })]));
    await peer.pdu();
    const cqe = (await peer.pdu())!;
    return { peer, status: cqe.readUInt16LE(22) >> 1, cntlid: cqe.readUInt16LE(8) };
  };
  for (const [target, host, status] of [
    [open, '', 0],
    [open, hostnqn, 0],
    [closed, hostnqn, 0],
    [closed, '', 0x4184],
  ] as const) {
    const admin = await connect(target, { host });
    expect([host, admin.status]).toEqual([host, status]);
    if (status === 0) {
      admin.peer.socket.write(enableCapsule());
      await admin.peer.pdu();
      const io = await connect(target, { host, qid: 1, cntlid: admin.cntlid });
      expect([host, io.status]).toEqual([host, 0]);
      io.peer.close();
    }
    admin.peer.close();
  }
  expect(await open.stop()).toBe(0);
  expect(await closed.stop()).toBe(0);
});

describe('discovery on a port of its own', () => {
  const discover = (address: string, port: number) =>
    vioctl(['nvmf', 'discover', '-a', address, '-s', String(port), '-q', hostnqn, '--json']);
  const records = (text: string) =>
    (JSON.parse(text) as { records: { subtype: string; traddr: string; trsvcid: string; subnqn: string }[] }).records.map((r) => [
      r.subtype,
      `${r.traddr}:${r.trsvcid}`,
    ]);

  test('8009 by itself on the address that is served; it lists the port of the subsystem and connects to none', async () => {
    // an address of its own, so that no other test has the port
    const target = await serveTarget(['ram:1M', '--listen', '127.8.0.9:4420']);
    expect(target.document).toMatchObject({
      listen: [{ address: '127.8.0.9', port: 4420 }],
      discovery: [{ address: '127.8.0.9', port: 8009 }],
    });
    const expected = [
      ['current discovery subsystem', '127.8.0.9:4420'],
      ['nvme subsystem', '127.8.0.9:4420'],
      ['current discovery subsystem', '127.8.0.9:8009'],
    ];
    for (const port of [8009, 4420]) expect(records(discover('127.8.0.9', port).stdout)).toEqual(expected);
    const host = (port: number) => vioctl(['nvmf', 'identify', '-a', '127.8.0.9', '-s', String(port), '-n', target.nqn, '--json']);
    expect(host(4420).status).toBe(0);
    expect(host(8009)).toMatchObject({ status: 1, stdout: '' });
    // a second target on the address: its own port is free, 8009 is not, and that is said
    const second = await serveTarget(['ram:1M', '--listen', '127.8.0.9:4421']);
    expect(second.document).not.toHaveProperty('discovery');
    expect(second.messages()).toMatch(/no discovery on its own port: listen on 127\.8\.0\.9 port 8009: EADDRINUSE/);
    const third = vioctl(['nvmf', 'serve', 'ram:1M', '--listen', '127.8.0.9:4422', '--discovery-port', '8009']);
    expect(third).toMatchObject({ status: 1, stdout: '', stderr: expect.stringContaining('EADDRINUSE') });
    expect(await second.stop()).toBe(0);
    expect(await target.stop()).toBe(0);
  });

  test('a free port, no port, and wrong ones', async () => {
    const free = await serveTarget(['ram:1M', '--listen', '127.0.0.1:0', '--listen', '[::1]:0', '--discovery-port', '0']);
    const { discovery } = free.document as { discovery: { address: string; port: number }[] };
    expect(discovery.map((at) => at.address)).toEqual(['127.0.0.1', '::1']);
    for (const { address, port } of discovery) expect(records(discover(address, port).stdout)).toHaveLength(6);
    expect(await free.stop()).toBe(0);
    const none = await serveTarget(['ram:1M', '--listen', '127.8.0.10:4420', '--discovery-port', 'none']);
    expect(none.document).not.toHaveProperty('discovery');
    expect(discover('127.8.0.10', 8009)).toMatchObject({ status: 1, stderr: expect.stringContaining('ECONNREFUSED') });
    expect(await none.stop()).toBe(0);
    for (const port of ['70000', 'x', '-1', ''])
      expect(vioctl(['nvmf', 'serve', 'ram:1M', '--listen', ':0', `--discovery-port=${port}`])).toMatchObject({
        status: 2,
        stderr: expect.stringContaining('not a port'),
      });
  });
});

test('kill -9 in the middle of writes: what was acknowledged after FUA or Flush is in the file', async () => {
  const file = image('disk.img', 8 << 20);
  /** Block to the last number written there that was acknowledged as durable, and the last that was sent at all. */
  const durable = new Map<number, number>();
  const sent = new Map<number, Set<number>>();
  let counter = 0;
  for (let round = 0; round < effort(8, 20); round++) {
    const target = await serveTarget([file, '--quiet']);
    const host = await connectHost(target, { ioQueues: 2 });
    let going = true;
    const write = async (queue: number, fua: boolean, lane: number) => {
      // each lane has blocks of its own, so that the order of its writes is known
      while (going) {
        const at = lane * 64 + Math.floor(Math.random() * 64);
        const number = ++counter;
        if (!sent.has(at)) sent.set(at, new Set());
        sent.get(at)!.add(number);
        const data = Buffer.alloc(4096);
        for (let i = 0; i < 4096; i += 8) data.writeUInt32LE(number, i);
        const command = rwCmd.encode({ slba: BigInt(at * 8), nlb: 7, fua: fua ? 1 : 0 }, sqe.encode({ opcode: NvmOpcode.write, nsid: 1 }));
        await host.queues[queue]!.run(command, { out: data });
        if (!fua) await host.queues[queue]!.run(sqe.encode({ opcode: NvmOpcode.flush, nsid: 1 }));
        durable.set(at, number);
      }
    };
    const lanes = Array.from({ length: 8 }, (_, lane) => write(lane % 2, lane < 4, lane).catch(() => {}));
    await new Promise((resolve) => setTimeout(resolve, 30 + Math.random() * 120));
    await target.stop('SIGKILL');
    going = false;
    host.close();
    await Promise.all(lanes);
    const bytes = fs.readFileSync(file);
    for (const [at, number] of durable) {
      const found = bytes.readUInt32LE(at * 4096);
      // a later write that was not acknowledged may be there instead
      if (found !== number && !(found > number && sent.get(at)!.has(found)))
        throw new Error(`round ${round}: block ${at} has ${found}, not ${number}`);
    }
  }
  expect(durable.size).toBeGreaterThan(100);
});

test('the ready line waits for nobody and survives a closed stderr', async () => {
  const child = spawn(process.execPath, [program, 'nvmf', 'serve', 'ram:1M', '--listen', ':0'], {
    env: plainEnv(),
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  const [line] = (await once(child.stdout!, 'data')) as [Buffer];
  expect(line.toString()).toMatch(/^serving nqn\.\S+ \(1: ram:1048576 1M\) on 127\.0\.0\.1:\d+\n$/);
  child.kill('SIGTERM');
  expect(await once(child, 'exit')).toEqual([0, null]);
});
