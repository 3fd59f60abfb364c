// Descriptors: the one owner of each, and what can be done to any of them.
#pragma once
#include <unistd.h>

#include <string>
#include <utility>

namespace vioctl {

// Owns a file descriptor; closes it once. -1 is none.
class Fd {
 public:
  Fd() = default;
  explicit Fd(int fd) : fd_(fd) {}
  Fd(Fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Fd& operator=(Fd&& other) noexcept {
    if (this != &other) {
      Reset();
      fd_ = std::exchange(other.fd_, -1);
    }
    return *this;
  }
  Fd(const Fd&) = delete;
  Fd& operator=(const Fd&) = delete;
  ~Fd() { Reset(); }

  int get() const { return fd_; }
  bool valid() const { return fd_ >= 0; }
  // Hands the descriptor to the caller, who owns it from now on.
  int Release() { return std::exchange(fd_, -1); }
  void Reset() {
    if (fd_ >= 0) ::close(std::exchange(fd_, -1));
  }

 private:
  int fd_ = -1;
};

namespace os {

// open(2), close-on-exec; retries when a signal interrupts it. Throws SysError with the path.
Fd Open(const std::string& path, int flags);

// The same without an exception: none, and errno says why.
Fd TryOpen(const char* path, int flags) noexcept;
Fd TryOpenAt(int folder, const char* path, int flags) noexcept;

// A second descriptor of the same open file, close-on-exec, numbered `lowest` or above. Throws SysError.
Fd Duplicate(int fd, int lowest = 0);

// Makes the number `target` refer to the open file of `fd` (dup3(2)), close-on-exec. Throws SysError.
void Replace(int fd, int target);

// The file's status flags (F_GETFL). Throws SysError.
int StatusFlags(int fd);
// The same without an exception: -1 if `fd` is not open.
int TryStatusFlags(int fd) noexcept;

// True if `fd` is open and non-blocking.
bool IsNonblocking(int fd) noexcept;

// Sets O_NONBLOCK. Throws SysError.
void SetNonblocking(int fd);

// Marks a descriptor that came from elsewhere as close-on-exec. Throws SysError.
void SetCloseOnExec(int fd);

// The two ends of a pipe, close-on-exec. Throws SysError.
struct Pipe {
  Fd reader, writer;
};
Pipe NewPipe();
// Asks for a larger pipe (F_SETPIPE_SZ), so that its two ends take turns less often. The kernel may refuse.
void GrowPipe(int fd, int size) noexcept;

// Writes the whole file system of `fd` to its disk (syncfs(2)). Throws SysError.
void SyncFileSystem(int fd);

}  // namespace os

}  // namespace vioctl
