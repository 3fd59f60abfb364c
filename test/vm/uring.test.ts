import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { compileC } from '../support/compile.js';
import { boot, kernelsFor } from './lab.js';
import { suiteOf } from './suite.js';

// The same cases as on this machine, inside the guest; and the machine-wide switch, which only a guest may turn. Not the fuzzer, and not the checksums,
// which do not depend on the kernel.
const files = ['ring', 'files', 'cases', 'misuse', 'life', 'operations', 'buffers', 'multishot', 'chains', 'streams', 'register'];
const suite = 'VIOCTL_ADDON=$PWD/build/native/release/vioctl.node VIOCTL_RING_SETUPS=/tmp/ring-setups node --expose-gc /tmp/suite.cjs';
const user = 'setpriv --reuid 65534 --regid 65534 --clear-groups';
const vioctl = 'node bin/run.js uring';
const script = `mkdir -p /var/tmp; echo text >/tmp/file
${suite} 2>&1; echo "suite ended $?"
say() { label=$1; shift; "$@" >/tmp/out 2>/tmp/err; echo "$label: $? $(tr '\\n' ' ' </tmp/out | cut -c1-100) | $(tr '\\n' ' ' </tmp/err | cut -c1-200)"; }
modprobe loop; mkdir -p /tmp/small /tmp/mnt; mount -t tmpfs -o size=24m none /tmp/small; truncate -s 96M /tmp/small/img
mkfs.ext4 -q -F -O ^has_journal /tmp/small/img && mount -o loop /tmp/small/img /tmp/mnt
echo fine >/var/tmp/fine
for engine in uring sync; do
  for i in 1 2 3 4 5 6; do head -c 8M /dev/urandom >/tmp/mnt/$i; done
  ${vioctl} sync --engine $engine --ordered --json /tmp/mnt/? /var/tmp/fine >/tmp/out 2>/tmp/err
  echo "fsync $engine: $? $(tr '\\n' ' ' </tmp/out)"
done
for value in 1 2; do
  sysctl -q -w kernel.io_uring_disabled=$value 2>/dev/null || break
  say "$value root probe" ${vioctl} probe --require openat_direct
  say "$value user probe" ${user} ${vioctl} probe --require openat_direct
  say "$value user auto" ${user} ${vioctl} sum /tmp/file
  say "$value user uring" ${user} ${vioctl} sum --engine uring /tmp/file
done`;

let program: string;
let setups: Buffer;
beforeAll(async () => {
  program = await suiteOf(files.map((name) => `uring-${name}`));
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-setups-'));
  setups = fs.readFileSync(compileC('test/support/programs/ring-setups.c', path.join(dir, 'ring-setups')));
  fs.rmSync(dir, { recursive: true });
});

// The oldest and the newest: operations are the fewest and the most there.
describe.each(kernelsFor(['6.1', '7']))('kernel %s', (kernel) => {
  test('the file-registration cases and the traps; the sysctl is named and worked around', async () => {
    const guest = { '/tmp/suite.cjs': program, '/tmp/ring-setups': { mode: 0o755, data: setups } };
    const result = await boot({ kernel, cmd: script, files: guest, smp: 2, memory: 2048, timeout: 840 });
    const summary = /^\d+ passed, \d+ failed$/m.exec(result.stdout)?.[0] ?? result.stdout.slice(-2000);
    const failed = result.stdout.match(/^failed: .*\n(?:.*\n){0,8}/gm); // with what it says
    expect({ failed, summary }).toMatchObject({ failed: null, summary: expect.stringMatching(/^[2-9]\d\d passed, 0 failed$/) });
    expect(result.stdout).toContain('suite ended 0');
    // A disk that is full below the file system: fsync says it for each file, the others are made durable, exit 1.
    for (const engine of ['uring', 'sync']) {
      const [, status, json] = new RegExp(`^fsync ${engine}: (\\d+) (.*)$`, 'm').exec(result.stdout)!;
      const { files } = JSON.parse(json!) as { files: { path: string; error?: { code: string } }[] };
      expect(files.map(({ path }) => path)).toEqual(['1', '2', '3', '4', '5', '6'].map((n) => `/tmp/mnt/${n}`).concat('/var/tmp/fine'));
      expect(files.filter(({ error }) => error && ['ENOSPC', 'EIO'].includes(error.code)).length).toBeGreaterThan(0);
      expect([status, files.at(-1)]).toEqual(['1', { path: '/var/tmp/fine' }]);
    }
    if (kernel === '6.1') {
      expect(result.stdout).not.toContain('root probe'); // the sysctl came with 6.6
      return;
    }
    const full = (label: string): string => result.stdout.split('\n').find((line) => line.startsWith(`${label}: `)) ?? '';
    expect(full('1 root probe')).toMatch(/: 0 openat_direct: supported/);
    expect(full('2 root probe')).toMatch(/: 7 .*kernel\.io_uring_disabled is 2: off for every process/);
    for (const value of ['1', '2']) {
      expect(full(`${value} user probe`)).toMatch(new RegExp(`: 7 .*kernel\\.io_uring_disabled is ${value}`));
      expect(full(`${value} user auto`)).toMatch(
        /: 0 b9e68e1bea3e5b19ca6b2f98b73a54b73daafaa250484902e09982e07a12e733 {2}\/tmp\/file .*plain system calls are used/,
      );
      expect(full(`${value} user uring`)).toMatch(new RegExp(`: 7 .*io_uring_disabled is ${value}`));
    }
  });
});
