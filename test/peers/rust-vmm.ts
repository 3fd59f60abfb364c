// A front-end on rust-vmm's crates (test/support/programs/rust-vmm-front-end): Debian ships them as source, and the compiler of this
// machine builds them.
import fs from 'node:fs';
import path from 'node:path';
import { Suite } from '../vm/apt.js';
import { cached, checkoutRoot, must } from '../vm/cache.js';

/** A suite that changes no versions any more: the program names them. */
const SUITE = 'trixie';
/** What the program's crates need, of the features that it uses. cargo wants also those of other systems to resolve versions. */
const CRATES = [
  ...['vhost', 'vm-memory', 'vmm-sys-util', 'libc', 'bitflags', 'bitflags-1', 'uuid', 'thiserror-1', 'thiserror-impl-1', 'syn', 'quote'],
  ...[
    'proc-macro2',
    'unicode-ident',
    'rand',
    'rand-chacha',
    'rand-core',
    'ppv-lite86',
    'zerocopy',
    'zerocopy-derive',
    'getrandom',
    'cfg-if',
  ],
  ...['byteorder', 'winapi', 'winapi-i686-pc-windows-gnu', 'winapi-x86-64-pc-windows-gnu'],
];

/** Builds the front-end in the folder `dir`, without a network but for Debian's packages. @returns the program's path */
export async function rustVmmFrontEnd(dir: string): Promise<string> {
  const packages = CRATES.map((name) => `librust-${name}-dev`);
  const crates = await cached('rust-vmm', async (part) => void (await (await Suite.open(SUITE)).unpack(packages, part)));
  // cargo writes a lock file beside the manifest
  const source = path.join(dir, 'source');
  fs.cpSync(path.join(checkoutRoot(), 'test/support/programs/rust-vmm-front-end'), source, { recursive: true });
  const config = [`source.debian.directory="${path.join(crates, 'usr/share/cargo/registry')}"`, 'source.crates-io.replace-with="debian"'];
  await must(
    ['cargo', ...config.flatMap((one) => ['--config', one]), 'build', '--offline', '--quiet', '--target-dir', path.join(dir, 'target')],
    {
      cwd: source,
    },
  );
  return path.join(dir, 'target/debug/rust-vmm-front-end');
}
