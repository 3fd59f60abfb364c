import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { program, vioctl } from '../support/cli.js';
import { type ServedTarget, serveTarget } from '../support/nvme-target.js';
import { devices, kernelsFor, spawnGuest } from './lab.js';

const nqn = 'nqn.2014-08.org.nvmexpress:lab';

/**
 * One guest does it all: files on 512-byte blocks without digests, everything else with digests. `ask` waits for the
 * test to act on the running target.
 */
const script = String.raw`
set -e
fail() { dmesg | grep -Ei 'nvme|rcu|clocksource' | tail -30; echo "FAILED: $*"; exit 1; }
run() { timeout 90 "$@" >/run/out 2>&1 || { s=$?; cat /run/out; fail "status $s: $*"; }; }
ask() { echo "ASK $*"; read -r answer || fail 'no answer'; }
until_true() { n=0; until eval "$1"; do n=$((n+1)); [ $n -lt 150 ] || fail "never: $1"; sleep 0.1; done; }
# the block device of a namespace, by its identifier in sysfs
device() { for d in /sys/block/nvme*n*; do case $(basename $d) in *c*) continue;; esac; [ "$(cat $d/nsid 2>/dev/null)" = "$1" ] && echo /dev/$(basename $d); done; true; }
present() { [ -n "$(device $1)" ] && [ -b "$(device $1)" ]; }
for m in nvme-tcp ext4 xfs; do modprobe $m; done
cp -a /etc /run/tree 2>/dev/null || true
at="-t tcp -a 10.0.2.2 -s $PORT"

run nvme discover $at
grep -q "subnqn: *$NQN" /run/out || fail "not in the discovery log"

run nvme connect $at -n $NQN -i 2
until_true 'present 1 && present 2'
D=$(device 1); K=$(device 2)
run mkfs.ext4 -q -F $D; mkdir -p /mnt/a
run mount $D /mnt/a; run cp -a /run/tree /mnt/a/; run umount /mnt/a
run fsck.ext4 -fn $D
run nvme disconnect -n $NQN
echo STEP plain

run nvme connect $at -n $NQN -i 2 -g -G
until_true 'present 1 && present 2'
D=$(device 1); K=$(device 2); C=/dev/$(basename $(ls -d /sys/class/nvme/nvme*))
[ "$(cat /sys/block/$(basename $K)/queue/logical_block_size)" = 4096 ] || fail 'block size'
run mount $D /mnt/a; run diff -r --no-dereference /run/tree /mnt/a/tree; run umount /mnt/a
for fs in ext4 xfs; do
  case $fs in ext4) run mkfs.ext4 -q -F $K;; xfs) run mkfs.xfs -q -f $K;; esac
  run mount $K /mnt/a; run cp -a /run/tree /mnt/a/; run umount /mnt/a
  run mount $K /mnt/a; run diff -r --no-dereference /run/tree /mnt/a/tree; run umount /mnt/a
done
run xfs_repair -n $K; run blkdiscard -f $K
echo STEP filesystems

fio="--filename=$D --rw=randwrite --bs=4k --size=8m --offset=128m --verify=crc32c --do_verify=1 --iodepth=16 --ioengine=libaio --direct=1"
( sleep 0.5; for i in 1 2 3; do nvme reset $C || echo "FAILED: reset"; sleep 0.4; done ) &
run fio --name=verify $fio
wait
echo STEP reset

for log in smart-log error-log fw-log effects-log ana-log; do run nvme $log $C; done
run nvme smart-log $C -o json; cp /run/out /run/smart; echo "SMART $(tr -d '\n' </run/smart)"
run nvme id-ctrl $C -H; run nvme id-ns $D; run nvme list -o json
run nvme ns-descs $D; run nvme list-ns $C
# show-regs of nvme-cli 2.3 gives up at a property that is refused for good (Do Not Retry), here and with Linux as the target
for o in 0 8 0x14 0x1c; do run nvme get-property $C -o $o -H; done
for f in 1 2 4 5 6 7 0xa 0xb 0xf 0x16; do run nvme get-feature $C -f $f -H; done
head -c 4096 /dev/urandom >/run/x
run nvme write $D -s 8 -c 7 -z 4096 -d /run/x
run nvme compare $D -s 8 -c 7 -z 4096 -d /run/x
if nvme compare $D -s 16 -c 7 -z 4096 -d /run/x 2>/run/out; then fail 'other data compares equal'; fi
grep -q 'Compare Failure' /run/out || fail 'compare status'
run nvme error-log $C -e 1 -o json; grep -Eq '"status_field" *: *(17029|34058)' /run/out || { cat /run/out; fail 'error log'; }
run nvme verify $D -s 8 -c 7
run nvme copy $D --sdlba=100 --slbs=8 --blocks=7
run nvme read $D -s 100 -c 7 -z 4096 -d /run/y; cmp /run/x /run/y || fail copy
run nvme write-zeroes $D -s 100 -c 7
run nvme read $D -s 100 -c 7 -z 4096 -d /run/y; cmp -n 4096 /dev/zero /run/y || fail 'write zeroes'
run nvme dsm $D --ad -s 8 -b 8
run nvme flush $D
run blkdiscard -o 1048576 -l 4194304 $D; run blkdiscard -z -o 8388608 -l 65536 $D
echo STEP commands

dmesg -l emerg,alert,crit,err,warn | grep -Ei 'nvme|ext4|xfs|blk|I/O' | grep -Ev 'resetting controller|no usable path' >/run/out || true
[ ! -s /run/out ] || { cat /run/out; fail 'unexpected kernel messages'; }

head -c 8192 /dev/urandom >/run/z
dd if=/run/z of=$D bs=4096 seek=1000 oflag=direct,dsync conv=notrunc status=none
ask other host "$(sha256sum </run/z | cut -d' ' -f1)"
dd if=$D bs=4096 skip=1002 count=2 iflag=direct status=none | sha256sum | grep -q "$answer" || fail 'what the other host wrote'

ask add; until_true 'present 3'
ask resize; until_true '[ "$(blockdev --getsize64 $(device 3))" = 33554432 ]'
ask remove; until_true '! present 3'
run nvme discover $at -p -k 30
SYSTEMD_IGNORE_CHROOT=1 udevadm monitor --kernel --property >/run/uevents 2>&1 & monitor=$!
sleep 0.5
ask subsystem; until_true 'grep -qi NVME_AEN=0x70f002 /run/uevents'
kill $monitor
run nvme disconnect -n nqn.2014-08.org.nvmexpress.discovery
run nvme disconnect -n $NQN
echo STEP events

run nvme connect $at -n $NQN -i 1 -k 2 -c 1 -l 60
until_true 'present 1'; D=$(device 1)
ask pause
# the target has ended the association meanwhile: a new one takes over
timeout 60 dd if=$D of=/dev/null bs=4096 count=1 iflag=direct status=none || fail 'no I/O after the pause'
run nvme disconnect -n $NQN
echo STEP keep-alive
`;

// The newest host; the others connect in nvmf-kernels.test.ts.
describe.each(kernelsFor(['7']))('a Linux %s host', (kernel) => {
  let dir: string;
  let target: ServedTarget;
  const ctl = (...args: string[]) => {
    const done = vioctl(['nvmf', 'ctl', path.join(dir, 'ctl'), ...args]);
    if (done.status !== 0) throw new Error(`nvmf ctl ${args.join(' ')}: ${done.stderr}`);
  };

  beforeAll(async () => {
    dir = fs.mkdtempSync(path.join(os.tmpdir(), 'nvmf-'));
    execFileSync('truncate', ['-s', '256M', path.join(dir, 'disk.img')]);
    target = await serveTarget([path.join(dir, 'disk.img'), 'ram:320M,bs=4096', '--nqn', nqn, '--control', path.join(dir, 'ctl')]);
  });
  afterAll(async () => {
    expect(await target.stop()).toBe(0);
    fs.rmSync(dir, { recursive: true, force: true });
  });

  test('connects, uses every command, sees changes, survives resets and a pause', async () => {
    const guest = await spawnGuest({
      kernel,
      cmd: script,
      smp: 2, // queues
      devices: [devices.network()],
      env: { PORT: String(target.port), NQN: nqn },
      timeout: 400,
    });
    /** What the script asks for, and how it is done. Returns what the script gets as answer. */
    const acts: Record<string, (argument: string) => string | Promise<string>> = {
      'other host': (sum) => {
        const base = ['-s', String(target.port), '-n', nqn, '--namespace-id', '1', '-G'];
        const run = (args: string[], input?: Buffer) => execFileSync(process.execPath, [program, 'nvmf', ...args], { input });
        const read = run(['read', ...base, '--offset', String(1000 * 4096), '--count', '8192']);
        expect(execFileSync('sha256sum', { input: read }).toString()).toContain(sum);
        const written = Buffer.alloc(8192, 'another host');
        run(['write', ...base, '--offset', String(1002 * 4096)], written);
        return execFileSync('sha256sum', { input: written }).toString().split(' ')[0]!;
      },
      add: () => {
        execFileSync('truncate', ['-s', '16M', path.join(dir, 'third.img')]);
        ctl('add', path.join(dir, 'third.img'));
        return '';
      },
      resize: () => {
        execFileSync('truncate', ['-s', '32M', path.join(dir, 'third.img')]);
        ctl('resize', '3');
        return '';
      },
      remove: () => {
        ctl('remove', '3');
        return '';
      },
      subsystem: () => {
        ctl('add', 'ram:1M', '--nqn', `${nqn}2`);
        return '';
      },
      pause: async () => {
        await guest.qmp('stop');
        const end = Date.now() + 30_000;
        while (!target.messages().includes('no keep-alive') && Date.now() < end) await new Promise((resolve) => setTimeout(resolve, 100));
        await guest.qmp('cont');
        expect(target.messages()).toContain('no keep-alive for 2000 ms');
        return '';
      },
    };
    try {
      const serve = async () => {
        for (const [what, act] of Object.entries(acts)) {
          const line = await guest.line(new RegExp(`^ASK ${what}`), 300);
          guest.write(`${await act(line.slice(`ASK ${what}`.length).trim())}\n`);
        }
      };
      const [result] = await Promise.all([guest.wait(), serve()]);
      if (result.stdout.includes('FAILED')) console.log(target.messages());
      expect(result.stdout).not.toContain('FAILED');
      expect(result.status).toBe(0);
      // 8 MiB by fio in blocks of 4 KiB, before and after three resets
      const smart = JSON.parse(/^SMART (.*)$/m.exec(result.stdout)![1]!) as { host_write_commands: string; data_units_written: string };
      expect(Number(smart.host_write_commands)).toBeGreaterThanOrEqual(2048);
      expect(Number(smart.data_units_written)).toBeGreaterThan(16);
      console.log(`${kernel}: ${result.seconds} s`);
    } finally {
      await guest.stop();
    }
  });
});
