/**
 * Numbers and names of the io_uring ABI (include/uapi/linux/io_uring.h), with the kernel version that brought each.
 * `uring probe` prints these tables, the ring uses their numbers, native/uring/abi.h holds the C++ side.
 */

/** A named number and the kernel it came with. */
export interface Named {
  readonly name: string;
  readonly value: number;
  readonly since: string;
}

const list = (text: string, value: (index: number) => number): readonly Named[] =>
  text
    .trim()
    .split(/\s*\n\s*/)
    .flatMap((line) => {
      const [since, ...names] = line.split(/\s+/);
      return names.map((name) => ({ name, since: since! }));
    })
    .map(({ name, since }, index) => ({ name, since, value: value(index) }));

/** Request opcodes (IORING_OP_*) in the order of their numbers. */
export const requestOps = list(
  `5.1 nop readv writev fsync read_fixed write_fixed poll_add poll_remove
   5.2 sync_file_range
   5.3 sendmsg recvmsg
   5.4 timeout
   5.5 timeout_remove accept async_cancel link_timeout connect
   5.6 fallocate openat close files_update statx read write fadvise madvise send recv openat2 epoll_ctl
   5.7 splice provide_buffers remove_buffers
   5.8 tee
   5.11 shutdown renameat unlinkat
   5.15 mkdirat symlinkat linkat
   5.18 msg_ring
   5.19 fsetxattr setxattr fgetxattr getxattr socket uring_cmd
   6.0 send_zc
   6.1 sendmsg_zc
   6.7 read_multishot waitid futex_wait futex_wake futex_waitv
   6.8 fixed_fd_install
   6.9 ftruncate
   6.11 bind listen
   6.15 recv_zc epoll_wait readv_fixed writev_fixed
   6.16 pipe
   6.19 nop128 uring_cmd128`,
  (index) => index,
);

/** io_uring_register(2) opcodes in the order of their numbers. */
export const registerOps = list(
  `5.1 register_buffers unregister_buffers register_files unregister_files
   5.2 register_eventfd unregister_eventfd
   5.5 register_files_update
   5.6 register_eventfd_async register_probe register_personality unregister_personality
   5.10 register_restrictions register_enable_rings
   5.13 register_files2 register_files_update2 register_buffers2 register_buffers_update
   5.14 register_iowq_aff unregister_iowq_aff
   5.15 register_iowq_max_workers
   5.18 register_ring_fds unregister_ring_fds
   5.19 register_pbuf_ring unregister_pbuf_ring
   6.0 register_sync_cancel register_file_alloc_range
   6.8 register_pbuf_status
   6.9 register_napi unregister_napi
   6.12 register_clock register_clone_buffers
   6.13 register_send_msg_ring
   6.15 register_zcrx_ifq
   6.13 register_resize_rings register_mem_region
   6.18 register_query
   6.19 register_zcrx_ctrl
   7.0 register_bpf_filter`,
  (index) => index,
);

/** io_uring_setup(2) flags in the order of their bits. */
export const setupFlags = list(
  `5.1 iopoll sqpoll sq_aff
   5.5 cqsize
   5.6 clamp attach_wq
   5.10 r_disabled
   5.18 submit_all
   5.19 coop_taskrun taskrun_flag sqe128 cqe32
   6.0 single_issuer
   6.1 defer_taskrun
   6.5 no_mmap registered_fd_only
   6.6 no_sqarray
   6.13 hybrid_iopoll
   6.18 cqe_mixed
   6.19 sqe_mixed
   7.0 sq_rewind`,
  (index) => 2 ** index,
);

/** Bits of io_uring_params.features. */
export const features = list(
  `5.4 single_mmap
   5.5 nodrop submit_stable
   5.6 rw_cur_pos cur_personality
   5.7 fast_poll
   5.9 poll_32bits
   5.11 sqpoll_nonfixed ext_arg
   5.12 native_workers
   5.13 rsrc_tags
   5.17 cqe_skip linked_file
   6.3 reg_reg_ring
   6.10 recvsend_bundle
   6.12 min_timeout
   6.14 rw_attr
   6.15 no_iowait`,
  (index) => 2 ** index,
);

type Table<N extends string> = Readonly<Record<N, number>>;
const numbers = <N extends string>(table: readonly Named[], names: readonly N[]): Table<N> => {
  const values = new Map(table.map(({ name, value }) => [name, value]));
  const named = (name: N): [N, number] => {
    const value = values.get(name.replace(/[A-Z]/g, (c) => `_${c.toLowerCase()}`));
    if (value === undefined) throw new RangeError(`io_uring has no ${name}`);
    return [name, value];
  };
  return Object.fromEntries(names.map(named)) as Table<N>;
};

/** Request opcodes that the ring uses by name. */
export const Op = numbers(requestOps, [
  'nop', 'readv', 'writev', 'fsync', 'readFixed', 'writeFixed', 'pollAdd', 'sendmsg', 'recvmsg', 'timeout', 'accept',
  'asyncCancel', 'linkTimeout', 'connect', 'fallocate', 'openat', 'close', 'filesUpdate', 'statx', 'read', 'write', 'send',
  'recv', 'splice', 'tee', 'shutdown', 'renameat', 'unlinkat', 'mkdirat', 'symlinkat', 'linkat', 'msgRing', 'socket',
  'readMultishot', 'fixedFdInstall', 'ftruncate', 'bind', 'listen', 'readvFixed', 'writevFixed', 'pipe',
] as const); // biome-ignore format: a list

/** io_uring_register(2) opcodes that the ring uses by name. */
export const Reg = numbers(registerOps, [
  'registerBuffers', 'unregisterBuffers', 'registerFiles', 'unregisterFiles', 'registerFilesUpdate', 'registerProbe',
  'registerRestrictions', 'registerEnableRings', 'registerFiles2', 'registerFilesUpdate2', 'registerBuffers2',
  'registerBuffersUpdate', 'registerFileAllocRange', 'registerSyncCancel', 'registerSendMsgRing', 'registerQuery',
  'registerRingFds', 'unregisterRingFds', 'registerPbufRing', 'unregisterPbufRing', 'registerCloneBuffers',
] as const); // biome-ignore format: a list

/** Set-up flags by name. */
export const Setup = numbers(setupFlags, [
  'iopoll', 'sqpoll', 'cqsize', 'clamp', 'rDisabled', 'submitAll', 'coopTaskrun', 'taskrunFlag', 'singleIssuer', 'deferTaskrun',
  'noMmap', 'hybridIopoll',
] as const); // biome-ignore format: a list

/** Flags of a request (sqe->flags). */
export const SqeFlag = { fixedFile: 1, drain: 2, link: 4, hardlink: 8, async: 16, bufferSelect: 32, cqeSkip: 64 } as const;

/** Flags of a completion (cqe->flags). */
export const CqeFlag = { buffer: 1, more: 2, sockNonEmpty: 4, notification: 8 } as const;

/** sqe->file_index of a request that lets the kernel pick a free slot. */
export const alloc = 0xffff_ffff;
/** Descriptor that leaves a slot as it is in an update. */
export const skip = -2;
/** Largest file table of any kernel (IORING_MAX_FIXED_FILES, io_uring/rsrc.h). */
export const maxFixedFiles = 1 << 20;
