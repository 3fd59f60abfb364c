// VFIO sessions on real kernels: what cannot be opened, and why. Numbers of the failure catalogue are in failure-cases.ts.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import { Census } from '../../../src/vfio/census/census.js';
import { openSession } from '../../../src/vfio/session/open.js';
import {
  asNobody,
  BOTH,
  background,
  driverOf,
  EDU,
  failure,
  GROUP,
  GROUP_EDU,
  groupOf,
  must,
  NIC,
  NVME,
  open,
  PF,
  root,
  type SessionCase,
  VF,
  vfio,
  withSession,
} from './harness.js';

/** The nodes of a device. */
const groupNode = (bdf: string): string => `/dev/vfio/${groupOf(bdf)}`;
const deviceNode = (bdf: string): string => `/dev/vfio/devices/${fs.readdirSync(`/sys/bus/pci/devices/${bdf}/vfio-dev`)[0]}`;
const nodeOf = (bdf: string, api: string): string => (api === 'cdev' ? deviceNode(bdf) : groupNode(bdf));

const sysfs = (file: string, text: string): void => fs.writeFileSync(`/sys/bus/pci/${file}`, text);
/** Binds as an administrator would, without vioctl. */
function toVfio(bdf: string): void {
  if (driverOf(bdf) !== '') sysfs(`devices/${bdf}/driver/unbind`, bdf);
  sysfs(`devices/${bdf}/driver_override`, 'vfio-pci');
  sysfs('drivers/vfio-pci/bind', bdf);
}
function fromVfio(bdf: string): void {
  sysfs('drivers/vfio-pci/unbind', bdf);
  sysfs(`devices/${bdf}/driver_override`, '\n');
}

export const refusals: SessionCase[] = [
  {
    name: 'a device without driver, and one on a host driver',
    apis: BOTH,
    run: async (api) => {
      const bare = failure(() => open(PF, api));
      assert.deepEqual([bare.code, bare.hint], ['NOT_BOUND', `vioctl vfio bind ${PF}`]);
      const hosted = failure(() => open(NIC, api));
      assert.equal(hosted.code, 'NOT_BOUND');
      assert.match(hosted.message, /its driver is e1000/);
      return hosted;
    },
  },
  {
    name: 'a group with a member on a host driver',
    apis: BOTH,
    run: async (api) => {
      toVfio(GROUP_EDU);
      try {
        const refused = failure(() => open(GROUP_EDU, api));
        assert.deepEqual([refused.code, refused.exit, refused.hint], ['NOT_VIABLE', 3, `vioctl vfio bind ${NIC}`]);
        assert.match(refused.message, new RegExp(`${NIC} \\(driver e1000\\)`));
        return refused;
      } finally {
        fromVfio(GROUP_EDU);
      }
    },
  },
  {
    name: 'a device that this or another program holds: named, with its descriptor or its mapping',
    apis: BOTH,
    run: async (api) => {
      const mine = await withSession(EDU, api, () => failure(() => open(EDU, api)));
      assert.deepEqual([mine.code, mine.exit], ['EBUSY', 3]);
      assert.match(mine.message, new RegExp(`held by node \\(pid ${process.pid}, descriptor \\d+\\)`));
      const others: string[] = [];
      for (const how of ['fd', 'map']) {
        const holder = background(['/tmp/hold', groupOf(NVME), NVME, how]);
        try {
          await holder.says(/ready/);
          const refused = failure(() => open(NVME, api));
          assert.deepEqual([refused.code, refused.exit], ['EBUSY', 3], refused.message);
          assert.match(
            refused.message,
            new RegExp(`hold \\(pid ${holder.child.pid}, ${how === 'map' ? 'a mapped BAR' : 'descriptor \\d+'}`),
          );
          others.push(refused.message);
        } finally {
          holder.child.kill('SIGKILL');
          await holder.ended;
        }
      }
      open(NVME, api).close();
      return [mine.message, ...others];
    },
  },
  {
    name: 'one API while the other has the device',
    apis: ['cdev'],
    run: async () => {
      const reverse = await withSession(EDU, 'cdev', () => failure(() => open(EDU, 'group')));
      const straight = await withSession(EDU, 'group', () => failure(() => open(EDU, 'cdev')));
      for (const refused of [reverse, straight]) {
        assert.deepEqual([refused.code, refused.exit], ['EBUSY', 3], refused.message);
        assert.match(refused.message, new RegExp(`held by node \\(pid ${process.pid}`));
        assert.match(refused.hint, /through one of the two APIs/);
      }
      return [reverse.message, straight.message];
    },
  },
  {
    name: 'a user who may not open the node',
    apis: BOTH,
    run: async (api) => {
      const node = nodeOf(EDU, api);
      const { mode } = fs.statSync(node);
      fs.chmodSync(node, 0o600);
      try {
        const refused = asNobody(() => failure(() => open(EDU, api)));
        assert.deepEqual(
          [refused.code, refused.exit, refused.hint],
          ['EACCES', 6, `vioctl vfio bind ${EDU} --owner USER gives the node to a user`],
        );
        assert.match(refused.message, new RegExp(node));
        return refused.message;
      } finally {
        fs.chmodSync(node, mode & 0o777);
      }
    },
  },
  {
    name: 'a node whose driver has left',
    apis: BOTH,
    run: async (api) => {
      const node = nodeOf(EDU, api);
      const { rdev } = fs.statSync(node);
      const census = new Census(root);
      fromVfio(EDU);
      const gone = failure(() => openSession(census, EDU, api));
      assert.notEqual(gone.code, 'none');
      must(`mknod ${node} c ${rdev >> 8} ${rdev & 0xff}`);
      try {
        const stale = failure(() => openSession(new Census(root), EDU, api));
        assert.equal(stale.code, 'NOT_BOUND');
        const kernel = failure(() =>
          api === 'cdev' ? vfio.openDevice('/dev/iommu', node) : vfio.openGroup('/dev/vfio/vfio', node, EDU, false),
        );
        assert.match(kernel.code, /^(ENODEV|ENXIO)$/);
        return { gone, kernel };
      } finally {
        fs.rmSync(node);
        toVfio(EDU);
        fs.chmodSync(node, 0o666);
      }
    },
  },
  {
    name: 'a container that is none, a group that another container has, a name that the group does not have',
    apis: GROUP,
    run: async () => {
      const node = groupNode(EDU);
      const wrong = failure(() => vfio.openGroup('/dev/null', node, EDU, false));
      assert.equal(wrong.code, 'ENOTTY');
      const elsewhere = await withSession(EDU, 'group', () =>
        withSession(NVME, 'group', (other) => failure(() => open(EDU, 'group', other))),
      );
      assert.deepEqual([elsewhere.code, elsewhere.exit], ['EBUSY', 3]);
      const nameless = failure(() => vfio.openGroup('/dev/vfio/vfio', node, NVME, false));
      assert.equal(nameless.code, 'ENODEV');
      assert.match(nameless.message, /VFIO_GROUP_GET_DEVICE_FD/);
      open(EDU, 'group').close(); // nothing of the three is left
      return [wrong.message, elsewhere.message, nameless.message];
    },
  },
  {
    name: 'a container without IOMMU back-end maps nothing',
    apis: GROUP,
    run: (api) =>
      withSession(EDU, api, (session) => {
        const fd = fs.openSync('/dev/vfio/vfio', 'r+');
        try {
          const refused = failure(() => vfio.adopt(fd, session.info.group, session.info.device, 0));
          assert.equal(refused.code, 'EINVAL');
          assert.match(refused.message, /VFIO_IOMMU_GET_INFO/);
          return refused.message;
        } finally {
          fs.closeSync(fd);
        }
      }),
  },
  {
    name: 'the module of the IOMMU back-end is not loaded',
    apis: GROUP,
    run: async (api) => {
      must('rmmod vfio_iommu_type1');
      try {
        const refused = failure(() => open(EDU, api));
        assert.deepEqual([refused.code, refused.exit, refused.hint], ['ENODEV', 7, 'modprobe vfio_iommu_type1']);
        return refused.message;
      } finally {
        must('modprobe vfio_iommu_type1');
        open(EDU, api).close();
      }
    },
  },
  {
    name: 'a virtual function: no reset of the bus without its physical function; bind refuses that one',
    apis: BOTH,
    run: async (api) => {
      must(`modprobe nvme; [ -e /sys/bus/pci/devices/${PF}/driver ] || echo ${PF} > /sys/bus/pci/drivers/nvme/bind`);
      sysfs(`devices/${PF}/sriov_numvfs`, '2');
      try {
        const bind = must(`node bin/run.js vfio bind ${PF} --json 2>&1; test $? = 3`);
        assert.match(bind, /pf-with-vfs|PF_WITH_VFS/);
        assert.match(bind, /2 virtual functions/);
        toVfio(VF);
        fs.chmodSync(nodeOf(VF, api), 0o666);
        const session = open(VF, api);
        try {
          const peers = session.resetPeers();
          const refused = failure(() => session.hotReset());
          assert.deepEqual([refused.code, refused.exit], ['NOT_ALL_OWNED', 3], refused.message);
          assert.ok((refused.details!.others as string[]).includes(PF), refused.message);
          session.reset(); // its own reset does
          return { peers, refused };
        } finally {
          session.close();
          fromVfio(VF);
        }
      } finally {
        sysfs(`devices/${PF}/sriov_numvfs`, '0');
        sysfs('drivers/nvme/unbind', PF);
      }
    },
  },
];
