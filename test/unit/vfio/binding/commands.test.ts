import VfioApply from '../../../../src/commands/vfio/apply.js';
import VfioBind from '../../../../src/commands/vfio/bind.js';
import VfioRestore from '../../../../src/commands/vfio/restore.js';
import VfioSriov from '../../../../src/commands/vfio/sriov.js';
import VfioUnbind from '../../../../src/commands/vfio/unbind.js';

test.each([VfioApply, VfioBind, VfioRestore, VfioSriov, VfioUnbind])('%p is not left behind in a transaction by a signal', (command) => {
  expect(command.finishes).toBe(true);
});
