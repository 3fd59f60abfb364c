// Binding on a real kernel: what must work.
import fs from 'node:fs';
import {
  allState,
  assert,
  BRIDGE,
  background,
  type Case,
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
  overrideOf,
  until,
  vio,
} from './harness.js';

interface Row {
  bdf: string;
  driver?: string;
  group?: number;
  uses: { check: string; brief: string }[];
  vfio: boolean;
  holders: { pid: number; how: string }[];
}

export const working: Case[] = [
  {
    name: 'list: every device with driver and group',
    run: async () => {
      const { devices } = await does<{ devices: Row[] }>('list');
      const by = new Map(devices.map((row) => [row.bdf, row]));
      for (const bdf of NVME) assert.equal(by.get(bdf)?.driver, 'nvme');
      assert.equal(by.get(NIC)?.group, by.get(GROUP_EDU)?.group);
      assert.equal(by.get(NIC)?.group, by.get(BRIDGE)?.group);
      assert.notEqual(by.get(EDU)?.group, by.get(GROUP_EDU)?.group);
      assert.equal(new Set(NVME.map((bdf) => by.get(bdf)?.group)).size, 3);
      const unused = await does<{ devices: Row[] }>('list --class nvme --unused');
      assert.deepEqual(
        unused.devices.map((row) => row.bdf),
        [...NVME],
      );
      const text = await vio('list --driver e1000');
      assert.equal(text.stdout.trim().split('\n').length, 2);
    },
  },
  {
    name: 'show: names the member that blocks the group',
    run: async () => {
      const doc = await does<{
        iommuGroup: { viable: boolean; members: { bdf: string; blocks: boolean; driver?: string }[]; reserved: { type: string }[] };
      }>(`show ${GROUP_EDU}`);
      assert.equal(doc.iommuGroup.viable, false);
      assert.deepEqual(
        doc.iommuGroup.members.filter((m) => m.blocks).map((m) => [m.bdf, m.driver]),
        [[NIC, 'e1000']],
      );
      assert.ok(doc.iommuGroup.reserved.some((region) => region.type === 'msi'));
      assert.match((await vio(`show ${GROUP_EDU}`)).stdout, /0000:05:01\.0 .*BLOCKS the group: on host driver e1000/);
    },
  },
  {
    name: 'doctor: ready',
    run: async () => {
      const { findings } = await does<{ findings: { id: string; level: string }[] }>('doctor');
      for (const id of ['iommu', 'vfio-pci', 'vfio_iommu_type1', 'interrupts'])
        assert.equal(findings.find((f) => f.id === id)?.level, 'ok', id);
    },
  },
  {
    name: 'bind, a second bind that says so, another NVMe of the same id untouched, unbind to the earlier driver',
    run: async () => {
      // an NVMe without a driver is what binding by id would take along
      must(`echo ${NVME[2]} > /sys/bus/pci/drivers/nvme/unbind`);
      const first = await does(`bind ${NVME[0].slice(5)}`);
      assert.deepEqual(first.devices[0], {
        bdf: NVME[0],
        driver: 'vfio-pci',
        previousDriver: 'nvme',
        group: Number(groupOf(NVME[0])),
        node: `/dev/vfio/${groupOf(NVME[0])}`,
        already: false,
        allowed: [],
      });
      assert.deepEqual([driverOf(NVME[0]), overrideOf(NVME[0])], ['vfio-pci', 'vfio-pci']);
      assert.deepEqual([driverOf(NVME[1]), driverOf(NVME[2]), overrideOf(NVME[2])], ['nvme', '', '']);
      const before = allState();
      const second = await does(`bind ${NVME[0]}`);
      assert.equal(second.devices[0]!.already, true);
      assert.equal(allState(), before);
      assert.deepEqual(leftovers(), []);
      must(`echo ${NVME[2]} > /sys/bus/pci/drivers/nvme/bind`);
      const back = await does(`unbind ${NVME[0]}`);
      assert.deepEqual([back.devices[0]!.driver, back.devices[0]!.previousDriver], ['nvme', 'vfio-pci']);
      assert.deepEqual([driverOf(NVME[0]), overrideOf(NVME[0])], ['nvme', '']);
      assert.equal((await does(`unbind ${NVME[0]}`)).devices[0]!.already, true);
      await disk(NVME[0]);
    },
  },
  {
    name: 'bind --group with an owner: all endpoints, not the bridge; unbind gives each its own driver',
    run: async () => {
      const bridge = driverOf(BRIDGE);
      const { devices } = await does(`bind ${GROUP_EDU} --group --owner nobody`);
      assert.deepEqual(
        devices.map((d) => [d.bdf, d.previousDriver]),
        [
          [NIC, 'e1000'],
          [GROUP_EDU, undefined],
        ],
      );
      assert.equal(driverOf(BRIDGE), bridge);
      const { uid } = fs.statSync(`/dev/vfio/${groupOf(NIC)}`);
      assert.equal(uid, 65534);
      const shown = await does<{ iommuGroup: { viable: boolean } }>(`show ${NIC}`);
      assert.equal(shown.iommuGroup.viable, true);
      const holder = await hold(GROUP_EDU, 'fd');
      await end(holder);
      await does(`unbind ${NIC} ${GROUP_EDU}`);
      assert.deepEqual([driverOf(NIC), driverOf(GROUP_EDU), overrideOf(GROUP_EDU)], ['e1000', '', '']);
    },
  },
  {
    name: 'a host driver that grabs a member: show names it, and bind --group repairs the group',
    run: async () => {
      await does(`bind ${GROUP_EDU} --allow group-member`);
      const shown = await does<{ iommuGroup: { viable: boolean; members: { bdf: string; blocks: boolean }[] } }>(`show ${GROUP_EDU}`);
      assert.deepEqual(
        shown.iommuGroup.members.filter((m) => m.blocks).map((m) => m.bdf),
        [NIC],
      );
      const { findings } = await does<{ findings: { id: string; message: string }[] }>('doctor');
      assert.match(findings.find((f) => f.id === `group-${groupOf(NIC)}`)?.message ?? '', /0000:05:01\.0 \(e1000\)/);
      await assert.rejects(hold(GROUP_EDU, 'fd')); // the kernel itself: not viable
      await does(`bind ${GROUP_EDU} --group`);
      await end(await hold(GROUP_EDU, 'fd'));
      await does(`unbind ${NIC} ${GROUP_EDU}`);
    },
  },
  {
    name: 'a dry run changes nothing; its script does what bind does, and the one of unbind undoes it',
    run: async () => {
      const before = allState();
      const bind = await vio(`bind ${NVME[1]} --dry-run --owner nobody`);
      assert.equal(bind.status, 0, bind.stderr);
      assert.equal(allState(), before);
      assert.equal(fs.existsSync('/run/vioctl/vfio/journal') && leftovers().length > 0, false);
      fs.writeFileSync('/tmp/bind.sh', bind.stdout);
      must('sh /tmp/bind.sh');
      assert.deepEqual([driverOf(NVME[1]), overrideOf(NVME[1])], ['vfio-pci', 'vfio-pci']);
      assert.equal(fs.statSync(`/dev/vfio/${groupOf(NVME[1])}`).uid, 65534);
      // no record of an earlier driver: the id table tells
      const unbind = await vio(`unbind ${NVME[1]} --dry-run`);
      fs.writeFileSync('/tmp/unbind.sh', unbind.stdout);
      must('sh /tmp/unbind.sh');
      assert.equal(allState(), before);
    },
  },
  {
    name: 'several devices at once, from a list on stdin of the real program',
    run: async () => {
      const { devices } = await does(`bind ${NVME[0]} ${NVME[2]} ${EDU}`);
      assert.deepEqual(
        devices.map((d) => d.driver),
        ['vfio-pci', 'vfio-pci', 'vfio-pci'],
      );
      must(`node bin/run.js vfio list --driver vfio-pci --ndjson | sed 's/.*"bdf":"\\([^"]*\\)".*/\\1/' | node bin/run.js vfio unbind -`);
      assert.deepEqual([driverOf(NVME[0]), driverOf(NVME[2]), driverOf(EDU)], ['nvme', 'nvme', '']);
    },
  },
  {
    name: 'an override that was set before comes back',
    run: async () => {
      must(`echo nvme > /sys/bus/pci/devices/${NVME[1]}/driver_override`);
      await does(`bind ${NVME[1]}`);
      await does(`unbind ${NVME[1]}`);
      assert.deepEqual([driverOf(NVME[1]), overrideOf(NVME[1])], ['nvme', 'nvme']);
      must(`echo > /sys/bus/pci/devices/${NVME[1]}/driver_override`);
    },
  },
  {
    name: 'the earlier driver was unloaded meanwhile: unbind loads it again',
    run: async () => {
      await does(`bind ${NIC} ${GROUP_EDU}`);
      must('rmmod e1000');
      await does(`unbind ${NIC} ${GROUP_EDU}`);
      assert.equal(driverOf(NIC), 'e1000');
    },
  },
  {
    name: 'unbind --driver gives it to a driver that lists its id',
    run: async () => {
      await does(`bind ${NVME[0]}`);
      assert.equal((await does(`unbind ${NVME[0]} --driver nvme`)).devices[0]!.driver, 'nvme');
    },
  },
  {
    name: 'restore --all gives back everything that was bound',
    run: async () => {
      const before = allState();
      await does(`bind ${NVME[0]} ${NVME[1]}`);
      const { devices } = await does('restore --all');
      assert.equal(devices.length, 2);
      assert.equal(allState(), before);
      assert.deepEqual((await does('restore --all')).devices, []);
    },
  },
  {
    name: 'a holder that listens lets go when the kernel asks (unbind --ask)',
    run: async () => {
      await does(`bind ${NVME[0]}`);
      const holder = await hold(NVME[0], 'req');
      await does(`unbind ${NVME[0]} --ask --wait 15s`);
      await until('the holder ended', () => holder.exitCode === 0);
      assert.equal(driverOf(NVME[0]), 'nvme');
    },
  },
  {
    name: 'unbind waits for a holder that ends in time',
    run: async () => {
      await does(`bind ${NVME[0]}`);
      const holder = await hold(NVME[0], 'fd');
      const row = (await does<{ devices: Row[] }>('list --driver vfio-pci')).devices[0]!;
      assert.ok(row.holders.some((h) => h.pid === holder.pid));
      const waiting = does(`unbind ${NVME[0]} --wait 15s`);
      setTimeout(() => holder.kill('SIGKILL'), 500);
      await waiting;
      assert.equal(driverOf(NVME[0]), 'nvme');
    },
  },
  {
    name: '--persist: bound again when the device appears, by udev alone and by the unit; another device at the address is left alone',
    run: async () => {
      const bdf = NVME[2];
      const { files } = await does<{ files: string[] }>(`bind ${bdf} --persist --identity address --owner nobody`);
      const rule = `/etc/udev/rules.d/20-vioctl-vfio-${bdf}.rules`;
      const config = `/etc/vioctl/vfio.d/${bdf}.env`;
      const unit = '/etc/systemd/system/vioctl-vfio@.service';
      for (const file of [rule, config, unit]) assert.ok(files.includes(file), file);
      assert.deepEqual((await does<{ files: string[] }>(`bind ${bdf} --persist --identity address --owner nobody`)).files, []);
      // the unit's command line, as systemd would run it: the program in this test is not bin/run.js
      const start = /^ExecStart=\S+ \S+ (vfio bind %i) \$VIOCTL_BIND$/m.exec(fs.readFileSync(unit, 'utf8'))?.[1];
      assert.ok(start);
      const options = () => /^VIOCTL_BIND=(.*)$/m.exec(fs.readFileSync(config, 'utf8'))![1]!;
      const service = () => vio(`${start.replace('vfio ', '').replace('%i', bdf)} ${options()}`);
      const udevd = await background(['sh', '-c', '/lib/systemd/systemd-udevd --daemon && echo ready && exec sleep 1000']);
      // a reboot as far as the device is concerned: nothing bound, no driver loaded that claims it, no records
      const reboot = async () => {
        if (driverOf(bdf) !== '') must(`echo ${bdf} > /sys/bus/pci/devices/${bdf}/driver/unbind`);
        fs.rmSync('/run/vioctl', { recursive: true, force: true });
        must(`rmmod vfio-pci; echo 1 > /sys/bus/pci/devices/${bdf}/remove; echo 1 > /sys/bus/pci/rescan; udevadm settle --timeout=30`);
      };
      try {
        // nvme is loaded: the kernel's own probe and udev race for the device
        await reboot();
        await until('the rule ran', () => overrideOf(bdf) === 'vfio-pci' && driverOf(bdf) !== '');
        // when nvme was quicker, the unit moves the device
        if (driverOf(bdf) === 'vfio-pci')
          must(
            `cd /sys/bus/pci; echo ${bdf} > drivers/vfio-pci/unbind; echo > devices/${bdf}/driver_override; echo ${bdf} > drivers/nvme/bind`,
          );
        await disk(bdf);
        const moved = await service();
        assert.equal(moved.status, 0, moved.stderr);
        assert.equal(driverOf(bdf), 'vfio-pci');
        assert.equal(fs.statSync(`/dev/vfio/${groupOf(bdf)}`).uid, 65534);
        // no host driver yet, as in an initramfs: the rule alone binds it, and the unit finds it done
        must('rmmod nvme');
        await reboot();
        await until('the rule bound it', () => driverOf(bdf) === 'vfio-pci');
        assert.equal((await service()).status, 0);
        // another device at the address
        for (const file of [rule, config])
          fs.writeFileSync(file, fs.readFileSync(file, 'utf8').replaceAll('0x0010', '0x0011').replaceAll('1b36:0010', '1b36:0011'));
        must('udevadm control --reload');
        await reboot();
        must('modprobe nvme');
        await disk(bdf);
        assert.deepEqual([driverOf(bdf), overrideOf(bdf)], ['nvme', '']);
        const refused = await service();
        assert.equal(refused.status, 3);
        assert.match(refused.stderr, /is 1b36:0010, not 1b36:0011: it was renumbered or replaced/);
        assert.equal(driverOf(bdf), 'nvme');
      } finally {
        must('udevadm control --exit');
        await end(udevd);
      }
      const removed = await does<{ files: string[] }>(`unbind ${bdf} --persist`);
      for (const file of [rule, config, unit]) {
        assert.ok(removed.files.includes(file), file);
        assert.equal(fs.existsSync(file), false);
      }
      must(`for b in ${NVME.join(' ')}; do [ -e /sys/bus/pci/devices/$b/driver ] || echo $b > /sys/bus/pci/drivers/nvme/bind; done`);
    },
  },
];
