/**
 * What vfio-session.test.ts and dma.test.ts run inside a guest, bundled into one file: a series of cases on real devices.
 * Prints one JSON line per case: {"case", "ok", …}. The other modes are the programs that `vfio exec` and `dma attach` start.
 */
import { spawn, spawnSync } from 'node:child_process';
import fs from 'node:fs';
import { readAperture } from '../../src/dma/aperture.js';
import { plan } from '../../src/dma/layout.js';
import { lockLimit } from '../../src/dma/lock-limit.js';
import { Mapper } from '../../src/dma/mapper.js';
import { parseSpecs } from '../../src/dma/spec.js';
import { Census } from '../../src/vfio/census/census.js';
import { findDevice } from '../../src/vfio/devices/select.js';
import { eduRead, eduWrite } from '../../src/vfio/selftest/edu.js';
import { AdminQueue } from '../../src/vfio/selftest/nvme.js';
import { pagesFor } from '../../src/vfio/selftest/pages.js';
import { selftest } from '../../src/vfio/selftest/selftest.js';
import { type Api, openSession } from '../../src/vfio/session/open.js';
import { Session } from '../../src/vfio/session/session.js';
import {
  asNobody,
  EDU,
  failure,
  faultsDuring,
  NVME,
  pattern,
  type Result,
  ready,
  root,
  vfio,
  vioctl,
  withSession,
} from './session/harness.js';

const say = (name: string, result: Result): void =>
  void fs.writeSync(1, `${JSON.stringify({ case: name, ...result }, (_k, v) => (typeof v === 'bigint' ? `0x${v.toString(16)}` : v))}\n`);

/** Runs a case; what it throws is its result. */
async function run(name: string, work: () => Result | Promise<Result>): Promise<void> {
  const start = performance.now();
  try {
    const result = await work();
    say(name, { ...result, seconds: Math.round(performance.now() - start) / 1000 });
  } catch (err) {
    say(name, { thrown: err instanceof Error ? (err.stack ?? err.message) : String(err) });
  }
}

const SPECS = ['ring=64K', 'low=2M,below4g', 'tmp=16K,temp', 'big=8M', 'fixed=64K,iova=0x40000000'];

async function sessionCases(api: Api): Promise<void> {
  for (const bdf of [EDU, NVME]) {
    await run(`selftest ${bdf === EDU ? 'edu' : 'nvme'} ${api}`, () =>
      withSession(bdf, api, async (session) => ({ ...(await selftest(session, findDevice(root, bdf))) })),
    );
  }
  await run(`plan is map ${api}`, () =>
    withSession(EDU, api, (session, mapper) => {
      const planned = plan(readAperture(root, EDU, [0x1000n, 0x200000n, 0x40000000n]), parseSpecs(SPECS));
      const mapped = mapper.map(parseSpecs(SPECS)).map(({ name, iova, size, pageSize }) => ({ name, iova, size, pageSize }));
      const text = (value: unknown) => JSON.stringify(value, (_k, v) => (typeof v === 'bigint' ? String(v) : v));
      const result = {
        same: text(planned.maps) === text(mapped),
        ranges: text(planned.ranges) === text(session.aperture().ranges),
        last: planned.ranges.at(-1)!.end,
      };
      mapper.close();
      return result;
    }),
  );
  await run(`kernel errors ${api}`, () =>
    withSession(EDU, api, (session) => {
      const memory = vfio.newMemory('errors', 0x4000n, 0n, 0x1000n, 0n);
      const { va } = vfio.memoryInfo(memory);
      const map = (iova: bigint, size: bigint, address = va) => {
        const { error } = vfio.mapDma(session.handle, BigUint64Array.from([address, iova, size, 3n]));
        return error === undefined ? 'mapped' : (error as NodeJS.ErrnoException).code;
      };
      const result: Result = {
        window: map(0xfee00000n, 0x1000n),
        across: map(0xfedff000n, 0x2000n),
        aperture: map(1n << 48n, 0x1000n),
        unaligned: map(0x100000n, 0x1000n, va + 16n),
        size: map(0x100000n, 100n),
        first: map(0x100000n, 0x2000n),
        overlap: map(0x101000n, 0x1000n),
      };
      fs.ftruncateSync(vfio.memoryInfo(memory).fd, 0x3000); // the last page is gone
      result.hole = map(0x200000n, 0x4000n);
      result.withoutHole = map(0x200000n, 0x1000n, va + 0x2000n);
      vfio.closeMemory(memory);
      return result;
    }),
  );
  await run(`read-only ${api}`, () =>
    withSession(EDU, api, async (session, mapper) => {
      ready(session);
      const [ro, rw] = mapper.map(parseSpecs(['fw=8K,ro', 'buf=4K']));
      const data = pattern(4000, 13);
      vfio.writeMemory(ro!.memory, 0, data);
      await eduRead(session, ro!.iova, 4000);
      await eduWrite(session, rw!.iova, 4000);
      const copied = vfio.readMemory(rw!.memory, 0, Buffer.alloc(4000)).equals(data);
      vfio.writeMemory(ro!.memory, 0x1000, Buffer.alloc(64, 0x5a));
      const faults = await faultsDuring(() => eduWrite(session, ro!.iova + 0x1000n, 64));
      const kept = vfio.readMemory(ro!.memory, 0x1000, Buffer.alloc(64)).equals(Buffer.alloc(64, 0x5a));
      const named = faults[0] && mapper.nameOf(faults[0].address);
      return { copied, kept, fault: faults[0]?.write, named };
    }),
  );
  await run(`write after unmap ${api}`, () =>
    withSession(EDU, api, async (session, mapper) => {
      ready(session);
      const [gone] = mapper.map(parseSpecs(['gone=16K']));
      mapper.unmap('gone');
      const faults = await faultsDuring(() => eduWrite(session, gone!.iova + 0x2000n, 64));
      return {
        fault: faults[0]?.write,
        named: faults[0] && mapper.nameOf(faults[0].address),
        again: mapper.map(parseSpecs(['next=16K']))[0]!.iova === gone!.iova,
      };
    }),
  );
  await run(`reset ${api}`, () =>
    withSession(NVME, api, async (session) => {
      session.mapBar(0);
      session.busMaster(true);
      const pages = pagesFor(session);
      await AdminQueue.start(session, pages);
      const before = session.load(0, 0x1c, 4); // CSTS.RDY
      session.reset();
      const after = session.load(0, 0x1c, 4);
      pages.close();
      return { before, after, peers: session.resetPeers().map((peer) => peer.bdf) };
    }),
  );
  await run(`no reset ${api}`, () => withSession(EDU, api, (session) => failure(() => session.reset())));
  await run(`held ${api}`, () => withSession(EDU, api, () => failure(() => openSession(new Census(root), EDU, api))));
}

async function groupCases(): Promise<void> {
  await run('entry limit', () =>
    withSession(EDU, 'group', (session, mapper) => {
      const memory = vfio.newMemory('limit', 0x1000n, 0n, 0x1000n, 0n);
      const { va } = vfio.memoryInfo(memory);
      const available = session.available();
      const words = new BigUint64Array(4 * 65_536);
      for (let i = 0; i < 65_536; i++) words.set([va, 0x100000n + BigInt(i) * 0x1000n, 0x1000n, 3n], 4 * i);
      const { done, error } = vfio.mapDma(session.handle, words);
      const full = failure(() => mapper.map(parseSpecs(['one=4K,iova=0x7000000000'])));
      return { available, done, code: (error as NodeJS.ErrnoException | undefined)?.code, left: session.available(), full };
    }),
  );
  await run('4 GiB across the window', () =>
    withSession(EDU, 'group', async (session, mapper) => {
      ready(session);
      fs.writeFileSync('/dev/shm/part', '');
      fs.truncateSync('/dev/shm/part', 64 << 20);
      const maps = mapper.map(parseSpecs(Array.from({ length: 64 }, (_, i) => `part${i}=/dev/shm/part`)));
      const clear = maps.every(({ iova, size }) => iova + BigInt(size) <= 0xfee00000n || iova > 0xfeefffffn);
      const placed = [...maps].sort((a, b) => (a.iova < b.iova ? -1 : 1)); // addresses do not follow the order of names
      const [first, last] = [placed[0]!, placed.at(-1)!];
      const data = pattern(4000, 7);
      vfio.writeMemory(first.memory, 0, data);
      await eduRead(session, first.iova, 4000);
      await eduWrite(session, last.iova + 0x3ff0000n, 4000); // the same file: its end
      const moved = vfio.readMemory(first.memory, 0x3ff0000, Buffer.alloc(4000)).equals(data);
      const result = {
        clear,
        moved,
        bytes: mapper.locked,
        below: maps.filter((m) => m.iova < 0xfee00000n).length,
        first: first.iova,
        last: last.iova,
      };
      mapper.close();
      return result;
    }),
  );
}

/** The bridge's edu shares its group with the NIC, which stays on its host driver. */
async function notViable(): Promise<void> {
  await run('not viable', () => {
    spawnSync('modprobe', ['e1000']);
    const devices = fs.readdirSync('/sys/bus/pci/devices');
    const id = (bdf: string) => root.attr(`/sys/bus/pci/devices/${bdf}/device`);
    const edu = devices.find((bdf) => bdf !== EDU && id(bdf) === '0x11e8')!;
    root.write(`/sys/bus/pci/devices/${edu}/driver_override`, 'vfio-pci');
    root.write('/sys/bus/pci/drivers_probe', edu);
    return { ...failure(() => openSession(new Census(root), edu, 'group')), nic: devices.find((bdf) => id(bdf) === '0x100e') };
  });
}

/** A program with descriptors from `vfio exec` or `dma attach`: DMA into the given mapping, and into one of its own. */
async function child([device, group, container, iova, fd]: string[]): Promise<Result> {
  const info = JSON.parse(process.env.VIOCTL_VFIO ?? '{}') as { ioas?: number; api?: string };
  const session = new Session('child', vfio.adopt(Number(container), Number(group), Number(device), info.ioas ?? 0));
  ready(session);
  const mine = vfio.newMemory('child', 0x1000n, 0n, 0x1000n, 0n);
  const own = 0x5000_0000n;
  const { error } = vfio.mapDma(session.handle, BigUint64Array.from([vfio.memoryInfo(mine).va, own, 0x1000n, 3n]));
  if (error) throw error;
  const data = pattern(4000, 11);
  vfio.writeMemory(mine, 0, data);
  await eduRead(session, own, 4000);
  await eduWrite(session, BigInt(iova!), 4000);
  const shared = Buffer.alloc(4000);
  fs.readSync(Number(fd), shared, 0, 4000, 0);
  vfio.unmapDma(session.handle, own, 0x1000n);
  return {
    dma: shared.equals(data),
    listen: process.env.LISTEN_PID === String(process.pid),
    names: process.env.LISTEN_FDNAMES,
    api: info.api,
    uid: process.getuid!(),
  };
}

async function execCases(api: Api, file: string): Promise<void> {
  const words =
    api === 'cdev'
      ? ['{device}', '-1', '{iommufd}', '{buf.iova}', '{buf.fd}']
      : ['{device}', '{group}', '{container}', '{buf.iova}', '{buf.fd}'];
  await run(`exec ${api}`, () => {
    const done = spawnSync(
      vioctl[0],
      [vioctl[1], 'vfio', 'exec', EDU, '--api', api, '--map', 'buf=64K', '--', 'node', file, 'child', ...words],
      { encoding: 'utf8' },
    );
    return { status: done.status, stderr: done.stderr, child: JSON.parse(done.stdout || '{}') as Result };
  });
  if (api !== 'group') return;
  await run('exec passes the status and a signal', async () => {
    const status = spawnSync(vioctl[0], [vioctl[1], 'vfio', 'exec', EDU, '--', 'sh', '-c', 'exit 42']).status;
    const held = spawn(
      vioctl[0],
      [vioctl[1], 'vfio', 'exec', EDU, '--', 'sh', '-c', 'trap "exit 7" TERM; echo up; while :; do sleep 0.1; done'],
      {
        stdio: ['ignore', 'pipe', 'inherit'],
      },
    );
    await new Promise((resolve) => held.stdout.once('data', resolve));
    held.kill('SIGTERM');
    const signalled = await new Promise((resolve) => held.once('exit', (code) => resolve(code)));
    return { status, signalled, free: failure(() => openSession(new Census(root), EDU, 'group').close()).code };
  });
  await run('exec replaces, as another user', () => {
    const done = spawnSync(
      vioctl[0],
      [
        vioctl[1],
        'vfio',
        'exec',
        EDU,
        '--replace',
        '--user',
        'nobody',
        '--map',
        'buf=4K',
        '--',
        'sh',
        '-c',
        'id -u; echo $LISTEN_PID $$; grep SigIgn /proc/self/status; ls -l /proc/self/fd/{device}; ulimit -l',
      ],
      {
        encoding: 'utf8',
      },
    );
    return { status: done.status, stdout: done.stdout.split('\n'), stderr: done.stderr };
  });
}

async function holderCases(api: Api, file: string): Promise<void> {
  await run(`holder ${api}`, async () => {
    const holder = spawn(
      vioctl[0],
      [vioctl[1], 'dma', 'map', EDU, 'buf=64K', 'ring=16K', '--api', api, '--listen', '/run/h.sock', '--json'],
      {
        stdio: ['pipe', 'pipe', 'pipe'],
      },
    );
    let [out, err] = ['', ''];
    holder.stderr.on('data', (data: Buffer) => {
      err += data.toString();
    });
    await new Promise<void>((resolve) =>
      holder.stdout.on('data', (data: Buffer) => {
        out += data.toString();
        if (out.trimEnd().endsWith('\n}')) resolve();
      }),
    );
    const ended = new Promise((resolve) => holder.once('exit', (code) => resolve(code)));
    const doc = JSON.parse(out) as { maps: { name: string; iova: string }[] };
    const call = (...args: string[]) => spawnSync(vioctl[0], [vioctl[1], 'dma', ...args], { encoding: 'utf8' });
    const words = api === 'cdev' ? ['{device}', '-1', '{iommufd}'] : ['{device}', '{group}', '{container}'];
    const attached = call('attach', '/run/h.sock', '--', 'node', file, 'child', ...words, '{buf.iova}', '{buf.fd}');
    const unmapped = call('unmap', '/run/h.sock', 'ring', '--json');
    const list = JSON.parse(call('list', '/run/h.sock', '--json').stdout) as { maps: { name: string }[] };
    const again = call('unmap', '/run/h.sock', 'ring');
    const never = call('unmap', '/run/h.sock', 'rang', '--dry-run');
    const ring = doc.maps.find((map) => map.name === 'ring')!.iova;
    for (let round = 0; round < 3 && !err.includes('kept from'); round++) {
      call('attach', '/run/h.sock', '--', 'node', file, 'poke', ...words, ring);
      for (let i = 0; i < 150 && !err.includes('kept from'); i++) await new Promise((resolve) => setTimeout(resolve, 20));
    }
    holder.stdin.end();
    const status = await ended;
    return {
      names: doc.maps.map((map) => map.name),
      attached: JSON.parse(attached.stdout || '{}') as Result,
      attachedError: attached.stderr,
      unmapped: unmapped.status,
      left: list.maps.map((map) => map.name),
      again: [again.status, again.stdout],
      never: [never.status, never.stderr],
      fault: err.split('\n').find((line) => line.includes('kept from')),
      status,
      socket: fs.existsSync('/run/h.sock'),
    };
  });
}

/** Mappings as a user whose locked memory is limited. */
function memlock(): Result {
  const session = openSession(new Census(root), EDU, 'group');
  const mapper = new Mapper(session.handle, session.aperture());
  const limit = lockLimit(fs.readFileSync('/proc/self/status', 'utf8'));
  const forecast = failure(() => mapper.map(parseSpecs(['big=64M']), limit));
  const kernel = failure(() => mapper.map(parseSpecs(['big=64M'])));
  const small = mapper.map(parseSpecs(['small=1M']), limit).length;
  mapper.close();
  session.close();
  return { limit: limit.bytes, exempt: limit.exempt, forecast, kernel, small, uid: process.getuid!() };
}

async function main([mode, ...args]: string[]): Promise<void> {
  const file = process.argv[1]!;
  if (mode === 'child') return say('child', await child(args));
  if (mode === 'memlock') return run('memlock', memlock);
  if (mode === 'poke') {
    const [device, group, container, iova] = args;
    const info = JSON.parse(process.env.VIOCTL_VFIO ?? '{}') as { ioas?: number };
    const session = new Session('poke', vfio.adopt(Number(container), Number(group), Number(device), info.ioas ?? 0));
    ready(session);
    return eduWrite(session, BigInt(iova!), 64);
  }
  if (mode === 'noiommu') {
    for (const bdf of [EDU, NVME])
      await run(`selftest ${bdf === EDU ? 'edu' : 'nvme'}`, async () => {
        const session = openSession(new Census(root), bdf, 'auto');
        try {
          return { ...(await selftest(session, findDevice(root, bdf))) };
        } finally {
          session.close();
        }
      });
    await run('without CAP_SYS_RAWIO', () => {
      const refused = asNobody(() => failure(() => openSession(new Census(root), EDU, 'auto')));
      openSession(new Census(root), EDU, 'auto').close();
      return { ...refused };
    });
    return run('no mapping', () => {
      const session = openSession(new Census(root), EDU, 'auto');
      const result = failure(() => session.aperture());
      session.close();
      return result;
    });
  }
  const part = mode ?? '';
  const apis = args as Api[];
  if (part === 'session') {
    for (const api of apis) await sessionCases(api);
    if (apis.includes('group')) await notViable();
    for (const api of apis) await execCases(api, file);
  } else {
    if (apis.includes('group')) await groupCases();
    for (const api of apis) await holderCases(api, file);
    await run('memlock of a user', () => {
      const done = spawnSync(
        'setpriv',
        ['--reuid=65534', '--regid=65534', '--clear-groups', 'sh', '-c', `ulimit -l 8192; exec node ${file} memlock`],
        { encoding: 'utf8' },
      );
      return { child: JSON.parse(done.stdout || '{}') as Result, stderr: done.stderr };
    });
  }
}

main(process.argv.slice(2)).catch((err: unknown) => {
  say('series', { thrown: err instanceof Error ? err.stack : String(err) });
  process.exitCode = 1;
});
