#include "vhost_user/dirty_log.h"

#include <sys/stat.h>

#include <algorithm>

#include "common/error.h"

namespace vioctl::vhost_user {
namespace {

constexpr uint64_t kMaxSize = uint64_t{1} << 40;  // of a bitmap: 32 PiB of guest memory

}  // namespace

DirtyLog::DirtyLog(int fd, uint64_t size, uint64_t offset) : size_(size) {
  const uint64_t page = os::PageSizeOf(fd);
  struct stat st;
  Check(::fstat(fd, &st), "fstat", "dirty log");
  if (size == 0 || size > kMaxSize || offset > kMaxSize || offset + size > static_cast<uint64_t>(st.st_size))
    throw SysError(EINVAL, "mmap", "dirty log");
  const uint64_t start = os::RoundDown(offset, page);
  map_ = os::GuardedMapping(fd, offset - start + size, true, static_cast<off_t>(start));
  bits_ = map_.get() + (offset - start);
}

void DirtyLog::Mark(uint64_t address, uint64_t length) const {
  if (length == 0) return;
  const uint64_t last = std::min((address + length - 1) / kPage, size_ * 8 - 1);
  for (uint64_t page = address / kPage; page <= last; page++)
    __atomic_fetch_or(bits_ + page / 8, static_cast<uint8_t>(1u << (page % 8)), __ATOMIC_SEQ_CST);
}

void DirtyLog::MarkHost(const GuestMemory& memory, const void* host, uint64_t length) const {
  uint64_t address;
  if (memory.GuestAddress(host, &address)) Mark(address, length);
}

}  // namespace vioctl::vhost_user
