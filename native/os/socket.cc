#include "os/socket.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstddef>
#include <cstring>
#include <string>

#include "common/error.h"

namespace vioctl::os {
namespace {

constexpr int kScmMax = 253;  // SCM_MAX_FD of the kernel: no message carries more

sockaddr_un Address(const std::string& path, const char* call) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof address.sun_path) throw SysError(ENAMETOOLONG, call, path);
  memcpy(address.sun_path, path.data(), path.size());
  return address;
}

// Whether both ends of a TCP connection are on this machine, by their addresses.
bool Local(int socket) noexcept {
  sockaddr_storage own{}, peer{};
  socklen_t own_size = sizeof own, peer_size = sizeof peer;
  if (::getsockname(socket, reinterpret_cast<sockaddr*>(&own), &own_size) != 0) return false;
  if (::getpeername(socket, reinterpret_cast<sockaddr*>(&peer), &peer_size) != 0) return false;
  if (own.ss_family == AF_INET6)
    return memcmp(&reinterpret_cast<sockaddr_in6&>(own).sin6_addr, &reinterpret_cast<sockaddr_in6&>(peer).sin6_addr,
                  sizeof(in6_addr)) == 0;
  const in_addr_t here = reinterpret_cast<sockaddr_in&>(own).sin_addr.s_addr;
  const in_addr_t there = reinterpret_cast<sockaddr_in&>(peer).sin_addr.s_addr;
  return own.ss_family == AF_INET && (here == there || ntohl(here) >> 24 == IN_LOOPBACKNET);
}

Fd Stream() { return NewSocket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK); }

void Listen(int socket, const sockaddr* address, socklen_t size, int backlog, const std::string& detail) {
  Check(::bind(socket, address, size), "bind", detail.c_str());
  Check(::listen(socket, backlog), "listen", detail.c_str());
}

}  // namespace

Fd NewSocket(int family, int type) { return Fd(Check(::socket(family, type | SOCK_CLOEXEC, 0), "socket")); }

void Connect(int socket, const sockaddr* address, socklen_t size, const std::string& detail) {
  Check(::connect(socket, address, size), "connect", detail.c_str());
}

int TryConnect(int socket, const sockaddr* address, socklen_t size) noexcept {
  return ::connect(socket, address, size) == 0 ? 0 : errno;
}

void TuneTcp(int socket) noexcept {
  const int one = 1;
  ::setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  static constexpr char kLeast[] = "reno";  // no kernel is without it, and everybody may use it
  if (Local(socket)) ::setsockopt(socket, IPPROTO_TCP, TCP_CONGESTION, kLeast, sizeof kLeast - 1);
}

ssize_t SendParts(int socket, const iovec* from, int count) noexcept {
  msghdr message{};
  message.msg_iov = const_cast<iovec*>(from);
  message.msg_iovlen = static_cast<size_t>(count);
  ssize_t n;
  do n = ::sendmsg(socket, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
  while (n < 0 && errno == EINTR);
  return n < 0 ? -(errno == EPIPE ? ECONNRESET : errno) : n;
}

ssize_t ReceiveParts(int socket, const iovec* to, int count) noexcept {
  msghdr message{};
  message.msg_iov = const_cast<iovec*>(to);
  message.msg_iovlen = static_cast<size_t>(count);
  ssize_t n;
  do
    n = count == 1 ? ::recv(socket, to->iov_base, to->iov_len, MSG_DONTWAIT)
                   : ::recvmsg(socket, &message, MSG_DONTWAIT);
  while (n < 0 && errno == EINTR);
  return n < 0 ? -errno : n;
}

Fd Connect(const std::string& path) {
  sockaddr_un address = Address(path, "connect");
  Fd socket = Stream();
  Connect(socket.get(), reinterpret_cast<sockaddr*>(&address), sizeof address, path);
  return socket;
}

Fd Listen(const std::string& path, int backlog, mode_t mode, uid_t owner, gid_t group) {
  sockaddr_un address = Address(path, "bind");
  Fd socket = Stream();
  // bind gives the file this mode, less the umask. Nobody can open it until it has its owner and its own mode, and
  // nobody can connect before the socket listens.
  Check(::fchmod(socket.get(), 0), "fchmod");
  Check(::bind(socket.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), "bind", path.c_str());
  const Fd file(Check(::open(path.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC), "open", path.c_str()));
  struct stat status {};
  Check(::fstat(file.get(), &status), "fstat", path.c_str());
  if (!S_ISSOCK(status.st_mode)) throw SysError(EEXIST, "bind", path);  // somebody has put another file in its place
  try {
    if (owner != kNoId || group != kNoId)
      Check(::fchownat(file.get(), "", owner, group, AT_EMPTY_PATH), "chown", path.c_str());
    // fchmod does not take a descriptor of O_PATH
    const std::string self = "/proc/self/fd/" + std::to_string(file.get());
    Check(::chmod(self.c_str(), mode), "chmod", path.c_str());
    Check(::listen(socket.get(), backlog), "listen", path.c_str());
  } catch (const SysError&) {
    ::unlink(path.c_str());
    throw;
  }
  return socket;
}

Fd ListenTcp(const std::string& address, uint16_t port, bool ipv6, int backlog, uint16_t* bound) {
  addrinfo hints{}, *found = nullptr;
  hints.ai_family = ipv6 ? AF_INET6 : AF_INET;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICHOST;  // also the scope of a link-local address, fe80::1%eth0; no name is looked up here
  if (::getaddrinfo(address.c_str(), nullptr, &hints, &found) != 0) {
    const bool scoped = address.find('%') != std::string::npos;  // the interface of the scope is not there
    throw SysError(scoped ? ENODEV : EINVAL, "getaddrinfo", address);
  }
  sockaddr_storage at{};
  socklen_t size = found->ai_addrlen;
  std::memcpy(&at, found->ai_addr, size);
  ::freeaddrinfo(found);
  in_port_t* at_port =
      ipv6 ? &reinterpret_cast<sockaddr_in6&>(at).sin6_port : &reinterpret_cast<sockaddr_in&>(at).sin_port;
  *at_port = htons(port);
  Fd fd = NewSocket(at.ss_family, SOCK_STREAM | SOCK_NONBLOCK);
  const int one = 1;
  Check(::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &one, sizeof one), "setsockopt", "SO_REUSEADDR");
  if (ipv6) Check(::setsockopt(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof one), "setsockopt", "IPV6_V6ONLY");
  Listen(fd.get(), reinterpret_cast<sockaddr*>(&at), size, backlog, address);
  Check(::getsockname(fd.get(), reinterpret_cast<sockaddr*>(&at), &size), "getsockname");
  *bound = ntohs(*at_port);
  return fd;
}

std::optional<TcpPlace> AdoptListener(int fd) {
  sockaddr_storage at{};
  socklen_t size = sizeof at, length = sizeof(int);
  int listens = 0, protocol = 0;
  if (::getsockname(fd, reinterpret_cast<sockaddr*>(&at), &size) != 0 ||
      (at.ss_family != AF_INET && at.ss_family != AF_INET6) ||
      ::getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &length) != 0 || !listens ||
      ::getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &length) != 0 || protocol != IPPROTO_TCP)
    return std::nullopt;
  char host[NI_MAXHOST], service[NI_MAXSERV];
  if (::getnameinfo(reinterpret_cast<sockaddr*>(&at), size, host, sizeof host, service, sizeof service,
                    NI_NUMERICHOST | NI_NUMERICSERV) != 0)
    throw SysError(EINVAL, "getnameinfo");
  Check(::fcntl(fd, F_SETFD, FD_CLOEXEC), "fcntl", "F_SETFD");
  Check(::fcntl(fd, F_SETFL, ::fcntl(fd, F_GETFL) | O_NONBLOCK), "fcntl", "F_SETFL");
  return TcpPlace{host, static_cast<uint16_t>(std::stoi(service)), at.ss_family == AF_INET6};
}

int TryAccept(int listener, Fd& accepted) noexcept {
  int fd;
  do fd = ::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
  while (fd < 0 && (errno == EINTR || errno == ECONNABORTED));
  if (fd < 0) return errno;
  accepted = Fd(fd);
  return 0;
}

Fd Accept(int listener) {
  Fd accepted;
  const int error = TryAccept(listener, accepted);
  if (error != 0 && error != EAGAIN) throw SysError(error, "accept4");
  return accepted;
}

void Pair(Fd out[2]) {
  int fds[2];
  Check(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds), "socketpair");
  out[0] = Fd(fds[0]);
  out[1] = Fd(fds[1]);
}

ucred PeerOf(int socket) {
  ucred peer{};
  socklen_t size = sizeof peer;
  Check(::getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &size), "getsockopt", "SO_PEERCRED");
  return peer;
}

std::optional<std::string> ListenerPath(int socket) {
  sockaddr_un address{};
  socklen_t size = sizeof address;
  int listens = 0;
  socklen_t length = sizeof listens;
  if (::getsockname(socket, reinterpret_cast<sockaddr*>(&address), &size) != 0 || address.sun_family != AF_UNIX ||
      ::getsockopt(socket, SOL_SOCKET, SO_ACCEPTCONN, &listens, &length) != 0 || !listens)
    return std::nullopt;
  const size_t room = size - offsetof(sockaddr_un, sun_path);
  return std::string(address.sun_path, ::strnlen(address.sun_path, room));
}

ssize_t Send(int socket, const void* data, size_t size, const std::vector<int>& fds) {
  iovec iov{const_cast<void*>(data), size};
  msghdr msg{};
  msg.msg_iov = &iov;
  msg.msg_iovlen = 1;
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * kScmMax)];
  if (!fds.empty()) {
    if (fds.size() > kScmMax) throw SysError(EINVAL, "sendmsg", "too many descriptors");
    const size_t bytes = fds.size() * sizeof(int);
    msg.msg_control = control;
    msg.msg_controllen = CMSG_SPACE(bytes);
    memset(control, 0, msg.msg_controllen);
    cmsghdr* cmsg = CMSG_FIRSTHDR(&msg);
    cmsg->cmsg_level = SOL_SOCKET;
    cmsg->cmsg_type = SCM_RIGHTS;
    cmsg->cmsg_len = CMSG_LEN(bytes);
    memcpy(CMSG_DATA(cmsg), fds.data(), bytes);
  }
  for (;;) {
    const ssize_t sent = ::sendmsg(socket, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent >= 0) return sent;
    if (errno == EAGAIN) return -1;
    if (errno != EINTR) throw SysError(errno, "sendmsg");
  }
}

ssize_t Receive(int socket, void* data, size_t size, std::vector<Fd>& fds) {
  iovec iov{data, size};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * kScmMax)];
  msghdr msg{};
  ssize_t got;
  do {
    msg = {};
    msg.msg_iov = &iov;
    msg.msg_iovlen = 1;
    msg.msg_control = control;
    msg.msg_controllen = sizeof control;
    got = ::recvmsg(socket, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  } while (got < 0 && errno == EINTR);
  if (got < 0) {
    if (errno == EAGAIN) return -1;
    throw SysError(errno, "recvmsg");
  }
  for (cmsghdr* cmsg = CMSG_FIRSTHDR(&msg); cmsg; cmsg = CMSG_NXTHDR(&msg, cmsg)) {
    if (cmsg->cmsg_level != SOL_SOCKET || cmsg->cmsg_type != SCM_RIGHTS) continue;
    const size_t count = (cmsg->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; i++) {
      int fd;
      memcpy(&fd, CMSG_DATA(cmsg) + i * sizeof fd, sizeof fd);
      fds.emplace_back(fd);
    }
  }
  if (msg.msg_flags & MSG_CTRUNC) throw SysError(EMFILE, "recvmsg", "SCM_RIGHTS");
  return got;
}

void SendDatagram(const std::string& path, const std::string& text, const std::vector<int>& fds) {
  sockaddr_un address = Address(path, "connect");
  if (path[0] == '@') address.sun_path[0] = '\0';  // an abstract name, as sd_notify(3) spells it
  const Fd socket = NewSocket(AF_UNIX, SOCK_DGRAM);
  const auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path.size());
  if (!fds.empty()) {
    Connect(socket.get(), reinterpret_cast<sockaddr*>(&address), size, path);
    if (Send(socket.get(), text.data(), text.size(), fds) < 0) throw SysError(EAGAIN, "sendmsg", path);
    return;
  }
  Check(::sendto(socket.get(), text.data(), text.size(), MSG_NOSIGNAL, reinterpret_cast<sockaddr*>(&address), size),
        "sendto", path.c_str());
}

}  // namespace vioctl::os
