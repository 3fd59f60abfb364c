// Dumps of the kernel's tables over netlink(7).
#pragma once
#include <linux/netlink.h>

#include <cstddef>
#include <cstdint>
#include <functional>

namespace vioctl::os {

// A request for a dump whose body is a T.
template <class T>
struct DumpRequest {
  explicit DumpRequest(uint16_t type) {
    head.nlmsg_len = sizeof *this;
    head.nlmsg_type = type;
    head.nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
  }
  nlmsghdr head{};
  T body{};
};

// Sends one NLM_F_DUMP request of a protocol (NETLINK_ROUTE, NETLINK_SOCK_DIAG) and gives every message of the answer
// to `each`. Asks again while the table changes during the dump, at most eight times, and calls `begin` before each
// try: then the last look counts. `name` stands in the errors. Throws SysError.
void NetlinkDump(int protocol, const nlmsghdr& request, const char* name, const std::function<void()>& begin,
                 const std::function<void(const nlmsghdr&)>& each);

}  // namespace vioctl::os
