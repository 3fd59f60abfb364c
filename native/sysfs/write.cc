#include "sysfs/write.h"

#include <fcntl.h>
#include <linux/close_range.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>

#include "common/error.h"

namespace vioctl::sysfs {
namespace {

// Between fork and _exit only async-signal-safe calls are allowed: other threads may have held any lock.
[[noreturn]] void Child(int pipe, const char* path, const char* data, size_t size) {
  ::setsid();
  for (int signal : {SIGINT, SIGTERM, SIGHUP, SIGPIPE}) ::signal(signal, SIG_IGN);
  // a write that never returns must not keep the caller's output pipes or device descriptors open
  if (pipe > 0) ::syscall(SYS_close_range, 0u, static_cast<unsigned>(pipe) - 1, 0u);
  ::syscall(SYS_close_range, static_cast<unsigned>(pipe) + 1, ~0u, 0u);
  const int32_t pid = ::getpid();
  int32_t result = 0;
  if (::write(pipe, &pid, sizeof pid) < 0) ::_exit(1);
  const int fd = ::open(path, O_WRONLY | O_CLOEXEC);
  ssize_t done = -1;
  while (fd >= 0 && (done = ::write(fd, data, size)) < 0 && errno == EINTR) continue;
  if (done < 0) result = errno;
  ::_exit(::write(pipe, &result, sizeof result) < 0 ? 1 : 0);
}

}  // namespace

Fd StartWrite(const std::string& path, const std::string& data) {
  int ends[2];
  Check(::pipe2(ends, O_CLOEXEC), "pipe2");
  Fd reader(ends[0]), writer(ends[1]);
  const pid_t middle = Check(::fork(), "fork");
  if (middle == 0) {
    // a second fork: the process that may never end is init's child, not ours
    const pid_t writing = ::fork();
    if (writing == 0) Child(writer.get(), path.c_str(), data.data(), data.size());
    ::_exit(writing < 0 ? errno : 0);
  }
  int status = 0;
  while (::waitpid(middle, &status, 0) < 0 && errno == EINTR) continue;
  if (WIFEXITED(status) && WEXITSTATUS(status) != 0) throw SysError(WEXITSTATUS(status), "fork");
  return reader;
}

}  // namespace vioctl::sysfs
