/** `migration diff`: the shape alone, a device that one stream lacks, and long values. */
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { vioctl } from '../support/cli.js';
import * as m from '../support/migration.js';

const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-diff-'));
afterAll(() => fs.rmSync(dir, { recursive: true, force: true }));
const put = (name: string, bytes: Buffer): string => {
  fs.writeFileSync(path.join(dir, name), bytes);
  return path.join(dir, name);
};
const diff = (a: Buffer, b: Buffer, ...more: string[]) => vioctl(['migration', 'diff', put('a', a), put('b', b), ...more]);

/** A stream of devices: name, version of the section, description, bytes. */
const stream = (...devices: [name: string, version: number, description: object, body: Buffer][]): Buffer =>
  m.sample({
    devices: m.cat(...devices.map(([name, version, , body], i) => m.full(10 + i, name, version, body))),
    tail: m.cat(m.eof, m.vmdesc(devices.map(([, , description]) => description))),
  });
const words = (count: number, size = 4, name = 'regs') => ({ name, type: `uint${size * 8}`, size, array_len: count });
const cpu = (value: number, count = 4, size = 4, version = 1) =>
  ['cpu', version, m.device('cpu', [words(count, size)]), Buffer.alloc(count * size, value)] as [string, number, object, Buffer];
const timer = (value: number, more: object = {}, body = m.be64(value)) =>
  ['timer', 1, m.device('timer', [{ name: 'ticks', type: 'int64', size: 8 }], more), body] as [string, number, object, Buffer];
const nic = ['nic', 3, m.device('nic', [words(3), { name: 'up', type: 'bool', size: 1 }]), Buffer.alloc(13, 1)] as [
  string,
  number,
  object,
  Buffer,
];

describe('--structure', () => {
  test('other values are no difference of the shape', () => {
    expect(diff(stream(cpu(1), timer(1)), stream(cpu(2), timer(2)), '--structure')).toMatchObject({
      status: 0,
      stdout: 'no differences\n',
    });
    expect(diff(stream(cpu(1), timer(1)), stream(cpu(2), timer(2))).status).toBe(4);
  });

  const subsection = (version: number) => {
    const body = m.cat(m.be64(1), m.subsection('timer/late', version, m.u8(1)));
    return timer(1, { subsections: [{ vmsd_name: 'timer/late', version, fields: [{ name: 'late', type: 'bool', size: 1 }] }] }, body);
  };

  test.each<[string, Buffer, Buffer, string[]]>([
    ['the number of elements', stream(cpu(1)), stream(cpu(1, 5)), ['! cpu/regs uint32, 4 bytes x 4 -> uint32, 4 bytes x 5']],
    ['the size and the type of a field', stream(cpu(1)), stream(cpu(1, 4, 8)), ['! cpu/regs uint32, 4 bytes x 4 -> uint64, 8 bytes x 4']],
    ['the version of a section', stream(cpu(1)), stream(cpu(1, 4, 4, 2)), ['! cpu/version 1 -> 2']],
    ['a subsection', stream(timer(1)), stream(subsection(1)), ['+ timer/timer/late (2 values)']],
    ['the version of a subsection', stream(subsection(1)), stream(subsection(2)), ['! timer/timer/late/version 1 -> 2']],
    ['a device', stream(cpu(1), nic), stream(cpu(1)), ['- nic (3 values)']],
  ])('%s', (_what, a, b, lines) => {
    const { status, stdout } = diff(a, b, '--structure');
    expect({ status, lines: stdout.trimEnd().split('\n') }).toEqual({ status: 4, lines });
  });
});

test('a device that one stream lacks is one line; its fields on request', () => {
  const [without, withNic] = [stream(cpu(1)), stream(cpu(1), nic)];
  for (const [a, b, mark] of [
    [without, withNic, '+'],
    [withNic, without, '-'],
  ] as const) {
    expect(diff(a, b)).toMatchObject({ status: 4, stdout: `${mark} nic (5 values)\n` });
    const fields = diff(a, b, '--fields').stdout.trimEnd().split('\n');
    expect(fields).toEqual(
      ['version 3', 'regs/0 16843009', 'regs/1 16843009', 'regs/2 16843009', 'up true'].map((f) => `${mark} nic/${f}`),
    );
    expect(diff(a, b, '--ignore', 'nic')).toMatchObject({ status: 0 });
  }
});

test('long values: where they begin to differ, in how many bytes, and the bytes there', () => {
  const memory = (change: (b: Buffer) => void): Buffer => {
    const body = Buffer.alloc(200, 0xab);
    change(body);
    return stream(['rtc', 1, m.device('rtc', [{ name: 'cmos', type: 'buffer', size: body.length }]), body]);
  };
  const [a, b] = [memory(() => {}), memory((bytes) => bytes.set([1, 2, 0xab, 3], 150))];
  const { status, stdout } = diff(a, b);
  expect(status).toBe(4);
  expect(stdout).toBe(`! rtc/cmos from byte 150 on, 3 bytes differ: …${'ab'.repeat(16)}… -> …0102ab03${'ab'.repeat(12)}…\n`);
  expect(JSON.parse(diff(a, b, '--json').stdout)).toMatchObject({ differences: [{ path: 'rtc/cmos', first: 150, bytes: 3 }] });
});

test('the state of a virtio class differs in its fields, not in its bytes as well', () => {
  const balloon = (actual: number): Buffer => {
    const body = m.virtioField(m.cat(m.be32(0), m.be32(actual)));
    const name = '0000:00:04.0/virtio-balloon';
    const field = { name: 'virtio', type: 'virtio', size: body.length };
    return stream([name, 1, m.device(name, [field], { vmsd_name: 'virtio-balloon' }), body]);
  };
  expect(diff(balloon(7), balloon(9)).stdout).toBe('! 0000:00:04.0/virtio-balloon/virtio/class/actual 7 -> 9\n');
});
