// Programs that hold devices on real kernels: exec in its forms, dma map under a service manager, and letting go when asked.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import { eduWrite } from '../../../src/vfio/selftest/edu.js';
import { Session } from '../../../src/vfio/session/session.js';
import {
  BOTH,
  background,
  cli,
  driverOf,
  EDU,
  failure,
  faultsDuring,
  GROUP_EDU,
  must,
  NIC,
  NVME,
  open,
  PF,
  type Result,
  ready,
  type SessionCase,
  vfio,
  vioctl,
} from './harness.js';

const bindState = (bdf: string): string =>
  `${driverOf(bdf)} ${fs.readFileSync(`/sys/bus/pci/devices/${bdf}/driver_override`, 'utf8').trim()}`;

/** Receives datagrams of sd_notify; its output has one line each. */
const RECEIVER = `import socket,sys
s=socket.socket(socket.AF_UNIX,socket.SOCK_DGRAM)
s.bind(sys.argv[1])
print('bound',flush=True)
while True:
    print(s.recv(1000).decode().strip(),flush=True)`;

/** The program of the fault case: a device writes where nothing is mapped, until the kernel has logged it. */
export async function poke([device, group, container, iova]: string[]): Promise<void> {
  const { ioas } = JSON.parse(process.env.VIOCTL_VFIO!) as { ioas?: number };
  const session = new Session('poke', vfio.adopt(Number(container), Number(group), Number(device), ioas ?? 0));
  ready(session);
  await faultsDuring(() => eduWrite(session, BigInt(iova!), 64));
}

export const programs: SessionCase[] = [
  {
    name: 'exec reports what the IOMMU kept the device from, by the name of the mapping',
    apis: BOTH,
    run: async (api) => {
      const words = api === 'cdev' ? ['{device}', '-1', '{iommufd}'] : ['{device}', '{group}', '{container}'];
      const program = ['node', process.argv[1]!, 'poke', ...words];
      const map = ['--map', 'fw=64K,ro,iova=0x40000000'];
      const known = cli(['vfio', 'exec', EDU, '--api', api, ...map, '--', ...program, '0x40001000']);
      assert.equal(known.status, 0, known.stderr);
      assert.match(known.stderr, new RegExp(`${EDU} was kept from writing to 0x40001000: fw \\+ 0x1000, which is read-only`));
      const unknown = cli(['vfio', 'exec', EDU, '--api', api, ...map, '--', ...program, '0x70000000']);
      assert.match(unknown.stderr, /was kept from writing to 0x70000000: no mapping of this command/);
      return [known.stderr, unknown.stderr];
    },
  },
  {
    name: 'show: regions, interrupts and resets of a device that is open to us',
    apis: ['group'],
    run: async () => {
      const doc = JSON.parse(cli(['vfio', 'show', NVME, '--json']).stdout) as { inside: Record<string, unknown> };
      const { inside } = doc as {
        inside: {
          open: boolean;
          api: string;
          reset: boolean;
          hotReset: string[];
          regions: { name: string }[];
          irqs: { name: string; count: number }[];
        };
      };
      assert.deepEqual([inside.open, inside.reset, inside.hotReset], [true, true, [NVME]]);
      assert.deepEqual(
        inside.regions.map(({ name }) => name),
        ['BAR0', 'CONFIG'],
      );
      assert.ok(inside.irqs.some(({ name, count }) => name === 'MSIX' && count > 1));
      const text = cli(['vfio', 'show', EDU]).stdout;
      assert.match(text, /opened by +(group|cdev); cannot be reset alone; hot reset: none/);
      assert.match(text, /region +BAR0 +0x100000 +read write mmap/);
      const holder = background(['/tmp/hold', fs.readlinkSync(`/sys/bus/pci/devices/${NVME}/iommu_group`).split('/').at(-1)!, NVME, 'fd']);
      await holder.says(/ready/);
      const held = cli(['vfio', 'show', NVME]).stdout;
      holder.child.kill('SIGKILL');
      await holder.ended;
      assert.match(held, new RegExp(`not opened .*is held by hold \\(pid ${holder.child.pid}`));
      return inside;
    },
  },
  {
    name: 'exec --bind: binds a whole group, runs, gives every device back; also after a failure and a signal',
    apis: BOTH,
    run: async (api) => {
      must(`modprobe nvme; [ -e /sys/bus/pci/devices/${PF}/driver ] || echo ${PF} > /sys/bus/pci/drivers/nvme/bind`);
      const before = bindState(PF);
      assert.match(before, /^nvme /);
      const inside = `readlink /sys/bus/pci/devices/${PF}/driver; ls -l /proc/self/fd/{device} >&2; exit 3`;
      const ran = cli(['vfio', 'exec', PF, '--bind', '--api', api, '--map', 'buf=64K', '--', 'sh', '-c', inside]);
      assert.equal(ran.status, 3, ran.stderr);
      assert.match(ran.stdout, /drivers\/vfio-pci\n$/);
      assert.equal(bindState(PF), before);
      // what cannot be mapped: bound, opened, and all of it undone
      const refused = cli(['vfio', 'exec', PF, '--bind', '--api', api, '--map', 'buf=64K,iova=0xfee00000', '--', 'true']);
      assert.equal(refused.status, 3, refused.stderr);
      assert.match(refused.stderr, /reserved region \(msi\)/);
      assert.equal(bindState(PF), before);
      const missing = cli(['vfio', 'exec', PF, '--bind', '--api', api, '--', 'no-such-program']);
      assert.equal(missing.status, 127, missing.stderr);
      assert.equal(bindState(PF), before);
      const running = background([...vioctl, 'vfio', 'exec', PF, '--bind', '--api', api, '--', 'sh', '-c', 'echo up; exec sleep 1000']);
      await running.says(/up/);
      running.child.kill('SIGTERM');
      assert.equal(await running.ended, 143, running.err());
      assert.equal(bindState(PF), before);
      assert.deepEqual(fs.existsSync('/run/vioctl/vfio/journal') ? fs.readdirSync('/run/vioctl/vfio/journal') : [], []);
      must(`echo ${PF} > /sys/bus/pci/drivers/nvme/unbind`);
      return ran;
    },
  },
  {
    name: 'exec: several devices, of several groups and of one, share the mappings',
    apis: BOTH,
    run: async (api) => {
      const script = 'echo $LISTEN_FDNAMES; for fd in {device} {device1} {device2}; do readlink /proc/$$/fd/$fd; done; echo {buf.iova}';
      const ran = cli(['vfio', 'exec', EDU, GROUP_EDU, NIC, '--api', api, '--map', 'buf=64K', '--', 'sh', '-c', script]);
      assert.equal(ran.status, 0, ran.stderr);
      const [names, ...rest] = ran.stdout.trim().split('\n');
      const expected =
        api === 'cdev'
          ? 'iommufd:vfio-device:vfio-device-1:vfio-device-2:dma-buf'
          : 'vfio-container:vfio-group:vfio-device:vfio-group-1:vfio-device-1:vfio-group-2:vfio-device-2:dma-buf';
      assert.equal(names, expected);
      for (const link of rest.slice(0, 3)) assert.match(link, /vfio-device|\/dev\/vfio\/devices\/vfio\d/);
      assert.equal(rest[3], '0x10000');
      for (const bdf of [EDU, GROUP_EDU, NIC]) open(bdf, api).close();
      return ran.stdout;
    },
  },
  {
    name: 'exec: signals go to the program; its death by one is 128 + N; --replace resets signals',
    once: true,
    apis: ['group'],
    run: async () => {
      const results: Record<string, unknown> = {};
      for (const signal of ['SIGHUP', 'SIGINT', 'SIGUSR1'] as const) {
        const script = `trap 'echo got ${signal}; exit 9' ${signal.slice(3)}; echo up; while :; do sleep 0.1; done`;
        const running = background([...vioctl, 'vfio', 'exec', EDU, '--', 'sh', '-c', script]);
        await running.says(/up/);
        running.child.kill(signal);
        assert.equal(await running.ended, 9, running.err());
        assert.match(running.out(), new RegExp(`got ${signal}`));
      }
      for (const [script, status] of [
        ['kill -9 $$', 137],
        ['kill -SEGV $$', 139],
        ['exit 255', 255],
      ] as const) {
        results[script] = cli(['vfio', 'exec', EDU, '--', 'sh', '-c', script]).status;
        assert.equal(results[script], status);
      }
      // a reader that goes away ends the program by SIGPIPE, as without us
      const piped = must(
        `node bin/run.js vfio exec ${EDU} --replace -- sh -c 'grep -E "Sig(Blk|Ign)" /proc/self/status >&2; yes' 2>/tmp/signals | head -1; cat /tmp/signals`,
      );
      assert.equal(piped, `y\nSigBlk:\t${'0'.repeat(16)}\nSigIgn:\t${'0'.repeat(16)}\n`);
      open(EDU, 'group').close();
      return { ...results, piped };
    },
  },
  {
    name: 'dma map tells systemd when it is ready and when it stops, and lets the device go when the kernel asks',
    apis: BOTH,
    run: async (api) => {
      fs.rmSync('/run/notify', { force: true });
      const receiver = background(['python3', '-c', RECEIVER, '/run/notify']);
      await receiver.says(/bound/);
      // stdin is /dev/null under systemd: not an end
      const words = [...vioctl, 'dma', 'map', EDU, 'buf=64K', '--api', api, '--notify', '--json'];
      const holder = background(['sh', '-c', 'exec "$@" < /dev/null', 'sh', ...words], { NOTIFY_SOCKET: '/run/notify' });
      try {
        await receiver.says(/READY=1/);
        assert.match(holder.out(), /"iova": "0x10000"/); // printed before it is ready
        // the kernel waits in this write until the holder has let go
        const begun = Date.now();
        must(`timeout 60 sh -c 'echo ${EDU} > /sys/bus/pci/drivers/vfio-pci/unbind'`);
        const waited = Date.now() - begun;
        assert.equal(await holder.ended, 0, holder.err());
        assert.match(holder.err(), /the kernel asks for the device: unmapping/);
        await receiver.says(/STOPPING=1/);
        assert.equal(driverOf(EDU), '');
        return { waited };
      } finally {
        holder.child.kill('SIGKILL');
        receiver.child.kill('SIGKILL');
        await Promise.all([holder.ended, receiver.ended]);
        must(`[ -e /sys/bus/pci/devices/${EDU}/driver ] || echo ${EDU} > /sys/bus/pci/drivers/vfio-pci/bind; chmod 666 /dev/vfio/*`);
      }
    },
  },
  {
    name: 'dma map ends at the end of stdin, after --timeout (124), and says so of a device that is held',
    apis: BOTH,
    run: async (api) => {
      const ended = background([...vioctl, 'dma', 'map', EDU, 'buf=64K', '--api', api]);
      await ended.says(/buf +0x10000/);
      const held = cli(['dma', 'map', EDU, 'x=4K', '--api', api]);
      assert.equal(held.status, 3);
      assert.match(held.stderr, new RegExp(`held by node \\(pid ${ended.child.pid}`));
      ended.child.stdin!.end();
      assert.equal(await ended.ended, 0, ended.err());
      const late = background([...vioctl, 'dma', 'map', EDU, 'buf=64K', '--api', api, '--timeout', '200ms']);
      assert.equal(await late.ended, 124, late.err());
      const none = failure(() => open(EDU, api).close());
      assert.equal(none.code, 'none');
      return held.stderr;
    },
  },
  {
    name: 'documents of commands that need a device, which schemas describe',
    once: true,
    apis: BOTH,
    run: async (api) => {
      const documents: Result = {};
      const document = (command: string, ...words: string[]) => {
        const { status, stdout, stderr } = cli([...command.split(' '), ...words, '--json']);
        assert.equal(status, 0, `${command}: ${stderr}`);
        documents[`${command} ${words.slice(1).join(' ')}`] = { command, document: JSON.parse(stdout) as unknown };
      };
      document('vfio show', NVME);
      document('vfio config', NVME, '--api', api);
      document('vfio bar', NVME, '0', 'read', '0.q', '--api', api);
      document('vfio irq', NVME, 'list', '--api', api);
      document('vfio reset', NVME, '--api', api);
      document('vfio reset', NVME, '--dry-run', '--api', api);
      document('vfio selftest', NVME, '--api', api);
      document('vfio selftest', EDU, '--api', api);
      const socket = '/run/documents.sock';
      const holder = background([...vioctl, 'dma', 'map', EDU, 'a=64K', 'b=2M,ro', '--listen', socket, '--api', api, '--json']);
      try {
        await holder.says(/^\}$/m);
        documents['dma map'] = { command: 'dma map', document: JSON.parse(holder.out()) as unknown };
        document('dma list', socket);
        document('dma unmap', socket, 'a', '--dry-run');
        document('dma unmap', socket, 'a');
        document('dma list', socket);
      } finally {
        holder.child.kill('SIGTERM');
      }
      assert.equal(await holder.ended, 0, holder.err());
      return documents;
    },
  },
];
