#include "uring/ring.h"

#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <vector>

#include "common/assert.h"
#include "common/error.h"

namespace vioctl::uring {
namespace {

int Result(long result) { return result < 0 ? -errno : static_cast<int>(result); }
int ThreadId() { return static_cast<int>(::syscall(SYS_gettid)); }

// Sets of preferred flags to try where the kernel cannot be asked, best first: each line drops what came last.
constexpr uint32_t kDrop[] = {
    0,
    IORING_SETUP_DEFER_TASKRUN,                                                        // 6.1
    IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_SINGLE_ISSUER,                           // 6.0
    IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_SUBMIT_ALL  // 5.18
        | IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG,                       // 5.19
    ~0U,
};

}  // namespace

int Setup(uint32_t entries, io_uring_params* params) { return Result(::syscall(__NR_io_uring_setup, entries, params)); }

int Enter(int fd, uint32_t to_submit, uint32_t min_complete, uint32_t flags, const void* arg, size_t size) {
  return Result(::syscall(__NR_io_uring_enter, fd, to_submit, min_complete, flags, arg, size));
}

int Register(int fd, uint32_t opcode, const void* arg, uint32_t nr) {
  return Result(::syscall(__NR_io_uring_register, fd, opcode, arg, nr));
}

int Query(abi::QueryOpcodes* answer) {
  *answer = {};
  abi::QueryHeader header{};
  header.query_data = reinterpret_cast<uintptr_t>(answer);
  header.query_op = abi::kQueryOpcodes;
  header.size = sizeof *answer;
  const int result = Register(-1, abi::kRegisterQuery, &header, 0);
  return result < 0 ? result : header.result;
}

Ring::Ring(const RingOptions& options) : wants_registered_(options.registered_ring_fd) {
  if (options.require & ~kSupported) throw SysError(EINVAL, "io_uring_setup", "set-up flags that are not supported");
  uint32_t prefer = options.prefer & kSupported;
  if (abi::QueryOpcodes offered; Query(&offered) == 0) prefer &= static_cast<uint32_t>(offered.ring_setup_flags);
  int fd = -EINVAL;
  uint32_t tried = ~0U;
  for (const uint32_t drop : kDrop) {
    uint32_t flags = (prefer & ~drop) | options.require;
    // The two go together: DEFER_TASKRUN is refused without SINGLE_ISSUER, and with SQPOLL.
    if (!(flags & IORING_SETUP_SINGLE_ISSUER) || (flags & IORING_SETUP_SQPOLL)) flags &= ~IORING_SETUP_DEFER_TASKRUN;
    if (!(flags & (IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_COOP_TASKRUN))) flags &= ~IORING_SETUP_TASKRUN_FLAG;
    if (options.cq_entries) flags |= IORING_SETUP_CQSIZE;
    if (flags == tried) continue;
    tried = flags;
    params_ = {};
    params_.flags = flags;
    params_.cq_entries = options.cq_entries;
    params_.sq_thread_idle = options.sq_thread_idle;
    fd = Setup(options.entries, &params_);
    if (fd != -EINVAL) break;
  }
  if (fd < 0) throw SysError(-fd, "io_uring_setup");
  fd_ = Fd(fd);
  Map();
  owner_ = ThreadId();
  if (!(params_.flags & IORING_SETUP_R_DISABLED)) RegisterSelf();
}

void Ring::Map() {
  const auto& sq = params_.sq_off;
  const auto& cq = params_.cq_off;
  size_t sq_size = sq.array + params_.sq_entries * sizeof(uint32_t);
  const size_t cq_size = cq.cqes + params_.cq_entries * sizeof(io_uring_cqe);
  const bool single = params_.features & IORING_FEAT_SINGLE_MMAP;
  if (single) sq_size = std::max(sq_size, cq_size);
  constexpr int kProtection = PROT_READ | PROT_WRITE, kFlags = MAP_SHARED | MAP_POPULATE;
  rings_ = Mapping::Map(fd_.get(), sq_size, kProtection, kFlags, IORING_OFF_SQ_RING);
  if (!single) cq_ring_ = Mapping::Map(fd_.get(), cq_size, kProtection, kFlags, IORING_OFF_CQ_RING);
  sqe_map_ = Mapping::Map(fd_.get(), params_.sq_entries * sizeof(io_uring_sqe), kProtection, kFlags, IORING_OFF_SQES);
  auto* s = static_cast<uint8_t*>(rings_.get());
  auto* c = single ? s : static_cast<uint8_t*>(cq_ring_.get());
  const auto word = [](uint8_t* base, uint32_t offset) { return reinterpret_cast<uint32_t*>(base + offset); };
  sq_head_ = word(s, sq.head);
  sq_tail_ = word(s, sq.tail);
  sq_flags_ = word(s, sq.flags);
  sq_array_ = word(s, sq.array);
  cq_head_ = word(c, cq.head);
  cq_tail_ = word(c, cq.tail);
  cq_flags_ = word(c, cq.flags);
  cqes_ = reinterpret_cast<io_uring_cqe*>(c + cq.cqes);
  sqes_ = static_cast<io_uring_sqe*>(sqe_map_.get());
  sq_entries_ = params_.sq_entries;
  sq_mask_ = *word(s, sq.ring_mask);
  cq_mask_ = *word(c, cq.ring_mask);
  VIOCTL_ASSERT(sq_mask_ == sq_entries_ - 1 && cq_mask_ == params_.cq_entries - 1);
  sqe_tail_ = *sq_tail_;
  if (!(params_.flags & abi::kSetupNoSqarray))
    for (uint32_t i = 0; i < sq_entries_; i++) sq_array_[i] = i;
}

void Ring::RegisterSelf() {
  if (!wants_registered_) return;
  io_uring_rsrc_update update{};
  update.offset = ~0U;
  update.data = static_cast<uint64_t>(fd_.get());
  // Refused on kernels before 5.18 and for the 17th ring of a thread: entering by descriptor works as well.
  if (uring::Register(fd_.get(), IORING_REGISTER_RING_FDS, &update, 1) == 1)
    registered_ = static_cast<int>(update.offset);
}

Ring::~Ring() {
  if (files_) UnregisterFiles();
  // The index means something to the thread that registered it only; elsewhere it ends with that thread.
  if (registered_ >= 0 && ThreadId() == owner_) {
    io_uring_rsrc_update update{};
    update.offset = static_cast<uint32_t>(registered_);
    uring::Register(fd_.get(), IORING_UNREGISTER_RING_FDS, &update, 1);
  }
}

int Ring::Enable() {
  const int result = Register(IORING_REGISTER_ENABLE_RINGS, nullptr, 0);
  if (result < 0) return result;
  owner_ = ThreadId();
  RegisterSelf();
  return 0;
}

int Ring::SubmitAndWait(uint32_t want, int64_t timeout_ns) {
  const uint32_t pending = Pending();
  VIOCTL_ASSERT(pending <= sq_entries_);
  __atomic_store_n(sq_tail_, sqe_tail_, __ATOMIC_RELEASE);
  uint32_t flags = 0;
  if (want > 0 || defers() || NeedsEnter()) flags |= IORING_ENTER_GETEVENTS;
  if (polls()) {
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    if (__atomic_load_n(sq_flags_, __ATOMIC_RELAXED) & IORING_SQ_NEED_WAKEUP) flags |= IORING_ENTER_SQ_WAKEUP;
    if (flags == 0) return static_cast<int>(pending);
  }
  if (pending == 0 && flags == 0) return 0;
  enters_++;
  if (__atomic_load_n(sq_flags_, __ATOMIC_RELAXED) & IORING_SQ_CQ_OVERFLOW) overflows_++;
  int fd = fd_.get();
  if (registered_ >= 0) {
    fd = registered_;
    flags |= IORING_ENTER_REGISTERED_RING;
  }
  if (timeout_ns < 0 || want == 0) return Enter(fd, pending, want, flags, nullptr, 0);
  const __kernel_timespec limit{timeout_ns / 1000000000, timeout_ns % 1000000000};
  io_uring_getevents_arg arg{};
  arg.ts = reinterpret_cast<uintptr_t>(&limit);
  return Enter(fd, pending, want, flags | IORING_ENTER_EXT_ARG, &arg, sizeof arg);
}

int Ring::WaitForSpace() {
  enters_++;
  uint32_t flags = IORING_ENTER_SQ_WAIT;
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
  if (__atomic_load_n(sq_flags_, __ATOMIC_RELAXED) & IORING_SQ_NEED_WAKEUP) flags |= IORING_ENTER_SQ_WAKEUP;
  const int result = Enter(fd_.get(), 0, 0, flags, nullptr, 0);
  return result < 0 ? result : 0;
}

int Ring::Register(uint32_t opcode, const void* arg, uint32_t nr) {
  return uring::Register(fd_.get(), opcode, arg, nr);
}

int Ring::RegisterFiles(std::span<const int> fds) {
  const int result = Register(IORING_REGISTER_FILES, fds.data(), static_cast<uint32_t>(fds.size()));
  if (result >= 0) files_ = true;
  return result;
}

int Ring::RegisterFilesSparse(uint32_t count) {
  io_uring_rsrc_register table{};
  table.nr = count;
  table.flags = IORING_RSRC_REGISTER_SPARSE;
  const int result = Register(IORING_REGISTER_FILES2, &table, sizeof table);
  if (result >= 0) files_ = true;
  if (result != -EINVAL || count == 0) return result;
  const std::vector<int> holes(count, -1);
  return RegisterFiles(holes);
}

int Ring::UpdateFiles(uint32_t offset, std::span<const int> fds) {
  io_uring_files_update update{};
  update.offset = offset;
  update.fds = reinterpret_cast<uintptr_t>(fds.data());
  return Register(IORING_REGISTER_FILES_UPDATE, &update, static_cast<uint32_t>(fds.size()));
}

int Ring::UnregisterFiles() {
  const int result = Register(IORING_UNREGISTER_FILES, nullptr, 0);
  if (result >= 0 || result == -ENXIO) files_ = false;
  return result;
}

int Ring::RegisterBuffers(std::span<const iovec> buffers) {
  return Register(IORING_REGISTER_BUFFERS, buffers.data(), static_cast<uint32_t>(buffers.size()));
}

int Ring::UnregisterBuffers() { return Register(IORING_UNREGISTER_BUFFERS, nullptr, 0); }

int Ring::RegisterEventfd(int fd) { return Register(IORING_REGISTER_EVENTFD, &fd, 1); }

}  // namespace vioctl::uring
