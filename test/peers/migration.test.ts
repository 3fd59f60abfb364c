import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { openInput } from '../../src/migration/containers/input.js';
import { collect } from '../../src/migration/inspect/dump.js';
import { verify } from '../../src/migration/inspect/verify.js';
import { Walker } from '../../src/migration/walk.js';
import { vioctl } from '../support/cli.js';
import { everything } from '../support/effort.js';
import { foreignQemuForTest, type QemuBuild, type QemuName, qemuForTest } from '../vm/qemu.js';
import { dirtyingDisk, hashTableFirmware, put } from './migration-guest.js';
import { type Kind, kindsIn } from './migration-kinds.js';
import { from, hashOf, memory, uri, withGuest } from './migration-memory.js';

const builds: QemuName[] = ['7.2', '10', '11'];
const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-qemu-'));
const file = (name: string) => path.join(dir, name);
const kinds = kindsIn(dir);
fs.writeFileSync(file('blk'), dirtyingDisk());
fs.truncateSync(file('blk'), 16 << 20);
put(dir, 'hash-table', hashTableFirmware());
afterAll(() => fs.rmSync(dir, { recursive: true, force: true }));

/** Whether a file has bytes and has not grown for two seconds. */
function settled(name: string): () => boolean {
  let size = 0;
  let since = Date.now();
  return () => {
    const now = fs.statSync(name, { throwIfNoEntry: false })?.size ?? 0;
    if (now !== size || now === 0) since = Date.now();
    size = now;
    return Date.now() - since > 2000;
  };
}

execFileSync('mkfifo', [file('pipe')]);
/** What verify says of a file that comes through a pipe. */
async function verifyPiped(name: string) {
  const cat = spawn('sh', ['-c', 'exec cat "$0" >"$1"', name, file('pipe')], { stdio: 'ignore' });
  const ended = once(cat, 'exit');
  const said = await verify(openInput(file('pipe')), () => {}); // the opening waits for the writer
  expect((await ended)[0]).toBe(0);
  return said;
}

const make = (build: QemuBuild, name: QemuName, kind: Kind, out: string): Promise<void> =>
  withGuest(
    kind.program ? { ...build, argv: (_program, args) => build.argv(kind.program!, args) } : build,
    dir,
    kind.args,
    async (guest) => {
      await kind.before?.(guest);
      await guest.migrate({
        ...kind.migration,
        uri: uri(name, out, kind.migration?.offset),
        ...(kind.migration?.mayFail && { written: settled(out) }),
      });
    },
  );

describe.each(builds)('files of QEMU %s', (name) => {
  let build: QemuBuild | undefined;
  beforeAll(async () => {
    build = await qemuForTest(name, 'migration files of real guests');
  }, 600_000);

  test.each(kinds.filter((k) => k.builds?.includes(name) ?? true).map((k) => [k.name, k] as const))(
    '%s: parsed to the last byte, every device by its description',
    async (_name, kind) => {
      const maker = kind.program ? await foreignQemuForTest(name, kind.program, `migration files of ${kind.program} ${name}`) : build;
      if (!maker) return;
      const out = file('m');
      await make(maker, name, kind, out);
      const offset = kind.migration?.offset ?? 0;
      const input = openInput(out, { offset });
      const dump = await collect(input, new Walker(input.reader, { fields: true, ram: { check: true } }));
      const notes = (kind.notes ?? []).map((code) => ({ code, severity: 'note' }));
      const issues = kind.elsewhere ? [...notes, { code: 'ram-shared', severity: 'warning' }] : notes;
      expect(dump.issues).toMatchObject(issues);
      expect(dump.issues).toHaveLength(issues.length);
      expect(dump).toMatchObject({ complete: !kind.elsewhere, ...kind.shows });
      expect(dump.trailing).toBeUndefined();
      const last = dump.records.at(-1) as { offset: bigint; size?: number };
      expect(Number(last.offset) + (last.size ?? 1)).toBe(fs.statSync(out).size);
      for (const r of dump.records) {
        if (r.type !== 'section' || r.record !== 'full') continue;
        expect({ name: r.name, bounded: r.bounded, fields: r.fields !== undefined }).toEqual({
          name: r.name,
          bounded: kind.undescribed ? 'footer' : 'description',
          fields: !kind.undescribed,
        });
      }
      // What the class of a virtio device saves is known for every type that saves something.
      for (const r of dump.records) {
        const virtio = r.type === 'section' && (r.fields?.virtio as { deviceStateSize?: number; class?: object } | undefined);
        if (virtio && virtio.deviceStateSize! > 0)
          expect({ name: r.name, class: virtio.class !== undefined }).toEqual({ name: r.name, class: true });
      }
      for (const [section, wanted] of Object.entries(kind.classes ?? {})) {
        const found = dump.records.find((r) => r.type === 'section' && r.name.endsWith(section));
        expect({ section, fields: (found as { fields?: object } | undefined)?.fields }).toMatchObject({ section, fields: wanted });
      }
      if (kind.iterable) {
        const { name: section, least } = kind.iterable;
        const parts = dump.records.flatMap((r) => (r.type === 'section' && r.name === section && r.detail ? [r.detail] : []));
        expect(parts.length).toBeGreaterThan(1);
        for (const [key, value] of Object.entries(least)) {
          // NaN, which is not at least anything, if no part has it.
          const sum = parts.filter((d) => key in d).reduce((n, d) => (Number.isNaN(n) ? 0 : n) + Number(d[key]), Number.NaN);
          expect(sum).toBeGreaterThanOrEqual(value);
        }
      }
      // Memory that virtio-mem has not plugged is not sent.
      const seen = dump.ram!.blocks.filter((b) => !b.shared && b.gpa === undefined && !b.name.endsWith('/vm'));
      if (!kind.migration?.capabilities?.includes('mapped-ram')) {
        for (const b of seen) expect({ block: b.name, seen: b.state.seen }).toEqual({ block: b.name, seen: Number(b.length) / 4096 });
      }
      // The same through a pipe: same records, same counters.
      if (offset === 0) {
        const piped = await verifyPiped(out);
        const whole = await verify(openInput(out), () => {});
        expect(piped).toMatchObject({ verdict: whole.verdict, sections: whole.sections });
        const verdict = kind.undescribed ? 'complete-without-description' : 'complete';
        if (kind.elsewhere) expect(vioctl(['migration', 'verify', out]).status).toBe(7);
        expect(whole.verdict).toBe(kind.elsewhere ? 'memory-elsewhere' : verdict);
      }
    },
    60_000,
  );
  // With the halves moved below 4 GiB, each build; the sizes at which machines split by themselves are in migration-layout.test.ts.
  test.each([
    ['pc,max-ram-below-4g=64M', 100, 64],
    ['q35,max-ram-below-4g=100M', 132, 100],
    ...(everything
      ? ([
          ['pc', 3840, 3072],
          ['q35', 2944, 2048],
        ] as const)
      : []),
  ] as const)(
    '%s with %i MiB: physical memory below and above 4 GiB is what the restored guest has',
    async (machine, size, low) => {
      if (!build) return;
      const out = file('large');
      const blob = put(dir, 'blob', Buffer.from(Array.from({ length: 3 << 20 }, (_, i) => (i * 7 + (i >> 9)) & 0xff)));
      const places = [0x20000, 0x100000, (low - 8) * 0x100000, 2 ** 32, 2 ** 32 + (size - low - 4) * 0x100000];
      const args = ['-M', machine, '-m', String(size)];
      for (const [i, at] of places.entries())
        args.push('-device', `loader,file=${i === 0 ? put(dir, 'small', dirtyingDisk().subarray(0, 512)) : blob},addr=${at},force-raw=on`);
      const capabilities = name === '7.2' || machine.startsWith('q35') ? [] : ['mapped-ram'];
      await withGuest(build, dir, args, (guest) => guest.migrate({ uri: uri(name, out), capabilities }));
      const done = await memory(out, file('large.mem'));
      expect(done).toMatchObject({ complete: true, size: 2 ** 32 + (size - low) * 2 ** 20 });
      // Holes where there is nothing: a few MB on disk for gigabytes of memory.
      expect(fs.statSync(file('large.mem')).blocks * 512).toBeLessThan(64 << 20);
      // All RAM is compared, and of gigabytes below 4 GiB what lies around all that was put there.
      await withGuest(build, dir, [...args, '-incoming', 'defer'], async (guest) => {
        await guest.load(from(name, out), capabilities);
        const parts: [number, number][] = [
          [0, 0xa0000],
          [1 << 20, (Math.min(low, 65) - 1) << 20],
          [Math.max(low - 64, 1) * 2 ** 20, Math.min(64, low - 1) << 20],
          [2 ** 32, (size - low) << 20],
        ];
        for (const [at, length] of parts) {
          expect({ at, hash: await hashOf(file('large.mem'), at, length) }).toEqual({ at, hash: await guest.memoryHash(dir, at, length) });
        }
        expect(await hashOf(file('large.mem'), 2 ** 32, 3 << 20)).toBe(await hashOf(blob, 0, 3 << 20));
      });
      fs.rmSync(file('large.mem'));
    },
    120_000,
  );

  test.each(['off', 'on'])(
    'an internal snapshot of a qcow2 image, in place, extended L2 entries %s',
    async (extended) => {
      if (!build) return;
      const image = file('disk.qcow2');
      execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', '-o', `extended_l2=${extended}`, image, '64M']);
      const args = [
        '-M',
        'pc',
        '-m',
        '16',
        '-blockdev',
        `driver=qcow2,node-name=d,file.driver=file,file.filename=${image}`,
        '-device',
        'ide-hd,drive=d',
      ];
      await withGuest(build, dir, args, async (guest) => {
        const said = await guest.qmp.run('human-monitor-command', { 'command-line': 'savevm first' });
        expect(said).toBe('');
        await guest.qmp.run('quit');
      });
      const input = openInput(image, { snapshot: 'first' });
      const dump = await collect(input, new Walker(input.reader, { fields: true }));
      expect(dump).toMatchObject({ complete: true, issues: [], container: { type: 'qcow2', name: 'first' } });
      expect(dump.ram!.blocks.find((b) => b.name === 'pc.ram')!.state.seen).toBe(4096);
      fs.rmSync(image);
    },
    60_000,
  );
});
