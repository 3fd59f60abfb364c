/** Each kernel both ways in one guest: its host writes and verifies on our target, ours on its target. What is particular has files of its own. */
import { createHash, randomBytes } from 'node:crypto';
import { nvmf, serveTarget } from '../support/nvme-target.js';
import { devices, KERNELS, spawnGuest } from './lab.js';
import { nvmetLines } from './nvmet.js';

const sha256 = (data: Buffer) => createHash('sha256').update(data).digest('hex');
const nqn = 'nqn.2014-08.org.example:ours';
const theirs = 'nqn.2014-08.org.example:theirs';

const script = `
set -e
fail() { dmesg | tail -20; echo "FAILED: $*"; exit 1; }
modprobe nvme-tcp
disk() { for d in /sys/block/nvme*n1; do [ ! -b /dev/\${d##*/} ] || echo /dev/\${d##*/}; done; }
for digests in '' '-g -G'; do
  timeout 200 nvme connect -t tcp -a 10.0.2.2 -s $PORT -n $NQN -i 2 -k 60 $digests >/run/out 2>&1 || { cat /run/out; fail "connect $digests"; }
  n=0; until [ -n "$(disk)" ]; do n=$((n+1)); [ $n -lt 600 ] || fail 'no disk'; sleep 0.1; done
  fio --name=verify --filename=$(disk) --rw=randwrite --bs=4k --size=4m --verify=crc32c --do_verify=1 --iodepth=16 --ioengine=libaio --direct=1 --verify_fatal=1 >/run/out 2>&1 || { cat /run/out; fail "fio $digests"; }
  nvme disconnect -n $NQN >/dev/null
  n=0; until [ -z "$(disk)" ]; do n=$((n+1)); [ $n -lt 600 ] || fail 'the disk stays'; sleep 0.1; done
done
if dmesg | grep -Ei '(nvme|I/O).*(error|timeout)'; then fail 'errors'; fi
mkdir -p /mnt/t; mount -t tmpfs none /mnt/t; truncate -s 16M /mnt/t/1
${nvmetLines(theirs, [{ nsid: 1, path: '/mnt/t/1', buffered: true }])}
echo ready
read -r _
head -c 1M /mnt/t/1 | sha256sum
`;

test.each(KERNELS)('kernel %s: its host on our target, our host on its target', async (kernel) => {
  const target = await serveTarget(['ram:16M', '--nqn', nqn]);
  const guest = await spawnGuest({
    kernel,
    cmd: script,
    smp: 2, // queues
    devices: [devices.network({ forward: [4420] })],
    env: { PORT: String(target.port), NQN: nqn },
  });
  try {
    await guest.line(/^ready$/, 250);
    const at = ['-s', String(guest.ports.get(4420)!), '-n', theirs];
    const data = randomBytes(1 << 20);
    for (const args of [[], ['-g', '-G']]) {
      const written = await nvmf(['write', ...at, ...args], { input: data });
      expect({ status: written.status, stderr: written.stderr }).toEqual({ status: 0, stderr: expect.stringContaining('wrote 1M') });
      const read = await nvmf(['read', ...at, '--count', '1M', ...args]);
      expect({ status: read.status, same: read.stdout.equals(data) }).toEqual({ status: 0, same: true });
    }
    guest.write('go\n');
    guest.end();
    const { status, stdout } = await guest.wait();
    expect({ status, stdout }).toEqual({ status: 0, stdout: expect.stringMatching(new RegExp(`^ready\\n${sha256(data)} `, 'm')) });
  } finally {
    await guest.stop();
    expect(await target.stop()).toBe(0);
  }
});
