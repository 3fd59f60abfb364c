// Binding on a real kernel: what must be refused or undone. Each case checks exit status, error code, words of the message, and
// that every device of the machine has the driver and override it had before.
import fs from 'node:fs';
import {
  allState,
  assert,
  BRIDGE,
  background,
  type Case,
  controllerOf,
  disk,
  does,
  driverOf,
  EDU,
  end,
  GROUP_EDU,
  groupOf,
  hold,
  leftovers,
  must,
  NIC,
  NVME,
  nicOf,
  overrideOf,
  program,
  read,
  refuses,
  sh,
  until,
  vio,
} from './harness.js';

const fail = (name: string, run: Case['run']): Case => ({ name, failure: true, run });

/** A file system on the second NVMe, mounted for the time of a case. */
async function mounted(at: string, body: (name: string) => Promise<unknown>): Promise<unknown> {
  const name = await disk(NVME[1]);
  must(`mkfs.ext4 -qF /dev/${name} && mkdir -p ${at} && mount /dev/${name} ${at}`);
  try {
    return await body(name);
  } finally {
    must(`umount ${at}`);
  }
}

/** Commands before a case and after it, whatever it does. */
async function around(before: string, after: string, body: () => Promise<unknown>): Promise<unknown> {
  must(before);
  try {
    return await body();
  } finally {
    must(after);
  }
}

const usageCases: Case[] = [
  fail('an address that is none', () => refuses('bind 1:0', { exit: 2, code: 'USAGE', says: /not a PCI address: "1:0"/ })),
  fail('no such device: the nearest are named', () =>
    refuses('bind 01:00.1', { exit: 1, code: 'ENODEV', says: /no PCI device 0000:01:00\.1: ENODEV/, hint: /0000:01:00\.0/ }),
  ),
  fail('no such user', () => refuses(`bind ${NVME[0]} --owner nosuchuser`, { exit: 2, code: 'USAGE', says: /no such user: "nosuchuser"/ })),
  fail('no such driver', () =>
    refuses(`bind ${NVME[0]} --driver nosuch`, { exit: 7, code: 'ENOENT', says: /no driver "nosuch": ENOENT/, hint: /nvme/ }),
  ),
  fail('a driver that does not list the id', () =>
    refuses(`bind ${NVME[0]} --driver e1000`, {
      exit: 3,
      code: 'FOREIGN_DRIVER',
      says: /e1000 does not list the id of this device/,
      hint: /nvme/,
    }),
  ),
  fail('another device at the address (--expect)', () =>
    refuses(`bind ${NVME[0]} --expect 8086:100e`, { exit: 3, code: 'RENUMBERED', says: /is 1b36:0010, not 8086:100e/ }),
  ),
  fail('a bridge', () =>
    refuses(`bind ${BRIDGE} --allow group-member`, { exit: 3, code: 'BRIDGE', says: /0000:04:00\.0 is a PCI bridge/ }),
  ),
  fail('a bridge, whatever is allowed', () =>
    refuses(`bind ${BRIDGE} --allow group-member --allow bridge`, {
      exit: 3,
      code: 'BRIDGE',
      says: /is a PCI bridge: VFIO takes endpoints only/,
      hint: /takes endpoints only/,
    }),
  ),
  fail('a member of the group on a host driver', () =>
    refuses(`bind ${GROUP_EDU}`, { exit: 3, code: 'GROUP_MEMBER', says: /0000:05:01\.0 .* is on driver e1000/, hint: /--group/ }),
  ),
];

const blockCases: Case[] = [
  fail('a mounted file system', () =>
    mounted('/mnt/x', () => refuses(`bind ${NVME[1]}`, { exit: 3, code: 'MOUNTED', says: /is mounted on \/mnt\/x/, hint: /umount/ })),
  ),
  fail('a file system that only another mount namespace has mounted', async () => {
    const name = await disk(NVME[1]);
    must(`mkfs.ext4 -qF /dev/${name} && mkdir -p /mnt/y`);
    const other = await background(['unshare', '-m', 'sh', '-c', `mount /dev/${name} /mnt/y && echo ready && exec sleep 1000`]);
    try {
      assert.equal(read('/proc/mounts').includes('/mnt/y'), false);
      return await refuses(`bind ${NVME[1]}`, { exit: 3, code: 'MOUNTED', says: /is mounted on \/mnt\/y/ });
    } finally {
      await end(other);
    }
  }),
  fail('the disk that holds /boot: two checks', async () =>
    mounted('/boot', async () => {
      await refuses(`bind ${NVME[1]} --allow mounted`, { exit: 3, code: 'BOOT_DISK', says: /the system runs from it/ });
      return refuses(`bind ${NVME[1]} --allow boot-disk`, { exit: 3, code: 'MOUNTED', says: /is mounted on \/boot/ });
    }),
  ),
  fail('active swap', async () => {
    const name = await disk(NVME[1]);
    return around(`mkswap -q /dev/${name} 2>/dev/null; swapon /dev/${name}`, `swapoff /dev/${name}`, () =>
      refuses(`bind ${NVME[1]}`, { exit: 3, code: 'SWAP', says: /is active swap/, hint: /swapoff/ }),
    );
  }),
  fail('a device-mapper device on it', async () => {
    const name = await disk(NVME[1]);
    return around(
      `modprobe dm_mod; echo '0 1000 linear /dev/${name} 0' | dmsetup create lab --noudevsync`,
      'dmsetup remove lab --noudevsync',
      () => refuses(`bind ${NVME[1]}`, { exit: 3, code: 'HOLDER', says: /held by device-mapper device lab/ }),
    );
  }),
  fail('a file system on a device-mapper device on it: the chain is told', async () => {
    const name = await disk(NVME[1]);
    const make = `modprobe dm_mod; dmsetup create lab --noudevsync --table '0 65536 linear /dev/${name} 0' && mkdir -p /mnt/z`;
    return around(
      `${make} && n=$(basename $(ls -d /sys/block/dm-*)) && ([ -e /dev/$n ] || mknod /dev/$n b $(tr : ' ' </sys/block/$n/dev)) && mkfs.ext4 -qF /dev/$n && mount /dev/$n /mnt/z`,
      'umount /mnt/z; dmsetup remove lab --noudevsync',
      () =>
        refuses(`bind ${NVME[1]} --allow holder`, { exit: 3, code: 'MOUNTED', says: /dm-\d+ on \/dev\/nvme\dn1 is mounted on \/mnt\/z/ }),
    );
  }),
  fail('a loop device on it', async () => {
    const name = await disk(NVME[1]);
    return around(`modprobe loop; losetup /dev/loop0 /dev/${name}`, 'losetup -d /dev/loop0', () =>
      refuses(`bind ${NVME[1]}`, { exit: 3, code: 'HOLDER', says: /used by loop device loop0/ }),
    );
  }),
  fail('an NVMe target that exports it', async () => {
    const name = await disk(NVME[1]);
    const at = '/sys/kernel/config/nvmet/subsystems/lab';
    return around(
      `modprobe nvmet && (mountpoint -q /sys/kernel/config || mount -t configfs none /sys/kernel/config) && mkdir -p ${at}/namespaces/1 && printf /dev/${name} > ${at}/namespaces/1/device_path && echo 1 > ${at}/namespaces/1/enable`,
      `echo 0 > ${at}/namespaces/1/enable; rmdir ${at}/namespaces/1 ${at}`,
      () => refuses(`bind ${NVME[1]}`, { exit: 3, code: 'HOLDER', says: /used by NVMe target lab namespace 1/ }),
    );
  }),
  fail('a process that has the disk open', async () => {
    const name = await disk(NVME[1]);
    const reader = await background(['sh', '-c', `exec 3</dev/${name}; echo ready; exec sleep 1000`]);
    try {
      return await refuses(`bind ${NVME[1]}`, {
        exit: 3,
        code: 'OPEN',
        says: new RegExp(`/dev/${name} is open in sleep \\(pid ${reader.pid}\\)`),
      });
    } finally {
      await end(reader);
    }
  }),
  fail('a process that has the controller open; allowed, it is bound', async () => {
    const user = await background(['sh', '-c', `exec 3</dev/${controllerOf(NVME[1])}; echo ready; exec sleep 1000`]);
    try {
      const error = await refuses(`bind ${NVME[1]}`, { exit: 3, code: 'OPEN', says: /\/dev\/nvme\d is open in sleep/ });
      const { devices } = await does(`bind ${NVME[1]} --allow open`);
      assert.equal((devices[0]!.allowed as { check: string }[])[0]!.check, 'open');
      return error;
    } finally {
      await end(user);
      await does(`unbind ${NVME[1]}`);
    }
  }),
  fail('one device of three is in use: none is bound', async () =>
    mounted('/mnt/x', () => refuses(`bind ${NVME.join(' ')}`, { exit: 3, code: 'MOUNTED', says: /0000:02:00\.0: refused/ })),
  ),
];

const netCases: Case[] = [
  fail('the IPv4 default route', async () => {
    const nic = await nicOf(NIC);
    return around(
      `ip addr add 192.0.2.2/24 dev ${nic} && ip link set ${nic} up && ip route add default via 192.0.2.1`,
      `ip addr flush dev ${nic}`,
      async () => {
        await refuses(`bind ${NIC} --group`, { exit: 3, code: 'ROUTE', says: /the IPv4 default route leads out of/ });
        assert.deepEqual([driverOf(GROUP_EDU), driverOf(NIC)], ['', 'e1000']); // all members or none
      },
    );
  }),
  fail('the IPv6 default route', async () => {
    const nic = await nicOf(NIC);
    return around(
      `ip link set ${nic} up && ip -6 addr add 2001:db8::2/64 dev ${nic} nodad && ip -6 route replace default via 2001:db8::1 dev ${nic}`,
      `ip -6 route del default; ip -6 addr flush dev ${nic} scope global`,
      () => refuses(`bind ${NIC} --group`, { exit: 3, code: 'ROUTE', says: /the IPv6 default route leads out of/ }),
    );
  }),
  fail('the route of the ssh session we are in', async () => {
    const nic = await nicOf(NIC);
    return around(`ip addr add 192.0.2.2/24 dev ${nic} && ip link set ${nic} up`, `ip addr flush dev ${nic}`, async () => {
      const before = allState();
      const { status, stderr } = sh(`SSH_CONNECTION='192.0.2.7 50000 192.0.2.2 22' ${program.join(' ')} bind ${NIC} --group`);
      assert.equal(status, 3, stderr);
      assert.match(stderr, /this ssh session from 192\.0\.2\.7 comes in by/);
      assert.equal(allState(), before);
    });
  }),
  fail('an interface in a bridge, and the default route over it', async () => {
    const nic = await nicOf(NIC);
    return around(
      `modprobe bridge; ip link add br9 type bridge && ip link set ${nic} master br9 && ip link set ${nic} up && ip link set br9 up && ip addr add 192.0.2.2/24 dev br9 && ip route add default via 192.0.2.1`,
      'ip link del br9',
      async () => {
        await refuses(`bind ${NIC} --group`, { exit: 3, code: 'UPPER', says: /is part of bridge br9/ });
        return refuses(`bind ${NIC} --group --allow upper`, { exit: 3, code: 'ROUTE', says: /default route leads out of br9 over/ });
      },
    );
  }),
  fail('a VLAN on its interface', async () => {
    const nic = await nicOf(NIC);
    return around(`modprobe 8021q; ip link add link ${nic} name lab.7 type vlan id 7`, 'ip link del lab.7', () =>
      refuses(`bind ${NIC} --group`, { exit: 3, code: 'UPPER', says: /is part of vlan lab\.7/ }),
    );
  }),
  fail('a default route in the table of a VRF', async () => {
    const nic = await nicOf(NIC);
    return around(
      `modprobe vrf; ip link add red type vrf table 77 && ip link set red up && ip link set ${nic} master red && ip link set ${nic} up && ip addr add 192.0.2.2/24 dev ${nic} && ip route add default via 192.0.2.1 dev ${nic} table 77`,
      `ip addr flush dev ${nic}; ip link del red`,
      () =>
        refuses(`bind ${NIC} --group --allow upper`, {
          exit: 3,
          code: 'ROUTE',
          says: /IPv4 default route \(table (77|red)\) leads out of/,
        }),
    );
  }),
  fail('an interface in another network namespace', async () => {
    const nic = await nicOf(NIC);
    return around(`ip netns add blue && ip link set ${nic} netns blue`, `ip -n blue link set ${nic} netns 1; ip netns del blue`, () =>
      refuses(`bind ${NIC} --group`, { exit: 3, code: 'ROUTE', says: /network namespaces \(blue\)/ }),
    );
  }),
];

const holderCases: Case[] = [
  ...(['fd', 'map'] as const).map((how) =>
    fail(`unbind of a device held by ${how === 'fd' ? 'a descriptor' : 'a mapping only'}: named, waited for, nothing changed`, async () => {
      await does(`bind ${NVME[0]}`);
      const holder = await hold(NVME[0], how);
      try {
        const before = allState();
        const begun = Date.now();
        const { status, stderr } = await vio(`unbind ${NVME[0]} --wait 300ms --json --quiet`);
        const { error } = JSON.parse(stderr) as {
          error: { code: string; message: string; details: { holders: { pid: number; how: string }[] } };
        };
        assert.deepEqual([status, error.code], [3, 'HELD']);
        assert.match(
          error.message,
          new RegExp(`held by hold \\(pid ${holder.pid}, ${how === 'fd' ? 'descriptor \\d+' : 'a mapped BAR'}\\): nothing was changed`),
        );
        assert.ok(error.details.holders.some((h) => h.pid === holder.pid && h.how === (how === 'fd' ? 'device' : 'mapping')));
        assert.ok(Date.now() - begun < 15_000);
        assert.equal(allState(), before);
        return error;
      } finally {
        await end(holder);
        await does(`unbind ${NVME[0]}`);
      }
    }),
  ),
  fail('a holder that never lets go (--ask): reported, and restore completes the way back', async () => {
    await does(`bind ${NVME[0]}`);
    const before = allState();
    const holder = await hold(NVME[0], 'fd');
    // a process of its own, which has ended when restore looks at its journal
    const { status, stderr } = sh(`${program.join(' ')} unbind ${NVME[0]} --ask --wait 1s --json`);
    const { error } = JSON.parse(stderr) as { error: { code: string; message: string } };
    assert.equal(status, 8, stderr);
    assert.equal(error.code, 'NOT_RESTORED');
    assert.match(error.message, /does not let go.*\(process \d+, state [SD].*NOT restored: 0000:01:00\.0 should have driver vfio-pci/);
    // while the kernel holds the device locked, everything else still answers
    const listed = await does<{ devices: { bdf: string }[] }>('list --class nvme');
    assert.equal(listed.devices.length, 3);
    await refusesInterrupted(`bind ${NVME[0]} --driver nvme`);
    await end(holder);
    await until('the kernel finished the unbind', () => driverOf(NVME[0]) === '');
    await does('restore');
    assert.equal(allState(), before);
    await does(`unbind ${NVME[0]}`);
    return error;
  }),
  fail('a host driver for a member of a held group: EBUSY, undone', async () => {
    await does(`bind ${GROUP_EDU} --group`);
    const holder = await hold(GROUP_EDU, 'fd');
    try {
      return await refuses(`bind ${NIC} --driver e1000`, {
        exit: 1,
        code: 'EBUSY',
        says: /driver e1000 did not take the device: EBUSY/,
        hint: /held through VFIO/,
      });
    } finally {
      await end(holder);
      await does(`unbind ${NIC} ${GROUP_EDU}`);
    }
  }),
];

/** A journal of a dead run keeps others away until restore. */
async function refusesInterrupted(line: string): Promise<void> {
  const { status, stderr } = await vio(`${line} --json`);
  assert.equal(status, 1);
  assert.match(stderr, /"code":"(INTERRUPTED|BUSY|STUCK|HELD)"/);
}

/** Runs the real program in a mount namespace where something is read-only or hidden. */
function inNamespace(prepare: string, line: string): { status: number; code: string; message: string } {
  const { status, stderr } = sh(`unshare -m sh -c '${prepare} && exec ${program.join(' ')} ${line} --json'`);
  const { error } = JSON.parse(stderr) as { error: { code: string; message: string } };
  return { status, ...error };
}

const systemCases: Case[] = [
  fail('no module for VFIO', async () => {
    must('rmmod vfio-pci 2>/dev/null; true');
    const before = allState();
    const error = inNamespace('d=$(readlink -f /lib/modules/$(uname -r)/kernel/drivers/vfio) && mount -t tmpfs none $d', `bind ${NVME[0]}`);
    assert.deepEqual([error.status, error.code], [7, 'MODPROBE']);
    assert.match(error.message, /cannot load module vfio_pci: /);
    assert.equal(allState(), before);
    assert.deepEqual(leftovers(), []);
    return error;
  }),
  fail('the earlier driver is gone: unbind leaves the device on VFIO', async () => {
    await does(`bind ${NIC} ${GROUP_EDU}`);
    must('rmmod e1000');
    const before = allState();
    const error = inNamespace(
      'd=$(readlink -f /lib/modules/$(uname -r)/kernel/drivers/net/ethernet/intel) && mount -t tmpfs none $d',
      `unbind ${NIC}`,
    );
    assert.deepEqual([error.status, error.code], [7, 'MODPROBE']);
    assert.equal(allState(), before);
    assert.deepEqual(leftovers(), []);
    await does(`unbind ${NIC} ${GROUP_EDU}`);
    return error;
  }),
  fail('unprivileged: exit 6, and what is missing', async () => {
    const before = allState();
    const { status, stderr } = sh(`setpriv --reuid 65534 --regid 65534 --clear-groups ${program.join(' ')} bind ${NVME[0]} --json`);
    const { error } = JSON.parse(stderr) as { error: { code: string; message: string; hint: string } };
    assert.deepEqual([status, error.code], [6, 'EACCES']);
    assert.match(error.message, /driver_override cannot be written: EACCES/);
    assert.match(error.hint, /root/);
    assert.equal(allState(), before);
    const list = sh(`setpriv --reuid 65534 --regid 65534 --clear-groups ${program.join(' ')} list --class nvme`);
    assert.equal(list.status, 0, list.stderr);
    return error;
  }),
  fail('/sys is read-only', async () => {
    const before = allState();
    const error = inNamespace('mount -o remount,ro,bind /sys', `bind ${NVME[0]}`);
    assert.deepEqual([error.status, error.code], [6, 'EROFS']);
    assert.equal(allState(), before);
    return error;
  }),
  fail('the journal cannot be written: nothing is changed', async () => {
    const before = allState();
    const error = inNamespace('mount -t tmpfs -o ro none /run', `bind ${NVME[0]}`);
    assert.deepEqual([error.status, error.code], [1, 'EROFS']);
    assert.match(error.message, /\/run\/vioctl/);
    assert.equal(allState(), before);
    return error;
  }),
  fail('another run works on the device', async () => {
    const stat = read('/proc/1/stat');
    const started = stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19];
    fs.mkdirSync('/run/vioctl/vfio/claims', { recursive: true });
    fs.writeFileSync(`/run/vioctl/vfio/claims/${NVME[0]}`, `1 ${started} other\n`);
    const before = allState();
    const { status, stderr } = await vio(`bind ${NVME[0]} --json`);
    fs.rmSync('/run/vioctl', { recursive: true });
    assert.equal(status, 1);
    assert.match(stderr, /"code":"BUSY".*another run of vioctl \(pid 1\)/);
    assert.equal(allState(), before);
  }),
  fail('a damaged journal', async () => {
    fs.mkdirSync('/run/vioctl/vfio/journal', { recursive: true });
    fs.writeFileSync('/run/vioctl/vfio/journal/bind-x.json', '{"version":1,');
    const before = allState();
    const { status, stderr } = await vio('restore --json');
    fs.rmSync('/run/vioctl', { recursive: true });
    assert.equal(status, 5);
    assert.match(stderr, /"code":"JOURNAL_DAMAGED"/);
    assert.equal(allState(), before);
  }),
  fail('restore finds another device at the address: left alone, exit 8', async () => {
    fs.mkdirSync('/run/vioctl/vfio/journal', { recursive: true });
    const none = { driver: 'vfio-pci', override: null, numVfs: 0 };
    const devices = [{ bdf: EDU, vendor: 0x8086, device: 1, before: none, after: none, step: 'unbind' }];
    const boot = read('/proc/sys/kernel/random/boot_id');
    fs.writeFileSync(
      '/run/vioctl/vfio/journal/bind-y.json',
      JSON.stringify({ version: 1, id: 'bind-y', operation: 'bind', pid: 999999, started: '1', boot, devices }),
    );
    const before = allState();
    const { status, stderr } = await vio('restore --json');
    fs.rmSync('/run/vioctl', { recursive: true });
    assert.equal(status, 8, stderr);
    assert.match(stderr, /another device \(1234:11e8\) is at this address now/);
    assert.equal(allState(), before);
  }),
  fail('the device was removed while it was bound', async () => {
    await does(`bind ${NVME[2]}`);
    must(`echo 1 > /sys/bus/pci/devices/${NVME[2]}/remove`);
    const error = await refuses(`unbind ${NVME[2]}`, {
      exit: 1,
      code: 'ENODEV',
      says: /no PCI device 0000:03:00\.0: ENODEV/,
      hint: /rescan/,
    });
    must('echo 1 > /sys/bus/pci/rescan');
    await until('the device is back', () => driverOf(NVME[2]) === 'nvme');
    // the earlier record must not make an unbind of the new device do anything
    assert.equal((await does(`unbind ${NVME[2]}`)).devices[0]!.already, true);
    fs.rmSync('/run/vioctl', { recursive: true });
    return error;
  }),
  fail('unbind of a device on a host driver, to another', async () => {
    const error = await refuses(`unbind ${NVME[0]} --driver e1000`, { exit: 3, code: 'FOREIGN_DRIVER', says: /does not list the id/ });
    assert.equal(overrideOf(NVME[0]), '');
    assert.equal(groupOf(NVME[0]) !== '', true);
    return error;
  }),
];

export const failing: Case[] = [...usageCases, ...blockCases, ...netCases, ...holderCases, ...systemCases];
