#include "nvme/host/copy.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <mutex>
#include <vector>

#include "os/fd.h"
#include "storage/direct.h"

namespace vioctl::nvme::host {
namespace {

using storage::Op;
using Where = CopyResult::Where;

constexpr size_t kZeroRun = 64 << 10;        // zeroes of a chunk that a hole is made of
constexpr uint64_t kFlushEvery = 256 << 20;  // bytes: how far a write has come is known that exactly
constexpr uint64_t kZeroMost = 32 << 20;     // bytes of one request for zeroes
constexpr size_t kMaxMemory = 64 << 20;      // of all buffers
constexpr int kStopMs = 100;                 // between looks at whether to stop

bool AllZero(const uint8_t* data, size_t size) {
  return size == 0 || (data[0] == 0 && memcmp(data, data + 1, size - 1) == 0);
}

// One request with its buffer.
struct Slot : storage::Request {
  class Copy* copy = nullptr;
  std::unique_ptr<uint8_t, void (*)(void*)> buffer{nullptr, &::free};
  iovec part{};
  uint64_t at = 0, size = 0;  // bytes of the range, relative to its start, that it is for
  bool busy = false, over = false;
};

class Copy {
 public:
  Copy(Host& host, const CopyOptions& options, CopyState& state)
      : host_(host), options_(options), state_(state), block_(host.facts().block_size) {
    const uint64_t most = std::min<uint64_t>(options.chunk, host.controller().max_transfer);
    chunk_ = std::max<uint64_t>(block_, most / block_ * block_);
    const size_t count = std::clamp<size_t>(kMaxMemory / chunk_, 2, options.depth);
    slots_.resize(std::max<size_t>(1, std::min<size_t>(count, options.depth)));
    struct stat stat;
    if (::fstat(options.fd, &stat) != 0) return;
    regular_ = S_ISREG(stat.st_mode);
    const int flags = os::TryStatusFlags(options.fd);
    position_ = ::lseek(options.fd, 0, SEEK_CUR);
    seekable_ = (regular_ || S_ISBLK(stat.st_mode)) && (flags & O_APPEND) == 0 && position_ >= 0;
    file_size_ = stat.st_size;
  }
  ~Copy() {
    std::unique_lock lock(mutex_);
    wake_.wait(lock, [this] { return out_ == 0; });
  }

  CopyResult Read();
  CopyResult Write();

 private:
  void Fail(int err, Where where) {
    if (result_.err != 0) return;
    result_.err = err;
    result_.where = where;
  }
  bool Failed() {
    if (state_.stop.load(std::memory_order_relaxed)) Fail(ECANCELED, Where::kNone);
    return result_.err != 0;
  }
  // A slot that is free; nullptr if all are busy.
  Slot* Free() {
    for (Slot& slot : slots_)
      if (!slot.busy) return &slot;
    return nullptr;
  }
  uint8_t* Buffer(Slot& slot) {
    if (!slot.buffer) {
      void* memory = nullptr;
      if (::posix_memalign(&memory, storage::kBufferAlignment, chunk_) != 0) throw std::bad_alloc();
      slot.buffer.reset(static_cast<uint8_t*>(memory));
    }
    return slot.buffer.get();
  }
  void Submit(Slot& slot, Op op, uint64_t offset, uint64_t length, bool data);
  Slot* TakeOver();
  bool Await();
  int Run(Slot& slot);
  int Put(const uint8_t* data, uint64_t size, uint64_t at);
  int PutSparse(const uint8_t* data, uint64_t size, uint64_t at);
  void Landed(Slot& slot);
  void EndOutput();
  ssize_t Get(uint8_t* to, uint64_t size, uint64_t at);
  uint64_t HoleAt(uint64_t at) const;
  bool Fill(Slot& slot);
  bool Merge(Slot& slot, uint64_t head, uint64_t have, uint64_t whole);
  void Written(Slot& slot);
  uint64_t Prefix() const;
  void FlushSome(bool last);

  Host& host_;
  const CopyOptions& options_;
  CopyState& state_;
  const uint64_t block_;
  uint64_t chunk_;
  bool regular_ = false, seekable_ = false;
  int64_t position_ = 0, file_size_ = 0;
  std::deque<Slot> slots_;
  Slot flush_;
  CopyResult result_;
  uint64_t next_ = 0;  // bytes of the range that slots were filled for
  uint64_t flushed_at_ = 0, covers_ = 0;
  uint64_t broken_at_ = UINT64_MAX;  // where the first write failed
  bool ended_ = false;               // there is no more input

  std::mutex mutex_;
  std::condition_variable wake_;
  std::vector<Slot*> over_;
  size_t out_ = 0;
};

void Copy::Submit(Slot& slot, Op op, uint64_t offset, uint64_t length, bool data) {
  slot.copy = this;
  slot.op = op;
  slot.durable = options_.fua && (op == Op::kWrite || op == Op::kZero);
  slot.deallocate = options_.deallocate && op == Op::kZero;
  slot.offset = offset;
  slot.length = length;
  slot.part = {slot.buffer.get(), length};
  slot.parts = data ? &slot.part : nullptr;
  slot.count = data ? 1 : 0;
  slot.result = 0;
  slot.busy = true;
  slot.over = false;
  slot.done = [](storage::Request* request) {
    auto* ended = static_cast<Slot*>(request);
    Copy& copy = *ended->copy;
    // Under the lock: the copy is gone as soon as it sees that nothing is out.
    std::lock_guard guard(copy.mutex_);
    ended->over = true;
    copy.over_.push_back(ended);
    copy.out_--;
    copy.wake_.notify_one();
  };
  {
    std::lock_guard guard(mutex_);
    out_++;
  }
  host_.Submit(&slot);
}

// Something that has ended, nullptr if there is nothing.
Slot* Copy::TakeOver() {
  std::lock_guard guard(mutex_);
  if (over_.empty()) return nullptr;
  Slot* slot = over_.back();
  over_.pop_back();
  return slot;
}

// Waits until something ends. False if nothing is out.
bool Copy::Await() {
  std::unique_lock lock(mutex_);
  if (!over_.empty()) return true;
  if (out_ == 0) return false;
  wake_.wait_for(lock, std::chrono::milliseconds(kStopMs));
  return true;
}

// --- a namespace into a descriptor

int Copy::Put(const uint8_t* data, uint64_t size, uint64_t at) {
  for (uint64_t done = 0; done < size;) {
    const ssize_t n = seekable_
                          ? ::pwrite(options_.fd, data + done, size - done, position_ + static_cast<off_t>(at + done))
                          : ::write(options_.fd, data + done, size - done);
    if (n > 0) {
      done += static_cast<uint64_t>(n);
    } else if (n < 0 && errno == EAGAIN) {
      pollfd wait{options_.fd, POLLOUT, 0};
      ::poll(&wait, 1, kStopMs);
      if (state_.stop.load(std::memory_order_relaxed)) return ECANCELED;
    } else if (n == 0 || errno != EINTR) {
      return n == 0 ? EIO : errno;
    }
  }
  return 0;
}

// Behind the end of a file, what is not written is a hole.
int Copy::PutSparse(const uint8_t* data, uint64_t size, uint64_t at) {
  if (!regular_ || !seekable_ || position_ + static_cast<int64_t>(at) < file_size_) return Put(data, size, at);
  for (uint64_t from = 0; from < size;) {
    uint64_t to = from;
    while (to < size && !AllZero(data + to, std::min<uint64_t>(kZeroRun, size - to)))
      to += std::min<uint64_t>(kZeroRun, size - to);
    if (to > from)
      if (const int err = Put(data + from, to - from, at + from)) return err;
    if (to < size) to += std::min<uint64_t>(kZeroRun, size - to);
    from = to;
  }
  return 0;
}

void Copy::Landed(Slot& slot) {
  slot.busy = false;
  if (slot.result != 0) return Fail(slot.result, Where::kNamespace);
  if (Failed()) return;
  const uint64_t skip = options_.offset + slot.at - slot.offset;
  if (const int err = PutSparse(slot.buffer.get() + skip, slot.size, slot.at)) return Fail(err, Where::kOutput);
  state_.done.fetch_add(slot.size, std::memory_order_relaxed);
}

// A file that ends with a hole gets its length, and the position is where a writer would have left it.
void Copy::EndOutput() {
  if (!seekable_) return;
  const auto end = position_ + static_cast<off_t>(options_.length);
  struct stat stat;
  if (regular_ && ::fstat(options_.fd, &stat) == 0 && stat.st_size < end && ::ftruncate(options_.fd, end) != 0)
    return Fail(errno, Where::kOutput);
  ::lseek(options_.fd, end, SEEK_SET);
}

CopyResult Copy::Read() {
  std::deque<Slot*> order;  // of what is to be written one after the other
  while (true) {
    Slot* slot = nullptr;
    while (next_ < options_.length && !Failed() && (slot = Free())) {
      const uint64_t start = options_.offset + next_, from = start / block_ * block_;
      slot->at = next_;
      slot->size = std::min(options_.length - next_, from + chunk_ - start);
      next_ += slot->size;
      Buffer(*slot);
      Submit(*slot, Op::kRead, from, (start + slot->size - from + block_ - 1) / block_ * block_, true);
      order.push_back(slot);
    }
    if (order.empty()) break;
    Await();
    Failed();
    while ((slot = TakeOver()))
      if (seekable_) {
        std::erase(order, slot);
        Landed(*slot);
      }
    while (!seekable_ && !order.empty()) {
      {
        std::lock_guard guard(mutex_);
        if (!order.front()->over) break;
      }
      Landed(*order.front());
      order.pop_front();
    }
  }
  if (result_.err == 0) EndOutput();
  result_.bytes = state_.done.load();
  return result_;
}

// --- a descriptor into a namespace

// Bytes of the input, 0 at its end, -1 with errno.
ssize_t Copy::Get(uint8_t* to, uint64_t size, uint64_t at) {
  while (true) {
    if (!regular_) {
      pollfd wait{options_.fd, POLLIN, 0};
      if (::poll(&wait, 1, kStopMs) == 0) {
        if (state_.stop.load(std::memory_order_relaxed)) return errno = ECANCELED, -1;
        continue;
      }
    }
    const ssize_t n = regular_ && position_ >= 0 ? ::pread(options_.fd, to, size, position_ + static_cast<off_t>(at))
                                                 : ::read(options_.fd, to, size);
    if (n >= 0 || (errno != EINTR && errno != EAGAIN)) return n;
  }
}

// Bytes of the hole of the input that begins there; 0 if there is data.
uint64_t Copy::HoleAt(uint64_t at) const {
  if (!regular_ || position_ < 0) return 0;
  const off_t from = position_ + static_cast<off_t>(at);
  if (from >= file_size_) return 0;
  off_t data = ::lseek(options_.fd, from, SEEK_DATA);
  if (data < 0) data = errno == ENXIO ? file_size_ : from;
  return static_cast<uint64_t>(std::min<off_t>(data, file_size_) - from);
}

// Waits for one request, while others may end.
int Copy::Run(Slot& slot) {
  std::unique_lock lock(mutex_);
  wake_.wait(lock, [&] { return slot.over; });
  std::erase(over_, &slot);
  return slot.result;
}

// Reads the blocks that the data does not fill. False: that failed.
bool Copy::Merge(Slot& slot, uint64_t head, uint64_t have, uint64_t whole) {
  uint8_t* buffer = slot.buffer.get();
  const uint64_t first = options_.offset + slot.at - head;
  std::vector<uint8_t> data(buffer + head, buffer + head + have);
  const auto read = [&](uint64_t block) {
    Submit(slot, Op::kRead, first + block, block_, true);
    if (const int err = Run(slot)) {
      Fail(err, Where::kNamespace);
      return false;
    }
    result_.merged_blocks++;
    if (block > 0) memmove(buffer + block, buffer, block_);
    return true;
  };
  // The last block first: each is read into the beginning of the buffer.
  const bool tail = (head + have) % block_ != 0 && (whole > block_ || head == 0);
  if (tail && !read(whole - block_)) return false;
  if (head != 0 && !read(0)) return false;
  memcpy(buffer + head, data.data(), have);
  return true;
}

// Takes input into a slot and starts its write. False: there was none.
bool Copy::Fill(Slot& slot) {
  const uint64_t start = options_.offset + next_, head = start % block_;
  const uint64_t room = options_.length - next_;
  uint8_t* buffer = Buffer(slot);
  slot.at = next_;
  if (head == 0 && room > 0) {
    const uint64_t hole = std::min({HoleAt(next_), room, kZeroMost}) / block_ * block_;
    if (hole > 0 && host_.controller().can_zero) {
      slot.size = hole;
      next_ += hole;
      Submit(slot, Op::kZero, start, hole, false);
      return true;
    }
  }
  const uint64_t wanted = std::min(chunk_ - head, room);
  uint64_t have = 0;
  while (have < wanted && !ended_) {
    const ssize_t n = Get(buffer + head + have, wanted - have, next_ + have);
    if (n < 0) {
      Fail(errno, errno == ECANCELED ? Where::kNone : Where::kInput);
      return false;
    }
    if (n == 0) ended_ = true;
    have += static_cast<uint64_t>(n);
  }
  if (room == 0 && !ended_) {
    // Only whether there is more: it is not taken.
    uint8_t byte;
    const ssize_t n = Get(&byte, 1, next_);
    result_.overlong = n > 0;
    ended_ = true;
  }
  if (have == 0) return false;
  slot.size = have;
  const uint64_t whole = (head + have + block_ - 1) / block_ * block_;
  next_ += have;
  if (whole != have && !Merge(slot, head, have, whole)) {
    slot.busy = false;
    broken_at_ = std::min(broken_at_, slot.at);
    return false;
  }
  const bool zero = host_.controller().can_zero && AllZero(buffer, whole);
  Submit(slot, zero ? Op::kZero : Op::kWrite, start - head, whole, !zero);
  return true;
}

// Everything below this has been acknowledged.
uint64_t Copy::Prefix() const {
  uint64_t prefix = std::min(next_, broken_at_);
  for (const Slot& slot : slots_)
    if (slot.busy) prefix = std::min(prefix, slot.at);
  return prefix;
}

void Copy::Written(Slot& slot) {
  slot.busy = false;
  if (&slot == &flush_) {
    if (slot.result == 0) return void(result_.durable = covers_);
    return Fail(slot.result, Where::kNamespace);
  }
  if (slot.result != 0) {
    broken_at_ = std::min(broken_at_, slot.at);
    return Fail(slot.result, Where::kNamespace);
  }
  state_.done.fetch_add(slot.size, std::memory_order_relaxed);
}

void Copy::FlushSome(bool last) {
  if (flush_.busy) return;
  const uint64_t prefix = Prefix();
  if (!last && prefix < flushed_at_ + kFlushEvery) return;
  flushed_at_ = covers_ = prefix;
  Submit(flush_, Op::kFlush, 0, 0, false);
}

CopyResult Copy::Write() {
  while (true) {
    while (Slot* slot = ended_ || Failed() ? nullptr : Free())
      if (!Fill(*slot)) break;
    if (result_.err == 0) FlushSome(false);
    if (!Await()) {
      if (ended_ || Failed()) break;
      continue;
    }
    while (Slot* slot = TakeOver()) Written(*slot);
  }
  result_.bytes = Prefix();
  // What was acknowledged is made durable even if something failed: the user is told how far it is good.
  if (result_.where != Where::kNamespace || host_.paths().live > 0) {
    FlushSome(true);
    while (Await())
      while (Slot* slot = TakeOver()) Written(*slot);
  }
  if (options_.fua || !host_.controller().volatile_cache) result_.durable = result_.bytes;
  // Where a reader would have left it.
  if (regular_ && position_ >= 0) ::lseek(options_.fd, position_ + static_cast<off_t>(result_.bytes), SEEK_SET);
  return result_;
}

}  // namespace

CopyResult ReadInto(Host& host, const CopyOptions& options, CopyState& state) {
  return Copy(host, options, state).Read();
}

CopyResult WriteFrom(Host& host, const CopyOptions& options, CopyState& state) {
  return Copy(host, options, state).Write();
}

}  // namespace vioctl::nvme::host
