// The routes of this network namespace, from the kernel itself (rtnetlink(7)).
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace vioctl::os {

// One way out: a route with several next hops is several of these.
struct Route {
  int family;  // AF_INET, AF_INET6
  std::string destination;
  int prefix;
  std::string device;
  uint32_t table;
};

// Unicast routes of all tables and both families. Throws SysError.
std::vector<Route> Routes();

}  // namespace vioctl::os
