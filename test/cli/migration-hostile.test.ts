/** Tables that a guest or a file may fill with anything: what they ask for is bounded, so that the program ends, and soon. */
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { vioctl } from '../support/cli.js';
import * as m from '../support/migration.js';

const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-hostile-'));
afterAll(() => fs.rmSync(dir, { recursive: true, force: true }));
const file = path.join(dir, 'file');
const MIB = 1 << 20;

/** A stream of `machine` with a small RAM, more blocks with content, and devices in front of the usual ones. */
function stream(machine: string, ram: string, blocks: Record<string, Buffer>, device?: { section: Buffer; described: object }): Buffer {
  const list: [string, number][] = [[ram, 16 * m.PAGE], ...Object.entries(blocks).map(([name, b]): [string, number] => [name, b.length])];
  const pages = Object.entries(blocks).flatMap(([name, bytes]) =>
    Array.from({ length: bytes.length / m.PAGE }, (_, i) =>
      m.page(i * m.PAGE, bytes.subarray(i * m.PAGE, (i + 1) * m.PAGE), i === 0 ? name : undefined),
    ),
  );
  const sections = m.ramSections(m.cat(m.zero(0, ram), m.zeros(m.PAGE, 16 * m.PAGE), ...pages), m.blockList(...list));
  const usual = [m.full(0, 'timer', 1, m.timerBody), m.full(3, 'cpu', 1, m.cpuBody)];
  const described = [...(device ? [device.described] : []), ...m.devices];
  return m.cat(m.header(), m.configuration(machine), sections, device?.section, ...usual, m.eof, m.vmdesc(described));
}

/** Calls `put` with every `step`th position from `from` to `to`. */
function fill(from: number, to: number, step: number, put: (at: number) => void): void {
  for (let at = from; at + step <= to; at += step) put(at);
}

const size = 16 * MIB;
const table = (signature: string, change: (bytes: Buffer) => void): Buffer => {
  const bytes = Buffer.alloc(size);
  bytes.write(signature, 0, 'latin1');
  bytes.writeUInt32LE(size, 4);
  change(bytes);
  return bytes;
};
const structure = (bytes: Buffer, at: number, length: number) => bytes.writeUInt16LE(length, at + 2);

test.each<[string, Buffer]>([
  [
    'a million NFITs, each within the one before',
    table('NFIT', (b) => {
      fill(8, size / 2, 8, (at) => {
        b.write('NFIT', at, 'latin1');
        b.writeUInt32LE(size - at, at + 4);
      });
      fill(size / 2, size, 4, (at) => structure(b, at, 4));
    }),
  ],
  ['four million structures', table('NFIT', (b) => fill(40, size, 4, (at) => structure(b, at, 4)))],
  [
    '300,000 ranges of memory',
    table('NFIT', (b) =>
      fill(40, size, 56, (at) => {
        structure(b, at, 56);
        b.writeBigUInt64LE(BigInt(at) << 32n, at + 32);
        b.writeBigUInt64LE(BigInt(MIB), at + 40);
      }),
    ),
  ],
  ['four million signatures', Buffer.alloc(size, 'SRAT')],
])('ACPI tables: %s', (_what, acpi) => {
  fs.writeFileSync(file, stream('pc-q35-10.0', 'pc.ram', { dimm: Buffer.alloc(MIB), '/rom@etc/acpi/tables': acpi }));
  const { status, stderr } = vioctl(['migration', 'ram', file, '-o', path.join(dir, 'out')]);
  expect({ status, stderr }).toEqual({ status: 7, stderr: expect.stringContaining('dimm') });
});

test('a device tree of properties whose names are megabytes', () => {
  const tree = Buffer.alloc(8 * MIB, 'A');
  for (const [at, v] of [0xd00dfeed, 0, 40, 4 * MIB].entries()) tree.writeUInt32BE(v, 4 * at);
  tree.set([0, 0, 0, 1, 0, 0, 0, 0], 40);
  fill(48, 4 * MIB, 12, (at) => tree.set([0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0], at));
  const names = ['fdt_initial_size', 'fdt_size'].map((name) => ({ name, type: 'uint32', size: 4 }));
  const fields = [...names, { name: 'fdt_blob', type: 'buffer', size: tree.length }];
  const described = m.device('spapr', [], { subsections: [{ vmsd_name: 'spapr_dtb', version: 1, fields }] });
  const section = m.full(9, 'spapr', 1, m.subsection('spapr_dtb', 1, m.cat(m.be32(1), m.be32(1), tree)));
  fs.writeFileSync(file, stream('pseries-10.0', 'ppc_spapr.ram', { dimm: Buffer.alloc(MIB) }, { section, described }));
  expect(vioctl(['migration', 'ram', file, '-o', path.join(dir, 'out')]).status).toBe(7);
});

/** Opens a qcow2 image with a header for snapshots whose table is at `at`. */
function image(clusterBits: number, snapshots: number, at: number): number {
  const header = Buffer.alloc(112);
  header.write('QFI\xfb', 0, 'latin1');
  for (const [offset, v] of [
    [4, 3],
    [20, clusterBits],
    [60, snapshots],
    [100, 104],
  ] as const)
    header.writeUInt32BE(v, offset);
  header.writeBigUInt64BE(BigInt(at), 64);
  const fd = fs.openSync(file, 'w');
  fs.writeSync(fd, header);
  return fd;
}
const snapshot = (idSize: number, nameSize: number, state: bigint, l1: [bigint, number]): Buffer => {
  const entry = Buffer.alloc(56);
  entry.writeBigUInt64BE(l1[0], 0);
  entry.writeUInt32BE(l1[1], 8);
  entry.writeUInt16BE(idSize, 12);
  entry.writeUInt16BE(nameSize, 14);
  entry.writeUInt32BE(16, 36);
  entry.writeBigUInt64BE(state, 40);
  return entry;
};

test('qcow2: a table of snapshots with names of 64 KiB', () => {
  const long = 65520;
  const step = 56 + 2 * long;
  const fd = image(16, 60000, 65536);
  for (let i = 0; i < 600; i++) fs.writeSync(fd, snapshot(long, long, 7n, [0n, 0]), 0, 56, 65536 + i * step);
  fs.ftruncateSync(fd, 65536 + 60000 * step);
  fs.closeSync(fd);
  const { status, stderr } = vioctl(['migration', 'verify', file]);
  expect({ status, stderr }).toEqual({ status: 5, stderr: expect.stringMatching(/the table of 60000 snapshots has more than/) });
});

test('qcow2: many snapshots, of which a message names the first', () => {
  const fd = image(16, 1000, 65536);
  for (let i = 0; i < 1000; i++)
    fs.writeSync(fd, Buffer.concat([snapshot(4, 4, 7n, [0n, 0]), Buffer.from(`${1000 + i}many`)]), 0, 64, 65536 + i * 64);
  fs.closeSync(fd);
  const { status, stderr } = vioctl(['migration', 'verify', file]);
  expect(status).toBe(2);
  expect(stderr).toMatch(/1000 \(many\), .*1015 \(many\), and 984 more$/m);
});

test('qcow2: a VM state of exabytes in empty L2 tables', () => {
  const tables = 1 << 17;
  const fd = image(16, 1, 65536);
  const l1 = Buffer.alloc(tables * 8);
  for (let i = 0; i < tables; i++) l1.writeBigUInt64BE(BigInt(i + 100) << 16n, i * 8);
  fs.writeSync(fd, Buffer.concat([snapshot(1, 1, 1n << 60n, [1n << 17n, tables]), Buffer.from('12')]), 0, 58, 65536);
  fs.writeSync(fd, l1, 0, l1.length, 1 << 17);
  fs.ftruncateSync(fd, (tables + 100) * 65536);
  fs.closeSync(fd);
  const { status, stderr } = vioctl(['migration', 'verify', file], { timeout: 60_000 });
  expect({ status, stderr }).toEqual({ status: 7, stderr: expect.stringMatching(/more than \d+ bytes of L2 tables/) });
});
