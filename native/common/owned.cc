#include "common/owned.h"

#include "common/error.h"

namespace vioctl {

Mapping Mapping::Map(int fd, size_t size, int protection, int flags, off_t offset) {
  void* at = ::mmap(nullptr, size, protection, flags, fd, offset);
  if (at == MAP_FAILED) throw SysError(errno, "mmap");
  return Mapping(at, size);
}

}  // namespace vioctl
