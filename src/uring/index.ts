/**
 * The programming interface of vioctl's io_uring: `import { Ring, FileTable } from 'vioctl/uring'`.
 *
 * ```js
 * const ring = new Ring({ entries: 128 });
 * const files = new FileTable(ring);
 * files.register([fs.openSync('disk0.img'), fs.openSync('disk1.img')]);
 * const buffer = Buffer.alloc(4096);
 * const size = await ring.readAsync(files.slot(1), buffer, 0);
 * ring.close();
 * ```
 *
 * Errors carry the errno's name as `code`: those of requests as Node's own do (`errno`, `syscall`), those of tables and rings
 * are VioError, with `hint` and `details`. Callbacks get the result itself: a number, -errno if negative.
 */

export { errnoError } from '../common/errno.js';
export { VioError } from '../common/errors.js';
export { Sysroot } from '../common/sysroot.js';
export { alloc as ALLOC, CqeFlag, features, Op, Reg, registerOps, requestOps, Setup, SqeFlag, setupFlags, skip as SKIP } from './abi.js';
export { type Cause, explain } from './host/unavailable.js';
export type { Datagram } from './operations/iterators.js';
export { type ChainError, type OperationOptions, Operations } from './operations/operations.js';
export type { Status } from './operations/status.js';
export type { ReadStreamOptions, RingReadStream, RingWriteStream, WriteStreamOptions } from './operations/streams.js';
export type { Address } from './request/address.js';
export { type CancelTarget, prep } from './request/prep.js';
export { addressOf, type Done, type File, type Request, Slot } from './request/request.js';
export { BufferRing, type BufferRingOptions } from './ring/buffer-ring.js';
export { BufferTable, type CloneOptions } from './ring/buffer-table.js';
export { Ring, type RingOptions, readWholeOpen as READ_WHOLE_OPEN } from './ring/ring.js';
export { type Fault, FileTable, findFaults } from './ring/table.js';
