/**
 * Live migration of a guest whose disk is `serve blk`, from QEMU 10 to QEMU 10 and from 10 to 11 (and back):
 * `npm run soak -- vhost-user-migrate [--hops N]`. Ten migrations each by default, with split rings and with packed ones.
 */
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { migrateGuest } from '../support/vhost-user-migrate.js';
import { type QemuName, qemu } from '../vm/qemu.js';

const { values } = parseArgs({ args: process.argv.slice(1), options: { hops: { type: 'string', default: '10' } } });

async function main(): Promise<void> {
  const routes: [QemuName[], number, boolean, 'uring' | 'sync'][] = [
    [['10'], Number(values.hops), false, 'uring'],
    [['10', '11'], 2 * Number(values.hops), true, 'uring'], // every other one is back
    [['10', '11'], 2, false, 'sync'],
  ];
  for (const [names, hops, packed, engine] of routes) {
    const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-migrate-'));
    try {
      const builds = await Promise.all(names.map((name) => qemu(name)));
      const { rounds } = await migrateGuest({ dir, builds, hops, packed, engine });
      const where = names.length > 1 ? names.join(' and ') : `${names[0]}`;
      console.log(`QEMU ${where}, ${packed ? 'packed' : 'split'}, ${engine}: ${hops} migrations, ${rounds} rounds of fio verified`);
    } finally {
      fs.rmSync(dir, { recursive: true, force: true });
    }
  }
}

void main();
