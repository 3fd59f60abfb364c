#include "os/mapping.h"

#include <linux/magic.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>

#include "common/error.h"

namespace vioctl {

Mapping Mapping::Map(int fd, size_t size, int protection, int flags, off_t offset) {
  void* at = ::mmap(nullptr, size, protection, flags, fd, offset);
  if (at == MAP_FAILED) throw SysError(errno, "mmap");
  return Mapping(at, size);
}

// Takes a larger hole, maps in it, and gives the ends back.
Mapping Mapping::MapAligned(int fd, size_t size, int protection, uint64_t align, uint64_t phase, off_t offset) {
  align = std::max<uint64_t>(align, os::PageSize());
  size_t hole_size;
  if (__builtin_add_overflow(size, align, &hole_size)) throw SysError(ENOMEM, "mmap");
  Mapping hole = Map(-1, hole_size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE);
  const auto start = reinterpret_cast<uint64_t>(hole.get()), end = start + hole_size;
  const uint64_t at = start + ((phase - start) & (align - 1));
  void* mapped = ::mmap(reinterpret_cast<void*>(at), size, protection, MAP_SHARED | MAP_FIXED, fd, offset);
  if (mapped == MAP_FAILED) throw SysError(errno, "mmap");
  // The pages behind the last byte are the mapping's as well.
  const uint64_t stop = std::min(end, os::RoundUp(at + size, os::PageSize()));
  hole.Release();
  if (at > start) ::munmap(reinterpret_cast<void*>(start), at - start);
  if (stop < end) ::munmap(reinterpret_cast<void*>(stop), end - stop);
  return Mapping(mapped, size);
}

namespace os {
namespace {

size_t FindPageSize() {
  const auto real = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  const char* forced = ::getenv("VIOCTL_TEST_PAGE_SIZE");
  if (!forced) return real;
  const size_t size = ::strtoul(forced, nullptr, 10);
  const bool power = size != 0 && (size & (size - 1)) == 0;
  return power && size > real && size <= (64 << 10) ? size : real;
}

}  // namespace

size_t PageSize() noexcept {
  static const size_t size = FindPageSize();
  return size;
}

uint64_t MemorySize() noexcept {
  static const uint64_t bytes =
      static_cast<uint64_t>(::sysconf(_SC_PHYS_PAGES)) * static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
  return bytes;
}

size_t PageSizeOf(int fd) {
  struct statfs fs {};
  int result;
  do result = ::fstatfs(fd, &fs);
  while (result < 0 && errno == EINTR);
  Check(result, "fstatfs");
  return fs.f_type == HUGETLBFS_MAGIC ? static_cast<size_t>(fs.f_bsize) : PageSize();
}

int Populate(void* at, size_t size, bool write) noexcept {
#ifndef MADV_POPULATE_READ
  constexpr int MADV_POPULATE_READ = 22, MADV_POPULATE_WRITE = 23;  // linux/mman.h of 5.14
#endif
  while (::madvise(at, size, write ? MADV_POPULATE_WRITE : MADV_POPULATE_READ) != 0)
    if (errno != EINTR && errno != EAGAIN) return errno;
  return 0;
}

}  // namespace os

}  // namespace vioctl
