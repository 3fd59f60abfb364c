#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <future>
#include <utility>

#include "common/error.h"
#include "os/eventfd.h"
#include "uring/bulk_threads.h"
#include "uring/holes.h"
#include "uring/ring.h"

namespace vioctl::uring {
namespace {

constexpr size_t kFirst = 64 << 10;  // most files end in their first buffer
constexpr size_t kNext = 256 << 10;  // a file that goes on has two of these, one being read into
// Pairs of a thread; further files go on in their first buffer. More memory than the processor's cache holds costs what
// is in the page cache a third more time.
constexpr uint32_t kPairs = 4;
constexpr uint32_t kBite = 16;               // names that a thread takes at once
constexpr size_t kDeliver = 256;             // results that go out even if the thread does not sleep,
constexpr uint64_t kDeliverBytes = 8 << 20;  // as any do after this much reading
constexpr uint32_t kFsyncWorkers = 64;       // fsyncs at once: the kernel's own bound is 4 per processor
constexpr int64_t kTogether = 2'000'000;     // ns that a finished fsync waits for others at most
constexpr uint64_t kWake = ~uint64_t{0} >> 1;

RingOptions RingFor(uint32_t depth) {
  RingOptions options;
  options.entries = 4 * depth + 8;  // three requests of each file, the wake-up, the cancellation
  options.require = IORING_SETUP_R_DISABLED;
  return options;
}

}  // namespace

// A thread, its ring, and the files that are under way there.
class RingThread final : public BulkThread {
 public:
  RingThread(Bulk& bulk, uint32_t depth)
      : bulk_(bulk), wake_fd_(os::NewEventfd(false)), ring_(std::make_unique<Ring>(RingFor(depth))), files_(depth) {
    if (const int result = ring_->RegisterFilesSparse(depth); result < 0)
      throw SysError(-result, "io_uring_register", "file table");
    const BulkOptions& options = bulk.options_;
    if (options.work == BulkWork::kSum) {
      // Pages are touched by what is read only: small files cost one each. The page behind the last buffer is for
      // digest code that loads a block ahead of the one it works on (seen: SHA-512 with AVX2, a fault behind the
      // mapping).
      first_ = Mapping::Map(-1, depth * kFirst + kSlack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
      whole_ = std::make_unique<Digest>(*options.algorithm);
    }
    for (uint32_t i = 0; i < depth; i++) idle_.push_back(depth - 1 - i);
    results_.reserve(kDeliver);
  }

  // Throws SysError if the ring cannot be enabled in the thread, or not be entered.
  void Start() override {
    const auto enabled = std::make_shared<std::promise<int>>();
    auto answer = enabled->get_future();
    thread_ = os::StartThread([this, enabled] {
      ::pthread_setname_np(::pthread_self(), "uring-bulk");
      const int started = ring_->Enable();
      const int result = started < 0 ? started : ring_->Probe();
      enabled->set_value(result);
      if (result >= 0) Run();
      if (in_flight_ == 0) ring_.reset();  // in this thread, the ring's only one
    });
    if (const int result = answer.get(); result < 0) {
      thread_.join();
      throw SysError(-result, "io_uring_enter");
    }
  }

  void Wake(bool always) override {
    if (sleeping_.exchange(false) || always) os::SignalEventfd(wake_fd_.get());
  }

  bool Join() override {
    if (thread_.joinable()) thread_.join();
    return in_flight_ == 0;
  }

 private:
  enum Step : uint32_t { kOpen, kWork, kClose };
  struct Pair {
    std::unique_ptr<uint8_t[]> a, b;
  };
  struct File {
    Bulk::Name name;
    uint64_t total = 0;  // bytes read
    uint64_t least = 0;  // bytes of a regular file when its first buffer was full: it has shrunk if fewer can be read
    uint32_t have = 0;   // of them, in the first buffer and not summed
    int32_t error = 0;
    bool opened = false, summing = false;
    bool write_only = false;  // its user may not read it; fsync(2) does not mind
    Pair* pair = nullptr;
    uint8_t* target = nullptr;  // where the read under way writes
    Fd sparse;                  // a file with holes, instead of its slot: only a descriptor can be asked for them
    size_t hole = 0;            // bytes of a hole that stand for the read under way
    std::unique_ptr<Digest> digest;
  };

  uint8_t* FirstOf(uint32_t index) { return static_cast<uint8_t*>(first_.get()) + index * kFirst; }

  void Run() {
    if (bulk_.options_.work != BulkWork::kSum) {
      uint32_t most[2] = {kFsyncWorkers, 0};  // refused before 5.15: the kernel's own bound holds
      ring_->Register(IORING_REGISTER_IOWQ_MAX_WORKERS, most, 2);
    }
    AwaitWake();
    while (!bulk_.stopping_) {
      const bool starved = Begin();
      if (results_.size() >= kDeliver || summed_ >= kDeliverBytes) {
        summed_ = 0;
        bulk_.Deliver(results_);
      }
      if (int result = Next(starved); result < 0) {
        bulk_.Failed(result);
        break;
      }
      // One round only: a file in the page cache completes its next read at once, and would never let names, results
      // and the end have their turn.
      for (uint32_t left = ring_->Ready(); left > 0 && !bulk_.stopping_; left--)
        ring_->Reap([this](const io_uring_cqe& cqe) { Completed(cqe); }, 1);
    }
    Cancel();
  }

  // Submits what is queued and comes back when there are completions. Results go out before this thread sleeps. Returns
  // -errno of a ring that does not work.
  int Next(bool starved) {
    if (ring_->Ready()) return 0;
    if (!results_.empty()) {
      if (const int result = Enter(0); result < 0 || ring_->Ready()) return result;
      bulk_.Deliver(results_);
    }
    if (starved) {
      sleeping_ = true;
      if (bulk_.HasNames()) return 0;
    }
    // Each waking costs the processor that the fsyncs run on: a part of them ends together.
    const uint32_t some = bulk_.options_.work == BulkWork::kSum ? 1 : in_flight_ / 4;
    return some > 1 ? Enter(some, kTogether) : Enter(1);
  }

  // Submits, and waits for `want` completions. Returns -errno of a ring that does not work.
  int Enter(uint32_t want, int64_t timeout_ns = -1) {
    const uint32_t before = ring_->Pending();
    const int result = ring_->SubmitAndWait(want, timeout_ns);
    in_flight_ += before - ring_->Pending();
    enters.store(ring_->enters(), std::memory_order_relaxed);
    overflows.store(ring_->overflows(), std::memory_order_relaxed);
    const bool passing = result == -EINTR || result == -EAGAIN || result == -EBUSY || result == -ETIME;
    return passing ? 0 : std::min(result, 0);
  }

  // Starts files in what is idle. Returns true if there are more places than names.
  bool Begin() {
    while (!idle_.empty()) {
      Bulk::Name names[kBite];
      const uint32_t count = bulk_.Names(names, std::min<uint32_t>(kBite, static_cast<uint32_t>(idle_.size())));
      if (count == 0) return true;
      for (uint32_t i = 0; i < count; i++) {
        const uint32_t index = idle_.back();
        idle_.pop_back();
        Open(index, std::move(names[i]));
      }
    }
    return false;
  }

  io_uring_sqe* Entry(uint32_t index, Step step, uint8_t opcode, uint8_t flags) {
    io_uring_sqe* sqe = ring_->Next();  // never full: the ring has room for every step of every file
    sqe->opcode = opcode;
    sqe->flags = flags;
    sqe->user_data = (uint64_t{index} << 2) | step;
    return sqe;
  }

  void Open(uint32_t index, Bulk::Name name) {
    File& file = files_[index];
    file.name = std::move(name);
    file.total = file.least = file.have = 0;
    file.error = 0;
    file.opened = file.summing = file.write_only = false;
    Issue(index);
  }

  // Opens a file whose name is there.
  void Issue(uint32_t index) {
    File& file = files_[index];
    const bool sync = bulk_.options_.work != BulkWork::kSum;
    io_uring_sqe* sqe = Entry(index, kOpen, IORING_OP_OPENAT, IOSQE_IO_LINK);
    sqe->fd = AT_FDCWD;
    sqe->addr = reinterpret_cast<uintptr_t>(file.name.path);
    sqe->open_flags = (file.write_only ? O_WRONLY : O_RDONLY) | O_NOCTTY | (sync ? O_NONBLOCK : 0);
    sqe->file_index = index + 1;
    if (!sync) {
      Read(index, FirstOf(index), kFirst);
      return;
    }
    sqe = Entry(index, kWork, IORING_OP_FSYNC, IOSQE_FIXED_FILE | IOSQE_IO_HARDLINK);
    sqe->fd = static_cast<int32_t>(index);
    if (bulk_.options_.work == BulkWork::kDataSync) sqe->fsync_flags = IORING_FSYNC_DATASYNC;
    Close(index);
  }

  void Read(uint32_t index, uint8_t* to, size_t size) {
    File& file = files_[index];
    file.target = to;
    if (file.sparse.valid()) {
      file.hole = HoleAt(file.sparse.get(), file.total);
      if (file.hole > 0) {
        Entry(index, kWork, IORING_OP_NOP, 0);  // so that holes take turns with reads
        return;
      }
    }
    io_uring_sqe* sqe = Entry(index, kWork, IORING_OP_READ, file.sparse.valid() ? 0 : IOSQE_FIXED_FILE);
    sqe->fd = file.sparse.valid() ? file.sparse.get() : static_cast<int32_t>(index);
    sqe->addr = reinterpret_cast<uintptr_t>(to);
    sqe->len = static_cast<uint32_t>(size);
    sqe->off = file.total;
  }

  void Close(uint32_t index) { Entry(index, kClose, IORING_OP_CLOSE, 0)->file_index = index + 1; }

  void Completed(const io_uring_cqe& cqe) {
    in_flight_--;
    if (cqe.user_data == kWake) return AwaitWake();
    const auto index = static_cast<uint32_t>(cqe.user_data >> 2);
    File& file = files_[index];
    const bool sync = bulk_.options_.work != BulkWork::kSum;
    switch (static_cast<Step>(cqe.user_data & 3)) {
      case kOpen:
        file.opened = cqe.res >= 0;
        break;
      case kWork:
        if (!sync) return HaveRead(index, cqe.res);
        break;
      case kClose:
        if (cqe.res < 0 && file.error == 0) file.error = cqe.res;
        return Ended(index);
    }
    if (cqe.res < 0 && file.error == 0) file.error = cqe.res;  // the first is the root, ECANCELED follows it
  }

  void HaveRead(uint32_t index, int32_t result) {
    File& file = files_[index];
    const size_t hole = std::exchange(file.hole, 0);
    if (hole > 0 && result == 0) return HaveHole(index, hole);
    if (result <= 0) {
      if (file.error == 0) file.error = result == 0 && file.total < file.least ? kTruncated : result;
      if (!file.opened) return Ended(index);
      return Close(index);
    }
    const auto size = static_cast<uint32_t>(result);
    uint8_t* const data = file.target;
    file.total += size;
    summed_ += size;
    bytes.fetch_add(size, std::memory_order_relaxed);
    if (file.pair) {
      Read(index, data == file.pair->a.get() ? file.pair->b.get() : file.pair->a.get(), kNext);
      Enter(0);  // the next read is under way while this one is summed
      file.digest->Update(data, size);
      return;
    }
    file.have += size;
    uint8_t* const first = FirstOf(index);
    if (file.have < kFirst) return Read(index, first + file.have, kFirst - file.have);
    if (!file.summing) {
      // A file that ended in its first buffer was read at one moment. The path was opened a moment ago, so this does
      // not wait; as a request it would go to a kernel thread.
      struct statx stat;
      if (::statx(AT_FDCWD, file.name.path, AT_STATX_DONT_SYNC, STATX_TYPE | STATX_SIZE | STATX_BLOCKS, &stat) == 0 &&
          S_ISREG(stat.stx_mode)) {
        file.least = stat.stx_size;
        if (IsSparse(stat.stx_size, stat.stx_blocks)) OpenSparse(file);
      }
      StartSum(file);
    }
    file.pair = TakePair();
    if (file.pair) {
      Read(index, file.pair->a.get(), kNext);
      Enter(0);
    }
    file.digest->Update(first, file.have);
    file.have = 0;
    if (!file.pair) Read(index, first, kFirst);
  }

  // The name may mean another file by now: it is summed from its beginning.
  void OpenSparse(File& file) {
    file.sparse = os::TryOpen(file.name.path, O_RDONLY | O_NOCTTY | O_NONBLOCK);
    struct stat stat;
    if (!file.sparse.valid()) return;  // no descriptor is left: the holes are read
    if (::fstat(file.sparse.get(), &stat) < 0 || !S_ISREG(stat.st_mode)) return file.sparse.Reset();
    file.least = static_cast<uint64_t>(stat.st_size);
    file.total = file.have = 0;
  }

  void HaveHole(uint32_t index, size_t size) {
    File& file = files_[index];
    file.total += size;
    summed_ += size;
    uint8_t* const first = FirstOf(index);
    if (file.have > 0) file.digest->Update(first, std::exchange(file.have, 0));
    Read(index, file.pair ? file.pair->a.get() : first, file.pair ? kNext : kFirst);
    Enter(0);
    file.digest->Update(Zeros(), size);
  }

  void StartSum(File& file) {
    if (!file.digest) file.digest = std::make_unique<Digest>(*bulk_.options_.algorithm);
    file.digest->Start();
    file.summing = true;
  }

  // Does a file with system calls, from its beginning: the kernel's own threads count against RLIMIT_NPROC and pids.max
  // as well, and where not even one can be made, what needs one is cancelled. Returns the file's error.
  int32_t Here(uint32_t index) {
    File& file = files_[index];
    if (bulk_.options_.work != BulkWork::kSum)
      return SyncFile(file.name.path, bulk_.options_.work == BulkWork::kDataSync);
    if (MayWait(file.name.path)) return kElsewhere;
    const Fd fd = os::TryOpen(file.name.path, O_RDONLY | O_NOCTTY | O_NONBLOCK);
    struct stat stat;
    if (!fd.valid() || ::fstat(fd.get(), &stat) < 0) return -errno;
    StartSum(file);
    file.total = file.have = 0;
    while (!bulk_.stopping_) {
      const ssize_t size = ::read(fd.get(), FirstOf(index), kFirst);
      if (size < 0) return -errno;
      if (size == 0) break;
      file.digest->Update(FirstOf(index), static_cast<size_t>(size));
      file.total += static_cast<uint64_t>(size);
    }
    const bool shrunk =
        file.total >= kFirst && S_ISREG(stat.st_mode) && file.total < static_cast<uint64_t>(stat.st_size);
    return shrunk ? kTruncated : 0;
  }

  Pair* TakePair() {
    if (spare_.empty()) {
      if (pairs_.size() == kPairs) return nullptr;
      pairs_.push_back(std::make_unique<Pair>());
      pairs_.back()->a.reset(new uint8_t[kNext + kSlack]);
      pairs_.back()->b.reset(new uint8_t[kNext + kSlack]);
      return pairs_.back().get();
    }
    Pair* pair = spare_.back();
    spare_.pop_back();
    return pair;
  }

  // Only now is the slot free again.
  void Ended(uint32_t index) {
    File& file = files_[index];
    if (file.error == -EACCES && bulk_.options_.work != BulkWork::kSum && !file.opened && !file.write_only) {
      file.write_only = true;
      file.error = 0;
      return Issue(index);
    }
    if (file.write_only && file.error == -EISDIR) file.error = -EACCES;  // what reading it said
    if (file.error == -ECANCELED) file.error = Here(index);
    BulkResult& result = results_.emplace_back();
    result.number = file.name.number;
    result.error = file.error;
    result.size = file.total;
    if (file.error == 0 && bulk_.options_.work == BulkWork::kSum) {
      Digest& digest = file.summing ? *file.digest : *whole_;
      if (!file.summing) digest.Start();
      digest.Update(FirstOf(index), file.have);
      if (!digest.Finish(result.digest)) result.error = -ENOMEM;
    }
    if (file.pair) spare_.push_back(file.pair);
    file.pair = nullptr;
    file.sparse.Reset();
    file.hole = 0;
    file.name.block.reset();
    idle_.push_back(index);
  }

  void AwaitWake() {
    io_uring_sqe* sqe = ring_->Next();
    sqe->opcode = IORING_OP_READ;
    sqe->fd = wake_fd_.get();
    sqe->addr = reinterpret_cast<uintptr_t>(&wakes_);
    sqe->len = sizeof wakes_;
    sqe->user_data = kWake;
  }

  // Requests work on memory that is about to go: the kernel must give them all back.
  void Cancel() {
    for (int idle = 0, asked = -1; (in_flight_ > 0 || ring_->Pending() > 0) && idle < 50;) {
      const uint32_t before = in_flight_ + ring_->Pending();
      if (idle % 10 == 0 && asked != idle) {
        asked = idle;
        io_uring_sqe* sqe = ring_->Next();
        if (sqe == nullptr) break;
        sqe->opcode = IORING_OP_ASYNC_CANCEL;
        sqe->cancel_flags = IORING_ASYNC_CANCEL_ALL | IORING_ASYNC_CANCEL_ANY;
        sqe->user_data = kWake;
      }
      if (Enter(1, 100'000'000) < 0) break;
      ring_->Reap([this](const io_uring_cqe&) { in_flight_--; });
      if (in_flight_ + ring_->Pending() >= before) idle++;
    }
  }

  Bulk& bulk_;
  Fd wake_fd_;
  std::unique_ptr<Ring> ring_;
  std::vector<File> files_;  // by slot
  std::vector<uint32_t> idle_;
  Mapping first_;
  std::unique_ptr<Digest> whole_;
  std::vector<std::unique_ptr<Pair>> pairs_;
  std::vector<Pair*> spare_;
  std::vector<BulkResult> results_;
  std::atomic<bool> sleeping_{false};
  uint64_t wakes_ = 0;
  uint64_t summed_ = 0;  // bytes since results went out
  uint32_t in_flight_ = 0;
  std::thread thread_;
};

std::unique_ptr<BulkThread> MakeRingThread(Bulk& bulk, uint32_t depth) {
  return std::make_unique<RingThread>(bulk, depth);
}

}  // namespace vioctl::uring
