#include "os/memfd.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/error.h"

namespace vioctl::os {

Fd NewMemfd(const std::string& name, uint64_t size, unsigned flags) {
  if (size > INT64_MAX) throw SysError(EFBIG, "ftruncate", name);
  Fd fd(Check(::memfd_create(name.c_str(), flags | MFD_CLOEXEC), "memfd_create", name.c_str()));
  Check(::ftruncate(fd.get(), static_cast<off_t>(size)), "ftruncate", name.c_str());
  return fd;
}

int Seals(int fd) {
  const int seals = ::fcntl(fd, F_GET_SEALS);
  if (seals < 0 && errno != EINVAL) throw SysError(errno, "fcntl", "F_GET_SEALS");
  return seals;
}

void AddSeals(int fd, int seals) { Check(::fcntl(fd, F_ADD_SEALS, seals), "fcntl", "F_ADD_SEALS"); }

}  // namespace vioctl::os
