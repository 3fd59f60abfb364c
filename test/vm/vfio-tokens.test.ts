/** Virtual functions whose physical one is on VFIO itself, and all virtual functions in the hands of a QEMU without privileges. */
import { peer } from '../peers/peers.js';
import { edu, iommu } from './devices.js';
import { guestSteps, igb, qemuInGuest, SRIOV_NAMES, sriovNvme, virtMgmt } from './vfio-guest.js';

const V = 'node bin/run.js vfio';
const TOKEN = '14b3a1e6-30d2-4b5e-9c58-6f1d2d6f7a10';
const OTHER = '14b3a1e6-30d2-4b5e-9c58-6f1d2d6f7a11';

let step: (name: string) => { status: number; text: string };

beforeAll(async () => {
  const { qemu, prepare } = qemuInGuest((await peer('sid')).dir);
  const all = [...Array(11).keys()].map((i) => `-device vfio-pci,id=v${i},iommufd=i0,fd={device${i === 0 ? '' : i}}`).join(' ');
  step = await guestSteps(
    '6.12',
    [
      ['made', `${V} sriov $P --vfs 7 --driver vfio-pci && ${V} sriov $N --vfs 4 --no-autoprobe && ${virtMgmt} && ${V} bind $(nvfs)`],
      ['selftests', `for i in 0 1 2 3; do ${V} selftest $(vf $N $i) --api group && ${V} selftest $(vf $N $i) --api cdev || exit 1; done`],
      [
        'all in QEMU',
        `monitor | ${V} exec $(ivfs) $(nvfs) --user nobody --memlock unlimited -- sh -c 'id -u; exec "$@"' sh ${qemu} -object iommufd,id=i0,fd={iommufd} ${all}`,
      ],
      ['unbound', `${V} unbind $(ivfs) $(nvfs) && ${V} sriov $P --vfs 0 && ${V} sriov $N --vfs 0`],
      ['PF', `${V} bind $P`],
      ['no parameter', `${V} sriov $P --vfs 2`],
      [
        'with token',
        `echo 1 >/sys/module/vfio_pci/parameters/enable_sriov; ${V} sriov $P --vfs 2 --driver vfio-pci --vf-token ${TOKEN} --json`,
      ],
      ['kept', `${V} exec $(vf $P 0) --api group -- sh -c 'echo "$0"' {vf-token} && ${V} config $(vf $P 1) --api group COMMAND`],
      ['other', `${V} exec $(vf $P 0) --api group --vf-token ${OTHER} -- true`],
      ['without', `rm -r /run/vioctl/vfio/tokens; ${V} exec $(vf $P 0) --api group -- true`],
      [
        'given',
        `${V} exec $(vf $P 0) --api group --vf-token ${TOKEN} -- true && ${V} exec $(vf $P 0) --api cdev --vf-token ${TOKEN} -- true`,
      ],
      ['both', `${V} exec $P $(vf $P 0) --api group --vf-token ${TOKEN} -- true`],
      [
        'QEMU',
        `${V} bind $(vf $P 0) --owner nobody && monitor | sh -c 'ulimit -l unlimited; exec setpriv --reuid 65534 --clear-groups "$@"' sh ${qemu} -device vfio-pci,host=$(vf $P 0),vf-token=${TOKEN}`,
      ],
      ['QEMU, other', `monitor | ${qemu} -device vfio-pci,host=$(vf $P 0),vf-token=${OTHER}`],
      ['no VF', `${V} bind $E; ${V} exec $E --vf-token ${TOKEN} -- true; ${V} exec $(vf $P 0) $E --api group --vf-token ${TOKEN} -- true`],
      ['again', `${V} sriov $P --vfs 0 --json && ${V} sriov $P --vfs 1 --no-autoprobe --json && ${V} sriov $P --vfs 0 && ${V} unbind $P`],
      ['left', 'find /run/vioctl/vfio -type f | grep -v bound'],
    ],
    `modprobe vfio-pci; modprobe igb; modprobe igbvf; modprobe nvme; cd $PWD; ${SRIOV_NAMES}; E=$(grep -l 0x11e8 /sys/bus/pci/devices/*/device | cut -d/ -f6)
ivfs() { for i in 0 1 2 3 4 5 6; do vf $P $i; done; }; nvfs() { for i in 0 1 2 3; do vf $N $i; done; }
${prepare}; sleep 1`,
    [iommu(), igb, sriovNvme, edu()],
    { iommufd: true },
  );
}, 900_000);

const passed = (...names: string[]) => {
  for (const name of names) expect({ name, ...step(name) }).toMatchObject({ name, status: 0 });
};

test('seven igb and four NVMe functions: made, bound, tested, in one QEMU without privileges, unbound, removed', () => {
  passed('made', 'selftests', 'all in QEMU', 'unbound');
  const { text } = step('all in QEMU');
  expect(text).toMatch(/^65534\n/);
  expect([text.match(/PCI device 8086:10ca/g)?.length, text.match(/PCI device 1b36:0010/g)?.length]).toEqual([7, 4]);
});

test('a physical function on VFIO: its virtual ones open with the token that was set, by both APIs and in QEMU', () => {
  passed('PF', 'with token', 'kept', 'given', 'both', 'QEMU');
  expect(step('no parameter')).toMatchObject({ status: 7, text: expect.stringContaining('enable_sriov') });
  expect(JSON.parse(step('with token').text)).toMatchObject({ vfToken: TOKEN, vfs: [{ driver: 'vfio-pci' }, { driver: 'vfio-pci' }] });
  expect(step('kept').text).toContain(TOKEN);
  expect(step('other')).toMatchObject({ status: 6, text: expect.stringContaining('the VF token is not the right one') });
  expect(step('without')).toMatchObject({ status: 6, text: expect.stringMatching(/opens with a VF token only[\s\S]*--vf-token UUID/) });
  expect(step('QEMU').text).toContain('PCI device 8086:10ca');
  expect(step('QEMU, other').status).not.toBe(0);
});

test('a token that no device takes is wrong usage; one that a device takes goes to that device', () => {
  expect(step('no VF')).toMatchObject({ status: 0, text: expect.stringContaining('takes no VF token') });
  passed('again');
  expect(step('again').text).toMatch(/"vfToken": ?"[0-9a-f-]{36}"/);
  expect(step('left').text).toBe('');
});
