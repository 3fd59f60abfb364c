#include "sysfs/detached.h"

#include <fcntl.h>
#include <linux/close_range.h>
#include <poll.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstring>

#include "common/error.h"

namespace vioctl::sysfs {
namespace {

// Makes a process without ties to this one and runs `body(pipe)` in it; returns the other end of the pipe. Between fork
// and _exit only async-signal-safe calls are allowed: other threads may have held any lock.
template <typename Body>
Fd Detached(Body body) {
  auto [reader, writer] = os::NewPipe();
  const pid_t middle = Check(::fork(), "fork");
  if (middle == 0) {
    // a second fork: the process that may never end is init's child, not ours
    const pid_t last = ::fork();
    if (last != 0) ::_exit(last < 0 ? errno : 0);
    ::setsid();
    for (int signal : {SIGINT, SIGTERM, SIGHUP, SIGPIPE}) ::signal(signal, SIG_IGN);
    // an access that never returns must not keep the caller's output pipes or device descriptors open
    const auto pipe = static_cast<unsigned>(writer.get());
    if (pipe > 0) ::syscall(SYS_close_range, 0u, pipe - 1, 0u);
    ::syscall(SYS_close_range, pipe + 1, ~0u, 0u);
    ::_exit(body(writer.get()) ? 0 : 1);
  }
  int status = 0;
  while (::waitpid(middle, &status, 0) < 0 && errno == EINTR) continue;
  if (WIFEXITED(status) && WEXITSTATUS(status) != 0) throw SysError(WEXITSTATUS(status), "fork");
  return std::move(reader);
}

constexpr size_t kLargest = 4000;  // with its header below PIPE_BUF: each record is written at once

struct Header {
  int32_t index;
  int32_t size;  // or -1
};

using Clock = std::chrono::steady_clock;

int MillisecondsUntil(Clock::time_point deadline) {
  const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now()).count();
  return left < 0 ? 0 : static_cast<int>(left);
}

// Fills `buffer` from the pipe. False when the time ran out or the pipe ended.
bool ReadExactly(int pipe, void* buffer, size_t size, Clock::time_point deadline) {
  for (size_t done = 0; done < size;) {
    pollfd ready{pipe, POLLIN, 0};
    const int count = ::poll(&ready, 1, MillisecondsUntil(deadline));
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return false;
    const ssize_t got = ::read(pipe, static_cast<char*>(buffer) + done, size - done);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return false;
    done += static_cast<size_t>(got);
  }
  return true;
}

}  // namespace

Fd StartWrite(const std::string& path, const std::string& data) {
  return Detached([&](int pipe) {
    const int32_t pid = ::getpid();
    int32_t result = 0;
    if (::write(pipe, &pid, sizeof pid) < 0) return false;
    const int fd = ::open(path.c_str(), O_WRONLY | O_CLOEXEC);
    ssize_t done = -1;
    while (fd >= 0 && (done = ::write(fd, data.data(), data.size())) < 0 && errno == EINTR) continue;
    if (done < 0) result = errno;
    return ::write(pipe, &result, sizeof result) > 0;
  });
}

std::vector<Attribute> ReadAll(const std::vector<std::string>& paths, int timeout) {
  std::vector<Attribute> found(paths.size());
  for (size_t next = 0; next < paths.size();) {
    const size_t first = next;
    const Fd pipe = Detached([&](int out) {
      for (size_t i = first; i < paths.size(); i++) {
        char record[sizeof(Header) + kLargest];
        Header header{static_cast<int32_t>(i), -1};
        const int fd = ::open(paths[i].c_str(), O_RDONLY | O_CLOEXEC);
        if (fd >= 0) {
          header.size = static_cast<int32_t>(::read(fd, record + sizeof header, kLargest));
          ::close(fd);
        }
        memcpy(record, &header, sizeof header);
        if (::write(out, record, sizeof header + (header.size > 0 ? static_cast<size_t>(header.size) : 0)) < 0)
          return false;
      }
      return true;
    });
    while (next < paths.size()) {
      const auto deadline = Clock::now() + std::chrono::milliseconds(timeout);
      Header header{};
      Attribute& attribute = found[next++];
      if (!ReadExactly(pipe.get(), &header, sizeof header, deadline)) {
        attribute.state = Attribute::State::kStuck;
        break;
      }
      if (header.size < 0) continue;
      attribute.text.resize(static_cast<size_t>(header.size));
      if (ReadExactly(pipe.get(), attribute.text.data(), attribute.text.size(), deadline))
        attribute.state = Attribute::State::kRead;
    }
  }
  return found;
}

}  // namespace vioctl::sysfs
