/** What counts as in use, as present, and as too much, judged on a real kernel: igb with virtual functions, the chipset, the 9p root, memory. */
import { boot, devices } from './lab.js';

const V = 'node bin/run.js';
/** igb has SR-IOV and needs a root port of its own. */
const igb = () => ({ args: ['-device', 'pcie-root-port,id=igbrp,chassis=90,slot=90', '-device', 'igb,bus=igbrp,romfile='] });
const of = (bdf: string) => `/sys/bus/pci/devices/${bdf}`;

let out: Map<string, { status: number; text: string }>;

/** Steps of the guest: `NAME: command`; the output and the status of each come back by name. */
const STEPS: readonly (readonly [name: string, command: string])[] = [
  ['vf ids', `od -An -tx4 -N4 ${of('$F')}/config`],
  ['vf bind', `${V} vfio bind $F --json`],
  ['vf exec', `${V} vfio exec $F -- true`],
  ['vf config', `${V} vfio config $F VENDOR_ID DEVICE_ID`],
  ['vf map', `${V} dma map $F a=4M --json --timeout 1s`],
  ['vf show', `${V} vfio show $F --json`],
  ['vf unbind', `${V} vfio unbind $F`],
  ['unused', `${V} vfio list --unused --json`],
  ['host bridge', `${V} vfio bind 00:00.0 --dry-run`],
  ['ISA bridge', `${V} vfio bind 00:1f.0 --dry-run`],
  ['SMBus', `${V} vfio bind 00:1f.3 --dry-run`],
  ['root share', `${V} vfio bind $S --dry-run`],
  ['edu bind', `${V} vfio bind $E`],
  ['too much, dry', `${V} dma map $E a=4G --dry-run`],
  ['too much, plan', `${V} dma plan $E a=4G`],
  ['too much', `${V} dma map $E a=4G --timeout 1s`],
  [
    'cgroup',
    `mkdir /tmp/cg && mount -t cgroup2 c /tmp/cg && mkdir /tmp/cg/a /tmp/cg/a/b && echo +memory >/tmp/cg/cgroup.subtree_control &&
    echo 300M >/tmp/cg/a/memory.max && echo $$ >/tmp/cg/a/b/cgroup.procs && ${V} dma map $E a=400M --timeout 1s; s=$?; echo $$ >/tmp/cg/cgroup.procs; (exit $s)`,
  ],
  ['huge', `${V} dma map $E a=64M,huge=2M --timeout 1s`],
  ['enough', `${V} dma map $E a=64M --timeout 1s`],
  ['no OOM', 'dmesg | grep -ci "out of memory\\|oom-kill"'],
];

beforeAll(async () => {
  const { stdout, stderr } = await boot({
    kernel: '6.12',
    cmd: `modprobe vfio-pci; modprobe igb; modprobe igbvf; at() { grep -l $1 /sys/bus/pci/devices/*/device | cut -d/ -f6 | head -1; }
P=$(at 0x10c9); S=$(at 0x1009); E=$(at 0x11e8); echo 2 >${of('$P')}/sriov_numvfs; sleep 1; F=$(basename $(readlink ${of('$P')}/virtfn0))
${STEPS.map(([name, command]) => `echo '@@ ${name}'; { ${command}; } 2>&1; echo "@= $?"`).join('\n')}`,
    devices: [devices.iommu(), devices.edu(), igb],
    timeout: 400,
  });
  out = new Map(
    stdout.split('@@ ').flatMap((part) => {
      const match = /^(.*)\n([\s\S]*)@= (\d+)\n$/.exec(part);
      return match ? [[match[1]!, { status: Number(match[3]), text: match[2]! }] as const] : [];
    }),
  );
  if (out.size !== STEPS.length) throw new Error(`the guest did not come to its end: ${stdout.slice(-2000)}${stderr.slice(-2000)}`);
}, 600_000);

const step = (name: string) => out.get(name)!;

test('a virtual function, whose ids read as ones, is bound, shown, mapped for, and given back', () => {
  expect(step('vf ids').text.trim()).toBe('ffffffff');
  for (const name of ['vf bind', 'vf exec', 'vf config', 'vf show', 'vf unbind'])
    expect({ name, ...step(name) }).toMatchObject({ name, status: 0 });
  expect(JSON.parse(step('vf bind').text).devices).toMatchObject([{ driver: 'vfio-pci', previousDriver: 'igbvf' }]);
  expect(step('vf map').status).toBe(124); // held until the time ran out
  expect(step('vf config').text).toMatch(/8086[\s\S]*10ca/);
  expect(JSON.parse(step('vf show').text)).toMatchObject({ id: '8086:10ca', vfioDriver: 'vfio_pci' });
});

test('the chipset and the share that the system runs from are not for the taking', () => {
  const unused = (JSON.parse(step('unused').text).devices as { bdf: string; class: string }[]).map((row) => row.class);
  expect(unused).toContain('020000');
  for (const cls of ['060000', '060100', '0c0500', '060400', '000200']) expect(unused).not.toContain(cls);
  for (const name of ['host bridge', 'ISA bridge', 'SMBus']) {
    expect(step(name).status).toBe(3);
    expect(step(name).text).toMatch(new RegExp(`is part of the machine \\(${name}.*check "chipset"`));
  }
  expect(step('root share').status).toBe(3);
  expect(step('root share').text).toMatch(/the 9p share rootfs of virtio\d+ is a layer of the overlay mounted on \/ \(check "boot-disk"\)/);
});

test('more memory than there is: refused before a page is taken, equally by plan, dry run and map', () => {
  for (const name of ['too much, dry', 'too much, plan', 'too much'])
    expect(step(name)).toMatchObject({ status: 3, text: expect.stringMatching(/4G of memory are needed, .* are left \(MemAvailable\)/) });
  expect(step('cgroup')).toMatchObject({
    status: 3,
    text: expect.stringMatching(/400M of memory are needed, .* are left \(the limit of 300M of memory cgroup \/a\)/),
  });
  expect(step('huge')).toMatchObject({
    status: 3,
    text: expect.stringContaining('64M of memory in hugepages of 2M are needed, 0 are left'),
  });
  expect(step('enough').status).toBe(124);
  expect(step('no OOM').text.trim()).toBe('0');
});
