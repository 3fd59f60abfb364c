/**
 * `nvmf read` and `write`, to and from files and pipes, against nbdcopy from qemu-storage-daemon: the same data on tmpfs, each
 * tool from its own server.
 *
 *   npm run bench -- nvmf-copy
 */
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { peer, program, quick, rounds, type Served, serveAnywhere, started, tell, wall } from './support/bench.js';

const mebibytes = quick ? 256 : 1024;
const peers = 'nbdcopy from qemu-storage-daemon';

async function copies(dir: string): Promise<void> {
  const disk = path.join(dir, 'disk');
  const copy = path.join(dir, 'copy');
  execFileSync('dd', ['if=/dev/urandom', `of=${disk}`, 'bs=1M', `count=${mebibytes}`, 'status=none']);
  const socket = path.join(dir, 'nbd.sock');
  const daemon = await started([
    peer('qemu-storage-daemon')!,
    ...['--blockdev', `file,node-name=f,filename=${disk},locking=off`, '--nbd-server', `addr.type=unix,addr.path=${socket}`],
    ...['--export', 'nbd,id=e,node-name=f,name=,writable=on'],
  ]);
  for (let tries = 0; tries < 100 && !fs.existsSync(socket); tries++) await new Promise((resolve) => setTimeout(resolve, 50));
  const ours: Served = await serveAnywhere(disk, '--force');
  const at = ['-s', String(ours.port), '-n', ours.nqn];
  const nbd = `nbd+unix:///?socket=${socket}`;
  const nvmf = (verb: string, ...args: string[]): string[] => [process.execPath, program, 'nvmf', verb, ...at, '--quiet', ...args];
  const shell = (script: string, argv: string[]): string[] => ['sh', '-c', script, 'sh', ...argv];
  const ways: [what: string, ours: string[], theirs: string[]][] = [
    ['read into a file', nvmf('read', '--data', copy), ['nbdcopy', nbd, copy]],
    ['read into a pipe', shell('"$@" | cat >/dev/null', nvmf('read')), shell('"$@" | cat >/dev/null', ['nbdcopy', nbd, '-'])],
    ['write from a file', nvmf('write', '--data', disk), ['nbdcopy', disk, nbd]],
    ['write from a pipe', shell('cat "$0" | "$@"', nvmf('write')), shell('cat "$0" | "$@"', ['nbdcopy', '-', nbd])],
  ];
  // $0 of the scripts is the file that is written
  for (const [, one, other] of ways) for (const argv of [one, other]) if (argv[2]?.startsWith('cat "$0"')) argv[3] = disk;
  for (const [what, one, other] of ways) {
    const values = Array.from({ length: rounds }, () => {
      fs.rmSync(copy, { force: true });
      const mine = wall(one);
      fs.rmSync(copy, { force: true });
      return wall(other) / mine;
    });
    tell({ what: `${what}, ${mebibytes} MiB`, values, unit: 'x', goal: { atLeast: 1.3 }, peer: peers });
  }
  await ours.stop();
  await daemon.stop();
}

const missing = ['nbdcopy', 'qemu-storage-daemon'].find((name) => peer(name) === undefined);
if (missing !== undefined) tell({ what: 'nvmf read and write', values: [], unit: 'x', goal: { atLeast: 1.3 }, missing });
else {
  const dir = fs.mkdtempSync(path.join(fs.existsSync('/dev/shm') ? '/dev/shm' : os.tmpdir(), 'vioctl-bench-'));
  process.on('exit', () => fs.rmSync(dir, { recursive: true, force: true }));
  await copies(dir);
}
