/** A Linux host with two paths to one file: two targets, one that hosts are led away from, and that is killed at last. */
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { vioctl } from '../support/cli.js';
import { type ServedTarget, serveTarget } from '../support/nvme-target.js';
import { devices, kernelsFor, spawnGuest } from './lab.js';

const nqn = 'nqn.2014-08.org.example:paths';

const script = String.raw`
set -e
fail() { dmesg | grep -Ei 'nvme|I/O' | tail -30; cat /run/fio 2>/dev/null; echo "FAILED: $*"; exit 1; }
run() { timeout 90 "$@" >/run/out 2>&1 || { s=$?; cat /run/out; fail "status $s: $*"; }; }
ask() { echo "ASK $*"; read -r answer || fail 'no answer'; }
until_true() { n=0; until eval "$1"; do n=$((n+1)); [ $n -lt 300 ] || fail "never: $1"; sleep 0.1; done; }
# how many paths are in an ANA state
paths() { cat /sys/class/nvme/nvme*/nvme*c*n1/ana_state 2>/dev/null | grep -cx "$1" || true; }
running() { kill -0 $fio 2>/dev/null || fail 'fio has ended early'; }
modprobe nvme-tcp
for port in $FIRST $SECOND; do run nvme connect -t tcp -a 10.0.2.2 -s $port -n $NQN -i 2 -k 2 -c 1 -l 600; done
until_true '[ "$(paths optimized)" = 2 ]'
D=$(ls -d /dev/nvme*n1 | head -1)
run nvme list-subsys -o json; [ "$(grep -c '"Transport"' /run/out)" = 2 ] || { cat /run/out; fail 'two paths of one subsystem'; }

ask second non-optimized; until_true '[ "$(paths non-optimized)" = 1 ]'
# as many runs as it takes: how quick the guest is, nobody knows. Each writes, reads back and compares
load() {
  while [ ! -e /run/stop ]; do
    fio --name=verify --filename=$D --rw=randwrite --bs=4k --size=8m --verify=crc32c --do_verify=1 --iodepth=16 --ioengine=libaio \
      --direct=1 --output-format=json --output=/run/fio.json >/run/fio 2>&1 || return 1
    echo "FIO $(tr -d '\n' </run/fio.json)" >>/run/runs
  done
}
load & fio=$!
sleep 2; running
ask inaccessible; until_true '[ "$(paths inaccessible)" = 1 ]'; sleep 2; running
ask optimized; until_true '[ "$(paths optimized)" = 1 ]'; sleep 2; running
ask drain; sleep 1; running; until_true '[ "$(paths inaccessible)" = 1 ]'
ask undrain; until_true '[ "$(paths optimized)" = 1 ]'; sleep 1; running
ask kill; sleep 5; running
touch /run/stop; wait $fio || fail "fio: status $?"
cat /run/runs
dmesg | grep -E 'I/O error|Buffer I/O' && fail 'errors reached the block layer'
run nvme disconnect -n $NQN
echo DONE
`;

// The newest host: what is shown is what the targets say of their paths.
describe.each(kernelsFor(['7']))('a Linux %s host with two paths', (kernel) => {
  let dir: string;
  const targets: ServedTarget[] = [];
  const ctl = (which: number, ...args: string[]): string => {
    const done = vioctl(['nvmf', 'ctl', path.join(dir, `ctl${which}`), ...args]);
    if (done.status !== 0) throw new Error(`nvmf ctl ${args.join(' ')}: ${done.stderr}`);
    return done.stdout;
  };

  beforeAll(async () => {
    dir = fs.mkdtempSync(path.join(os.tmpdir(), 'nvmf-'));
    execFileSync('truncate', ['-s', '64M', path.join(dir, 'disk.img')]);
    for (const [i, range] of ['1-1000', '1001-2000'].entries())
      targets.push(
        await serveTarget([
          ...[`${path.join(dir, 'disk.img')},shared=on`, '--nqn', nqn, '--cntlid-range', range],
          ...['--control', path.join(dir, `ctl${i}`), '--discovery-port', 'none'],
        ]),
      );
  });
  afterAll(async () => {
    for (const target of targets) await target.stop('SIGKILL');
    fs.rmSync(dir, { recursive: true, force: true });
  });

  test('fio sees no error while hosts are led to the other path, while one drains, and when one is killed', async () => {
    const [first, second] = targets as [ServedTarget, ServedTarget];
    const listener = (target: ServedTarget) => `127.0.0.1:${target.port}`;
    const guest = await spawnGuest({
      kernel,
      cmd: script,
      smp: 2, // queues
      devices: [devices.network()],
      env: { FIRST: String(first.port), SECOND: String(second.port), NQN: nqn },
      timeout: 300,
    });
    const acts: Record<string, () => unknown> = {
      second: () => ctl(1, 'ana', '1', 'non-optimized'),
      inaccessible: () => ctl(0, 'listener', 'ana', listener(first), 'inaccessible'),
      optimized: () => ctl(0, 'listener', 'ana', listener(first), 'optimized'),
      drain: () => expect(ctl(0, 'drain', '--timeout', '60s')).toContain('is idle'),
      undrain: () => ctl(0, 'drain', 'off'),
      kill: () => first.stop('SIGKILL'),
    };
    try {
      const serve = async () => {
        for (const [what, act] of Object.entries(acts)) {
          await guest.line(new RegExp(`^ASK ${what}`), 200);
          await act();
          guest.write('done\n');
        }
      };
      const [result] = await Promise.all([guest.wait(), serve()]);
      if (result.stdout.includes('FAILED')) console.log(first.messages(), second.messages());
      expect(result.stdout).not.toContain('FAILED');
      expect(result.status).toBe(0);
      type Job = { error: number; read: { total_ios: number }; write: { total_ios: number; clat_ns: { max: number } } };
      const jobs = [...result.stdout.matchAll(/^FIO (.*)$/gm)].map((match) => (JSON.parse(match[1]!) as { jobs: [Job] }).jobs[0]);
      expect(jobs.length).toBeGreaterThan(0);
      for (const job of jobs) expect(job).toMatchObject({ error: 0, read: { total_ios: 2048 }, write: { total_ios: 2048 } });
      const worst = Math.max(...jobs.map((job) => job.write.clat_ns.max)) / 1e9;
      console.log(`${kernel}: ${result.seconds} s, ${jobs.length} runs, longest write ${worst.toFixed(1)} s`);
    } finally {
      await guest.stop();
    }
  });
});
