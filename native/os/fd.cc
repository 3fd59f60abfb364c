#include "os/fd.h"

#include <fcntl.h>

#include "common/error.h"

namespace vioctl::os {

Fd Open(const std::string& path, int flags) {
  int fd;
  do fd = ::open(path.c_str(), flags | O_CLOEXEC);
  while (fd < 0 && errno == EINTR);
  return Fd(Check(fd, "open", path.c_str()));
}

Fd Duplicate(int fd, int lowest) { return Fd(Check(::fcntl(fd, F_DUPFD_CLOEXEC, lowest), "fcntl", "F_DUPFD_CLOEXEC")); }

int StatusFlags(int fd) { return Check(::fcntl(fd, F_GETFL), "fcntl", "F_GETFL"); }

bool IsNonblocking(int fd) noexcept {
  const int flags = ::fcntl(fd, F_GETFL);
  return flags >= 0 && (flags & O_NONBLOCK);
}

void SetNonblocking(int fd) { Check(::fcntl(fd, F_SETFL, StatusFlags(fd) | O_NONBLOCK), "fcntl", "F_SETFL"); }

void SetCloseOnExec(int fd) { Check(::fcntl(fd, F_SETFD, FD_CLOEXEC), "fcntl", "F_SETFD"); }

Pipe NewPipe() {
  int ends[2];
  Check(::pipe2(ends, O_CLOEXEC), "pipe2");
  return {Fd(ends[0]), Fd(ends[1])};
}

void SyncFileSystem(int fd) { Check(::syncfs(fd), "syncfs"); }

}  // namespace vioctl::os
