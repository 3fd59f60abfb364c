#include "uring/pour.h"

#include <poll.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <memory>

#include "common/error.h"

namespace vioctl::uring {
namespace {

constexpr size_t kPourChunk = 128 << 10;  // larger ones leave the processor's cache between read and write

// Waits until a non-blocking descriptor takes more. Returns 0 or an errno.
int AwaitRoom(int out) {
  pollfd wait{out, POLLOUT, 0};
  return ::poll(&wait, 1, -1) < 0 && errno != EINTR ? errno : 0;
}

// Returns the bytes moved; fewer than the limit where the kernel cannot (other file systems, O_APPEND) or has failed:
// reading and writing tells which. Pages of the cache go into pipes and sockets as they are.
uint64_t MoveInKernel(int in, int out, uint64_t offset, uint64_t limit) {
  struct stat stat;
  const bool file = ::fstat(out, &stat) == 0 && S_ISREG(stat.st_mode);
  uint64_t done = 0;
  while (done < limit) {
    auto at = static_cast<off_t>(offset + done);
    const ssize_t size =
        file ? ::copy_file_range(in, &at, out, nullptr, limit - done, 0) : ::sendfile(out, in, &at, limit - done);
    if (size < 0 && errno == EAGAIN && AwaitRoom(out) == 0) continue;
    if (size <= 0) break;
    done += static_cast<uint64_t>(size);
  }
  return done;
}

// Returns 0 or an errno; `*done` counts what has left.
int WriteAll(int out, const uint8_t* data, size_t size, uint64_t* done) {
  for (size_t at = 0; at < size;) {
    const ssize_t written = ::write(out, data + at, size - at);
    if (written >= 0) {
      at += static_cast<size_t>(written);
      *done += static_cast<uint64_t>(written);
    } else if (errno == EAGAIN) {
      if (const int error = AwaitRoom(out)) return error;
    } else if (errno != EINTR) {
      return errno;
    }
  }
  return 0;
}

}  // namespace

uint64_t Pour(int in, int out, uint64_t offset, uint64_t limit) {
  uint64_t done = MoveInKernel(in, out, offset, limit);
  if (done > 0) return done;
  const auto buffer = std::make_unique_for_overwrite<uint8_t[]>(kPourChunk);
  while (done < limit) {
    const auto wanted = static_cast<size_t>(std::min<uint64_t>(kPourChunk, limit - done));
    const ssize_t size = ::pread(in, buffer.get(), wanted, static_cast<off_t>(offset + done));
    if (size < 0 && errno == EINTR) continue;
    if (size < 0 && done == 0) throw SysError(errno, "read");
    if (size <= 0) break;
    const uint64_t before = done;
    const int error = WriteAll(out, buffer.get(), static_cast<size_t>(size), &done);
    if (error != 0 && before == done && done == 0) throw SysError(error, "write");
    if (error != 0) break;
  }
  return done;
}

}  // namespace vioctl::uring
