// Interrupts, registers, resets and removal on real kernels.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import { AdminQueue } from '../../../src/vfio/selftest/nvme.js';
import { pagesFor } from '../../../src/vfio/selftest/pages.js';
import { Irq } from '../../../src/vfio/session/session.js';
import {
  AER,
  BOTH,
  background,
  cli,
  EDU,
  failure,
  GROUP_EDU,
  leftOpen,
  NIC,
  NVME,
  open,
  ready,
  type SessionCase,
  vfio,
  vioctl,
  withSession,
} from './harness.js';

/** Controller status: bit 0 is set while it runs (NVMe base specification 3.1.4.6). */
const CSTS = 0x1c;

export const devices: SessionCase[] = [
  {
    name: 'interrupts: one kind at a time, no more vectors than there are, none that the device lacks',
    apis: BOTH,
    run: (api) =>
      withSession(EDU, api, (session) => {
        const count = (index: number) => session.irqs().find((irq) => irq.index === index)?.count;
        assert.deepEqual([count(Irq.INTX), count(Irq.MSI), count(Irq.MSIX)], [1, 1, undefined]);
        const many = failure(() => session.listen(Irq.MSI, 5, () => {}));
        assert.equal(many.code, 'EINVAL');
        assert.match(many.hint, /no more vectors than the device has/);
        const missing = failure(() => session.listen(Irq.MSIX, 1, () => {}));
        assert.equal(missing.code, 'EINVAL');
        const msi = session.listen(Irq.MSI, 1, () => {});
        const both = failure(() => session.listen(Irq.INTX, 1, () => {}));
        assert.equal(both.code, 'EINVAL');
        assert.match(both.hint, /only one of INTX, MSI and MSIX can be on/);
        msi.close();
        session.listen(Irq.INTX, 1, () => {}).close(); // MSI is off again
        return [many.message, missing.message, both.message];
      }),
  },
  {
    name: 'a device without any reset; one whose bus can be reset, with proof by group or by iommufd',
    apis: BOTH,
    run: async (api) => {
      const none = await withSession(EDU, api, (session) => [failure(() => session.reset()), failure(() => session.hotReset())] as const);
      for (const { code, exit } of none) assert.deepEqual([code, exit], ['NO_RESET', 7]);
      assert.match(none[0].hint, /--hot/);
      // a bus with two devices of one group: the group proves both
      const shared = await withSession(GROUP_EDU, api, (session) => {
        assert.equal(session.canReset, false);
        const peers = session.resetPeers().map(({ bdf }) => bdf);
        session.hotReset();
        return peers;
      });
      assert.deepEqual(shared, [NIC, GROUP_EDU]);
      const result = await withSession(NVME, api, async (session) => {
        session.mapBar(0);
        session.busMaster(true);
        const pages = pagesFor(session);
        await AdminQueue.start(session, pages);
        const running = () => session.load(0, CSTS, 4);
        assert.equal(running(), 1n);
        const wrong = failure(() =>
          api === 'cdev' ? vfio.hotReset(session.handle, [0]) : withOther((group) => vfio.hotReset(session.handle, [group])),
        );
        assert.match(wrong.code, /^(EINVAL|EBADF)$/);
        assert.equal(running(), 1n); // nothing was reset
        session.hotReset();
        session.busMaster(true);
        assert.equal(running(), 0n);
        pages.close();
        return wrong;
      });
      const plan = JSON.parse(cli(['vfio', 'reset', NVME, '--hot', '--api', api, '--json']).stdout) as unknown;
      assert.deepEqual(plan, { bdf: NVME, method: 'hot', devices: [NVME], done: true });
      return { none, shared, result };
    },
  },
  {
    name: 'registers beyond a region, a region that is not there, a port region',
    apis: BOTH,
    run: async (api) => {
      const edu = await withSession(EDU, api, (session) => {
        const texts = [
          failure(() => session.load(0, 0x100000, 4)),
          failure(() => session.load(0, 0xffffe, 4)),
          failure(() => session.read(7, 255, 4)),
          failure(() => session.load(3, 0, 4)),
        ];
        assert.deepEqual(
          texts.map(({ code, exit }) => `${code} ${exit}`),
          ['ERANGE 2', 'ERANGE 2', 'ERANGE 2', 'ENXIO 2'],
        );
        assert.match(texts[0]!.message, /BAR0 at 0x100000: beyond its end 0x100000/);
        return texts.map(({ message }) => message);
      });
      // the network card's BAR 1 are I/O ports: no mapping, but reads and writes
      const port = await withSession(NIC, api, (session) => {
        const region = session.regions().find(({ name }) => name === 'BAR1')!;
        assert.deepEqual(region.flags, ['read', 'write']);
        assert.equal(session.mapBar(1), 0);
        session.busMaster(true);
        assert.equal(session.load(1, 0, 4), BigInt(session.read(1, 0, 4).readUInt32LE(0)));
        return region;
      });
      return { edu, port };
    },
  },
  {
    name: 'sparse and MSI-X regions: what may be mapped is mapped, the table is read through the kernel',
    apis: BOTH,
    run: (api) =>
      withSession(NVME, api, (session) => {
        const bar = session.regions().find(({ name }) => name === 'BAR0')!;
        const mapped = session.mapBar(0);
        assert.equal(
          mapped,
          bar.areas.reduce((sum, { size }) => sum + size, 0),
        );
        assert.ok(mapped > 0);
        assert.ok(bar.msixMappable || bar.sparse); // Linux before 4.16 cut the MSI-X table out
        session.busMaster(true);
        const words = Array.from({ length: bar.size / 4096 }, (_, i) => session.load(0, i * 4096, 4));
        assert.equal(words[0], BigInt(session.read(0, 0, 4).readUInt32LE(0))); // mapped or by the kernel: the same register
        return bar;
      }),
  },
  {
    name: 'a device that does not answer any more: EIO, not values',
    apis: BOTH,
    run: (api) =>
      withSession(NVME, api, (session) => {
        session.busMaster(true);
        session.busMaster(false);
        // the bridge above sends nothing down any more, as behind a slot that lost its card
        const bridge = '/sys/bus/pci/devices/0000:00:02.0/config';
        const fd = fs.openSync(bridge, 'r+');
        const buses = Buffer.alloc(3);
        fs.readSync(fd, buses, 0, 3, 0x18);
        fs.writeSync(fd, Buffer.from([0, 0, 0]), 0, 3, 0x18);
        try {
          const gone = failure(() => session.busMaster(true));
          assert.equal(gone.code, 'EIO');
          assert.match(gone.message, /does not answer/);
          assert.match(gone.hint, /removed|D3cold/);
          return gone;
        } finally {
          fs.writeSync(fd, buses, 0, 3, 0x18);
          fs.closeSync(fd);
        }
      }),
  },
  {
    name: 'closing in the order interrupts, BAR, mappings, device, group, container; also on garbage collection',
    apis: BOTH,
    run: async (api) => {
      const order = (text: string): string[] =>
        text.split('\n').flatMap((line) => {
          if (line.includes('VFIO_DEVICE_SET_IRQS')) return ['irq'];
          if (/munmap\(0x[0-9a-f]+, 1048576\)/.test(line)) return ['bar'];
          if (/VFIO_IOMMU_UNMAP_DMA|0x3b, 0x86/.test(line)) return ['dma']; // the second is IOMMU_IOAS_UNMAP
          const closed = /close\(\d+<([^>]*)>/.exec(line)?.[1];
          if (closed === undefined) return [];
          if (/vfio-device|\/dev\/vfio\/devices\//.test(closed)) return ['device'];
          if (/\/dev\/vfio\/\d+/.test(closed)) return ['group'];
          if (/\/dev\/vfio\/vfio|\/dev\/iommu/.test(closed)) return ['container'];
          return [];
        });
      const expected =
        api === 'cdev' ? ['irq', 'bar', 'dma', 'device', 'container'] : ['irq', 'bar', 'dma', 'device', 'group', 'container'];
      for (const how of ['close', 'garbage']) {
        const args = [
          '-f',
          '-y',
          '-qq',
          '-o',
          '/tmp/trace',
          '-e',
          'trace=ioctl,munmap,close',
          'node',
          '--expose-gc',
          process.argv[1]!,
          'closing',
          api,
          how,
        ];
        const done = spawnSync('strace', args, { encoding: 'utf8' });
        assert.equal(done.status, 0, done.stderr);
        const trace = fs.readFileSync('/tmp/trace', 'utf8');
        const from = trace.slice(trace.indexOf('memfd:vioctl-marker'));
        assert.deepEqual(order(from), expected, from);
      }
      return expected;
    },
  },
  {
    name: 'an error of the bus reaches a waiting program (ERR)',
    apis: BOTH,
    run: async (api) => {
      const waiting = background([
        ...vioctl,
        'vfio',
        'irq',
        AER,
        'wait',
        '--type',
        'err',
        '--count',
        '1',
        '--timeout',
        '100s',
        '--ndjson',
        '--api',
        api,
      ]);
      // the host's part of the test injects an error whenever it sees this line, until the program has ended
      for (let round = 0; round < 40 && waiting.child.exitCode === null; round++) {
        fs.writeSync(1, '{"inject":"aer"}\n');
        await Promise.race([waiting.ended, new Promise((resolve) => setTimeout(resolve, 2500))]);
      }
      assert.equal(await waiting.ended, 0, waiting.err());
      const event = JSON.parse(waiting.out()) as Record<string, unknown>;
      assert.deepEqual([event.type, event.vector], ['ERR', 0]);
      return event;
    },
  },
];

/** The descriptor of a group that has nothing to do with the NVMe controller's slot. */
function withOther<T>(work: (group: number) => T): T {
  const other = open(EDU, 'group');
  try {
    return work(other.info.group);
  } finally {
    other.close();
  }
}

/** The program of the closing case: everything that a session can have, then its end. */
export async function closing(api: 'group' | 'cdev', how: string): Promise<void> {
  const marker = vfio.newMemory('marker', 0x1000n, 0n, 0x1000n, 0n);
  const { gc } = globalThis as unknown as { gc: () => void };
  const use = (): (() => void) => {
    const session = open(EDU, api);
    ready(session);
    vfio.enableIrq(session.handle, Irq.MSI, 0, 1);
    const memory = vfio.newMemory('buf', 0x4000n, 0n, 0x1000n, 0n);
    const { error } = vfio.mapDma(session.handle, BigUint64Array.from([vfio.memoryInfo(memory).va, 0x40000000n, 0x4000n, 3n]));
    if (error) throw error;
    return how === 'close' ? () => session.close() : () => {};
  };
  let end: (() => void) | undefined = use();
  vfio.closeMemory(marker); // shows in the trace: what follows is the end
  end();
  end = undefined;
  for (let i = 0; i < 50 && leftOpen().some((text) => text.includes('vfio')); i++) {
    gc();
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  if (leftOpen().some((text) => text.includes('vfio'))) throw new Error(`left open: ${leftOpen().join('; ')}`);
}
