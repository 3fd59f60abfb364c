#include "os/eventfd.h"

#include <poll.h>
#include <sys/eventfd.h>

#include "common/error.h"

namespace vioctl::os {
namespace {

// A peer's descriptor may be blocking: whether `events` is possible now.
bool Possible(int fd, short events) noexcept {
  pollfd poll{fd, events, 0};
  return ::poll(&poll, 1, 0) == 1 && (poll.revents & events);
}

}  // namespace

Fd NewEventfd(bool nonblocking) {
  return Fd(Check(::eventfd(0, EFD_CLOEXEC | (nonblocking ? EFD_NONBLOCK : 0)), "eventfd"));
}

void SignalEventfd(int fd, uint64_t count) {
  if (::write(fd, &count, sizeof count) < 0 && errno != EAGAIN) throw SysError(errno, "write", "eventfd");
}

bool SignalPeer(int fd, bool nonblocking) noexcept {
  const uint64_t one = 1;
  return (nonblocking || Possible(fd, POLLOUT)) && ::write(fd, &one, sizeof one) == sizeof one;
}

uint64_t TakeEventfd(int fd) {
  uint64_t count = 0;
  if (::read(fd, &count, sizeof count) == sizeof count) return count;
  if (errno == EAGAIN || errno == EINTR) return 0;
  throw SysError(errno, "read", "eventfd");
}

void ClearPeer(int fd) noexcept {
  uint64_t count;
  if (Possible(fd, POLLIN)) (void)!::read(fd, &count, sizeof count);
}

}  // namespace vioctl::os
