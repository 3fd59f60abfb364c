/** Configurations are loaded around a disk that Linux writes and verifies: fio must not notice. */
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { vioctl } from '../support/cli.js';
import { serveTarget } from '../support/nvme-target.js';
import { devices, spawnGuest } from './lab.js';

const nqn = 'nqn.2014-08.org.nvmexpress:reload';
const hostnqn = 'nqn.2014-08.org.nvmexpress:uuid:6ba7b810-9dad-11d1-80b4-00c04fd430c8';

const script = String.raw`
set -e
fail() { dmesg | tail -20; echo "FAILED: $*"; exit 1; }
until_true() { n=0; until eval "$1"; do n=$((n+1)); [ $n -lt 150 ] || fail "never: $1"; sleep 0.1; done; }
device() { for d in /sys/block/nvme*n*; do case $(basename $d) in *c*) continue;; esac; [ "$(cat $d/nsid 2>/dev/null)" = "$1" ] && echo /dev/$(basename $d); done; true; }
modprobe nvme-tcp
nvme connect -t tcp -a 10.0.2.2 -s $PORT -n $NQN -q $HOSTNQN -i 2 >/run/out 2>&1 || { cat /run/out; fail connect; }
until_true '[ -b "$(device 1)" ]'
D=$(device 1)
( while [ ! -e /run/stop ]; do
    fio --name=verify --filename=$D --rw=randwrite --bs=4k --size=2m --verify=crc32c --do_verify=1 --iodepth=8 --ioengine=libaio --direct=1 >/run/fio 2>&1 || { echo "fio: $?" >>/run/failed; break; }
    echo x >>/run/rounds
  done; echo done >/run/ended ) &
echo ASK begin; read -r answer
rounds() { n=$(wc -l </run/rounds 2>/dev/null || echo 0); until_true "[ \$(wc -l </run/rounds 2>/dev/null || echo 0) -gt $n ] || [ -e /run/failed ]"; }
while :; do
  rounds
  [ ! -e /run/failed ] || { cat /run/fio; fail "fio after a load"; }
  echo ASK load; read -r answer
  [ "$answer" != end ] || break
done
touch /run/stop; until_true '[ -e /run/ended ]'
[ ! -e /run/failed ] || { cat /run/fio; fail fio; }
# namespace 7, any but the first for the kernel, comes and goes while it is still looked at: that is no error of ours
dmesg -l emerg,alert,crit,err,warn | grep -Ei 'nvme|I/O' | grep -Ev 'nsid=7|nvme0(c0)?n[2-9]' >/run/out || true
[ ! -s /run/out ] || { cat /run/out; fail 'kernel messages'; }
nvme disconnect -n $NQN >/dev/null
echo "ROUNDS $(wc -l </run/rounds)"
`;

test('a Linux host writes and verifies while subsystems, namespaces, hosts and listeners come and go', async () => {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'nvmf-reload-'));
  for (const name of ['disk.img', 'other.img', 'third.img']) execFileSync('truncate', ['-s', '8M', path.join(dir, name)]);
  const file = (name: string, config: object): string => {
    fs.writeFileSync(path.join(dir, name), JSON.stringify(config));
    return path.join(dir, name);
  };
  const subsystem = { nqn, namespaces: [{ nsid: 1, source: 'disk.img' }] };
  const base = { listen: ['127.0.0.1:0'], subsystems: [subsystem] };
  const others = { nqn: `${nqn}2`, namespaces: [{ source: 'other.img' }, { source: 'ram:1M' }] };
  const variants: object[] = [
    { ...base, listen: ['127.0.0.1:0', '127.0.0.2:0'], referrals: [{ address: '192.0.2.1', port: 8009 }] },
    { ...base, subsystems: [subsystem, others] },
    {
      ...base,
      subsystems: [{ ...subsystem, allowHosts: [hostnqn], namespaces: [...subsystem.namespaces, { nsid: 7, source: 'third.img' }] }],
    },
    {
      ...base,
      maxQueues: 8,
      subsystems: [
        { ...subsystem, namespaces: [{ ...subsystem.namespaces[0], bps: '1G' }] },
        { ...others, serial: 'X' },
      ],
    },
    { ...base, subsystems: [{ ...subsystem, namespaces: [...subsystem.namespaces, { nsid: 7, source: 'third.img', readOnly: true }] }] },
    base,
  ];
  const target = await serveTarget(['--config', file('c.json', base), '--control', path.join(dir, 'ctl')]);
  try {
    const guest = await spawnGuest({
      kernel: '6.12',
      cmd: script,
      smp: 2, // queues
      devices: [devices.network()],
      env: { PORT: String(target.port), NQN: nqn, HOSTNQN: hostnqn },
      timeout: 300,
    });
    const drive = async () => {
      await guest.line(/^ASK begin/, 200);
      guest.write('\n');
      for (const variant of variants) {
        await guest.line(/^ASK load/, 120);
        const done = vioctl(['nvmf', 'ctl', path.join(dir, 'ctl'), 'load', file('v.json', variant), '--json']);
        expect({ status: done.status, stderr: done.stderr }).toEqual({ status: 0, stderr: '' });
        guest.write('\n');
      }
      await guest.line(/^ASK load/, 120);
      guest.write('end\n');
    };
    try {
      const [result] = await Promise.all([guest.wait(), drive()]);
      if (result.stdout.includes('FAILED')) console.log(result.stdout.slice(-3000), target.messages());
      expect(result.stdout).not.toContain('FAILED');
      expect(result.status).toBe(0);
      expect(Number(/^ROUNDS (\d+)$/m.exec(result.stdout)?.[1])).toBeGreaterThanOrEqual(variants.length);
      // one association, from the first to the last
      expect(target.messages().match(/ uses .* as controller/g)).toHaveLength(1);
    } finally {
      await guest.stop();
    }
  } finally {
    expect(await target.stop()).toBe(0);
    fs.rmSync(dir, { recursive: true, force: true });
  }
}, 400_000);
