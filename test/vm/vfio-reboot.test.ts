/** What --persist and apply set up comes back after a reboot, also for devices that are in other slots then. */
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { load } from '../../src/common/text/yaml.js';
import { type Device, iommu } from './devices.js';
import { guestSteps, igb } from './vfio-guest.js';

const V = 'node bin/run.js vfio';

/** NVMe controllers on root ports of their own, with these serial numbers. */
const disks =
  (serials: readonly string[]): Device =>
  () => ({
    args: serials.flatMap((serial, i) => [
      ...['-device', `pcie-root-port,id=rb${i},chassis=${i + 20},slot=${i + 20}`],
      ...['-device', `nvme,serial=${serial},bus=rb${i}`],
    ]),
  });

/** `at SERIAL` is the address of a disk, $P that of the network card. */
const names = `P=$(grep -l 0x10c9 /sys/bus/pci/devices/*/device | cut -d/ -f6)
at() { basename $(readlink -f $(dirname $(grep -l "^$1 *$" /sys/class/nvme/*/serial))/device); }`;
const prepare = `modprobe igb; modprobe igbvf; modprobe nvme; cd $PWD; sleep 1\n${names}`;
const drivers = 'for d in /sys/bus/pci/devices/*; do echo $(basename $d) $(cat $d/device) $(basename "$(readlink $d/driver)"); done';

/** What systemd does with the wishes of udev's rules: starts the unit of each once. The guest has udev, but no systemd. */
const start = `export SYSTEMD_IGNORE_CHROOT=1
/lib/systemd/systemd-udevd --daemon || exit 1
udevadm trigger --action=add --subsystem-match=pci; udevadm settle --timeout=60
for d in /sys/bus/pci/devices/*; do udevadm info -q property -p $d; done | sed -n 's/^SYSTEMD_WANTS=//p' | tr ' ' '\\n' | sort -u | grep . >/tmp/wants
udevadm control --exit
cat /tmp/wants
while read unit; do
  instance=$(echo "$unit" | sed 's/^[^@]*@\\(.*\\)\\.service$/\\1/')
  command=$(sed -n 's/^ExecStart=//p' "/etc/systemd/system/$(echo "$unit" | sed 's/@.*/@.service/')" | sed "s/%i/$instance/g")
  sh -c "$command" </dev/null || exit 1
done </tmp/wants
`;

test('a reboot with all devices in other slots', async () => {
  const share = fs.mkdtempSync(path.join(os.tmpdir(), 'vioctl-reboot-'));
  try {
    const before = await guestSteps(
      '6.12',
      [
        ['bind', `${V} bind serial:NV1 --persist --owner nobody`],
        ['sriov', `${V} sriov $P --vfs 2 --driver vfio-pci --mac 52:54:00:00:00:01 --persist`],
        ['apply', `printf 'devices:\\n- {device: "serial:NV2", driver: vfio, persist: true}\\n' >/tmp/d.yaml; ${V} apply /tmp/d.yaml`],
        ['again', `${V} apply /tmp/d.yaml --check && ${V} bind serial:NV1 --persist --owner nobody`],
        [
          'kept',
          'cd / && tar cf /share/etc.tar etc/vioctl etc/udev/rules.d/20-vioctl-* etc/systemd/system/vioctl-* && tar tf /share/etc.tar',
        ],
      ],
      `${prepare}; modprobe vfio-pci`,
      [iommu(), disks(['NV0', 'NV1', 'NV2']), igb],
      { share },
    );
    for (const name of ['bind', 'sriov', 'apply', 'again', 'kept']) expect({ name, ...before(name) }).toMatchObject({ name, status: 0 });
    const after = await guestSteps(
      '6.12',
      [
        ['moved', 'echo $(at NV0) $(at NV1) $(at NV2) $P'],
        ['restored', 'tar xf /share/etc.tar -C / && sh /start'],
        ['drivers', drivers],
        ['twice', 'sed -i "s/vfio apply/vfio apply --check/" /etc/systemd/system/vioctl-vfio-apply@.service; sh /start'],
        ['macs', 'ip link show dev $(ls /sys/bus/pci/devices/$P/net)'],
        ['owner', 'stat -c %U /dev/vfio/[0-9]*'],
        [
          'ended',
          `${V} unbind serial:NV1 serial:NV2 --persist && ${V} sriov $P --vfs 0 --persist && ls /etc/vioctl/vfio.d /etc/udev/rules.d`,
        ],
      ],
      prepare,
      [iommu(), igb, disks(['NV2', 'NV0', 'NV1'])],
      { share, files: { '/start': start } },
    );
    for (const name of ['moved', 'restored', 'twice', 'ended']) expect({ name, ...after(name) }).toMatchObject({ name, status: 0 });
    const [nv0, nv1, nv2] = after('moved').text.trim().split(' ') as [string, string, string];
    const lines = after('drivers').text.split('\n');
    expect(after('restored').text).toMatch(/serial_NV1-0\.json|serial_NV1-0\.service[\s\S]*: changed/);
    expect([nv0, nv1, nv2].map((bdf) => lines.find((line) => line.startsWith(bdf))?.split(' ')[2])).toEqual([
      'nvme',
      'vfio-pci',
      'vfio-pci',
    ]);
    expect(lines.filter((line) => / 0x10ca vfio-pci$/.test(line))).toHaveLength(2);
    expect(after('macs').text).toContain('52:54:00:00:00:01');
    expect(after('owner').text).toMatch(/nobody/);
    expect(after('restored').text).toMatch(/vioctl-vfio-apply@serial_NV1-0\.service/);
    expect(after('twice').text).not.toMatch(/differs|changed|FAILED/);
    expect(after('ended').text).toMatch(/\/etc\/udev\/rules\.d:\n\n\/etc\/vioctl\/vfio\.d:\n$/);
  } finally {
    fs.rmSync(share, { recursive: true, force: true });
  }
}, 900_000);

/** Scalars and lists of the samples, as Ansible and cloud-init read them. */
const sample = async (name: string): Promise<unknown> =>
  load(fs.readFileSync(path.resolve(__dirname, `../../docs/samples/vfio/${name}`), 'utf8'), name);

test('the samples for Ansible and cloud-init, by the commands that the tools would run', async () => {
  const [{ tasks }] = (await sample('ansible.yaml')) as [{ tasks: Record<string, unknown>[] }];
  const command = (i: number) => tasks[i]!['ansible.builtin.command'] as string;
  const cloud = (await sample('cloud-init.yaml')) as { write_files: { path: string; content: string }[]; runcmd: string[][] };
  const step = await guestSteps(
    '6.12',
    [
      ['cloud-init', cloud.runcmd[0]!.map((word) => `'${word}'`).join(' ')],
      ['again', cloud.runcmd[0]!.join(' ')],
      ['back', `${V} unbind serial:NV1 --persist; cp docs/samples/vfio/devices.yaml /etc/vioctl/devices.yaml`],
      ['check', command(1)],
      ['apply', command(2)],
      ['check again', command(1)],
    ],
    `${prepare}; modprobe vfio-pci; ln -s $PWD/bin/run.js /usr/bin/vioctl; chmod a+x bin/run.js; mkdir -p /etc/vioctl; cp /devices.yaml /etc/vioctl`,
    [iommu(), disks(['NV0', 'NV1']), igb],
    { files: { '/devices.yaml': cloud.write_files[0]!.content } },
  );
  expect([cloud.write_files[0]!.path, cloud.runcmd[0]![3]]).toEqual(['/etc/vioctl/devices.yaml', '/etc/vioctl/devices.yaml']);
  expect(step('cloud-init')).toMatchObject({ status: 0, text: expect.stringContaining('changed') });
  expect(step('again')).toMatchObject({ status: 0, text: expect.stringContaining('same') });
  for (const [name, status, outcomes] of [
    ['check', 4, ['differs', 'differs']],
    ['apply', 0, ['changed', 'changed']],
    ['check again', 0, ['same', 'same']],
  ] as const) {
    expect({ name, ...step(name) }).toMatchObject({ name, status });
    const { devices } = JSON.parse(step(name).text) as { devices: { outcome: string }[] };
    expect(devices.map(({ outcome }) => outcome)).toEqual(outcomes);
  }
}, 900_000);
