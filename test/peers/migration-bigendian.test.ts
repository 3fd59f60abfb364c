// Files of a QEMU that is itself a big-endian program (Debian's for s390x, under user emulation): what is written in the
// order of the host, the bitmaps of mapped-ram, is there in the other order than in all files of other tests; what the
// format fixes is not. Guests stay paused, with a blob in their memory. Expected are the blob's bytes, the memory as QEMU
// saves it (pmemsave), and QEMU's own counts of pages.
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { openInput } from '../../src/migration/containers/input.js';
import { collect } from '../../src/migration/inspect/dump.js';
import { Walker } from '../../src/migration/walk.js';
import { vioctl } from '../support/cli.js';
import { bigEndianQemuForTest, type QemuBuild } from '../vm/qemu.js';
import { type Migration, put, type TestGuest } from './migration-guest.js';
import { hashOf, ranges, withGuest } from './migration-memory.js';

const PAGE = 4096;
const SIZE = 8 << 20;
const AT = 0x203000;
const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-bigendian-'));
const file = (name: string) => path.join(dir, name);
afterAll(() => fs.rmSync(dir, { recursive: true, force: true }));

/** About a third of 1000 pages have content, in no order that both readings of a bitmap have. */
const filled = Array.from({ length: 1000 }, (_, i) => createHash('sha256').update(String(i)).digest()[0]! < 85);
const blob = Buffer.concat(filled.map((f, i) => Buffer.alloc(PAGE, f ? 1 + (i % 255) : 0)));
const blobFile = put(dir, 'blob', blob);

interface Made {
  file: string;
  /** hashes of the guest's memory, by QEMU */
  memory: { at: number; size: number; hash: string }[];
  /** what QEMU says that it wrote */
  pages: { normal: number; zero: number };
}

type Machine = 'pc' | 's390-ccw-virtio';
const blocks: Record<Machine, string> = { pc: 'pc.ram', 's390-ccw-virtio': 's390.ram' };

async function memoryOf(guest: TestGuest, parts: [number, number][]): Promise<Made['memory']> {
  const memory: Made['memory'] = [];
  for (const [at, size] of parts) memory.push({ at, size, hash: await guest.memoryHash(dir, at, size) });
  return memory;
}

/** Has a paused guest write a file. */
async function make(build: QemuBuild, machine: Machine, out: string, migration: Partial<Migration> = {}): Promise<Made> {
  const program = machine === 'pc' ? 'qemu-system-x86_64' : 'qemu-system-s390x';
  const args = ['-M', machine, '-m', `${SIZE >> 20}`, '-device', `loader,file=${blobFile},addr=${AT},force-raw=on`];
  return withGuest({ ...build, argv: (_program, more) => build.argv(program, more) }, dir, args, async (guest) => {
    const memory = await memoryOf(guest, machine === 'pc' ? ranges(SIZE) : [[0, SIZE]]);
    await guest.migrate({ uri: `file:${out}`, ...migration });
    const { ram } = (await guest.qmp.run('query-migrate')) as { ram: { normal: number; duplicate: number } };
    return { file: out, memory, pages: { normal: ram.normal, zero: ram.duplicate } };
  });
}

/** Every record to the last byte, every device by its description, and the pages that QEMU counted. Returns codes of notes. */
async function whole(made: Made): Promise<string[]> {
  const input = openInput(made.file);
  const dump = await collect(input, new Walker(input.reader, { fields: true, ram: { check: true } }));
  const sum = (kind: 'normal' | 'zero') => dump.ram!.blocks.reduce((n, b) => n + b.state[kind], 0);
  expect({ complete: dump.complete, normal: sum('normal'), zero: sum('zero') }).toEqual({ complete: true, ...made.pages });
  expect(dump.trailing).toBeUndefined();
  const last = dump.records.at(-1) as { type: string; offset: bigint; size?: number };
  expect({ type: last.type, end: Number(last.offset) + (last.size ?? 1) }).toEqual({
    type: 'vmdescription',
    end: fs.statSync(made.file).size,
  });
  const full = dump.records.flatMap((r) => (r.type === 'section' && r.record === 'full' ? [r] : []));
  expect(full.length).toBeGreaterThan(8);
  for (const r of full)
    expect({ name: r.name, bounded: r.bounded, fields: r.fields !== undefined }).toEqual({
      name: r.name,
      bounded: 'description',
      fields: true,
    });
  expect(dump.issues.filter((i) => i.severity !== 'note')).toEqual([]);
  return dump.issues.map((i) => `${i.code} ${i.path}`);
}

/** Extracts with the program itself. Returns the status, what it said, and whether the memory is the guest's. */
async function extracted(made: Made, more: string[] = [], piped = false) {
  const out = file('mem');
  const done = vioctl(
    ['migration', 'ram', piped ? '-' : made.file, '-o', out, ...more],
    piped ? { input: fs.readFileSync(made.file) } : {},
  );
  const hashes = await Promise.all(made.memory.map((m) => hashOf(out, m.at, m.size)));
  const bytes = fs.readFileSync(out).subarray(AT, AT + blob.length);
  fs.rmSync(out);
  return {
    status: done.status,
    stderr: done.stderr,
    same: hashes.every((h, i) => h === made.memory[i]!.hash),
    blob: bytes.equals(blob),
  };
}

const right = { status: 0, same: true, blob: true };

/** Pages of the blob whose bits are set in the file's bitmap, by the format's description: words of 64 bits, big-endian. */
function bitsOf(name: string, block: string): boolean[] {
  const bytes = fs.readFileSync(name);
  const entry = bytes.indexOf(Buffer.concat([Buffer.from([block.length]), Buffer.from(block)]));
  const bitmap = Number(bytes.readBigUInt64BE(entry + 1 + block.length + 8 + 12));
  return filled.map((_, i) => {
    const page = AT / PAGE + i;
    return ((bytes.readBigUInt64BE(bitmap + (page >> 6) * 8) >> BigInt(page & 63)) & 1n) === 1n;
  });
}

describe('files of a QEMU on a big-endian host', () => {
  let build: QemuBuild | undefined;
  beforeAll(async () => {
    build = await bigEndianQemuForTest('migration files of a big-endian host');
  }, 600_000);

  test.each([
    ['pc', ['mapped-ram']],
    ['pc', ['mapped-ram', 'multifd']],
    ['s390-ccw-virtio', ['mapped-ram']],
  ] as [Machine, string[]][])(
    '%s, %j: bitmaps in the order of the host are told from the pages, also through a pipe',
    async (machine, capabilities) => {
      if (!build) return;
      const made = await make(build, machine, file('mapped'), { capabilities });
      const block = blocks[machine];
      expect(bitsOf(made.file, block)).toEqual(filled);
      expect(await whole(made)).toEqual([`bitmap-order ram/${block}`]);

      const verified = vioctl(['migration', 'verify', made.file, '--json']);
      expect(verified.status).toBe(0);
      expect(JSON.parse(verified.stdout)).toMatchObject({
        verdict: 'complete',
        issues: [{ severity: 'note', code: 'bitmap-order', path: `ram/${block}` }],
      });

      for (const piped of [false, true]) {
        const told = await extracted(made, [], piped);
        expect(told).toMatchObject(right);
        expect(told.stderr).toContain('mapped-ram bitmaps of a big-endian host');
        const given = await extracted(made, ['--bitmap-endian', 'big'], piped);
        expect(given).toMatchObject(right);
        expect(given.stderr).not.toContain('warning');
      }

      // The wrong order makes another memory, and is no silent loss.
      const wrong = await extracted(made, ['--bitmap-endian', 'little']);
      expect(wrong).toMatchObject({ same: false, blob: false });
      expect(wrong.stderr).toContain('read as of a little-endian host: their content speaks for big');
      const damaged = vioctl(['migration', 'verify', made.file, '--bitmap-endian', 'little', '--json']);
      const { verdict, issues } = JSON.parse(damaged.stdout) as { verdict: string; issues: { code: string; severity: string }[] };
      expect(issues[0]).toMatchObject({ code: 'bitmap-order', severity: 'warning' });
      // Blocks whose bitmaps have room behind the last page show it there too; s390.ram fills its words.
      const spare = issues.filter((i) => i.code === 'ram-spare-bits').length;
      expect({ status: damaged.status, verdict, spare: spare > 0 }).toEqual(
        machine === 'pc' ? { status: 5, verdict: 'damaged', spare: true } : { status: 0, verdict: 'complete', spare: false },
      );
    },
    90_000,
  );

  test.each([
    ['pc', 'file:'],
    ['pc', 'exec:cat > '],
    ['s390-ccw-virtio', 'file:'],
  ] as [Machine, string][])(
    'a stream of %s by %s is that of any host',
    async (machine, scheme) => {
      if (!build) return;
      const made = await make(build, machine, file('stream'), { uri: `${scheme}${file('stream')}` });
      expect((await whole(made)).filter((note) => note.startsWith('bitmap'))).toEqual([]);
      for (const piped of [false, true])
        expect(await extracted(made, [], piped)).toMatchObject({ ...right, stderr: expect.not.stringContaining('warning') });
    },
    90_000,
  );

  test('a stream that is converted to mapped-ram for this host is loaded by it', async () => {
    if (!build) return;
    const made = await make(build, 'pc', file('stream'));
    const out = file('converted');
    const options = ['--to', 'mapped-ram', '--bitmap-endian', 'big'];
    expect(vioctl(['migration', 'convert', made.file, ...options, '-o', out])).toMatchObject({ status: 0, stderr: '' });
    expect(bitsOf(out, 'pc.ram')).toEqual(filled);
    await withGuest(build, dir, ['-M', 'pc', '-m', `${SIZE >> 20}`, '-incoming', 'defer'], async (guest) => {
      await guest.load(`file:${out}`, ['mapped-ram']);
      expect(await memoryOf(guest, ranges(SIZE))).toEqual(made.memory);
    });
  });

  test('an internal snapshot in a qcow2 image', async () => {
    if (!build) return;
    const image = file('disk.qcow2');
    const [program, ...args] = build.argv('qemu-img', ['create', '-q', '-f', 'qcow2', image, '64M']);
    execFileSync(program, args);
    const disk = ['-blockdev', `driver=qcow2,node-name=d,file.driver=file,file.filename=${image}`, '-device', 'ide-hd,drive=d'];
    const guest = ['-M', 'pc', '-m', `${SIZE >> 20}`, '-device', `loader,file=${blobFile},addr=${AT},force-raw=on`, ...disk];
    const memory = await withGuest(build, dir, guest, async (g) => {
      const before = await memoryOf(g, ranges(SIZE));
      expect(await g.qmp.run('human-monitor-command', { 'command-line': 'savevm first' })).toBe('');
      return before;
    });
    const verified = vioctl(['migration', 'verify', image, '--json']);
    expect(JSON.parse(verified.stdout)).toMatchObject({ verdict: 'complete', issues: [], container: { type: 'qcow2', name: 'first' } });
    expect(await extracted({ file: image, memory, pages: { normal: 0, zero: 0 } })).toMatchObject(right);
  });
});
