import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { connectUnix } from '../vm/qmp.js';
import { type Peer, peerForTest } from './peers.js';

describe('the sid peer', () => {
  let sid: Peer | undefined;
  let dir: string;
  beforeAll(async () => {
    sid = await peerForTest('sid', 'peers (QEMU 11, qemu-storage-daemon, virtiofsd)');
    dir = mkdtempSync(path.join(tmpdir(), 'peers-'));
  }, 600_000);
  afterAll(() => rmSync(dir, { recursive: true, force: true }));

  test('has the programs', async () => {
    if (!sid) return;
    const versions = [
      ['qemu-system-x86_64', /version 11\./],
      ['qemu-storage-daemon', /version 11\./],
      ['virtiofsd', /^virtiofsd 1\.(1[4-9]|[2-9]\d)/],
    ] as const;
    for (const [program, pattern] of versions) expect((await sid.run([program, '--version'])).stdout).toMatch(pattern);
  });

  test('returns status and output, and does not leak the root it made', async () => {
    if (!sid) return;
    const r = await sid.run(['busybox', 'sh', '-c', 'echo out; echo err >&2; ls -d /usr /host/usr "$PWD"; exit 7'], [dir]);
    expect(r).toEqual({ status: 7, stdout: 'out\n/\n/host/usr\n/usr\n', stderr: 'err\n' });
    expect(readFileSync('/proc/mounts', 'utf8')).not.toContain(path.join(sid.dir, 'root'));
  });

  test('a server in it is reached over /tmp and ends by its pid', async () => {
    if (!sid) return;
    const socket = path.join(dir, 'qmp');
    const argv = sid.argv(['qemu-storage-daemon', '--chardev', `socket,id=m,path=${socket},server=on,wait=off`, '--monitor', 'm'], [dir]);
    const child = spawn(argv[0], argv.slice(1), { stdio: 'ignore' });
    const ended = once(child, 'exit');
    try {
      const connection = await connectUnix(socket, 20);
      const [greeting] = (await once(connection, 'data')) as [Buffer];
      connection.destroy();
      expect(JSON.parse(greeting.toString())).toMatchObject({ QMP: { version: { qemu: { major: 11 } } } });
    } finally {
      child.kill('SIGTERM');
    }
    await ended;
  });
});
