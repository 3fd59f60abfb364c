import { commonExports } from '../../src/native/common.js';
import { native } from '../../src/native/index.js';
import { iovaExports } from '../../src/native/iova.js';
import { migrationExports } from '../../src/native/migration.js';
import { nvmeExports } from '../../src/native/nvme.js';
import { nvmeHostExports } from '../../src/native/nvme-host.js';
import { storageExports } from '../../src/native/storage.js';
import { sysfsExports } from '../../src/native/sysfs.js';
import { uringExports } from '../../src/native/uring.js';
import { vfioExports } from '../../src/native/vfio.js';
import { vhostUserExports } from '../../src/native/vhost-user.js';

/** Every domain of the addon and the names that its typed interface lists. Add a line with a new domain. */
const interfaces: Record<string, readonly string[]> = {
  common: commonExports,
  migration: migrationExports,
  sysfs: sysfsExports,
  uring: uringExports,
  storage: storageExports,
  nvme: nvmeExports,
  nvmeHost: nvmeHostExports,
  vhostUser: vhostUserExports,
  iova: iovaExports,
  vfio: vfioExports,
};

test('the typed interfaces name exactly what the addon exports', () => {
  const exported = Object.fromEntries(Object.entries(native()).map(([domain, object]) => [domain, Object.keys(object).sort()]));
  expect(exported).toEqual(Object.fromEntries(Object.entries(interfaces).map(([domain, names]) => [domain, [...names].sort()])));
});
