import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { memoryNeed, ordinaryBound, requireMemory } from '../../../src/dma/memory.js';
import { parseSpecs } from '../../../src/dma/spec.js';
import { PciTree } from '../../support/pci-tree.js';

const MiB = 1n << 20n;
let tree: PciTree;
beforeEach(() => {
  tree = new PciTree();
  tree.file('/proc/meminfo', 'MemTotal:  1048576 kB\nMemFree: 1 kB\nMemAvailable:   819200 kB\n'); // 800 MiB
});
afterEach(() => tree.remove());

const need = (...texts: string[]) => memoryNeed(parseSpecs(texts), 4096n);
const ask = (...texts: string[]) => requireMemory(tree.root, need(...texts));
const cgroup = (file: string, lines: string[]) => {
  tree.file('/proc/self/cgroup', `${file}\n`);
  tree.file('/proc/self/mountinfo', `${lines.join('\n')}\n`);
};

describe('ordinary memory', () => {
  test('what MemAvailable leaves after page tables and a reserve', () => {
    expect(() => ask('a=700M')).not.toThrow();
    expect(() => ask('a=400M', 'b=300M', 'c=90M')).toThrow(/790M of memory are needed, 800M are left \(MemAvailable\): ENOMEM/);
    try {
      ask('a=4G');
      throw new Error('not refused');
    } catch (err) {
      expect(err).toMatchObject({
        code: 'ENOMEM',
        exit: 3,
        details: { wanted: 4 * 2 ** 30, available: 800 * 2 ** 20, by: 'MemAvailable' },
      });
    }
  });

  test('a kernel that tells nothing (or no longer) refuses nothing', () => {
    tree.file('/proc/meminfo', 'MemTotal: 5 kB\n');
    expect(() => ask('a=4G')).not.toThrow();
  });

  const V2 = '30 1 0:27 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw';
  test('version 2: the tightest of all cgroups above us counts, its page cache is taken back', () => {
    cgroup('0::/a/b', [V2]);
    tree.file('/sys/fs/cgroup/a/b/memory.max', 'max\n');
    tree.file('/sys/fs/cgroup/a/b/memory.current', '4096\n');
    tree.file('/sys/fs/cgroup/a/memory.max', `${300n * MiB}\n`);
    tree.file('/sys/fs/cgroup/a/memory.current', `${250n * MiB}\n`);
    tree.file('/sys/fs/cgroup/a/memory.stat', `anon 5\ninactive_file ${60n * MiB}\nactive_file ${40n * MiB}\n`);
    expect(ordinaryBound(tree.root)).toEqual({ bytes: 150n * MiB, by: 'the limit of 300M of memory cgroup /a' });
    expect(() => ask('a=200M')).toThrow(/150M are left \(the limit of 300M of memory cgroup \/a\)/);
    expect(() => ask('a=100M')).not.toThrow();
    tree.file('/sys/fs/cgroup/a/memory.max', '4096\n'); // set below what is used
    expect(ordinaryBound(tree.root)!.bytes).toBe(0n);
  });

  test('version 1: nested limits, and the value that means none', () => {
    cgroup('4:cpu,memory:/x/y\n0::/', ['31 1 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory']);
    for (const [at, limit] of [
      ['/x/y', 9223372036854771712n],
      ['/x', 64n * MiB],
      ['', 9223372036854771712n],
    ] as const) {
      tree.file(`/sys/fs/cgroup/memory${at}/memory.limit_in_bytes`, `${limit}\n`);
      tree.file(`/sys/fs/cgroup/memory${at}/memory.usage_in_bytes`, `${MiB}\n`);
      tree.file(`/sys/fs/cgroup/memory${at}/memory.stat`, 'inactive_file 999999999\ntotal_inactive_file 4096\n');
    }
    expect(ordinaryBound(tree.root)).toEqual({ bytes: 63n * MiB + 4096n, by: 'the limit of 64M of memory cgroup /x' });
  });

  test('a container sees its part of the hierarchy at the top', () => {
    cgroup('0::/docker/1', ['30 1 0:27 /docker/1 /sys/fs/cgroup ro - cgroup2 cgroup rw']);
    tree.file('/sys/fs/cgroup/memory.max', `${128n * MiB}\n`);
    tree.file('/sys/fs/cgroup/memory.current', `${28n * MiB}\n`);
    expect(ordinaryBound(tree.root)).toEqual({ bytes: 100n * MiB, by: 'the limit of 128M of memory cgroup /' });
  });
});

describe('hugepages are counted apart', () => {
  const pool = (free: number, reserved = 0, more = 0) => {
    const dir = '/sys/kernel/mm/hugepages/hugepages-2048kB';
    for (const [name, value] of Object.entries({
      free_hugepages: free,
      resv_hugepages: reserved,
      nr_overcommit_hugepages: more,
      surplus_hugepages: 0,
    }))
      tree.file(`${dir}/${name}`, `${value}\n`);
  };

  test('free ones less reserved ones, and what the pool may grow by', () => {
    pool(8);
    expect(() => ask('a=16M,huge=2M', 'b=700M')).not.toThrow();
    expect(() => ask('a=10M,huge=2M', 'b=8M,huge=2M')).toThrow(
      /18M of memory in hugepages of 2M are needed, 16M are left \(free hugepages of 2M\)/,
    );
    pool(8, 4);
    expect(() => ask('a=10M,huge=2M')).toThrow(/8M are left/);
    pool(8, 4, 1);
    expect(() => ask('a=10M,huge=2M')).not.toThrow();
  });

  test('a size that the kernel does not have', () => {
    pool(8);
    expect(() => ask('a=1G,huge=1G')).toThrow(/0 are left \(hugepages of 1G, a size that this kernel does not have\)/);
  });

  test('the limit of a hugetlb cgroup', () => {
    pool(100);
    cgroup('0::/a', ['30 1 0:27 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw']);
    tree.file('/sys/fs/cgroup/a/hugetlb.2MB.max', `${6n * MiB}\n`);
    tree.file('/sys/fs/cgroup/a/hugetlb.2MB.current', `${2n * MiB}\n`);
    expect(() => ask('a=6M,huge=2M')).toThrow(/4M are left \(the limit of 6M of hugetlb cgroup/);
  });
});

test('files: what tmpfs has allocated is paid for, the page cache of a disk is not', () => {
  for (const [dir, expected] of [
    ['/dev/shm', 3n * MiB],
    [os.tmpdir(), 4n * MiB],
  ] as const) {
    const file = path.join(dir, `vioctl-memory-${process.pid}`);
    const tmpfs = fs.statfsSync(dir).type === 0x01021994;
    fs.writeFileSync(file, Buffer.alloc(Number(MiB), 1));
    fs.truncateSync(file, Number(4n * MiB));
    try {
      expect(need(`f=${file},ro`).ordinary).toBe(tmpfs ? 3n * MiB : expected);
    } finally {
      fs.rmSync(file);
    }
  }
});

test('what is promised counts where overcommitting is off', () => {
  const tree = new PciTree();
  try {
    tree.file('/proc/meminfo', 'MemAvailable:    8388608 kB\nCommitLimit:     4194304 kB\nCommitted_AS:    3145728 kB\n');
    tree.file('/proc/sys/vm/overcommit_memory', '0\n');
    expect(ordinaryBound(tree.root)).toEqual({ bytes: 8n << 30n, by: 'MemAvailable' });
    tree.file('/proc/sys/vm/overcommit_memory', '2\n');
    expect(ordinaryBound(tree.root)).toEqual({ bytes: 1n << 30n, by: 'CommitLimit, as overcommitting is off' });
    tree.file('/proc/meminfo', 'MemAvailable:    8388608 kB\nCommitLimit:     1 kB\nCommitted_AS:    3145728 kB\n');
    expect(ordinaryBound(tree.root)?.bytes).toBe(0n);
  } finally {
    tree.remove();
  }
});

test('a file of a tmpfs that has no room to grow', () => {
  const tree = new PciTree();
  try {
    const need = { ordinary: 0n, huge: new Map<bigint, bigint>(), files: [{ path: '/mnt/x', missing: 2n << 20n, room: 1n << 20n }] };
    expect(() => requireMemory(tree.root, need)).toThrow(
      expect.objectContaining({ exit: 3, message: expect.stringContaining('(the tmpfs of /mnt/x)') }),
    );
    need.files[0]!.room = 2n << 20n;
    expect(() => requireMemory(tree.root, need)).not.toThrow();
  } finally {
    tree.remove();
  }
});
