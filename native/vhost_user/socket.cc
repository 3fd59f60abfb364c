#include "vhost_user/socket.h"

#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <linux/unix_diag.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <cstddef>
#include <cstring>

#include "common/error.h"

namespace vioctl::vhost_user {
namespace {

constexpr int kScmMax = 253;  // SCM_MAX_FD of the kernel: no message carries more

sockaddr_un Address(const std::string& path, const char* call) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof address.sun_path) throw SysError(ENAMETOOLONG, call, path);
  memcpy(address.sun_path, path.data(), path.size());
  return address;
}

Fd Stream() { return Fd(Check(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), "socket")); }

}  // namespace

Fd Connect(const std::string& path) {
  sockaddr_un address = Address(path, "connect");
  Fd socket = Stream();
  Check(::connect(socket.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), "connect", path.c_str());
  return socket;
}

Fd Listen(const std::string& path, int backlog, mode_t mode) {
  sockaddr_un address = Address(path, "bind");
  Fd socket = Stream();
  Check(::fchmod(socket.get(), mode), "fchmod");  // bind gives the file this mode: there is no moment with another one
  Check(::bind(socket.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), "bind", path.c_str());
  Check(::listen(socket.get(), backlog), "listen", path.c_str());
  return socket;
}

Fd Accept(int listener) {
  for (;;) {
    const int fd = ::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd >= 0) return Fd(fd);
    if (errno == EAGAIN) return Fd();
    if (errno != EINTR && errno != ECONNABORTED) throw SysError(errno, "accept4");
  }
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

std::vector<UnixSocket> UnixSockets() {
  Fd netlink(Check(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG), "socket", "NETLINK_SOCK_DIAG"));
  struct {
    nlmsghdr header;
    unix_diag_req body;
  } request{};
  request.header.nlmsg_len = sizeof request;
  request.header.nlmsg_type = SOCK_DIAG_BY_FAMILY;
  request.header.nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
  request.body.sdiag_family = AF_UNIX;
  request.body.udiag_states = ~0u;
  request.body.udiag_show = UDIAG_SHOW_NAME | UDIAG_SHOW_PEER | UDIAG_SHOW_VFS;
  Check(::send(netlink.get(), &request, sizeof request, 0), "send", "NETLINK_SOCK_DIAG");
  std::vector<UnixSocket> sockets;
  alignas(nlmsghdr) char buffer[32768];
  for (;;) {
    const ssize_t got = Check(::recv(netlink.get(), buffer, sizeof buffer, 0), "recv", "NETLINK_SOCK_DIAG");
    auto left = static_cast<unsigned>(got);
    for (auto* msg = reinterpret_cast<nlmsghdr*>(buffer); NLMSG_OK(msg, left); msg = NLMSG_NEXT(msg, left)) {
      if (msg->nlmsg_type == NLMSG_DONE) return sockets;
      if (msg->nlmsg_type == NLMSG_ERROR) {
        const int err = static_cast<const nlmsgerr*>(NLMSG_DATA(msg))->error;
        throw SysError(err < 0 ? -err : EPROTO, "NETLINK_SOCK_DIAG");
      }
      if (msg->nlmsg_len < NLMSG_LENGTH(sizeof(unix_diag_msg))) throw SysError(EPROTO, "NETLINK_SOCK_DIAG");
      const auto* diag = static_cast<const unix_diag_msg*>(NLMSG_DATA(msg));
      UnixSocket socket{diag->udiag_ino, 0, diag->udiag_type, diag->udiag_state, 0, {}};
      const char* at = reinterpret_cast<const char*>(diag + 1);
      const char* end = reinterpret_cast<const char*>(msg) + msg->nlmsg_len;
      while (at + sizeof(nlattr) <= end) {
        nlattr attr;
        memcpy(&attr, at, sizeof attr);
        if (attr.nla_len < sizeof attr || at + attr.nla_len > end) break;
        const char* value = at + sizeof attr;
        const size_t size = attr.nla_len - sizeof attr;
        if (attr.nla_type == UNIX_DIAG_PEER && size == 4) memcpy(&socket.peer, value, 4);
        if (attr.nla_type == UNIX_DIAG_VFS && size >= sizeof(unix_diag_vfs)) {
          unix_diag_vfs vfs;
          memcpy(&vfs, value, sizeof vfs);
          socket.file_inode = vfs.udiag_vfs_ino;
        }
        if (attr.nla_type == UNIX_DIAG_NAME) socket.name.assign(value, size);
        at += NLA_ALIGN(attr.nla_len);
      }
      sockets.push_back(std::move(socket));
    }
  }
}

}  // namespace vioctl::vhost_user
