#include "nvme/host/copy/input.h"

#include <poll.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "common/error.h"
#include "nvme/host/copy/transfer.h"
#include "os/fd.h"

namespace vioctl::nvme::host {

Input::Input(int fd, const std::atomic<bool>& stop) : fd_(fd), stop_(stop) {
  struct stat stat;
  if (::fstat(fd, &stat) != 0) return;
  if (S_ISFIFO(stat.st_mode)) os::GrowPipe(fd, kPipeBytes);
  regular_ = S_ISREG(stat.st_mode);
  if (regular_) position_ = ::lseek(fd, 0, SEEK_CUR);
  size_ = stat.st_size;
  if (position_ < 0 || position_ >= size_) return;
  try {
    const size_t page = os::PageSizeOf(fd);
    mapped_ = static_cast<int64_t>(os::RoundDown(static_cast<uint64_t>(position_), page));
    map_ = os::GuardedMapping(fd, static_cast<size_t>(size_ - mapped_), false, mapped_);
  } catch (const SysError&) {
    // A file system that does not map its files: they are read.
  }
}

ssize_t Input::Read(uint8_t* to, uint64_t size, uint64_t at) {
  while (true) {
    if (!regular_) {
      pollfd wait{fd_, POLLIN, 0};
      if (::poll(&wait, 1, kStopMs) == 0) {
        if (stop_.load(std::memory_order_relaxed)) return errno = ECANCELED, -1;
        continue;
      }
    }
    const ssize_t n =
        position_ >= 0 ? ::pread(fd_, to, size, position_ + static_cast<off_t>(at)) : ::read(fd_, to, size);
    if (n >= 0 || (errno != EINTR && errno != EAGAIN)) return n;
  }
}

uint64_t Input::HoleAt(uint64_t at) const {
  const off_t from = position_ + static_cast<off_t>(at);
  if (position_ < 0 || from >= size_) return 0;
  off_t data = ::lseek(fd_, from, SEEK_DATA);
  if (data < 0) data = errno == ENXIO ? size_ : from;
  return static_cast<uint64_t>(std::min<off_t>(data, size_) - from);
}

const uint8_t* Input::Look(uint64_t at, uint64_t size) {
  const int64_t from = position_ + static_cast<int64_t>(at), end = from + static_cast<int64_t>(size);
  if (!map_.get() || size == 0 || end > size_ || map_.broken()) return nullptr;
  uint8_t* data = map_.get() + (from - mapped_);
  const uint64_t before = reinterpret_cast<uintptr_t>(data) % os::PageSize();
  // Reads the file here and now. Whatever prevents that, read(2) tells of: an error, a cut, a kernel before 5.14.
  if (os::Populate(data - before, before + size, false) != 0) return nullptr;
  looked_ = std::max(looked_, end);
  return data;
}

void Input::Leave(const uint8_t* data, uint64_t size) {
  // Only whole pages: others may still be looked at. The file keeps them.
  const uint64_t page = os::PageSize();
  const uint64_t begin = os::RoundUp(reinterpret_cast<uintptr_t>(data), page);
  const uint64_t end = os::RoundDown(reinterpret_cast<uintptr_t>(data) + size, page);
  if (begin < end && !map_.broken()) ::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
}

uint64_t Input::Left() const {
  struct stat stat;
  if (looked_ == 0 || ::fstat(fd_, &stat) != 0 || stat.st_size >= looked_) return UINT64_MAX;
  return static_cast<uint64_t>(std::max<int64_t>(stat.st_size - position_, 0));
}

void Input::End(uint64_t bytes) {
  if (position_ >= 0) ::lseek(fd_, position_ + static_cast<off_t>(bytes), SEEK_SET);
}

}  // namespace vioctl::nvme::host
