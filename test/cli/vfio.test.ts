import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import { plainEnv, program, vioctl } from '../support/cli.js';
import { PciTree } from '../support/pci-tree.js';
import { skip, which } from '../support/skip.js';

const A = '0000:01:00.0';
let tree: PciTree;
beforeAll(() => {
  tree = new PciTree();
  tree.driver('nvme');
  tree.driver('e1000');
  const disk = tree.device(A, { driver: 'nvme', group: 1 });
  tree.block(`${disk}/nvme/nvme0`, 'nvme0n1', '259:0');
  tree.device('0000:02:00.0', { driver: 'nvme', group: 2 });
  tree.file('/proc/self/mountinfo', '40 1 259:0 / /srv rw - ext4 /dev/nvme0n1 rw\n');
});
afterAll(() => tree.remove());

const run = (...args: string[]) => vioctl(['vfio', ...args], { env: { VIOCTL_SYSROOT: tree.dir } });
/** Every file and link of the tree, with its contents. */
const snapshot = () =>
  spawnSync('sh', ['-c', 'find . -type f -exec sha256sum {} + | sort; find . -type l -printf "%p %l\\n" | sort'], {
    cwd: tree.dir,
    encoding: 'utf8',
  }).stdout;

describe('list', () => {
  test('a table that awk can read', () => {
    const { status, stdout } = run('list', '--no-headings');
    expect(status).toBe(0);
    expect(
      stdout
        .trimEnd()
        .split('\n')
        .map((line) => line.split(/\s{2,}/).slice(0, 7)),
    ).toEqual([
      [A, 'nvme', '1b36:0010', 'nvme', '-', '1', 'mounted /srv'],
      ['0000:02:00.0', 'nvme', '1b36:0010', 'nvme', '-', '2', '-'],
    ]);
  });
  test('JSON and NDJSON have the same rows', () => {
    const json = JSON.parse(run('list', '--json').stdout) as { devices: unknown[] };
    const lines = run('list', '--ndjson')
      .stdout.trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line));
    expect(lines).toEqual(json.devices);
    expect(json.devices[0]).toMatchObject({
      bdf: A,
      class: '010802',
      group: 1,
      vfio: false,
      uses: [{ check: 'mounted', subject: '/dev/nvme0n1' }],
    });
  });
  test('no IOMMU: the list, status 0, and a warning that --quiet silences', () => {
    const bare = new PciTree();
    try {
      bare.device(A);
      const list = (...more: string[]) => vioctl(['vfio', 'list', ...more], { env: { VIOCTL_SYSROOT: bare.dir } });
      const { status, stdout, stderr } = list('--json');
      expect(status).toBe(0);
      expect(JSON.parse(stdout)).toMatchObject({ devices: [{ bdf: A }] });
      expect(stderr).toMatch(/^vioctl: vfio list: warning: .*IOMMU.*vioctl vfio doctor/);
      expect(list('--quiet')).toMatchObject({ status: 0, stderr: '', stdout: expect.stringContaining(A) });
    } finally {
      bare.remove();
    }
  });
});

test('show --json: 64-bit addresses are strings', () => {
  expect(JSON.parse(run('show', '01:00.0', '--json').stdout)).toMatchObject({
    bdf: A,
    iommuGroup: { reserved: [{ start: '0xfee00000', end: '0xfeefffff', type: 'msi' }] },
    blockDevices: ['nvme0n1'],
  });
});

describe('bind', () => {
  test.each([
    [['bind', '1:0'], 2, /not a PCI address/],
    [['bind'], 2, /bdf/i],
    [['bind', A, '--allow', 'everything'], 2, /everything/],
    [['bind', '09:00.0'], 1, /no PCI device 0000:09:00\.0: ENODEV/],
    [
      ['bind', A],
      3,
      /0000:01:00\.0: refused: \/dev\/nvme0n1 is mounted on \/srv \(check "mounted"\)\nhint: umount \/srv, or --allow mounted\n$/,
    ],
    [['bind', '02:00.0', '--driver', 'e1000'], 3, /e1000 does not list the id/],
    [['unbind', '09:00.0'], 1, /ENODEV/],
  ])('%j', (args, status, text) => {
    const before = snapshot();
    const result = run(...args);
    expect({ status: result.status, stdout: result.stdout }).toEqual({ status, stdout: '' });
    expect(result.stderr).toMatch(text);
    expect(snapshot()).toBe(before);
  });

  test('a list from stdin, separated by NUL', () => {
    const { status, stdout } = vioctl(['vfio', 'bind', '-', '-0', '--dry-run'], {
      env: { VIOCTL_SYSROOT: tree.dir },
      input: '0000:02:00.0\0',
    });
    expect(status).toBe(0);
    expect(stdout).toContain('echo 0000:02:00.0 > /sys/bus/pci/drivers/vfio-pci/bind');
  });

  test('a dry run as JSON', () => {
    expect(JSON.parse(run('bind', '02:00.0', '--dry-run', '--json').stdout)).toMatchObject({
      modules: ['vfio_pci'],
      devices: [{ bdf: '0000:02:00.0', writes: [{ step: 'override' }, { step: 'unbind' }, { step: 'bind', value: '0000:02:00.0' }] }],
    });
  });

  test('writes that do not take effect: undone, and what could not be is named', () => {
    const { status, stderr } = run('bind', '02:00.0', '--json');
    // files stand for sysfs here: nothing reacts to the writes
    expect(status).toBe(8);
    expect(JSON.parse(stderr)).toMatchObject({ error: { code: 'NOT_RESTORED', details: { left: [{ bdf: '0000:02:00.0' }] } } });
    fs.rmSync(tree.at('/run'), { recursive: true });
    tree.file('/sys/devices/pci0000:00/0000:02:00.0/driver_override', '(null)\n');
  });
});

describe('a dry run writes nothing (strace)', () => {
  test.each([
    ['bind', '02:00.0', '--owner', '0', '--persist'],
    ['unbind', '02:00.0'],
    ['restore', '--all'],
  ])('%s', (...args) => {
    if (which('strace') === undefined) return skip('dry run under strace', 'strace is not installed');
    const log = `${tree.dir}/strace.log`;
    const calls =
      'open,openat,creat,rename,renameat,renameat2,unlink,unlinkat,rmdir,mkdir,mkdirat,link,linkat,symlink,symlinkat,chmod,fchmod,fchmodat,chown,fchown,lchown,fchownat,truncate,ftruncate,mount,mknod,mknodat,execve';
    const { status, stderr } = spawnSync(
      'strace',
      ['-f', '-qq', '-o', log, '-e', `trace=${calls}`, process.execPath, program, 'vfio', ...args, '--dry-run'],
      {
        encoding: 'utf8',
        env: plainEnv({ VIOCTL_SYSROOT: tree.dir, XDG_CACHE_HOME: '/dev/null' }),
      },
    );
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    const lines = fs.readFileSync(log, 'utf8').split('\n');
    fs.rmSync(log);
    expect(lines.filter((line) => line.includes(tree.dir)).length).toBeGreaterThan(0); // strace saw the program at work
    const harmless = /"\/dev\/(null|tty)"|= -1 E|execve\("[^"]*node"/;
    const changing = lines.filter(
      (line) =>
        /\b(open|openat|creat)\(.*O_(WRONLY|RDWR|CREAT|TRUNC)/.test(line) ||
        /\b(rename|unlink|rmdir|mkdir|link|symlink|f?l?chmod|f?l?chown|f?truncate|mount|mknod|execve)\w*\(/.test(line),
    );
    expect(changing.filter((line) => !harmless.test(line))).toEqual([]);
  });
});

test('doctor: every finding that is not ok says what to do', () => {
  const { status, stdout } = run('doctor', '--json');
  const { findings } = JSON.parse(stdout) as { findings: { level: string; fix?: string }[] };
  expect(status).toBe(1); // no vfio-pci in this tree
  for (const finding of findings.filter(({ level }) => level === 'fail' || level === 'warn')) expect(finding.fix).toBeTruthy();
});
