// Programs of this machine's Debian that only guests need: unpacked, not installed.
import { Suite } from './apt.js';
import { cached } from './cache.js';

/** iSCSI initiator, client of network block devices, WireGuard's tool: by what the census of vfio is shown on. */
const PACKAGES = ['open-iscsi', 'libopeniscsiusr', 'libisns0', 'nbd-client', 'wireguard-tools'];

/**
 * A folder with the programs; unpacked on first use.
 * @returns lines of a shell script that put them on the path of a guest
 */
export async function guestTools(): Promise<string> {
  const dir = await cached('guest-tools', async (part) => {
    await (await Suite.open('bookworm')).unpack(PACKAGES, part);
  });
  return `export PATH="${dir}/usr/bin:${dir}/usr/sbin:${dir}/sbin:$PATH" LD_LIBRARY_PATH="${dir}/usr/lib/x86_64-linux-gnu:${dir}/lib/x86_64-linux-gnu"`;
}
