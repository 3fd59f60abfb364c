/** Our user-space host against the kernel's own target (nvmet), which runs in a guest and is reached through a forwarded port. */
import { createHash, randomBytes } from 'node:crypto';
import { Background } from '../support/background.js';
import { nvmf } from '../support/nvme-target.js';
import { NvmeDisk } from '../support/served-disk.js';
import { devices, type Guest, kernelsFor, spawnGuest } from './lab.js';
import { nvmetLines } from './nvmet.js';

const nqn = 'nqn.2014-08.org.example:kernel';
/** Namespace 1: a file with 4 KiB blocks; namespace 2: a loop device with 512-byte blocks. */
const nvmet = `
  set -e
  modprobe loop
  mkdir -p /mnt/t; mount -t tmpfs none /mnt/t
  truncate -s 64M /mnt/t/1; truncate -s 48M /mnt/t/2
  loop=$(losetup --show -f /mnt/t/2)
  ${nvmetLines(nqn, [
    { nsid: 1, path: '/mnt/t/1', buffered: true },
    { nsid: 2, path: '$loop' },
  ])}
  echo ready
  n=0
  while read word; do
    case $word in
      down) rm subsystems/x ;;
      up) ln -s $s subsystems/x ;;
      end) break ;;
    esac
    n=$((n + 1)); echo "$word $n done"
  done
  sync; sha256sum </mnt/t/1; sha256sum </mnt/t/2
  dmesg | grep -E 'nvmet.*(fail|error|bad|fatal)|BUG:|WARNING:' | head -20 >&2
`;

/** Runs `vioctl nvmf VERB …` against the guest. */
const vioctl = (port: number, verb: string, args: string[], input?: Buffer) =>
  nvmf([verb, '-s', String(port), ...args], input === undefined ? {} : { input });
const sha = (data: Buffer) => createHash('sha256').update(data).digest('hex');

// The newest target; the others are reached in nvmf-kernels.test.ts.
describe.each(kernelsFor(['7']))('kernel %s as target', (kernel) => {
  let guest: Guest;
  let port = 0;
  beforeAll(async () => {
    guest = await spawnGuest({ kernel, cmd: nvmet, smp: 2, devices: [devices.network({ forward: [4420] })] });
    await guest.line(/ready/);
    port = guest.ports.get(4420)!;
  });
  afterAll(() => guest?.stop());

  test('discover, identify and logs, with and without digests', async () => {
    const found = JSON.parse((await vioctl(port, 'discover', ['--json'])).stdout.toString());
    expect(found.records.map((r: { subnqn: string }) => r.subnqn)).toContain(nqn);
    for (const digests of [[], ['-g'], ['-G'], ['-g', '-G']]) {
      const { status, stdout, stderr } = await vioctl(port, 'identify', ['-n', nqn, '--json', ...digests]);
      expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
      const controller = JSON.parse(stdout.toString());
      expect(controller).toMatchObject({ mn: 'Linux', subnqn: nqn, cntrltype: 1, sqes: 0x66 });
      expect(controller.namespaces).toMatchObject([
        { nsid: 1, blockSize: 4096, size: 64 << 20 },
        { nsid: 2, blockSize: 512, size: 48 << 20 },
      ]);
    }
    for (const [log, key] of [
      ['smart', 'critical_warning'],
      ['error', 'errors'],
      ['fw', 'Active Firmware Slot (afi)'],
      ['effects', 'admin_cmd_support'],
    ] as const) {
      const { status, stdout, stderr } = await vioctl(port, 'logs', [log, '-n', nqn, '--json']);
      expect({ log, status, stderr }).toEqual({ log, status: 0, stderr: '' });
      expect(JSON.parse(stdout.toString())).toHaveProperty([key]);
    }
    const ping = await vioctl(port, 'ping', ['-n', nqn, '--count', '3', '--interval', '1ms', '--json']);
    expect(JSON.parse(ping.stdout.toString())).toMatchObject({ count: 3 });
  });

  test('a namespace as our source, whose port goes and comes back under load: a pause, no error, all data right', async () => {
    const near = 'nqn.2014-08.org.example:near';
    const source = `nvme+tcp://127.0.0.1:${port}/${nqn}/2,queues=2,ddgst=on`;
    const server = Background.vioctl(['nvmf', 'serve', source, '--nqn', near, '--listen', '127.0.0.1:0', '--discovery-port', 'none']);
    const [, at] = await server.sees(/on 127\.0\.0\.1:(\d+)/);
    const disk = await NvmeDisk.open(Number(at), near);
    const size = 1 << 20;
    let [over, done, said] = [false, 0, 0];
    const lane = async (n: number): Promise<void> => {
      while (!over) {
        const data = randomBytes(16384);
        const where = n * size + 4096 * (done % 200);
        expect(await disk.write(where, data)).toBe('ok');
        const back = Buffer.alloc(data.length);
        expect(await disk.read(where, back)).toBe('ok');
        expect(back.equals(data)).toBe(true);
        done++;
      }
      expect(await disk.write(n * size, Buffer.alloc(size))).toBe('ok');
    };
    const lanes = Promise.all([0, 1, 2, 3].map(lane));
    for (let i = 0; i < 2; i++) {
      const before = done;
      while (done < before + 8) await new Promise((resolve) => setTimeout(resolve, 20));
      for (const word of ['down', 'up']) {
        guest.write(`${word}\n`);
        await guest.line(new RegExp(`${word} ${++said} done`));
      }
    }
    await server.sees(/connected again/);
    over = true;
    await lanes;
    expect(await disk.flush()).toBe('ok');
    disk.close();
    expect(await server.stop()).toBe(0);
  });

  test('write and read: digests, one to four queues, offsets inside of blocks, in-capsule sizes', async () => {
    const disks = [Buffer.alloc(64 << 20), Buffer.alloc(48 << 20)];
    const cases: { nsid: number; offset: number; size: number; args: string[] }[] = [
      { nsid: 1, offset: 0, size: 20_000_123, args: ['-g', '-G', '-i', '3'] },
      { nsid: 2, offset: 1001, size: 9_999_999, args: ['-G', '-i', '4', '--chunk', '512K'] },
      { nsid: 1, offset: 33 << 20, size: 4096, args: [] },
      { nsid: 2, offset: 40 << 20, size: 3 << 20, args: ['-g', '--chunk', '8K', '--fua'] },
      { nsid: 2, offset: (48 << 20) - 700, size: 700, args: ['-i', '2'] },
    ];
    for (const { nsid, offset, size, args } of cases) {
      const data = randomBytes(size);
      data.copy(disks[nsid - 1]!, offset);
      const where = ['-n', nqn, '--namespace-id', String(nsid), '--offset', String(offset), ...args];
      const written = await vioctl(port, 'write', [...where, '--json'], data);
      expect({ status: written.status, stderr: written.stderr }).toEqual({ status: 0, stderr: '' });
      expect(JSON.parse(written.stdout.toString())).toMatchObject({ bytes: size, flushed: true });
      const read = await vioctl(port, 'read', [...where.filter((a) => a !== '--fua'), '--count', String(size)]);
      expect({ status: read.status, stderr: read.stderr, sha: sha(read.stdout) }).toEqual({ status: 0, stderr: '', sha: sha(data) });
    }
    for (const [i, disk] of disks.entries()) {
      const whole = await vioctl(port, 'read', ['-n', nqn, '--namespace-id', String(i + 1), '-i', '2', '-G']);
      expect(sha(whole.stdout)).toBe(sha(disk));
    }
    guest.write('end\n');
    guest.end();
    const result = await guest.wait();
    // What the guest's own files hold, and nothing in its log.
    expect(result.stdout.match(/[0-9a-f]{64}/g)).toEqual(disks.map(sha));
    expect({ status: result.status, stderr: result.stderr }).toEqual({ status: 0, stderr: '' });
  });
});
