// A namespace into a descriptor.
#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "nvme/host/copy/transfer.h"
#include "os/fd.h"

namespace vioctl::nvme::host {
namespace {

constexpr size_t kZeroRun = 64 << 10;  // zeroes of a chunk that a hole is made of

class Reader : Transfer {
 public:
  Reader(Host& host, const CopyOptions& options, CopyState& state);
  CopyResult Run();

 private:
  int Put(const uint8_t* data, uint64_t size, uint64_t at);
  int PutSparse(const uint8_t* data, uint64_t size, uint64_t at);
  void Landed(Slot& slot);
  void BeginOutput();

  // The descriptor: a regular file; one that can be written anywhere; where it was, and its size, in bytes.
  bool regular_ = false, seekable_ = false;
  int64_t position_ = 0, file_size_ = 0, end_ = 0;
};

Reader::Reader(Host& host, const CopyOptions& options, CopyState& state) : Transfer(host, options, state) {
  struct stat stat;
  if (::fstat(options.fd, &stat) != 0) return;
  regular_ = S_ISREG(stat.st_mode);
  if (S_ISFIFO(stat.st_mode)) os::GrowPipe(options.fd, kPipeBytes);
  position_ = ::lseek(options.fd, 0, SEEK_CUR);
  const bool appends = (os::TryStatusFlags(options.fd) & O_APPEND) != 0;
  seekable_ = (regular_ || S_ISBLK(stat.st_mode)) && !appends && position_ >= 0;
  file_size_ = stat.st_size;
  end_ = position_ + static_cast<int64_t>(options.length);
}

int Reader::Put(const uint8_t* data, uint64_t size, uint64_t at) {
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
int Reader::PutSparse(const uint8_t* data, uint64_t size, uint64_t at) {
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

void Reader::Landed(Slot& slot) {
  slot.busy = false;
  if (slot.result != 0) return Fail(slot.result, Where::kNamespace);
  if (Failed()) return;
  const uint64_t skip = options_.offset + slot.at - slot.offset;
  if (const int err = PutSparse(slot.buffer.get() + skip, slot.size, slot.at)) return Fail(err, Where::kOutput);
  state_.done.fetch_add(slot.size, std::memory_order_relaxed);
}

// A file gets its length first: one that is too long for its file system is told of before anything is read.
void Reader::BeginOutput() {
  if (regular_ && seekable_ && file_size_ < end_ && ::ftruncate(options_.fd, end_) != 0) Fail(errno, Where::kOutput);
}

CopyResult Reader::Run() {
  BeginOutput();
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
    while (!seekable_ && !order.empty() && Over(*order.front())) {
      Landed(*order.front());
      order.pop_front();
    }
  }
  if (result_.err == 0 && seekable_) ::lseek(options_.fd, end_, SEEK_SET);  // where a writer would have left it
  result_.bytes = state_.done.load();
  return result_;
}

}  // namespace

CopyResult ReadInto(Host& host, const CopyOptions& options, CopyState& state) {
  return Reader(host, options, state).Run();
}

}  // namespace vioctl::nvme::host
