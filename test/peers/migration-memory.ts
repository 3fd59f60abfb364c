// What the tests on files of real guests share: guests, extraction, hashes.
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import { openInput } from '../../src/migration/containers/input.js';
import { extract } from '../../src/migration/export/extract.js';
import type { ExtractOptions } from '../../src/migration/export/plan.js';
import type { QemuBuild, QemuName } from '../vm/qemu.js';
import { TestGuest } from './migration-guest.js';

/** What `use` makes of a guest that is stopped in any case. */
export async function withGuest<T>(
  build: QemuBuild,
  dir: string,
  args: readonly string[],
  use: (guest: TestGuest) => Promise<T>,
): Promise<T> {
  const guest = await TestGuest.start(build, dir, args);
  try {
    return await use(guest);
  } finally {
    await guest.stop();
  }
}

/** Extracts guest memory. */
export async function memory(from: string, to: string, options: Partial<ExtractOptions> = {}) {
  const fd = fs.openSync(to, 'w+');
  try {
    return await extract(openInput(from), fd, { as: 'sparse', ...options }, () => {});
  } finally {
    fs.closeSync(fd);
  }
}

export async function hashOf(name: string, at: number, size: number): Promise<string> {
  const hash = createHash('sha256');
  for await (const bytes of fs.createReadStream(name, { start: at, end: at + size - 1, highWaterMark: 1 << 20 }))
    hash.update(bytes as Buffer);
  return hash.digest('hex');
}

/** RAM that nothing else is mapped over: below the video memory, from 1 MiB on, from 4 GiB on. */
export const ranges = (low: number, high = 0): [number, number][] => [
  [0, 0xa0000],
  [1 << 20, low - (1 << 20)],
  ...(high > 0 ? ([[2 ** 32, high]] as [number, number][]) : []),
];

/** URI of a file to write or load; 7.2 has no `file:`. */
export const uri = (build: QemuName, name: string, offset?: number) =>
  build === '7.2' ? `exec:cat > ${name}` : `file:${name}${offset === undefined ? '' : `,offset=${offset}`}`;

/** URI of a file to load. */
export const from = (build: QemuName, name: string) => (build === '7.2' ? `exec:cat ${name}` : `file:${name}`);
