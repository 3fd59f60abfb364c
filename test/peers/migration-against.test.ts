/** verify --against: the verdict on pairs of machines that a real QEMU decides. */
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { openInput } from '../../src/migration/containers/input.js';
import { against } from '../../src/migration/inspect/against.js';
import { type QemuName, qemuForTest } from '../vm/qemu.js';
import { from, uri, withGuest } from './migration-memory.js';

const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-against-'));
afterAll(() => fs.rmSync(dir, { recursive: true, force: true }));
const file = (name: string) => path.join(dir, name);

const disk = (size = 1) => ['-blockdev', `driver=null-co,node-name=d0,size=${size << 20}`];
const net = (...more: string[]) => ['-netdev', 'hubport,id=n,hubid=0', '-device', ['virtio-net-pci,netdev=n,addr=4', ...more].join()];
const blk = (...more: string[]) => [...disk(), '-device', ['virtio-blk-pci,drive=d0,addr=5', ...more].join()];
const q35 = ['-M', 'q35', '-m', '32'];
const base = [...q35, ...net(), ...blk()];

/** What differs, the arguments of source and destination, and what is named if it does not load. */
const pairs: [what: string, source: string[], destination: string[], named: RegExp | undefined][] = [
  ['nothing', base, base, undefined],
  ['the MAC address', [...q35, ...net('mac=52:54:00:00:00:01')], [...q35, ...net('mac=52:54:00:00:00:02')], undefined],
  ['the size of a disk', base, [...q35, ...net(), ...disk(8), '-device', 'virtio-blk-pci,drive=d0,addr=5'], undefined],
  ['another device on the destination', base, [...base, '-device', 'virtio-rng-pci,addr=7'], undefined],
  ['the size of a queue', [...q35, ...blk('queue-size=128')], [...q35, ...blk('queue-size=64')], undefined],
  ['the most CPUs', [...q35, '-smp', '1,maxcpus=2'], [...q35, '-smp', '1,maxcpus=4'], undefined],
  ['the CPUs', [...q35, '-smp', '2'], q35, /^(cpu|cpu_common|apic|kvm-tpr-opt)#1$/],
  ['no network card', base, [...q35, ...blk()], /virtio-net/],
  [
    'a device in another slot',
    base,
    [...q35, ...net(), ...disk(), '-device', 'virtio-blk-pci,drive=d0,addr=9'],
    /0000:00:05\.0\/virtio-blk/,
  ],
  ['the size of the memory', base, ['-M', 'q35', '-m', '48', ...net(), ...blk()], /^pc\.ram$/],
  ['the machine', ['-M', 'pc', '-m', '32'], q35, /^machine$/],
  [
    'the name of a memory backend',
    ['-M', 'q35,memory-backend=a', '-m', '32', '-object', 'memory-backend-ram,id=a,size=32M'],
    ['-M', 'q35,memory-backend=b', '-m', '32', '-object', 'memory-backend-ram,id=b,size=32M'],
    /^a$/,
  ],
  ['the vectors of a device', [...q35, ...net('vectors=3')], [...q35, ...net('vectors=4')], /virtio-net/],
  ['the model of a network card', [...q35, '-device', 'e1000,addr=4'], [...q35, '-device', 'e1000e,addr=4'], /e1000/],
  ['modern and transitional', [...q35, ...blk('disable-legacy=on')], [...q35, ...blk('disable-legacy=off')], /virtio-blk/],
];

describe.each<QemuName>(['7.2', '10'])('QEMU %s decides', (name) => {
  test.each(pairs)(
    '%s differs',
    async (_what, source, destination, named) => {
      const build = await qemuForTest(name, 'pairs of machines for verify --against');
      if (!build) return;
      const [stream, other] = [file('source'), file('destination')];
      await withGuest(build, dir, source, (guest) => guest.migrate({ uri: uri(name, stream) }));
      await withGuest(build, dir, destination, (guest) => guest.migrate({ uri: uri(name, other) }));
      const loads = await withGuest(build, dir, [...destination, '-incoming', 'defer'], (guest) =>
        guest.load(from(name, stream)).then(
          () => true,
          () => false,
        ),
      );
      const judged = await against(openInput(stream), other, {}, () => {});
      expect({ loads: judged.loads, obstacles: judged.obstacles }).toMatchObject({ loads });
      expect(loads).toBe(named === undefined);
      if (named) expect(judged.obstacles.map((o) => o.path)).toContainEqual(expect.stringMatching(named));
    },
    60_000,
  );
});

test('the document of a real -dump-vmstate: most devices are compared, and the machine', async () => {
  const build = await qemuForTest('7.2', 'verify --against with -dump-vmstate');
  if (!build) return;
  const [stream, document] = [file('source'), file('vmstate.json')];
  await withGuest(build, dir, base, (guest) => guest.migrate({ uri: uri('7.2', stream) }));
  const [program, ...args] = build.argv('qemu-system-x86_64', ['-M', 'q35', '-display', 'none', '-dump-vmstate', document]);
  execFileSync(program, args, { stdio: 'ignore', env: { ...process.env, ...build.env } });
  const judge = (name: string) => against(openInput(stream), name, {}, () => {});
  const same = await judge(document);
  expect(same).toMatchObject({ loads: true, obstacles: [] });
  expect(same.compared.sections).toBeGreaterThan(same.compared.of / 2);
  // What the document then says of one of these devices decides.
  const text = fs.readFileSync(document, 'utf8');
  const types = JSON.parse(text) as Record<string, { Description?: { name: string }; version_id?: number }>;
  for (const type of Object.values(types)) if (type.Description?.name === 'mc146818rtc') type.version_id = 0;
  fs.writeFileSync(file('older.json'), JSON.stringify(types));
  expect((await judge(file('older.json'))).obstacles).toMatchObject([{ path: 'mc146818rtc' }]);
  fs.writeFileSync(file('other.json'), text.replace('"pc-q35-7.2"', '"pc-q35-6.2"'));
  expect((await judge(file('other.json'))).obstacles).toMatchObject([{ path: 'machine' }]);
});
