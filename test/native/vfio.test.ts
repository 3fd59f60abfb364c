import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import fc from 'fast-check';
import { native } from '../../src/native/index.js';

const { vfio } = native();

/** A capability header (struct vfio_info_cap_header). */
function header(buffer: Buffer, at: number, id: number, version: number, next: number): void {
  buffer.writeUInt16LE(id, at);
  buffer.writeUInt16LE(version, at + 2);
  buffer.writeUInt32LE(next, at + 4);
}

describe('capability chains', () => {
  test('a chain in any order; sizes reach to the next header in memory', () => {
    const buffer = Buffer.alloc(96);
    header(buffer, 64, 1, 2, 32);
    header(buffer, 32, 3, 1, 48);
    header(buffer, 48, 2, 1, 0);
    expect(vfio.chain(buffer, 32, 64)).toEqual([
      { id: 1, version: 2, offset: 64, size: 32 },
      { id: 3, version: 1, offset: 32, size: 16 },
      { id: 2, version: 1, offset: 48, size: 16 },
    ]);
    expect(vfio.chain(buffer, 32, 0)).toEqual([]);
  });

  test.each<[string, number, (b: Buffer) => void]>([
    ['a header inside the fixed part', 24, () => {}],
    ['a header that is cut off', 92, () => {}],
    ['a header behind the end', 4096, () => {}],
    ['an odd offset', 34, () => {}],
    ['a chain that leads to itself', 32, (b) => header(b, 32, 1, 1, 32)],
    [
      'a cycle of two',
      32,
      (b) => {
        header(b, 32, 1, 1, 48);
        header(b, 48, 1, 1, 32);
      },
    ],
    ['a next header far away', 32, (b) => header(b, 32, 1, 1, 0xfffffffc)],
  ])('refuses %s', (_name, first, prepare) => {
    const buffer = Buffer.alloc(96);
    prepare(buffer);
    expect(() => vfio.chain(buffer, 32, first)).toThrow(expect.objectContaining({ code: 'EPROTO' }));
  });

  test('an empty buffer has no chain', () => {
    expect(() => vfio.chain(Buffer.alloc(0), 0, 4)).toThrow(expect.objectContaining({ code: 'EPROTO' }));
  });

  test('random bytes end in a bounded list or in EPROTO', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 400 }), fc.nat(64), fc.nat(440), fc.boolean(), (bytes, fixed, first, small) => {
        // Small offsets make long chains and cycles likely.
        if (small) for (let i = 4; i + 4 <= bytes.length; i += 8) bytes.set([bytes[i]! & 0xfc, 0, 0, 0], i);
        let chain: ReturnType<typeof vfio.chain>;
        try {
          chain = vfio.chain(bytes, fixed, first);
        } catch (err) {
          expect((err as NodeJS.ErrnoException).code).toBe('EPROTO');
          return;
        }
        expect(new Set(chain.map((cap) => cap.offset)).size).toBe(chain.length);
        for (const { offset, size } of chain) {
          expect(offset).toBeGreaterThanOrEqual(fixed);
          expect(size).toBeGreaterThanOrEqual(4);
          expect(offset + size).toBeLessThanOrEqual(bytes.length);
        }
      }),
      { numRuns: 3000 },
    );
  });
});

describe('memory', () => {
  test('the address has the wanted phase within a huge page', () => {
    for (const [align, phase] of [
      [0x20_0000n, 0n],
      [0x20_0000n, 0x1_3000n],
      [0x4000_0000n, 0x20_0000n],
      [0x1000n, 0n],
    ] as const) {
      const memory = vfio.newMemory('phase', 0x40_0000n, 0n, align, phase);
      expect(vfio.memoryInfo(memory).va % align).toBe(phase);
      vfio.closeMemory(memory);
    }
  });

  test('bytes come back, bounds hold, the descriptor shares them, closing is final', () => {
    const memory = vfio.newMemory('bytes', 8192n, 0n, 4096n, 0n);
    const { fd } = vfio.memoryInfo(memory);
    expect(fs.readlinkSync(`/proc/self/fd/${fd}`)).toBe('/memfd:vioctl-bytes (deleted)');
    vfio.writeMemory(memory, 8000, Buffer.from('hello'));
    expect(vfio.readMemory(memory, 8000n, Buffer.alloc(5)).toString()).toBe('hello');
    expect(() => vfio.readMemory(memory, 8190, Buffer.alloc(5))).toThrow(expect.objectContaining({ code: 'ERANGE' }));
    expect(() => vfio.writeMemory(memory, -1n as never, Buffer.alloc(1))).toThrow();
    vfio.closeMemory(memory);
    vfio.closeMemory(memory);
    expect(() => vfio.readMemory(memory, 0, Buffer.alloc(1))).toThrow(expect.objectContaining({ code: 'EINVAL' }));
    expect(fs.existsSync(`/proc/self/fd/${fd}`)).toBe(false);
  });

  test('populate takes pages, within bounds; a hole of a file is EFAULT', () => {
    const memory = vfio.newMemory('pages', 1n << 20n, 0n, 4096n, 0n);
    const blocks = () => fs.fstatSync(vfio.memoryInfo(memory).fd).blocks;
    expect(blocks()).toBe(0);
    vfio.populate(memory, 4096, 8192n, true);
    expect(blocks()).toBe(16);
    vfio.populate(memory, 0n, 1n << 20n, true);
    expect(blocks()).toBe(2048);
    expect(() => vfio.populate(memory, 4096, 1n << 20n, true)).toThrow(expect.objectContaining({ code: 'ERANGE' }));
    vfio.closeMemory(memory);
    expect(() => vfio.populate(memory, 0, 4096, true)).toThrow(expect.objectContaining({ code: 'EINVAL' }));
    const file = path.join(os.tmpdir(), `vioctl-populate-${process.pid}`);
    fs.writeFileSync(file, Buffer.alloc(8192));
    const short = vfio.fileMemory(file, 8192n, false, 4096n, 0n);
    fs.truncateSync(file, 4096);
    fs.rmSync(file);
    vfio.populate(short, 0, 4096, false);
    expect(() => vfio.populate(short, 0, 8192, false)).toThrow(expect.objectContaining({ code: 'EFAULT' }));
    vfio.closeMemory(short);
  });

  test('objects of another kind are refused', () => {
    const memory = vfio.newMemory('kind', 4096n, 0n, 4096n, 0n);
    expect(() => vfio.info(memory as never)).toThrow(expect.objectContaining({ code: 'EINVAL' }));
    expect(() => vfio.memoryInfo({} as never)).toThrow(expect.objectContaining({ code: 'EINVAL' }));
    vfio.closeMemory(memory);
  });
});

test('opening what is no VFIO node fails with the call and leaves no descriptor', () => {
  const before = fs.readdirSync('/proc/self/fd').length;
  expect(() => vfio.openGroup('/nonexistent', '/dev/null', '0000:00:00.0', false)).toThrow(
    expect.objectContaining({ code: 'ENOENT', syscall: 'open' }),
  );
  expect(() => vfio.openGroup('/dev/null', '/dev/null', '0000:00:00.0', false)).toThrow(
    expect.objectContaining({ code: 'ENOTTY', syscall: 'VFIO_GET_API_VERSION' }),
  );
  expect(() => vfio.openDevice('/dev/null', '/dev/null')).toThrow(
    expect.objectContaining({ code: 'ENOTTY', syscall: 'VFIO_DEVICE_BIND_IOMMUFD' }),
  );
  expect(fs.readdirSync('/proc/self/fd').length).toBeLessThanOrEqual(before);
});

test('exec: the program gets the descriptors from 3 on, blocking standard ones, default signals and LISTEN_PID', () => {
  // A pipe that Node has looked at is non-blocking; SIGPIPE is ignored in Node.
  const script = `const { vfio } = require(process.argv[1]);
process.stdout.columns;
const fds = ['/dev/zero', '/dev/null'].map((file) => require('node:fs').openSync(file));
const show = 'echo $LISTEN_PID $$; grep -h ^flags /proc/self/fdinfo/1; readlink /proc/self/fd/4; grep -E "Sig(Blk|Ign)" /proc/self/status';
vfio.exec('sh', ['sh', '-c', show], ['PATH=' + process.env.PATH], fds, undefined);`;
  const addon = process.env.VIOCTL_ADDON ?? path.resolve(__dirname, '..', '..', 'build', 'native', 'release', 'vioctl.node');
  const { status, stdout, stderr } = spawnSync('sh', ['-c', '"$@" </dev/null | cat', 'sh', process.execPath, '-e', script, addon], {
    encoding: 'utf8',
  });
  expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
  const [pids, flags, fourth, ...signals] = stdout.trim().split('\n');
  expect(new Set(pids!.split(' ')).size).toBe(1);
  expect(Number.parseInt(flags!.split('\t')[1]!, 8) & fs.constants.O_NONBLOCK).toBe(0);
  expect(fourth).toBe('/dev/null');
  expect(signals).toEqual([`SigBlk:\t${'0'.repeat(16)}`, `SigIgn:\t${'0'.repeat(16)}`]);
});

test('exec: a program that is not there is an error, and this process goes on', () => {
  expect(() => native().vfio.exec('no-such-program', ['no-such-program'], [], [], undefined)).toThrow(
    expect.objectContaining({ code: 'ENOENT', syscall: 'execve' }),
  );
});
