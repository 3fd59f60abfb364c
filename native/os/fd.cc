#include "os/fd.h"

#include <fcntl.h>

#include "common/error.h"

namespace vioctl::os {

Fd Open(const std::string& path, int flags) {
  Fd fd = TryOpen(path.c_str(), flags);
  Check(fd.get(), "open", path.c_str());
  return fd;
}

Fd TryOpen(const char* path, int flags) noexcept { return TryOpenAt(AT_FDCWD, path, flags); }

Fd TryOpenAt(int folder, const char* path, int flags) noexcept {
  int fd;
  do fd = ::openat(folder, path, flags | O_CLOEXEC);
  while (fd < 0 && errno == EINTR);
  return Fd(fd);
}

Fd Duplicate(int fd, int lowest) { return Fd(Check(::fcntl(fd, F_DUPFD_CLOEXEC, lowest), "fcntl", "F_DUPFD_CLOEXEC")); }

void Replace(int fd, int target) { Check(::dup3(fd, target, O_CLOEXEC), "dup3"); }

int StatusFlags(int fd) { return Check(::fcntl(fd, F_GETFL), "fcntl", "F_GETFL"); }

int TryStatusFlags(int fd) noexcept { return ::fcntl(fd, F_GETFL); }

bool IsNonblocking(int fd) noexcept {
  const int flags = TryStatusFlags(fd);
  return flags >= 0 && (flags & O_NONBLOCK);
}

void SetNonblocking(int fd) { Check(::fcntl(fd, F_SETFL, StatusFlags(fd) | O_NONBLOCK), "fcntl", "F_SETFL"); }

void SetCloseOnExec(int fd) { Check(::fcntl(fd, F_SETFD, FD_CLOEXEC), "fcntl", "F_SETFD"); }

Pipe NewPipe() {
  int ends[2];
  Check(::pipe2(ends, O_CLOEXEC), "pipe2");
  return {Fd(ends[0]), Fd(ends[1])};
}

void GrowPipe(int fd, int size) noexcept { ::fcntl(fd, F_SETPIPE_SZ, size); }

void SyncFileSystem(int fd) { Check(::syncfs(fd), "syncfs"); }

}  // namespace vioctl::os
