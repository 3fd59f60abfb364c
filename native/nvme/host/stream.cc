#include "nvme/host/stream.h"

#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>

#include "common/error.h"
#include "os/bus_guard.h"
#include "os/clock.h"
#include "os/socket.h"

namespace vioctl::nvme::host {
namespace {

constexpr uint64_t kLongestWaitMs = 3'600'000;

int PollMs(uint64_t ns) { return static_cast<int>(std::min(ns / os::kMs + 1, kLongestWaitMs)); }

class Tcp final : public Stream {
 public:
  explicit Tcp(Fd fd) : fd_(std::move(fd)) {}
  int fd() const override { return fd_.get(); }

  ssize_t Read(const iovec* to, int count) override { return Move<os::ReceiveParts>(to, count); }
  ssize_t Write(const iovec* from, int count) override { return Move<os::SendParts>(from, count); }

 private:
  // Memory that is gone concerns whoever lent it (os::BusGuard), and not the connection, which others use too.
  template <auto kCall>
  ssize_t Move(const iovec* parts, int count) {
    const ssize_t n = kCall(fd_.get(), parts, count);
    if (n != -EFAULT) return n;
    os::Touch(parts, count);
    return kCall(fd_.get(), parts, count);
  }

  Fd fd_;
};

// One address: 0 or an errno. Throws ETIMEDOUT and ECANCELED of the wait.
int TryConnect(const addrinfo& at, const Wait& wait, Fd& out) {
  Fd fd = os::NewSocket(at.ai_family, SOCK_STREAM | SOCK_NONBLOCK);
  int err = os::TryConnect(fd.get(), at.ai_addr, at.ai_addrlen);
  if (err == EINPROGRESS) {
    wait.For(fd.get(), POLLOUT);
    socklen_t size = sizeof err;
    Check(::getsockopt(fd.get(), SOL_SOCKET, SO_ERROR, &err, &size), "getsockopt", "SO_ERROR");
  }
  if (err != 0) return err;
  os::TuneTcp(fd.get());
  out = std::move(fd);
  return 0;
}

}  // namespace

void Wait::For(int fd, short events) const {
  while (true) {
    const uint64_t now = os::NowNs();
    if (now >= deadline) throw SysError(ETIMEDOUT, "poll");
    pollfd fds[2] = {{fd, events, 0}, {stop, POLLIN, 0}};
    const int n = ::poll(fds, stop < 0 ? 1 : 2, PollMs(deadline - now));
    if (n < 0 && errno != EINTR) throw SysError(errno, "poll");
    if (n > 0 && stop >= 0 && fds[1].revents) throw SysError(ECANCELED, "poll");
    if (n > 0 && fds[0].revents) return;
  }
}

void Wait::Check() const {
  if (os::NowNs() >= deadline) throw SysError(ETIMEDOUT, "poll");
  pollfd one{stop, POLLIN, 0};
  if (stop >= 0 && ::poll(&one, 1, 0) > 0) throw SysError(ECANCELED, "poll");
}

bool Wait::Sleep(uint64_t ns, int stop) {
  const uint64_t end = os::NowNs() + ns;
  while (true) {
    const uint64_t now = os::NowNs();
    if (now >= end) return true;
    pollfd one{stop, POLLIN, 0};
    if (::poll(&one, 1, PollMs(end - now)) > 0) return false;
  }
}

std::string Address::Text() const {
  const bool six = host.find(':') != std::string::npos;
  return (six ? "[" + host + "]" : host) + ":" + std::to_string(port);
}

std::unique_ptr<Stream> Dial(const Address& address, const Wait& wait) {
  addrinfo hints{}, *list = nullptr;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICSERV;
  const int failed = ::getaddrinfo(address.host.c_str(), std::to_string(address.port).c_str(), &hints, &list);
  if (failed != 0)
    throw SysError(failed == EAI_AGAIN ? EAGAIN : EADDRNOTAVAIL, "getaddrinfo",
                   address.host + ": " + gai_strerror(failed));
  const std::unique_ptr<addrinfo, void (*)(addrinfo*)> owner(list, &::freeaddrinfo);
  int err = EADDRNOTAVAIL;
  for (const addrinfo* at = list; at; at = at->ai_next) {
    Fd fd;
    err = TryConnect(*at, wait, fd);
    if (err == 0) return std::make_unique<Tcp>(std::move(fd));
  }
  throw SysError(err, "connect", address.Text());
}

}  // namespace vioctl::nvme::host
