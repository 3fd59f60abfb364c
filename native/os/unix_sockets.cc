#include "os/unix_sockets.h"

#include <linux/sock_diag.h>
#include <linux/unix_diag.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>

#include "common/error.h"
#include "os/netlink/netlink.h"

namespace vioctl::os {
namespace {

constexpr char kName[] = "NETLINK_SOCK_DIAG";

void Add(const nlmsghdr& message, std::vector<UnixSocket>& sockets) {
  if (message.nlmsg_len < NLMSG_LENGTH(sizeof(unix_diag_msg))) throw SysError(EPROTO, kName);
  const auto* diag = static_cast<const unix_diag_msg*>(NLMSG_DATA(&message));
  UnixSocket socket{diag->udiag_ino, 0, diag->udiag_type, diag->udiag_state, 0, {}};
  const char* at = reinterpret_cast<const char*>(diag + 1);
  const char* end = reinterpret_cast<const char*>(&message) + message.nlmsg_len;
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

}  // namespace

std::vector<UnixSocket> UnixSockets() {
  DumpRequest<unix_diag_req> request(SOCK_DIAG_BY_FAMILY);
  request.body.sdiag_family = AF_UNIX;
  request.body.udiag_states = ~0u;
  request.body.udiag_show = UDIAG_SHOW_NAME | UDIAG_SHOW_PEER | UDIAG_SHOW_VFS;
  std::vector<UnixSocket> sockets;
  NetlinkDump(
      NETLINK_SOCK_DIAG, request.head, kName, [&] { sockets.clear(); },
      [&](const nlmsghdr& message) { Add(message, sockets); });
  return sockets;
}

}  // namespace vioctl::os
