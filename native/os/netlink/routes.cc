#include "os/netlink/routes.h"

#include <arpa/inet.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstring>

#include "common/error.h"
#include "os/netlink/netlink.h"

namespace vioctl::os {
namespace {

uint32_t Word(const rtattr* attribute) {
  uint32_t word = 0;
  if (RTA_PAYLOAD(attribute) >= sizeof word) memcpy(&word, RTA_DATA(attribute), sizeof word);
  return word;
}

std::string NameOf(uint32_t index) {
  char name[IF_NAMESIZE];
  return ::if_indextoname(index, name) ? name : "";  // gone since the kernel told us
}

// The interfaces of RTA_MULTIPATH.
void NextHops(const rtattr* attribute, std::vector<uint32_t>& out) {
  int left = static_cast<int>(RTA_PAYLOAD(attribute));
  for (auto* hop = static_cast<const rtnexthop*>(RTA_DATA(attribute));
       left >= static_cast<int>(sizeof *hop) && hop->rtnh_len >= sizeof *hop && hop->rtnh_len <= left;) {
    out.push_back(static_cast<uint32_t>(hop->rtnh_ifindex));
    left -= static_cast<int>(RTNH_ALIGN(hop->rtnh_len));
    hop = reinterpret_cast<const rtnexthop*>(reinterpret_cast<const char*>(hop) + RTNH_ALIGN(hop->rtnh_len));
  }
}

void Add(const nlmsghdr& message, std::vector<Route>& routes) {
  const auto* head = static_cast<const rtmsg*>(NLMSG_DATA(&message));
  const bool ip = head->rtm_family == AF_INET || head->rtm_family == AF_INET6;
  if (!ip || head->rtm_type != RTN_UNICAST || (head->rtm_flags & RTM_F_CLONED)) return;
  uint32_t table = head->rtm_table;
  unsigned char address[16] = {};
  std::vector<uint32_t> devices;
  int left = static_cast<int>(RTM_PAYLOAD(&message));
  for (const rtattr* a = RTM_RTA(head); RTA_OK(a, left); a = RTA_NEXT(a, left)) {
    if (a->rta_type == RTA_TABLE) table = Word(a);
    if (a->rta_type == RTA_OIF) devices.push_back(Word(a));
    if (a->rta_type == RTA_MULTIPATH) NextHops(a, devices);
    if (a->rta_type == RTA_DST) memcpy(address, RTA_DATA(a), std::min<size_t>(RTA_PAYLOAD(a), sizeof address));
  }
  char text[INET6_ADDRSTRLEN];
  if (!::inet_ntop(head->rtm_family, address, text, sizeof text)) throw SysError(errno, "inet_ntop");
  for (uint32_t device : devices) {
    std::string name = NameOf(device);
    if (!name.empty()) routes.push_back({head->rtm_family, text, head->rtm_dst_len, std::move(name), table});
  }
}

}  // namespace

std::vector<Route> Routes() {
  DumpRequest<rtmsg> request(RTM_GETROUTE);
  request.body.rtm_family = AF_UNSPEC;
  std::vector<Route> routes;
  NetlinkDump(
      NETLINK_ROUTE, request.head, "RTM_GETROUTE", [&] { routes.clear(); },
      [&](const nlmsghdr& m) {
        if (m.nlmsg_type == RTM_NEWROUTE && m.nlmsg_len >= NLMSG_LENGTH(sizeof(rtmsg))) Add(m, routes);
      });
  return routes;
}

}  // namespace vioctl::os
