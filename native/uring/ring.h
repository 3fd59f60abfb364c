// One io_uring, for the thread that submits to it: the native engines (NVMe/TCP target, vhost-user-blk) use it
// directly, the JavaScript ring (binding/uring.cc) puts batches in shared arrays over it. Raw system calls, no
// liburing.
//
//   Ring ring({.entries = 256});
//   io_uring_sqe* sqe = ring.Next();                       // zeroed; nullptr when the queue is full: Submit() first
//   Prepare(sqe, IORING_OP_READ, slot, buffer, 4096, offset, tag, IOSQE_FIXED_FILE);
//   ring.SubmitAndWait(1);
//   ring.Reap([](const io_uring_cqe& cqe) { ... });
//
// Nothing here allocates after construction.
#pragma once
#include <sys/uio.h>

#include <cstdint>
#include <span>

#include "os/fd.h"
#include "os/mapping.h"
#include "uring/abi.h"

namespace vioctl::uring {

// io_uring_setup(2). Returns the descriptor or -errno.
int Setup(uint32_t entries, io_uring_params* params);
// io_uring_enter(2). Returns the number of SQEs taken or -errno.
int Enter(int fd, uint32_t to_submit, uint32_t min_complete, uint32_t flags, const void* arg, size_t size);
// io_uring_register(2). Returns what the opcode returns or -errno.
int Register(int fd, uint32_t opcode, const void* arg, uint32_t nr);
// What the running kernel says it can (REGISTER_QUERY, 6.18 on). Returns 0 or -errno (-EINVAL on older kernels).
int Query(abi::QueryOpcodes* answer);

// Set-up flags that a ring of one submitting thread wants; each is dropped where the kernel does not offer it.
inline constexpr uint32_t kOneThread = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
                                       IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_SUBMIT_ALL | IORING_SETUP_CLAMP;

// Those of a ring that one thread passes on to another. SINGLE_ISSUER would bind it to the first: the kernel refuses
// all others its file table, even to empty that.
inline constexpr uint32_t kPassedOn =
    IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_SUBMIT_ALL | IORING_SETUP_CLAMP;

// Set-up flags that a ring here works with. The others change the size of its entries or expect memory of the caller.
inline constexpr uint32_t kSupported = kOneThread | IORING_SETUP_IOPOLL | IORING_SETUP_SQPOLL | IORING_SETUP_SQ_AFF |
                                       IORING_SETUP_CQSIZE | IORING_SETUP_R_DISABLED | IORING_SETUP_COOP_TASKRUN |
                                       abi::kSetupNoSqarray | abi::kSetupHybridIopoll;

struct RingOptions {
  uint32_t entries = 256;          // submission queue, rounded up to a power of two by the kernel
  uint32_t cq_entries = 0;         // 0: twice the entries
  uint32_t prefer = kOneThread;    // set-up flags to use where they are offered
  uint32_t require = 0;            // set-up flags without which construction fails (IOPOLL, SQPOLL, R_DISABLED)
  uint32_t sq_thread_idle = 0;     // milliseconds, SQPOLL
  bool registered_ring_fd = true;  // enter through a registered ring descriptor where possible
};

// Fills a zeroed SQE's common fields. fd is a slot of the file table with IOSQE_FIXED_FILE in flags.
inline void Prepare(io_uring_sqe* sqe, uint8_t opcode, int fd, const void* address, uint32_t length, uint64_t offset,
                    uint64_t user_data, uint8_t flags = 0) {
  sqe->opcode = opcode;
  sqe->flags = flags;
  sqe->fd = fd;
  sqe->off = offset;
  sqe->addr = reinterpret_cast<uintptr_t>(address);
  sqe->len = length;
  sqe->user_data = user_data;
}

class Ring {
 public:
  // Creates the ring in the thread that will submit (SINGLE_ISSUER binds it to that thread, unless `require` has
  // IORING_SETUP_R_DISABLED: then to the one that calls Enable). Throws SysError: EPERM (io_uring_disabled, seccomp),
  // ENOSYS (no io_uring), ENOMEM (RLIMIT_MEMLOCK on kernels that count rings), EINVAL (`require` beyond kSupported).
  explicit Ring(const RingOptions& options = {});
  // Unregisters files before the descriptor closes: a closed ring lets its files go only some 30 ms later.
  ~Ring();
  Ring(const Ring&) = delete;
  Ring& operator=(const Ring&) = delete;

  // Starts a ring made with IORING_SETUP_R_DISABLED; the calling thread becomes the submitter. Returns 0 or -errno.
  int Enable();

  // The next submission entry, zeroed, or nullptr when the queue is full.
  io_uring_sqe* Next() {
    if (sqe_tail_ - __atomic_load_n(sq_head_, __ATOMIC_ACQUIRE) >= sq_entries_) return nullptr;
    io_uring_sqe* sqe = &sqes_[sqe_tail_++ & sq_mask_];
    *sqe = io_uring_sqe{};
    issued_++;
    return sqe;
  }
  // Entries taken with Next() so far. Less the completions that ended one, it is what is under way: what
  // io_uring_enter(2) returns is not, because a thread of the kernel may submit (SQPOLL).
  uint64_t issued() const { return issued_; }
  // Entries taken with Next() that the kernel has not taken yet.
  uint32_t Pending() const { return sqe_tail_ - __atomic_load_n(sq_head_, __ATOMIC_RELAXED); }
  // Free entries of the submission queue.
  uint32_t Space() const { return sq_entries_ - (sqe_tail_ - __atomic_load_n(sq_head_, __ATOMIC_ACQUIRE)); }

  // Whether the kernel lets this ring be entered: a seccomp filter may refuse it and let io_uring_setup(2) pass. 0 or
  // -errno.
  int Probe() const { return Enter(fd_.get(), 0, 0, 0, nullptr, 0); }

  // Hands pending entries to the kernel and runs deferred completion work. Returns the number taken or -errno
  // (-EAGAIN, -EBUSY: reap completions and call again; -EINTR: call again; -EEXIST: not the submitting thread).
  int Submit() { return SubmitAndWait(0); }
  // SQPOLL: sleeps until the kernel's thread has taken an entry. Returns 0 or -errno.
  int WaitForSpace();
  // The same as Submit(), then waits until `want` completions can be reaped. timeout_ns < 0: no limit. -ETIME when it
  // ran out.
  int SubmitAndWait(uint32_t want, int64_t timeout_ns = -1);

  // Takes back entries that the kernel has not taken, the last first, at most `limit`; not with SQPOLL. Calls
  // each(const io_uring_sqe&) for them; returns how many.
  template <typename F>
  uint32_t Withdraw(F&& each, uint32_t limit = UINT32_MAX) {
    uint32_t count = 0;
    for (; count < limit && Pending() > 0; count++) {
      const io_uring_sqe sqe = sqes_[--sqe_tail_ & sq_mask_];
      __atomic_store_n(sq_tail_, sqe_tail_, __ATOMIC_RELEASE);
      each(sqe);
    }
    return count;
  }

  // Completions that can be reaped without entering the kernel.
  uint32_t Ready() const { return __atomic_load_n(cq_tail_, __ATOMIC_ACQUIRE) - *cq_head_; }
  // True if the kernel holds completions back until it is entered (overflow, deferred work).
  bool NeedsEnter() const {
    return __atomic_load_n(sq_flags_, __ATOMIC_RELAXED) & (IORING_SQ_CQ_OVERFLOW | IORING_SQ_TASKRUN);
  }
  // Calls of io_uring_enter(2), and how many of them found completions that had not fitted into their queue.
  uint64_t enters() const { return enters_; }
  uint64_t overflows() const { return overflows_; }
  // Calls each(const io_uring_cqe&) for the completions that are there, at most `limit`; returns how many. `each` may
  // take and submit new entries.
  template <typename F>
  uint32_t Reap(F&& each, uint32_t limit = UINT32_MAX) {
    uint32_t head = *cq_head_, count = 0;
    for (; count < limit && head != __atomic_load_n(cq_tail_, __ATOMIC_ACQUIRE); count++) {
      const io_uring_cqe cqe = cqes_[head & cq_mask_];
      __atomic_store_n(cq_head_, ++head, __ATOMIC_RELEASE);
      each(cqe);
    }
    return count;
  }

  // io_uring_register on this ring. Returns what the opcode returns or -errno.
  int Register(uint32_t opcode, const void* arg, uint32_t nr);

  // The file table: entries are descriptors or -1 (hole). All or nothing; -errno.
  int RegisterFiles(std::span<const int> fds);
  // A table of `count` holes (5.19); falls back to an array of -1.
  int RegisterFilesSparse(uint32_t count);
  // Replaces slots from `offset` on. Returns how many were done: fewer than asked means that entry `result` failed, its
  // errno is lost, and its slot is now empty. Check descriptors first.
  int UpdateFiles(uint32_t offset, std::span<const int> fds);
  int UnregisterFiles();
  // Fixed buffers for IORING_OP_READ_FIXED and WRITE_FIXED; counted against RLIMIT_MEMLOCK. 0 or -errno.
  int RegisterBuffers(std::span<const iovec> buffers);
  int UnregisterBuffers();
  // Signals an eventfd at completions. 0 or -errno.
  int RegisterEventfd(int fd);
  // Stops and resumes signals to the registered eventfd. After resuming look at Ready() and NeedsEnter() once.
  void EventfdEnabled(bool enabled) {
    if (enabled)
      __atomic_and_fetch(cq_flags_, ~uint32_t{IORING_CQ_EVENTFD_DISABLED}, __ATOMIC_SEQ_CST);
    else
      __atomic_or_fetch(cq_flags_, uint32_t{IORING_CQ_EVENTFD_DISABLED}, __ATOMIC_SEQ_CST);
  }

  int fd() const { return fd_.get(); }
  uint32_t flags() const { return params_.flags; }
  uint32_t features() const { return params_.features; }
  uint32_t sq_entries() const { return sq_entries_; }
  uint32_t cq_entries() const { return params_.cq_entries; }
  const io_uring_params& params() const { return params_; }
  bool polls() const { return params_.flags & IORING_SETUP_SQPOLL; }
  bool defers() const { return params_.flags & IORING_SETUP_DEFER_TASKRUN; }
  bool registered() const { return registered_ >= 0; }

 private:
  void Map();
  void RegisterSelf();

  Fd fd_;
  io_uring_params params_{};
  Mapping rings_, cq_ring_, sqe_map_;
  uint32_t *sq_head_ = nullptr, *sq_tail_ = nullptr, *sq_flags_ = nullptr, *sq_array_ = nullptr;
  uint32_t *cq_head_ = nullptr, *cq_tail_ = nullptr, *cq_flags_ = nullptr;
  io_uring_sqe* sqes_ = nullptr;
  io_uring_cqe* cqes_ = nullptr;
  uint32_t sq_entries_ = 0, sq_mask_ = 0, cq_mask_ = 0;
  uint32_t sqe_tail_ = 0;  // ours; the kernel sees it at submission
  uint64_t issued_ = 0, enters_ = 0, overflows_ = 0;
  int registered_ = -1;  // index of the registered ring descriptor, of thread `owner_`
  int owner_ = 0;
  bool wants_registered_ = true;
  bool files_ = false;
};

}  // namespace vioctl::uring
