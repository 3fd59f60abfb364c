/** The configuration of a running `nvmf serve`: saved, loaded, read again on SIGHUP, while hosts write. */
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { Namespace } from '../../src/nvme/host/index.js';
import { vioctl } from '../support/cli.js';
import { hostnqn } from '../support/nvme-raw.js';
import { connectHost, nvmf, type ServedTarget, serveTarget } from '../support/nvme-target.js';

let dir: string;
const samples = path.resolve(__dirname, '../../docs/samples/nvmf');
beforeEach(() => {
  dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-config-'));
  for (const name of ['disk.img', 'other.img', 'third.img']) fs.writeFileSync(path.join(dir, name), Buffer.alloc(1 << 20));
});
afterEach(() => fs.rmSync(dir, { recursive: true, force: true }));

const write = (name: string, file: unknown): string => {
  const full = path.join(dir, name);
  fs.writeFileSync(full, typeof file === 'string' ? file : JSON.stringify(file));
  return full;
};
const nqn = 'nqn.2014-08.org.example:config';
const base = {
  listen: ['127.0.0.1:0'],
  subsystems: [{ nqn, namespaces: [{ nsid: 1, source: 'disk.img' }] }],
};
const ctl = (...args: string[]) => nvmf(['ctl', path.join(dir, 'c.sock'), ...args]);
const serve = (file: string) => serveTarget(['--config', file, '--control', path.join(dir, 'c.sock')]);
const saved = async () => JSON.parse((await ctl('save')).stdout.toString()) as Record<string, unknown>;
const until = async (target: ServedTarget, text: string) => {
  while (!target.messages().includes(text)) await new Promise((resolve) => setTimeout(resolve, 20));
};

test('every sample of vioctl-nvmf(5) is served', async () => {
  for (const name of fs.readdirSync(samples)) {
    // free ports, so that tests can run side by side
    const text = fs.readFileSync(path.join(samples, name), 'utf8').replaceAll(':4420', ':0');
    const target = await serveTarget(['--config', write(name, text), '--control', path.join(dir, 's.sock')]);
    expect({ name, count: target.namespaces.length > 0 }).toEqual({ name, count: true });
    expect(await target.stop()).toBe(0);
  }
});

test('save writes what --config and load read, and load of it changes nothing', async () => {
  const file = write('c.json', {
    ...base,
    maxControllers: 99,
    subsystems: [
      {
        ...base.subsystems[0],
        allowHosts: ['nqn.2014-08.org.example:h'],
        ana: [{ group: 2, state: 'inaccessible' }],
        namespaces: [
          { source: 'disk.img', iops: '100/200/3', uuid: '6ba7b810-9dad-11d1-80b4-00c04fd430c8' },
          { source: 'ram:1M', blockSize: 4096 },
        ],
      },
    ],
  });
  const target = await serve(file);
  try {
    await ctl('host', 'add', 'nqn.2014-08.org.example:h2');
    const first = await saved();
    expect(first).toEqual({
      listen: ['127.0.0.1:0'],
      control: path.join(dir, 'c.sock'),
      maxControllers: 99,
      subsystems: [
        {
          nqn,
          allowHosts: ['nqn.2014-08.org.example:h', 'nqn.2014-08.org.example:h2'],
          ana: [{ group: 2, state: 'inaccessible' }],
          namespaces: [
            { nsid: 1, source: path.join(dir, 'disk.img'), iops: '100/200/3', uuid: '6ba7b810-9dad-11d1-80b4-00c04fd430c8' },
            { nsid: 2, source: 'ram:1048576', blockSize: 4096 },
          ],
        },
      ],
    });
    const again = write('saved.json', first);
    expect(await ctl('load', again, '--check')).toMatchObject({ status: 0, stdout: Buffer.from('nothing differs\n') });
    expect(JSON.parse((await ctl('load', again, '--json')).stdout.toString())).toEqual({ changed: false, changes: [] });
    expect(await saved()).toEqual(first);
    const checked = await ctl('load', file, '--check');
    expect(checked.status).toBe(4);
    expect(checked.stdout.toString()).toBe(`would no longer let nqn.2014-08.org.example:h2 use ${nqn}\n`);
    expect(await saved()).toEqual(first);
    const fresh = await serveTarget(['--config', again, '--control', path.join(dir, 'd.sock'), '--force']).catch(
      (err: Error) => err.message,
    );
    expect(fresh).toContain('--force and --config exclude each other');
    await target.stop();
    const second = await serve(again);
    expect(await saved()).toEqual(first);
    await second.stop();
  } finally {
    await target.stop();
  }
});

test('the state of a listener on any free port is saved under port 0, and comes back with another port', async () => {
  const state = async (target: ServedTarget) => {
    const host = await connectHost(target, { hostnqn });
    const log = await host.getLog(0x0c, 4096);
    await host.disconnect();
    return log.readUInt8(16 + 16) & 0xf;
  };
  const file = write('any.json', base);
  const first = await serve(file);
  expect(await state(first)).toBe(1);
  expect((await ctl('listener', 'ana', `127.0.0.1:${first.port}`, 'inaccessible', '--group', '1')).status).toBe(0);
  expect(await state(first)).toBe(3);
  const kept = write('kept.json', await saved());
  expect(JSON.parse(fs.readFileSync(kept, 'utf8')).subsystems[0].ana).toEqual([
    { group: 1, state: 'inaccessible', listener: '127.0.0.1:0' },
  ]);
  expect((await ctl('load', kept, '--check')).status).toBe(0);
  // the port that it has now is a name too
  const byPort = JSON.parse(fs.readFileSync(kept, 'utf8'));
  byPort.subsystems[0].ana[0].listener = `127.0.0.1:${first.port}`;
  expect((await ctl('load', write('port.json', byPort), '--check')).status).toBe(0);
  byPort.subsystems[0].ana[0].listener = '127.0.0.2:0';
  expect(await ctl('load', write('port.json', byPort), '--check')).toMatchObject({
    status: 2,
    stderr: expect.stringContaining('nothing listens there'),
  });
  expect(await first.stop()).toBe(0);
  const second = await serve(kept);
  expect(await state(second)).toBe(3);
  expect(await second.stop()).toBe(0);
});

test('a wrong file changes nothing: status, key, and no source opened', async () => {
  const target = await serve(write('c.json', base));
  try {
    const before = await saved();
    const cases: [object | string, number, RegExp][] = [
      [{ ...base, colour: 1 }, 2, /wrong\.json\.colour: is not known/],
      ['{', 2, /not valid JSON/],
      [{ ...base, threads: 9 }, 3, /threads cannot change while the target runs/],
      [
        { ...base, subsystems: [...base.subsystems, { nqn: `${nqn}2`, namespaces: [{ source: 'other.img' }, { source: 'none.img' }] }] },
        1,
        /none\.img: ENOENT/,
      ],
      [
        { ...base, subsystems: [...base.subsystems, { nqn: `${nqn}2`, namespaces: [{ source: 'disk.img' }] }] },
        3,
        /disk\.img: already in use/,
      ],
    ];
    for (const [file, status, message] of cases) {
      const done = await ctl('load', write('wrong.json', file));
      expect({ status: done.status, error: done.stderr }).toEqual({ status, error: expect.stringMatching(message) });
      expect(await saved()).toEqual(before);
    }
    // other.img was opened for a moment: it is free again
    expect((await ctl('add', path.join(dir, 'other.img'))).status).toBe(0);
  } finally {
    await target.stop();
  }
});

test('sources limits what the control socket opens, symbolic links followed; SIGHUP may change the list', async () => {
  const inside = path.join(dir, 'images');
  fs.mkdirSync(inside);
  fs.writeFileSync(path.join(inside, 'a.img'), Buffer.alloc(65536));
  fs.symlinkSync(path.join(dir, 'other.img'), path.join(inside, 'b.img'));
  const file = write('c.json', { ...base, sources: [`${fs.realpathSync(inside)}/*.img`] });
  const target = await serve(file);
  try {
    expect((await ctl('add', path.join(inside, 'a.img'))).status).toBe(0);
    for (const other of [path.join(inside, 'b.img'), path.join(dir, 'other.img'), path.join(inside, '../third.img'), 'ram:1M'])
      expect(await ctl('add', other)).toMatchObject({ status: 3, stderr: expect.stringContaining('does not allow it') });
    const more = {
      ...base,
      sources: [`${fs.realpathSync(inside)}/*.img`],
      subsystems: [{ nqn, namespaces: [{ nsid: 1, source: 'disk.img' }, { source: 'ram:1M' }] }],
    };
    expect(await ctl('load', write('l.json', more))).toMatchObject({ status: 3, stderr: expect.stringContaining('does not allow it') });
    expect(await ctl('load', write('l.json', { ...more, sources: ['**'] }))).toMatchObject({ status: 3 });
    write('c.json', { ...more, sources: ['**'] });
    target.child.kill('SIGHUP');
    await until(target, 'again:');
    expect(await saved()).toMatchObject({ sources: ['**'] });
    expect((await ctl('add', path.join(dir, 'other.img'))).status).toBe(0);
  } finally {
    await target.stop();
  }
});

test('SIGHUP with a wrong file, or without a file, changes nothing and does not end the server', async () => {
  const file = write('c.json', base);
  const target = await serve(file);
  try {
    const before = await saved();
    for (const text of ['{', JSON.stringify({ ...base, colour: 1 })]) {
      fs.writeFileSync(file, text);
      const count = target.messages().split('is not in use').length;
      target.child.kill('SIGHUP');
      while (target.messages().split('is not in use').length === count) await new Promise((resolve) => setTimeout(resolve, 20));
    }
    expect(target.messages()).toMatch(/c\.json is not in use, the server goes on as before: .*not valid JSON/);
    expect(target.messages()).toMatch(/c\.json\.colour: is not known/);
    expect(await saved()).toEqual(before);
  } finally {
    expect(await target.stop()).toBe(0);
  }
});

test('hosts write and verify while configurations are loaded that change everything around them', async () => {
  const target = await serve(write('c.json', base));
  const host = await connectHost(target, { ioQueues: 1, queueSize: 32 });
  let stop = false;
  let rounds = 0;
  const namespace = new Namespace(host, await host.namespace(1));
  const work = (async () => {
    const back = Buffer.alloc(65536);
    while (!stop) {
      const out = Buffer.alloc(65536, (rounds++ % 251) + 1);
      await Promise.all([0n, 128n, 256n].map((slba) => namespace.write(slba, out)));
      await namespace.flush();
      for (const slba of [0n, 128n, 256n]) {
        await namespace.read(slba, back);
        if (!back.equals(out)) throw new Error(`round ${rounds}: block ${slba} differs`);
      }
    }
  })();
  let failure: unknown;
  work.catch((err) => {
    failure = err;
  });
  try {
    const variants = [
      { ...base, listen: ['127.0.0.1:0', '127.0.0.2:0'], referrals: [{ address: '192.0.2.1', port: 8009 }] },
      { ...base, subsystems: [...base.subsystems, { nqn: `${nqn}2`, namespaces: [{ source: 'other.img' }, { source: 'ram:1M' }] }] },
      {
        ...base,
        maxQueues: 8,
        subsystems: [
          {
            nqn,
            allowHosts: [hostnqn],
            ana: [{ group: 1, state: 'non-optimized' }],
            namespaces: [
              { nsid: 1, source: 'disk.img', bps: '1G' },
              { nsid: 7, source: 'third.img' },
            ],
          },
          { nqn: `${nqn}2`, serial: 'X', namespaces: [{ source: 'other.img', readOnly: true }] },
        ],
      },
      base,
    ];
    for (let round = 0; round < 3; round++)
      for (const variant of variants) {
        const done = await ctl('load', write('v.json', variant), '--json');
        expect({ status: done.status, stderr: done.stderr }).toEqual({ status: 0, stderr: '' });
        expect(JSON.parse(done.stdout.toString())).toMatchObject({ changed: true });
        const before = rounds;
        while (rounds < before + 2 && failure === undefined) await new Promise((resolve) => setTimeout(resolve, 5));
        expect(failure).toBeUndefined();
      }
  } finally {
    stop = true;
    await work.catch(() => {});
    await host.disconnect().catch(() => {});
    await target.stop();
  }
  expect(failure).toBeUndefined();
  expect(rounds).toBeGreaterThan(20);
  expect(target.messages()).not.toMatch(/controller 1 ends.*\n[\s\S]*uses/); // no reconnect
});

test("keys of nvmetcli's config.json let their host in, and no other; save names the file", async () => {
  const secret = 'DHHC-1:00:ia6zGodOr4SEG0Zzaw398rpY0wqipUWj4jWjUh4HWUz6aQ2n:';
  const addr = { adrfam: 'ipv4', traddr: '127.0.0.1', trsvcid: '0', treq: 'not specified', trtype: 'tcp' };
  const file = {
    hosts: [{ nqn: hostnqn, dhchap: { key: secret, hash: 'hmac(sha256)', dhgroup: 'null', ctrl_key: '' } }],
    ports: [{ addr, portid: 1, ana_groups: [{ ana: { state: 'optimized' }, grpid: 1 }], referrals: [], subsystems: [nqn] }],
    subsystems: [
      {
        ...{ nqn, allowed_hosts: [hostnqn], attr: { allow_any_host: '0', serial: 'KERNEL', cntlid_min: '1', cntlid_max: '65519' } },
        namespaces: [{ nsid: 1, enable: 1, device: { path: path.join(dir, 'disk.img'), uuid: '6ba7b810-9dad-11d1-80b4-00c04fd430c8' } }],
      },
    ],
  };
  const config = write('config.json', file);
  fs.chmodSync(config, 0o644);
  const refused = vioctl(['nvmf', 'serve', '--config', config]);
  expect(refused).toMatchObject({ status: 6, stderr: expect.stringContaining('its group or others have access') });
  fs.chmodSync(config, 0o600);
  const target = await serve(config);
  try {
    await expect(connectHost(target)).rejects.toThrow();
    const text = (await ctl('save')).stdout.toString();
    expect(text).not.toContain(secret.slice(12, 30));
    expect(JSON.parse(text)).toMatchObject({ keys: [{ host: hostnqn, dhchapSecretFile: `nvmet:key:${config}#${hostnqn}` }] });
    expect((await ctl('load', write('saved.json', text), '--check')).status).toBe(0);
    const key = write('key', secret);
    fs.chmodSync(key, 0o600);
    const args = ['-n', nqn, '-s', String(target.port), '-q', hostnqn];
    expect(await nvmf(['identify', ...args, '--dhchap-secret-file', key])).toMatchObject({ status: 0 });
  } finally {
    await target.stop();
  }
});

test('a file of keys is named by save, and its content is not', async () => {
  const secret = 'DHHC-1:00:ia6zGodOr4SEG0Zzaw398rpY0wqipUWj4jWjUh4HWUz6aQ2n:';
  const key = write('key', `${secret}\n`);
  fs.chmodSync(key, 0o600);
  const target = await serve(write('c.json', { ...base, keys: [{ dhchapSecretFile: 'key' }] }));
  try {
    const text = (await ctl('save')).stdout.toString();
    expect(JSON.parse(text)).toMatchObject({ keys: [{ dhchapSecretFile: key }] });
    expect(text).not.toContain(secret.slice(12, 30));
    expect(vioctl(['nvmf', 'ctl', path.join(dir, 'c.sock'), 'load', write('s.json', text), '--check']).status).toBe(0);
  } finally {
    await target.stop();
  }
});
