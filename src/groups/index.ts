import dma from './dma.js';
import migration from './migration.js';
import nvmf from './nvmf.js';
import type { Group } from './types.js';
import uring from './uring.js';
import vfio from './vfio.js';
import vhostUser from './vhost-user.js';

/** The command table: everything that walks the commands (runner, help, man pages, completions, tests) starts here. */
export const groups: Record<string, Group> = { vfio, dma, uring, nvmf, 'vhost-user': vhostUser, migration };
