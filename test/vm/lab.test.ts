import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { StallWatch } from './guest.js';
import { boot, devices, KERNELS, LabError, onceMore, spawnGuest } from './lab.js';

/** All 256 byte values, then a piece of text with line ends that a tty would change. */
const BYTES = Buffer.concat([Buffer.from(Array.from({ length: 256 }, (_, i) => i)), Buffer.from('a\nb\r\nc\u0004')]);

describe.each(KERNELS)('kernel %s', (kernel) => {
  const release = new RegExp(`^${kernel.replace('.', '\\.')}\\.`);

  test('runs a command: status, output byte by byte, node, files, groups of an IOMMU', async () => {
    const r = await boot({
      kernel,
      devices: [devices.iommu(), devices.edu(), devices.bridge()],
      files: { '/opt/lab/bytes': BYTES, '/tmp/lab-script': { mode: 0o755, data: '#!/bin/sh\necho from a script\n' } },
      env: { WORD: "it's" },
      cmd: `cat /opt/lab/bytes
        {
          uname -r; id -u; pwd; echo "$WORD"; /tmp/lab-script; stat -c %a /tmp; echo through stderr >/dev/stderr
          node -p 'JSON.stringify({ version: process.version, tty: process.stdout.isTTY === true })'
          for d in 00:01.0 02:01.0 02:02.0; do
            p=/sys/bus/pci/devices/0000:$d
            echo "$d $(cat $p/vendor) in a group of $(ls $p/iommu_group/devices | wc -l)"
          done
          touch /usr/lab-was-here && echo root is writable
        } >&2
        exit 141`,
    });
    expect(r).toMatchObject({ status: 141, restored: false });
    expect(r.stdoutBytes.equals(BYTES)).toBe(true);
    const lines = r.stderr.trimEnd().split('\n');
    expect(lines[0]).toMatch(release);
    expect(lines.slice(1)).toEqual([
      '0',
      process.cwd(),
      "it's",
      'from a script',
      '1777',
      'through stderr',
      JSON.stringify({ version: process.version, tty: false }),
      '00:01.0 0x1234 in a group of 1',
      '02:01.0 0x8086 in a group of 3',
      '02:02.0 0x1234 in a group of 3',
      'root is writable',
    ]);
    expect(existsSync('/usr/lab-was-here')).toBe(false);
    expect(r.console.split('\n').filter((l) => l && !/shpchp .*(error -16|Slot initialization failed)/.test(l))).toEqual([]);
  });
});

test('a guest without special devices continues a saved machine, with its own time, random numbers and job', async () => {
  const cmd = 'date +%s; od -An -tx8 -N8 /dev/urandom; cat /opt/word; cat; exit 3';
  const seen = new Set<string>();
  for (const word of ['one', 'two']) {
    const r = await boot({ kernel: '6.12', cmd, files: { '/opt/word': word } });
    const [time, random, rest] = r.stdout.split('\n');
    expect(r).toMatchObject({ status: 3, stderr: '', console: '', restored: true });
    expect(Math.abs(Number(time) - Date.now() / 1000)).toBeLessThan(30);
    expect(rest).toBe(word);
    seen.add(random ?? '');
  }
  expect(seen.size).toBe(2);
});

test('a kernel panic is reported as one, with the console', async () => {
  const failed = boot({ kernel: '6.12', cmd: 'echo before; sleep 1; echo c >/proc/sysrq-trigger; sleep 60' });
  const error = await failed.then(
    () => undefined,
    (e: unknown) => e,
  );
  expect(error).toBeInstanceOf(LabError);
  expect(error).toMatchObject({ kind: 'panic', stdout: 'before\n', message: expect.stringContaining('sysrq triggered crash') });
});

test('a time-out ends the guest and is reported as one', async () => {
  const error = await boot({ kernel: '6.12', cmd: 'echo hello; sleep 600', timeout: 10 }).then(
    () => undefined,
    (e: unknown) => e,
  );
  expect(error).toBeInstanceOf(LabError);
  expect(error).toMatchObject({ kind: 'timeout' });
});

test('two stall reports of the kernel without a byte of output between them are a guest that stands still', () => {
  const report = 'rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:\n';
  const watch = new StallWatch();
  expect(watch.stalled(10, '')).toBe(false);
  expect(watch.stalled(10, report)).toBe(false);
  expect(watch.stalled(11, report)).toBe(false); // it went on
  expect(watch.stalled(11, `${report}rcu: INFO: rcu_sched self-detected stall on CPU\n`)).toBe(false);
  expect(watch.stalled(11, `${report}${report}other words\n${report}`)).toBe(true);
  expect(watch.stalled(12, `${report}${report}other words\n${report}`)).toBe(false);
});

test('what stood still is run once more, and not a second time', async () => {
  let runs = 0;
  const standing = () => {
    runs++;
    return Promise.reject(new LabError('stalled', 'guest stood still', '', '', ''));
  };
  await expect(onceMore(standing)).rejects.toMatchObject({ kind: 'stalled' });
  expect(runs).toBe(2);
  await expect(onceMore(() => (runs++ === 2 ? standing() : Promise.resolve('done')))).resolves.toBe('done');
});

test('a machine that QEMU refuses is reported with its words', async () => {
  const error = await boot({ kernel: '6.12', cmd: 'true', args: ['-device', 'no-such-device'] }).then(
    () => undefined,
    (e: unknown) => e,
  );
  expect(error).toMatchObject({ kind: 'boot', message: expect.stringContaining('no-such-device') });
});

test('a live guest: input, lines, forwarded port, QMP, shared folder', async () => {
  const share = mkdtempSync(path.join(tmpdir(), 'lab-share-'));
  const guest = await spawnGuest({
    kernel: '6.12',
    devices: [devices.network({ forward: [7000] })],
    share,
    cmd: `node -e '
      require("net").createServer((s) => s.end("guest speaking\\n")).listen(7000, () => console.log("listening"))
      process.stdin.on("end", () => process.exit(5)).on("data", (d) => { require("fs").writeFileSync("/share/file", d); console.log("got " + d) })'`,
  });
  try {
    await guest.line(/^listening$/);
    const heard = await new Promise<string>((done, failed) => {
      let text = '';
      const socket = connect(guest.ports.get(7000) ?? 0, '127.0.0.1');
      socket.on('data', (d) => {
        text += d.toString();
      });
      socket.on('end', () => done(text)).on('error', failed);
    });
    expect(heard).toBe('guest speaking\n');
    expect(await guest.qmp('query-status')).toMatchObject({ running: true });
    guest.write('word');
    await guest.line(/^got word$/);
    expect(readFileSync(path.join(share, 'file'), 'utf8')).toBe('word');
    guest.end();
    expect((await guest.wait()).status).toBe(5);
  } finally {
    await guest.stop();
    rmSync(share, { recursive: true, force: true });
  }
});

test('6.12 with rebuilt modules: iommufd and a VFIO character device; no-IOMMU mode without an IOMMU', async () => {
  const bind = `d=0000:00:01.0; echo vfio-pci >/sys/bus/pci/devices/$d/driver_override && echo $d >/sys/bus/pci/drivers_probe`;
  const cdev = await boot({
    kernel: '6.12',
    iommufd: true,
    devices: [devices.iommu(), devices.edu()],
    cmd: `modprobe vfio-pci && ${bind} && [ -c /dev/iommu ] && ls /dev/vfio/devices && lsmod | grep -c '^iommufd'`,
  });
  expect(cdev).toMatchObject({ status: 0, stdout: 'vfio0\n1\n' });
  const noiommu = await boot({
    kernel: '6.12',
    iommufd: true,
    devices: [devices.edu()],
    cmd: `modprobe vfio enable_unsafe_noiommu_mode=1 && modprobe vfio-pci && ${bind} && ls /dev/vfio`,
  });
  expect(noiommu.status).toBe(0);
  expect(noiommu.stdout.split('\n')).toContain('noiommu-0');
});
