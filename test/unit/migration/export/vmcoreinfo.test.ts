import { guestNotePlace, vmcoreinfo } from '../../../../src/migration/export/vmcoreinfo.js';
import * as m from '../../../support/migration.js';

test("the place of the guest's note: only an ELF note of a size that QEMU takes", () => {
  const fields = {
    has_vmcoreinfo: true,
    'vmcoreinfo.guest_format': 1,
    'vmcoreinfo.size': 4132,
    'vmcoreinfo.paddr': 0x7f000n,
  };
  expect(guestNotePlace(fields)).toEqual({ address: 0x7f000n, size: 4132 });
  const others = [{ has_vmcoreinfo: false }, { 'vmcoreinfo.guest_format': 2 }, { 'vmcoreinfo.size': 11 }, { 'vmcoreinfo.size': 1 << 20 }];
  for (const other of others) expect(guestNotePlace({ ...fields, ...other })).toBeUndefined();
  expect(guestNotePlace({})).toBeUndefined();
});

describe('VMCOREINFO out of guest memory', () => {
  const LITTLE = false;
  const BIG = true;
  const desc = Buffer.from('OSRELEASE=6.12\nPAGESIZE=4096\n'); // 29 bytes
  const note = (size: Buffer, name: string, kind: Buffer, nameSize: Buffer) =>
    m.cat(nameSize, size, kind, Buffer.from(`${name}\0`), Buffer.alloc(1), desc, Buffer.alloc(3));
  const le = (v: number) => Buffer.from(Uint32Array.of(v).buffer);
  const good = note(le(desc.length), 'VMCOREINFO', le(0), le(11));

  test('what is behind it stays behind', () => {
    expect(vmcoreinfo(m.cat(good, Buffer.alloc(500, 0xaa)), LITTLE)).toEqual(good);
    expect(vmcoreinfo(good, LITTLE)).toEqual(good);
    const big = note(m.be32(desc.length), 'VMCOREINFO', m.be32(0), m.be32(11));
    expect(vmcoreinfo(m.cat(big, Buffer.alloc(9)), BIG)).toEqual(big);
  });

  test.each([
    ['memory that was not sent', Buffer.alloc(64)],
    ['a note of another name', note(le(desc.length), 'VMCOREINF0', le(0), le(11))],
    ['a name of another length', note(le(desc.length), 'VMCOREINFO', le(0), le(10))],
    ['a note that ends behind the memory', good.subarray(0, good.length - 1)],
    ['a length of 4 GiB', note(le(0xffffffff), 'VMCOREINFO', le(0), le(11))],
    ['a header alone', good.subarray(0, 12)],
  ])('%s is none', (_name, bytes) => {
    expect(vmcoreinfo(bytes, LITTLE)).toBeUndefined();
  });
});
