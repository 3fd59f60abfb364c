// Network interfaces, and AF_XDP sockets, from the kernel itself (rtnetlink(7), sock_diag(7)).
#pragma once
#include <string>
#include <vector>

namespace vioctl::os {

// Interfaces of this network namespace that have an XDP program. Throws SysError.
std::vector<std::string> XdpPrograms();

struct XdpSocket {
  std::string device;
  unsigned queue;
};

// AF_XDP sockets of this network namespace. Throws SysError: ENOENT for a kernel without CONFIG_XDP_SOCKETS_DIAG.
std::vector<XdpSocket> XdpSockets();

}  // namespace vioctl::os
