import { memoryStart, notesAt } from '../../../../src/migration/export/elf.js';

test('notes of an ELF core lie between headers and memory, and behind the memory if there are too many', () => {
  const x86Notes = 20 + 336 + 20 + 440; // NT_PRSTATUS and QEMU note of one CPU
  expect(notesAt(2, 288 * x86Notes, 9n << 30n)).toBe(64n + 3n * 56n);
  expect(memoryStart(2)).toBeGreaterThanOrEqual(64n + 3n * 56n + 288n * BigInt(x86Notes));
  expect(memoryStart(2) % 4096n).toBe(0n);
  expect(notesAt(2, 4096 * x86Notes, 9n << 30n)).toBe(9n << 30n);
});
