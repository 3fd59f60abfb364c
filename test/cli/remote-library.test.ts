/** Libraries of remote sources that are not installed: one line that names the package, exit 7, and all else works. */
import { spawnSync } from 'node:child_process';
import { vioctl } from '../support/cli.js';
import { compileC } from '../support/compile.js';
import { daemonsOf } from '../support/qcow2-daemons.js';
import { skip, which } from '../support/skip.js';
import { at, both, servers } from '../support/storage-servers.js';

/** Runs a server of a source that must not start, on a machine without a library. */
function without(library: string, server: (typeof both)[number], source: string) {
  const preload = compileC('test/support/programs/without-library.c', at('hide.so'), ['-shared', '-fPIC']);
  return vioctl(servers[server](source), { env: { LD_PRELOAD: preload, WITHOUT_LIBRARY: library } });
}

describe.each(both)('%s', (server) => {
  test.each([
    ['libnbd.so', 'nbd://127.0.0.1:1/x', 'libnbd0'],
    ['libnbd.so', 'nbd+unix:///?socket=/nowhere', 'libnbd0'],
    ['librbd.so', 'rbd:pool/image', 'librbd1'],
    ['librados.so', 'rbd:pool/image', 'librbd1'],
  ])('without %s: %s', (library, source, debian) => {
    const { status, stdout, stderr } = without(library, server, source);
    expect({ status, stdout }).toEqual({ status: 7, stdout: '' });
    expect(stderr).toContain(`open ${source}: ${library}`);
    expect(stderr).toMatch(/is not installed/);
    expect(stderr).toContain(`apt install ${debian}`);
    expect(stderr.trim().split('\n').length).toBeLessThanOrEqual(2);
  });

  test('without libnbd: an image in qcow2 leaves nothing behind', () => {
    const missing = ['qemu-img', 'qemu-storage-daemon', 'setpriv', 'unshare'].find((program) => which(program) === undefined);
    if (missing) return skip('qcow2 without libnbd', `needs ${missing}`);
    spawnSync('qemu-img', ['create', '-q', '-f', 'qcow2', at('disk.qcow2'), '8M']);
    const { status, stderr } = without('libnbd.so', server, `qcow2:${at('disk.qcow2')}`);
    expect({ status, hint: stderr.includes('apt install libnbd0') }).toEqual({ status: 7, hint: true });
    expect(daemonsOf(at('disk.qcow2'))).toEqual([]);
  });
});
