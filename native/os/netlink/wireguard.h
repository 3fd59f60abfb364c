// Peers of WireGuard interfaces, from the kernel itself (linux/wireguard.h).
#pragma once
#include <string>
#include <vector>

namespace vioctl::os {

struct WireguardPeer {
  std::string device;
  // Address of the endpoint, as inet_ntop(3) writes it.
  std::string address;
};

// Peers with an endpoint of the interfaces `devices` of this network namespace. Throws SysError: ENOENT where the
// kernel has no WireGuard, EPERM without CAP_NET_ADMIN.
std::vector<WireguardPeer> WireguardPeers(const std::vector<std::string>& devices);

}  // namespace vioctl::os
