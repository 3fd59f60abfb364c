#include "os/netlink/links.h"

#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <linux/xdp_diag.h>
#include <net/if.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstring>

#include "os/netlink/netlink.h"

namespace vioctl::os {
namespace {

// Calls `each` for the attributes of a message whose body is a T.
template <class T, class Each>
void Attributes(const nlmsghdr& message, const Each& each) {
  if (message.nlmsg_len < NLMSG_LENGTH(sizeof(T))) return;
  const auto* body = static_cast<const char*>(NLMSG_DATA(&message));
  const auto* a = reinterpret_cast<const rtattr*>(body + NLMSG_ALIGN(sizeof(T)));
  for (int left = static_cast<int>(NLMSG_PAYLOAD(&message, sizeof(T))); RTA_OK(a, left); a = RTA_NEXT(a, left))
    each(*a);
}

// The mode of IFLA_XDP: 0 is none.
uint8_t XdpMode(const rtattr& xdp) {
  int left = static_cast<int>(RTA_PAYLOAD(&xdp));
  for (auto* a = static_cast<const rtattr*>(RTA_DATA(&xdp)); RTA_OK(a, left); a = RTA_NEXT(a, left))
    if (a->rta_type == IFLA_XDP_ATTACHED && RTA_PAYLOAD(a) >= 1) return *static_cast<const uint8_t*>(RTA_DATA(a));
  return 0;
}

}  // namespace

std::vector<std::string> XdpPrograms() {
  DumpRequest<ifinfomsg> request(RTM_GETLINK);
  std::vector<std::string> found;
  NetlinkDump(
      NETLINK_ROUTE, request.head, "RTM_GETLINK", [&] { found.clear(); },
      [&](const nlmsghdr& message) {
        if (message.nlmsg_type != RTM_NEWLINK) return;
        std::string name;
        uint8_t mode = 0;
        Attributes<ifinfomsg>(message, [&](const rtattr& a) {
          const auto* text = static_cast<const char*>(RTA_DATA(&a));
          if (a.rta_type == IFLA_IFNAME) name.assign(text, ::strnlen(text, RTA_PAYLOAD(&a)));
          if ((a.rta_type & NLA_TYPE_MASK) == IFLA_XDP) mode = XdpMode(a);
        });
        if (mode != 0) found.push_back(name);
      });
  return found;
}

std::vector<XdpSocket> XdpSockets() {
  DumpRequest<xdp_diag_req> request(SOCK_DIAG_BY_FAMILY);
  request.body.sdiag_family = AF_XDP;
  request.body.xdiag_show = XDP_SHOW_INFO;
  std::vector<XdpSocket> found;
  NetlinkDump(
      NETLINK_SOCK_DIAG, request.head, "SOCK_DIAG_BY_FAMILY", [&] { found.clear(); },
      [&](const nlmsghdr& message) {
        if (message.nlmsg_type != SOCK_DIAG_BY_FAMILY) return;
        Attributes<xdp_diag_msg>(message, [&](const rtattr& a) {
          if (a.rta_type != XDP_DIAG_INFO || RTA_PAYLOAD(&a) < sizeof(xdp_diag_info)) return;
          xdp_diag_info info;
          memcpy(&info, RTA_DATA(&a), sizeof info);
          char name[IF_NAMESIZE];
          if (::if_indextoname(info.ifindex, name)) found.push_back({name, info.queue_id});
        });
      });
  return found;
}

}  // namespace vioctl::os
